"""How a command ends: real processes and real signals, a full disk, no memory, and what a killed one leaves."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.__main__ import main
from analytic.io import leftovers, stored
from analytic.io.ending import Incomplete, ended, is_ending, reason_of, written

ROOT = Path(__file__).resolve().parent.parent
COMMAND = """
import sys, time
from analytic.io.ending import ended

def main(arguments):
    try:
        print("started", flush=True)
        {body}
    finally:
        {last}
        print("cleaned up", flush=True)
    return 0

sys.exit(ended("command", main, []))
"""


@pytest.fixture
def started() -> Callable[..., subprocess.Popen[str]]:
    """A command of its own that has printed that it started; killed at the end of the test."""
    running = []

    def start(body: str = "time.sleep(60)", last: str = "pass", **how: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COMMAND.format(body=body, last=last)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, text=True, **(pipes | how))
        running.append(process)
        if process.stdout is not None:
            assert process.stdout.readline() == "started\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted (Ctrl-C)"),
        (signal.SIGTERM, 143, "terminated (SIGTERM)"),
        (signal.SIGHUP, 129, "terminated (SIGHUP)"),
    ],
)
def test_a_signal_is_a_sentence_and_its_exit_code(started: Callable, number: int, code: int, reason: str) -> None:
    process = started()
    process.send_signal(number)
    printed, said = process.communicate(timeout=20)
    assert (process.returncode, printed) == (code, "cleaned up\n")
    assert said == f"command: {reason}; nothing more was written\n"


def test_a_signal_that_a_library_raises_as_its_own_keeps_its_code(started: Callable) -> None:
    process = started(body="try: time.sleep(60)\n        except KeyboardInterrupt: raise KeyboardInterrupt")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (143, "command: terminated (SIGTERM); nothing more was written\n")


def test_the_same_signal_to_process_and_group_is_one_event(started: Callable) -> None:
    process = started(last="time.sleep(0.2)")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # as `timeout` does
    printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (143, "cleaned up\n")


def test_a_second_interruption_ends_the_process_at_once(started: Callable) -> None:
    process = started(last="print('cleaning', flush=True); time.sleep(60)")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=20)
    assert (process.returncode, printed, said) == (-signal.SIGINT, "", "")


def test_a_signal_that_is_ignored_stays_ignored(started: Callable) -> None:
    process = started(body="time.sleep(0.5)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20) == ("cleaned up\n", "")
    assert process.returncode == 0


def test_a_full_disk_under_the_output_and_a_closed_pipe_are_no_traceback(started: Callable) -> None:
    with open("/dev/full", "w") as full:
        process = started(body="pass", stdout=full)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (1, "command: No space left on device; nothing more was written\n")
    process = started(body="sys.stdin.readline(); print('more', flush=True)", last="sys.stdout", stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    process.stdin = None
    assert process.wait(timeout=20) == 141
    assert process.stderr.read() == ""


def test_no_memory_is_a_sentence_and_a_fault_of_the_command_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def without_memory(arguments: list[str]) -> int:
        raise MemoryError

    assert ended("noise", without_memory, []) == 1
    assert capsys.readouterr().err == "noise: out of memory; nothing more was written\n"
    assert is_ending(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))

    def at_fault(arguments: list[str]) -> int:
        return int(open("/no/such/file").read())

    with pytest.raises(FileNotFoundError):
        ended("noise", at_fault, [])
    with pytest.raises(ValueError, match="invalid literal"):
        ended("noise", lambda arguments: int("x"), [])


def test_a_command_without_an_output_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as after `>&-`
    assert ended("cost", lambda arguments: 3, []) == 3

    def stopped(arguments: list[str]) -> int:
        raise OSError(28, os.strerror(28))

    assert ended("cost", stopped, []) == 1
    monkeypatch.setattr(sys, "stderr", None)
    assert ended("cost", stopped, []) == 1


def test_what_can_not_be_written_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> Path:
        raise OSError(28, os.strerror(28), "out/noise.json")

    assert written("noise", "the file of times", full) is None
    assert capsys.readouterr().err == (
        "noise: the file of times could not be written: No space left on device: out/noise.json; free some space, or "
        "choose another --output-dir\n"
    )


def test_incomplete_names_what_is_missing_and_survives_its_file() -> None:
    found = Incomplete(reason=reason_of(KeyboardInterrupt()), missing=tuple(f"decode[{number}]" for number in range(20)))
    assert Incomplete.of(found.as_json()) == found
    assert Incomplete.of(None) is None
    assert str(found).startswith("interrupted (Ctrl-C); missing: decode[0], decode[1], ")
    assert str(found).endswith("decode[11] and 8 more")


def test_every_command_of_the_project_ends_this_way() -> None:
    commands = [
        path
        for folder in ("analytic", "fixtures")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        and path.name != "mutant_server.py"  # no command, and nothing of the project is imported before a mutant is
    ]
    assert len(commands) > 20
    for path in commands:
        (last,) = (
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        )
        assert re.fullmatch(r"sys\.exit\(ended\('[\w -]+', main, sys\.argv\[1:\]\)\)", ast.unparse(last.body)), path


WRITER = """
import os, signal, sys
from pathlib import Path
from analytic.io import leftovers, stored

folder = Path(sys.argv[1])
with leftovers.temporary_folder("base", parent=folder), leftovers.temporary_file(folder / "record.json"):
    print("held", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_temporary_folder_removes_what_killed_runs_of_other_commands_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "dsocr-overlay-abcdefgh.tmp").mkdir()
    with leftovers.temporary_folder("switches") as used, leftovers.temporary_folder("overlay") as other:
        assert sorted(tmp_path.iterdir()) == sorted((used, other))
    assert capsys.readouterr().err == f"removed what a killed run left: {tmp_path}/dsocr-overlay-abcdefgh.tmp\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_what_could_not_be_written_is_removed_with_those_above_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), stored.folder_for(tmp_path / "new" / "inner"):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "kept").touch()
    with pytest.raises(KeyboardInterrupt), stored.folder_for(tmp_path / "new" / "inner"):
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept"]
    with stored.folder_for(tmp_path / "new" / "inner"):
        pass
    assert (tmp_path / "new" / "inner").is_dir()


def test_leftovers_of_a_killed_process_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == "held\n"
    held = sorted(path.name for path in tmp_path.iterdir())
    assert [re.sub("[a-z0-9_]{8}", "*", name) for name in held] == [".dsocr-base-*.tmp", ".dsocr-record-*.tmp"]
    (tmp_path / ".of-another.tmp").mkdir()  # not a name of ours
    assert leftovers.clean_runs(tmp_path) == []
    process.communicate("die\n", timeout=20)
    assert process.returncode == -signal.SIGKILL
    found = leftovers.clean_runs(tmp_path)
    assert sorted(path.name for path in found) == held
    assert [path.name for path in tmp_path.iterdir()] == [".of-another.tmp"]


def test_the_folder_of_a_run_that_was_killed_while_writing_goes_and_finished_runs_stay(tmp_path: Path) -> None:
    for name in ("20251121-093011-1", "20251121-093011-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".dsocr-record-abcdefgh.tmp").touch()
    stored.write_at_once(tmp_path / "20251121-093011-2" / "record.json", "{}")
    assert len(leftovers.clean_runs(tmp_path)) == 2
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "20251121-093011-2",
        "20251121-093011-2/record.json",
    ]
    assert leftovers.clean_runs(tmp_path / "none") == []


def test_an_empty_folder_of_a_run_that_was_killed_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen((sys.executable, "-c", ""))
    gone.wait()
    names = (f"20261126-185036-{gone.pid}", f"noise-20261126-185036-{gone.pid}")
    kept = (f"20261126-185036-{os.getpid()}", f"20261126-185037-{gone.pid}", "of-the-user", "20261126-185036-0x1")
    for name in (*names, *kept):
        (tmp_path / name).mkdir()
    (tmp_path / kept[1] / "record.json").touch()
    assert leftovers.clean_runs(tmp_path) == [tmp_path / name for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("during", ["mkdtemp", "mkstemp", "rmtree", "replace"])
def test_a_signal_while_a_temporary_file_is_made_or_removed_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    module = {"mkdtemp": tempfile, "mkstemp": tempfile, "rmtree": shutil, "replace": os}[during]
    real = getattr(module, during)

    def interrupted(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(module, during, real)
        if during == "rmtree":
            os.kill(os.getpid(), signal.SIGTERM)
        found = real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(module, during, interrupted)

    def writing(arguments: list[str]) -> int:
        with leftovers.temporary_folder("base", parent=tmp_path) as folder:
            (folder / "half").touch()
            stored.write_at_once(tmp_path / "record.json", "{}")
        return 0

    assert ended("noise", writing, []) == 143
    assert [path.name for path in tmp_path.iterdir() if path.name != "record.json"] == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sweep", ["--seq-len", "16", "--preset", "tiny"]),
        ("capacity", ["--on", "h200"]),
        ("devices", ["--on", "h200", "--crop-grid", "2x1"]),
    ],
)
def test_what_a_killed_command_of_the_closed_form_was_writing_goes_with_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    (tmp_path / ".dsocr-capacity-abcdefgh.tmp").touch()
    assert main([command, *words, "--output-dir", str(tmp_path)]) == 0
    assert f"removed what a killed run left: {tmp_path}/.dsocr-capacity-abcdefgh.tmp" in capsys.readouterr().err
    assert all(path.suffix != ".tmp" for path in tmp_path.iterdir())


def test_a_full_disk_leaves_the_file_before_and_nothing_beside_it(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing fails in the same place, half way."""
    script = (
        "import resource, sys; from pathlib import Path; from analytic.io import stored\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "stored.write_at_once(Path(sys.argv[1]), 'x' * 10_000)\n"
    )
    target = tmp_path / "record.json"
    target.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert target.read_text() == "before"
