"""A signal while modules are imported: a sentence and an exit code, and no module is left imported half."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from analytic.io.signals import stoppable
from tests.conftest import Ended
from tests.fresh_process import outside_pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW = "print('importing', flush=True)\nimport time\ntime.sleep(60)\n"
REASONS = {
    signal.SIGINT: "interrupted (Ctrl-C)",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "terminated (SIGHUP)",
}


def ended_while_importing(number: signal.Signals, *words: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a command that gets a signal while it imports a torch that takes a minute."""
    (folder / "torch.py").write_text(SLOW)
    environment = {**outside_pytest(), "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


@pytest.mark.parametrize("number", [*REASONS])
def test_a_signal_while_a_command_imports_is_a_sentence(tmp_path: Path, number: signal.Signals) -> None:
    code, said = ended_while_importing(number, "-m", "fixtures.worker", folder=tmp_path)
    assert (code, said) == (128 + number, f"fixtures.worker: {REASONS[number]} before it began; nothing was written\n")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["benchmarks", "--seq-len=16"], "pytest benchmarks"),
        (["benchmarks/bench_vision.py"], "pytest benchmarks"),
        (["-q"], "pytest"),
    ],
)
def test_a_signal_before_the_plugin_is_configured_is_a_sentence(tmp_path: Path, words: list[str], command: str) -> None:
    code, said = ended_while_importing(signal.SIGINT, "-c", "import conftest, torch", *words, folder=tmp_path)
    assert (code, said) == (130, f"{command}: interrupted (Ctrl-C) before it began; nothing was written\n")


def test_a_program_that_imports_the_packages_handles_its_own_signals(tmp_path: Path) -> None:
    code, said = ended_while_importing(signal.SIGINT, "-c", "import analytic, fixtures, torch", folder=tmp_path)
    assert (code, "KeyboardInterrupt" in said) == (-signal.SIGINT, True)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    script = "import os, signal\nprint(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['-m']; import fixtures\n{script}"],
        cwd=ROOT,
        env=outside_pytest(),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_signal_while_the_interpreter_ends_leaves_the_exit_code_of_the_command(code: int) -> None:
    script = f"""
import atexit, os, signal, sys, time
from analytic.io.ending import ended
from analytic.io.starting import quiet_start
quiet_start("made up")
atexit.register(time.sleep, 10)
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
def main(arguments):
    print("all of it")
    return {code}
sys.exit(ended("made up", main, []))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=outside_pytest(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "all of it\n", "")


def test_a_signal_waits_for_the_end_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("import os, signal, time", "os.kill(os.getpid(), signal.SIGINT)", "time.sleep(0.3)", "reached = 'the end'")
    (tmp_path / "interrupted_module.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))

    def importing() -> None:
        import_module("interrupted_module")
        time.sleep(10)

    with stoppable(), pytest.raises(KeyboardInterrupt):
        importing()
    assert sys.modules.pop("interrupted_module").reached == "the end"


def test_a_second_signal_while_a_module_is_imported_ends_the_process_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    script = "import sys\nfrom analytic.io.signals import stoppable\nwith stoppable():\n    import slow"
    environment = {**outside_pytest(), "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.8)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT
    process.stdout.close()


class SendsWhenImported:
    """A finder of modules that finds none, and sends this process a signal when a module is looked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.name:
            self.name = ""
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_while_a_session_imports_waits_for_the_module(
    session: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fixtures.plugin.gates"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [SendsWhenImported(name), *sys.meta_path])
    done = session("-k", "decode")
    assert done.code == 2, done.output
    assert "INCOMPLETE: interrupted (Ctrl-C)" in done.output
    assert name in sys.modules
