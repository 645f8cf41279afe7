"""Processes of other programs: none outlives the one that started it, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analytic.io.child import output_of

ROOT = Path(__file__).resolve().parent.parent
LONG = "import subprocess, sys; from analytic.io.child import output_of, tied\n"
WAITS = {
    # `sleep` knows nothing of its parent: what ties it is done before it is loaded
    "output_of": "output_of(('sleep', '60'))",
    "tied": "subprocess.Popen(('sleep', '60'), preexec_fn=tied()).wait()",
}


def started(code: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        (sys.executable, "-c", LONG + code), env=environment, stdout=subprocess.PIPE, text=True, **options
    )


def children(number: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("code", WAITS.values(), ids=WAITS)
def test_a_child_ends_with_a_parent_that_is_killed(code: str) -> None:
    process = started(code)
    until = time.monotonic() + 60
    while not children(process.pid) and time.monotonic() < until:
        time.sleep(0.02)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    try:
        while is_alive(child) and time.monotonic() < until:
            time.sleep(0.02)
        assert not is_alive(child)
    finally:
        if is_alive(child):
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(("takes", "ignored"), [("", True), ("takes_ctrl_c=True", False)])
def test_a_child_takes_ctrl_c_that_its_parent_ignores_if_it_is_told_to(takes: str, ignored: bool) -> None:
    shown = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    code = f"subprocess.run((sys.executable, '-c', {shown!r}), preexec_fn=tied({takes}))"
    process = started(f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {code}")
    assert process.communicate(timeout=60)[0] == f"{ignored}\n"


def test_the_output_of_a_command_is_text_with_its_exit_code(tmp_path: Path) -> None:
    done = output_of(("sh", "-c", 'echo "$WORD" from $(pwd); echo no >&2; exit 3'), cwd=tmp_path, env={"WORD": "word"})
    assert (done.returncode, done.stdout, done.stderr) == (3, f"word from {tmp_path}\n", "no\n")
    with pytest.raises(subprocess.CalledProcessError):
        output_of(("sh", "-c", "exit 3"), check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        output_of(("sleep", "60"), timeout_s=0.05)


def test_temporary_files_of_a_command_that_is_ended_are_in_the_folder_that_it_was_given(tmp_path: Path) -> None:
    code = "import os, tempfile; tempfile.mkdtemp(); os.abort()"
    done = output_of((sys.executable, "-c", code), temporary=tmp_path / "tmp")
    assert done.returncode == -signal.SIGABRT
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert os.environ.get("TMPDIR") != str(tmp_path / "tmp")
