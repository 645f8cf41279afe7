"""A warning of a library fails a test of ours, and is shown at the end of a user's benchmarks, which it does not fail."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "import warnings\n\ndef call():\n    warnings.warn('old name', FutureWarning, stacklevel=1)\n"
ALONE = ("-p", "fixtures.plugin.hooks")
"""For files outside the project, where its own conftest.py does not register the plugin."""


def pytest_run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, UserWarning])
def test_a_warning_in_a_test_is_an_error(category: type[Warning]) -> None:
    with pytest.raises(category, match="old name"):
        warnings.warn("old name", category, stacklevel=1)


@pytest.mark.filterwarnings("ignore:old name")
def test_a_test_may_let_a_warning_pass() -> None:
    warnings.warn("old name", FutureWarning, stacklevel=1)


def test_a_warning_fails_the_collection_of_tests_unless_the_command_line_lets_it_pass(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "test_old.py").write_text("import library\n\nlibrary.call()\n\ndef test_nothing():\n    pass\n")
    done = pytest_run(*ALONE, "--rootdir", tmp_path, tmp_path)
    assert done.returncode == 2, done.stdout
    assert "FutureWarning: old name" in done.stdout
    done = pytest_run(*ALONE, "--rootdir", tmp_path, "-W", "ignore:old name", tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_warning_in_benchmarks_is_shown_once_at_the_end_and_fails_none(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    twice = "    library.call()\n    library.call()\n\n"
    (tmp_path / "bench_old.py").write_text(f"import library\n\ndef prefill():\n{twice}def decode():\n{twice}")
    done = pytest_run(*ALONE, "--rootdir", tmp_path, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 2 warnings" in done.stdout
    assert done.stdout.count("FutureWarning: old name") == 1
    assert done.stdout.index("warnings summary") < done.stdout.index("FutureWarning: old name")
    assert done.stderr == ""


def test_a_warning_of_a_plugin_at_the_end_costs_neither_record_nor_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_warning.py").write_text(
        "import warnings\n\ndef pytest_sessionfinish():\n    warnings.warn('too late', UserWarning, stacklevel=1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    asked = ("--preset", "tiny", "--seq-len", "32", "--device", "meta", "-k", "prefill", "-p", "late_warning")
    done = pytest_run("--rootdir", ROOT, ROOT / "benchmarks", *asked, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "too late" in done.stdout + done.stderr
    assert len(list(tmp_path.rglob("record.json"))) == 1
