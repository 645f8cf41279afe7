"""The session of coverage: figures by package, goals, and the lines that are declared to need another machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.proof import covered
from fixtures.proof.coverage_figures import FileReached, Reached, by_package, files_of, problems, totals
from fixtures.proof.unreached import CUDA, UNREACHED, UnreachedLine

ROOT = Path(__file__).resolve().parent.parent
LINE = UnreachedLine(path="fixtures/machine/made.py", code="torch.cuda.synchronize()", needs=CUDA, why="It waits for it.")


def file(statements: int, lines: int, branches: int, run: int, missing: tuple[int, ...] = ()) -> dict[str, Any]:
    """A file of a report of coverage.py."""
    summary = {"num_statements": statements, "covered_lines": lines, "num_branches": branches, "covered_branches": run}
    return {"summary": summary, "missing_lines": list(missing)}


REPORT = {
    "files": {
        "analytic/core/made.py": file(60, 60, 20, 18),
        "analytic/models/family/made.py": file(10, 10, 0, 0),
        "analytic/made.py": file(10, 8, 0, 0, (3, 4)),
        "fixtures/machine/made.py": file(80, 70, 20, 20, (2,)),
    }
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "fixtures" / "machine").mkdir(parents=True)
    (tmp_path / LINE.path).write_text("def wait() -> None:\n    torch.cuda.synchronize()\n    print()\n")
    return tmp_path


def test_figures_are_of_lines_and_branches_by_package(root: Path) -> None:
    found = {name: round(reached.share, 4) for name, reached in by_package(files_of(REPORT, root)).items()}
    # (60 + 18) / 80, 8 / 10, 10 / 10, (70 + 20) / 100
    assert found == {"analytic": 0.8, "analytic/core": 0.975, "analytic/models": 1.0, "fixtures/machine": 0.9}
    assert totals(files_of(REPORT, root))["analytic"] == Reached(lines=80, run_lines=78, branches=20, run_branches=18)


def test_what_is_at_its_goal_passes_and_what_is_below_does_not(root: Path) -> None:
    assert problems(files_of(REPORT, root), [], root) == []  # 96% and 90%
    less = {"files": {**REPORT["files"], "fixtures/machine/made.py": file(80, 69, 20, 20)}}
    assert problems(files_of(less, root), [], root) == [
        "fixtures: 89.0% of lines and branches were run, accepted: at least 90%"
    ]


def test_a_declared_line_is_there_once_and_is_not_run(root: Path) -> None:
    files = files_of(REPORT, root)
    assert problems(files, [LINE], root) == []
    run = [FileReached(path=one.path, reached=one.reached, missed=()) for one in files]
    assert problems(run, [LINE], root) == [
        "fixtures/machine/made.py:2: declared to need a CUDA device, and was run: remove it from "
        "fixtures/proof/unreached.py"
    ]
    (root / LINE.path).write_text("print()\n")
    assert "got 0 lines 'torch.cuda.synchronize()', accepted: one" in problems(files, [LINE], root)[0]
    (root / LINE.path).unlink()
    assert "got 0 lines" in problems(files, [LINE], root)[0]


@pytest.mark.parametrize("line", UNREACHED, ids=lambda line: f"{Path(line.path).name}: {line.code}")
def test_a_line_that_is_declared_is_there(line: UnreachedLine) -> None:
    source = [text.strip() for text in (ROOT / line.path).read_text(encoding="utf-8").splitlines()]
    assert source.count(line.code) == 1
    assert line.why.endswith(".")


SMALL = """\
import os, subprocess, sys


def doubled(number: int) -> int:
    if number < 0:
        return 0
    return 2 * number


if sys.argv[1:] == ["fork"]:
    if not os.fork():
        doubled(-1)
        os._exit(0)
    os.wait()
"""


def test_lines_that_run_in_a_process_of_a_test_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "analytic").mkdir()
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "analytic" / "small.py").write_text(SMALL)
    (tmp_path / "test_small.py").write_text(
        "import subprocess, sys\n\n\ndef test_it():\n"
        "    subprocess.run([sys.executable, 'analytic/small.py', 'fork'], check=True)\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    monkeypatch.setattr(covered.stored, "ROOT", tmp_path)
    options = covered.parsed(["test_small.py", "--workers", "0", "--output-dir", str(tmp_path / "out")])
    assert covered.run_tests(options) == 0
    (found,) = files_of(covered.report(options), tmp_path)
    assert found.path == "analytic/small.py"
    assert found.missed == (7,)  # of the branches of the first `if` one is run, in the forked process; of the others both
    assert found.reached.run_branches == 4
    assert found.reached.branches == 6


def test_without_data_nothing_can_be_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert covered.main(["--again", "--output-dir", str(tmp_path)]) == 2
    assert "without data of a run, accepted: one that has some" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "wrong"), [(0, "analytic: 94.0%"), (1, "pytest ended with exit code 1")])
def test_a_session_ends_with_one_for_a_test_that_fails_and_for_what_is_missed(
    code: int, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads(json.dumps(REPORT))
    if not code:
        report["files"]["analytic/core/made.py"] = file(60, 59, 20, 17)
    monkeypatch.setattr(covered, "run_tests", lambda options: code)
    monkeypatch.setattr(covered, "report", lambda options: report)
    monkeypatch.setattr(covered, "UNREACHED", ())
    page = tmp_path / "page.md"
    page.write_text("<!-- written by the session coverage: begin -->\n<!-- written by the session coverage: end -->\n")
    before = page.read_text()
    assert covered.main(["--page", str(page), "--output-dir", str(tmp_path / "out")]) == 1
    assert f"WRONG: {wrong}" in capsys.readouterr().out
    assert (page.read_text() == before) is bool(code)  # figures of tests that fail are not written
