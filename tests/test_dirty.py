"""What makes a checkout dirty: files that a run imports or reads, and not the outputs of runs."""

import subprocess
from pathlib import Path

import pytest

from analytic.io import stored
from fixtures.baseline import refresh as baselines
from fixtures.machine.environment import environment, is_dirty, this_commit, uncommitted


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout with the project's folders, everything committed."""
    for name in (
        "fixtures/timing/timer.py",
        "analytic/data/presets/tiny.json",
        "schemas/x.json",
        "baselines/cpu/tiny.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all of it"]):
        author = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(("git", *author, *arguments), cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(stored, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("out/20251121-093011-1/record.json", False),
        ("out/noise-cpu-tiny.json", False),
        ("out/20251121-093011-1/profile/trace.json", False),
        ("benchmarks/out/20251121-093011-1/record.json", False),  # a run started in benchmarks/
        ("notes.txt", False),
        ("scratch.py", False),  # nothing of the project imports it
        ("fixtures/timing/other.py", True),
        ("benchmarks/bench_more.py", True),
        ("schemas/record.v6.schema.json", True),
        ("analytic/data/presets/mine.json", True),
        ("fixtures/evidence/templates/page.html", True),
        ("baselines/meta/tiny.json", True),
        ("conftest.py", True),
    ],
)
def test_an_untracked_file_counts_if_a_run_would_use_it(checkout: Path, name: str, counts: bool) -> None:
    assert is_dirty() is False
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("{}\n")
    assert uncommitted() == ([f"?? {name}"] if counts else [])


@pytest.mark.parametrize("name", ["fixtures/timing/timer.py", "baselines/cpu/tiny.json"])
def test_a_changed_tracked_file_counts(checkout: Path, name: str) -> None:
    (checkout / name).write_text("{ }\n")
    assert is_dirty() is True
    assert is_dirty(baselines=False) is (not name.startswith("baselines"))


def test_a_refresh_is_refused_for_an_untracked_module_and_not_for_outputs(checkout: Path) -> None:
    (checkout / "out").mkdir()
    (checkout / "out" / "noise-cpu-tiny.json").write_text("{}\n")
    baselines.require_clean()
    (checkout / "fixtures" / "new.py").write_text("\n")
    with pytest.raises(baselines.RefusedError, match=r"the tree is dirty: [^\n]*\n\?\? fixtures/new\.py"):
        baselines.require_clean()


def test_a_folder_that_is_no_checkout_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert is_dirty() is None


def test_a_tree_that_was_copied_without_git_belongs_to_the_commit_that_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert this_commit() is None
    with pytest.raises(baselines.RefusedError, match=r"not a git checkout, .* set DSOCR_COMMIT to that of a copied tree"):
        baselines.require_clean()
    monkeypatch.setenv("DSOCR_COMMIT", "5" * 40)
    assert this_commit() == environment("meta")["commit"] == "5" * 40
    assert is_dirty() is None  # nobody looked
    baselines.require_clean()
