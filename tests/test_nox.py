"""Sessions of nox: they end with the exit code of their command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh_process import outside_pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("report", "--", "nowhere"), 2, "RUN_DIR: got nowhere, accepted: a folder; it does not exist"),
        (("merge", "--", "nowhere", "nowhere"), 2, "nowhere"),
        (("report", "--", "--help"), 0, "--output-dir"),
    ],
)
def test_a_session_ends_with_the_exit_code_of_its_command(words: tuple[str, ...], code: int, said: str) -> None:
    environment = outside_pytest()
    path = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", "nox", "--no-venv", "-s", *words],
        cwd=ROOT,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
