"""What a killed comparison leaves, its worktree and its folder, goes with the next one; what is in use stays."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.io import stored
from fixtures.ab_testing.builds import build_of
from tests.fresh_process import outside_pytest

ROOT = Path(__file__).resolve().parent.parent
COMPARING = """
import os, signal, sys
from pathlib import Path
from analytic.io import stored
from analytic.io.ending import ended
from fixtures.ab_testing.builds import build_of
from tests.fresh_process import outside_pytest

def main(arguments):
    stored.ROOT = Path.cwd()
    with build_of("HEAD", progress=lambda text: print(text, file=sys.stderr)) as build:
        print(build.root, flush=True)
        signal.pause()
    return 0

sys.exit(ended("compare", main, []))
"""


def git(*arguments: str, cwd: Path) -> str:
    author = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(("git", *author, *arguments), cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with what `build_of` looks at, and a folder for temporary files beside it."""
    root = tmp_path / "checkout"
    (root / "fixtures").mkdir(parents=True)
    (root / "fixtures" / "worker.py").touch()
    shutil.copy(ROOT / "pyproject.toml", root)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all of it"]):
        git(*arguments, cwd=root)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(stored, "ROOT", root)
    return root


@pytest.fixture
def comparing(checkout: Path) -> Callable[[], tuple[subprocess.Popen[str], Path]]:
    """A comparison in a process of its own, in the middle of its work, and the worktree that it uses."""
    running = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", COMPARING],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in running:
        process.kill()
        process.communicate()


def worktrees(root: Path) -> list[str]:
    return [line for line in git("worktree", "list", "--porcelain", cwd=root).splitlines() if line.startswith("worktree ")]


def test_the_next_comparison_removes_the_worktree_of_a_killed_one(
    checkout: Path, comparing: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, left = comparing()
    running, used = comparing()
    assert len(worktrees(checkout)) == 3
    killed.kill()
    killed.wait(timeout=20)
    assert left.is_dir()
    # the next one looks for temporary files elsewhere: git says where the worktrees are
    monkeypatch.setenv("TMPDIR", str(checkout.parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    said: list[str] = []
    with build_of("HEAD", progress=said.append) as build:
        assert set(worktrees(checkout)[1:]) == {f"worktree {used}", f"worktree {build.root}"}
    assert said == [f"removed what a killed run left: {left.parent}"]
    assert not left.parent.exists()
    assert used.is_dir()
    running.send_signal(signal.SIGTERM)
    _, error = running.communicate(timeout=20)
    assert (running.returncode, error) == (143, "compare: terminated (SIGTERM); nothing more was written\n")
    assert worktrees(checkout) == [f"worktree {checkout}"]
    assert not used.parent.exists()


def test_a_worktree_whose_folder_something_else_removed_is_forgotten(checkout: Path, comparing: Callable) -> None:
    killed, left = comparing()
    killed.kill()
    killed.wait(timeout=20)
    shutil.rmtree(left.parent)
    other = checkout.parent / "of-the-user"
    git("worktree", "add", "-q", "--detach", str(other), cwd=checkout)
    shutil.rmtree(other)  # a worktree on a disk that is not mounted looks the same, and is none of ours
    said: list[str] = []
    with build_of("HEAD", progress=said.append):
        pass
    assert said == [f"removed what a killed run left: {left}"]
    assert worktrees(checkout) == [f"worktree {checkout}", f"worktree {other}"]


TIED = """
import ctypes, os
from pathlib import Path

def test_one():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    Path(os.environ["FOUND"]).write_text(str(number.value))
"""


def test_a_worker_of_xdist_is_terminated_when_its_session_is_killed(tmp_path: Path) -> None:
    """Its own end, a broken connection that is noticed between two tests, may be minutes away."""
    (tmp_path / "test_tied.py").write_text(TIED)
    plugins = ("-p", "no:cacheprovider", "-p", "fixtures.plugin.hooks")
    command = [sys.executable, "-m", "pytest", *plugins, "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    environment = {**outside_pytest(), "PYTHONPATH": str(ROOT), "FOUND": str(tmp_path / "found")}
    done = subprocess.run(
        [*command, "-n", "1", "test_tied.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "found").read_text() == str(int(signal.SIGTERM))
