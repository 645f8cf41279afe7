"""An engine that is started here: its first answer, its log when it fails, and that it always ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.serving import __main__ as serve
from fixtures.serving.engine import started_engine
from fixtures.serving.engine_environment import COMPLETE, folder_of
from fixtures.serving.engine_process import ProcessGroup, last_lines, members
from fixtures.serving.engine_table import Engine
from fixtures.serving.options import ServeOptions, parsed
from fixtures.serving.served_run import SERVING

ROOT = Path(__file__).resolve().parent.parent
FAKE = Path(__file__).resolve().parent / "fake_engine.py"
MOST_S = 60.0
"""Never reached unless a test fails."""
COMMAND = """
import sys
from pathlib import Path
from analytic.io.ending import ended
from fixtures.serving.__main__ import run
from tests.test_engine import options_of

sys.exit(ended("serve", lambda given: run(options_of(Path(given[0]), given[1], *given[2:]), []), sys.argv[1:]))
"""
FEW = ("--image-size", "64x64", "--concurrency", "1", "--warmup", "0", "--requests", "2", "--output-tokens", "3")


def engine_of(folder: Path, kind: str) -> Engine:
    """The fake engine of a kind, in an environment that is this one."""
    requirements = folder / "fake.txt"
    requirements.touch()
    made = folder_of(requirements, folder)
    if not made.exists():
        (made / "bin").mkdir(parents=True)
        (made / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (made / "bin" / "python").chmod(0o755)
        (made / COMPLETE).write_text(json.dumps({"repaired": ["a package was taken out"]}))
    return Engine(
        name="fake",
        device="cpu",
        requirements=requirements,
        command=lambda task: (str(FAKE), kind, str(task.port), str(folder / "pids")),
        served_by="transformers",
        layout="vendor",  # whose folder is made without importing torch
        needs_weights=False,
    )


def options_of(folder: Path, kind: str, *arguments: str) -> ServeOptions:
    """The options of a run with the fake engine."""
    given = ["--device", "cpu", "--served-by", "transformers", "--engines-dir", str(folder)]
    made = parsed([*given, "--output-dir", str(folder / "results"), *FEW, *arguments], {})
    assert made.engine is not None
    return replace(made, engine=replace(made.engine, engine=engine_of(folder, kind)))


def pids(folder: Path) -> list[int]:
    """The processes of the engine: its own, then its worker."""
    until_s = time.monotonic() + MOST_S
    while time.monotonic() < until_s:
        if (folder / "pids").exists() and (found := (folder / "pids").read_text().split()):
            return [int(pid) for pid in found]
        time.sleep(0.02)
    raise AssertionError("the engine did not start")


def living(folder: Path) -> list[int]:
    """Those of them that run."""
    first, *_ = found = pids(folder)
    return [pid for pid in found if pid in set(members(first))]


def gone(folder: Path) -> bool:
    """Whether they end, within a while."""
    until_s = time.monotonic() + MOST_S
    while living(folder) and time.monotonic() < until_s:
        time.sleep(0.02)
    return living(folder) == []


@pytest.fixture(autouse=True)
def _end(tmp_path: Path) -> Iterator[None]:
    """Nothing of a failed test runs on."""
    yield
    if (tmp_path / "pids").exists():
        for pid in living(tmp_path):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A run in a process of its own."""
    running: list[subprocess.Popen[str]] = []

    def start(kind: str, *arguments: str) -> subprocess.Popen[str]:
        made = [sys.executable, "-c", COMMAND, str(tmp_path), kind, *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen(made, cwd=ROOT, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_a_run_starts_the_engine_measures_it_and_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(options_of(tmp_path, "serves"), []) == 0
    said = capsys.readouterr()
    (path,) = tmp_path.rglob("serving.json")
    kept = SERVING.read(path)
    assert (kept["model"], kept["model_variant"], kept["problems"]) == ("served", "deepseek-ocr-v1-base", [])
    assert [answer["failure"] for answer in kept["cells"][0]["measured"]] == [None, None]
    assert "starts fake with deepseek-ocr-v1-base in float32 on cpu at http://127.0.0.1:" in said.err
    assert "serve: a package was taken out" in said.err  # said again whenever the environment is used
    assert gone(tmp_path)
    # neither checkpoint nor log stays
    assert [one.name for one in (tmp_path / "results").iterdir() if "engine" in one.name or "fake" in one.name] == []


def test_fewer_layers_are_those_of_checkpoint_and_closed_form(tmp_path: Path) -> None:
    options = options_of(tmp_path, "serves", "--layers", "2")
    assert (options.spec.model_variant, options.spec.text.num_layers) == ("deepseek-ocr-v1-base-2-layers", 2)
    assert serve.run(options, []) == 0
    (path,) = tmp_path.rglob("serving.json")
    assert SERVING.read(path)["model_variant"] == "deepseek-ocr-v1-base-2-layers"


def test_an_engine_that_fails_is_said_with_the_last_lines_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.run(options_of(tmp_path, "fails"), []) == 1
    said = capsys.readouterr().err
    assert "serve: fake: ended with exit code 3 after" in said
    *lines, last = said.split("the last lines of its log:\n")[1].splitlines()
    assert lines == [*(f"  line {number}" for number in range(29, 40)), "  out of something [31mred"]
    log = Path(last.removeprefix("the whole log: "))
    assert "line 0\n" in log.read_text()
    assert list(tmp_path.rglob("serving.json")) == []
    assert gone(tmp_path)


def test_an_engine_that_ends_in_the_middle_is_said_with_its_log_and_the_run_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.run(options_of(tmp_path, "breaks"), []) == 1
    said = capsys.readouterr().err
    assert "serve: fake: ended with exit code 4; the last lines of its log:\n" in said
    assert "  broken\n" in said
    log = Path(said.split("the whole log: ")[1].splitlines()[0])
    assert "broken\n" in log.read_text()
    (path,) = tmp_path.rglob("serving.json")
    first, second = SERVING.read(path)["cells"][0]["measured"]
    assert first["failure"] is None
    assert second["failure"]["kind"] == "connection"
    assert gone(tmp_path)


def test_an_engine_that_does_not_answer_is_ended_at_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(options_of(tmp_path, "never", "--start-timeout-s", "0.5"), []) == 1
    said = capsys.readouterr().err
    assert "serve: fake: not ready after 0 s (--start-timeout-s); the last lines of its log:\n  line" in said
    assert gone(tmp_path)


def test_what_a_slow_start_says_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "import time\nprint('half done', flush=True)\ntime.sleep(600)"
    with ProcessGroup(
        "slow", (sys.executable, "-c", script), environment=os.environ, log=tmp_path / "log", shown_every_s=0.05
    ) as process:
        process.wait_for(lambda: "half done" in last_lines(tmp_path / "log"), limit_s=MOST_S)
        rounds = iter(range(10))
        process.wait_for(lambda: next(rounds) == 9, limit_s=MOST_S)
    assert "serve: slow: 0 s: half done\n" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["never", "serves"])
def test_a_signal_leaves_no_process(command: Callable, tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """While it starts, and while it serves a load without an end."""
    process = command(kind, "--requests", "100000")
    assert len(living(tmp_path)) == 2
    if kind == "serves":
        while "requests" not in process.stderr.readline():  # the load has begun
            assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=MOST_S)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert living(tmp_path) == []  # by the time that the command has ended


def test_a_process_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.serving.engine_process.END_S", 0.2)
    assert serve.run(options_of(tmp_path, "stubborn"), []) == 0
    assert living(tmp_path) == []


def test_an_engine_ends_with_a_command_that_is_killed(command: Callable, tmp_path: Path) -> None:
    process = command("never")
    engine, _ = pids(tmp_path)
    process.kill()
    process.wait(timeout=MOST_S)
    until_s = time.monotonic() + MOST_S
    while engine in set(members(engine)) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert engine not in set(members(engine))  # the system ends it; an engine ends its workers itself


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_an_engine_that_is_kept_stays_and_how_to_stop_it_is_said(
    command: Callable, tmp_path: Path, number: signal.Signals | None
) -> None:
    """After the run, and after one that was interrupted."""
    process = command("serves", "--keep", "--requests", "2" if number is None else "100000")
    if number is not None:
        seen = ""
        while "requests" not in seen:
            seen += process.stderr.readline()
        process.send_signal(number)
    _, said = process.communicate(timeout=MOST_S)
    said = said if number is None else seen + said
    assert process.returncode == (0 if number is None else 128 + number)
    engine, _ = pids(tmp_path)
    assert len(living(tmp_path)) == 2
    (line,) = (line for line in said.splitlines() if "fake stays at http://127.0.0.1:" in line)
    assert f"stop it with `kill -- -{engine}`; log: " in line
    log = Path(line.rpartition("log: ")[2]).read_text()
    assert "serving" in log
    assert "beside ['deepseek-ocr-v1-base', 'server.log']" in log
    subprocess.run(["sh", "-c", f"kill -- -{engine}"], check=True)
    assert gone(tmp_path)


def test_an_engine_that_is_to_be_kept_ends_if_it_does_not_start(tmp_path: Path) -> None:
    assert serve.run(options_of(tmp_path, "never", "--keep", "--start-timeout-s", "0.3"), []) == 1
    assert gone(tmp_path)


def test_a_fault_in_the_context_ends_the_engine(tmp_path: Path) -> None:
    options = options_of(tmp_path, "serves")
    assert options.engine is not None
    out = tmp_path / "out"

    def fault() -> None:
        with started_engine(options.engine, options.spec, dtype="float32", context=512, kv_bytes=1, output_dir=out):
            assert len(living(tmp_path)) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fault()
    assert living(tmp_path) == []


def test_an_engine_inherits_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.serving.engine_environment import inherited

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    monkeypatch.setenv("VLLM_API_KEY", "sk-test-secret")
    assert "sk-test-secret" not in inherited().values()
    # and none is sent to it
    assert parsed(["--device", "cpu"], {"OPENAI_API_KEY": "sk-test-secret"}).endpoint.key is None
