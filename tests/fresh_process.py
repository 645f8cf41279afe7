"""Fresh Python processes for tests, forked from one that has imported the heavy libraries and run nothing.

A process that imports torch and transformers anew spends four seconds on it. `run` forks instead: the child has the modules
of an idle parent, and its own arguments, environment, folder, output and exit code. The project's own modules are not
imported here, so a child may be one of another checkout. A test of imports, threads or signals starts a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (
    "torch",
    "torch.utils.flop_counter",
    "transformers.models.unlimited_ocr.modeling_unlimited_ocr",
    "transformers.generation.utils",
    "transformers.loss.loss_utils",
    "scipy.optimize",
    "scipy.stats",
    "pandas",
    "jsonschema",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "_hypothesis_pytestplugin",
    "pytest_benchmark.plugin",
    "nvtx",
)


outputs: list[str] = []
"""What the processes of a test printed."""


def outside_pytest() -> dict[str, str]:
    """The environment of a process that no pytest has started."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def run(
    *arguments: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` to its end, with its output; the environment is that outside pytest by default."""
    done = _parent().run([str(argument) for argument in arguments], cwd, environment or outside_pytest())
    outputs.append(done.stdout + done.stderr)
    return done


class ForkServer:
    """A process that has imported `IMPORTED` and forks on request, one child at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=outside_pytest()
        )

    def run(self, command: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """One child to its end. Raises RuntimeError if the server is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "stdout"), Path(folder, "stderr")
            request = {"command": command, "cwd": str(cwd), "environment": environment, "files": [*map(str, files)]}
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the fork server ended with {self._process.wait()}")
            stdout, stderr = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        return subprocess.CompletedProcess(command, json.loads(answer)["code"], stdout, stderr)

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


@cache
def _parent() -> ForkServer:
    return ForkServer()


def close() -> None:
    """End the server of this process, if it was started."""
    if _parent.cache_info().currsize:
        _parent().close()
        _parent.cache_clear()


def _serve() -> None:
    """Import, then answer each request with the exit code of its child."""
    import importlib
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the children are asked, and warn for themselves
        for name in IMPORTED:
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


def _become(command: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    """Run `command`, a module and its arguments, in this process, and end it."""
    import runpy

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = cwd
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.argv = command
    code: object = 0
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:  # noqa: BLE001  # what the interpreter does at its top
        import traceback

        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
