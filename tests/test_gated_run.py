"""`pytest benchmarks` against stored baselines, as a user sees it: verdict, report, JUnit, exit codes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.test_plugin import ROOT, run


@pytest.fixture
def baselines(tmp_path: Path) -> Path:
    """A copy of the stored baselines, to be changed."""
    return Path(shutil.copytree(ROOT / "baselines", tmp_path / "baselines"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "meta" / "deepseek-ocr-v1-base.json"
    loaded = json.loads(path.read_text())
    change(loaded)
    path.write_text(json.dumps(loaded))


ONE_POINT = ("--seq-len", "256", "-k", "prefill or decode")


def test_a_run_is_held_to_the_stored_baseline_by_default(tmp_path: Path) -> None:
    done = run(*ONE_POINT, "--require-baseline", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "baseline: passed: 2 equal" in done.stdout
    (path,) = tmp_path.rglob("record.json")
    assert [one["outcome"] for one in json.loads(path.read_text())["gate"]["judged"]] == ["equal", "equal"]
    assert "**Passed: 2 of 2 points agree with the closed form." in (path.parent / "report.md").read_text()
    assert "<title>dsocr-bench" in (path.parent / "report.html").read_text()
    assert (tmp_path / "latest" / "record.json").samefile(path)
    assert f'href="{path.parent.name}/report.html"' in (tmp_path / "index.html").read_text()


def test_a_broken_baseline_is_one_failure_a_benchmark_and_a_report(tmp_path: Path, baselines: Path) -> None:
    def change(loaded: dict[str, Any]) -> None:
        point = loaded["exact"]["points"]["prefill[256]"]
        point["totals"]["executed_flops"] -= 1_000_000
        point["blocks"]["lm_head"][1] -= 1_000_000
        point["operators"]["matmul"] -= 1_000_000

    edit(baselines, change)
    xml = tmp_path / "junit.xml"
    done = run(*ONE_POINT, "--baseline-dir", str(baselines), "--output-dir", str(tmp_path / "out"), f"--junitxml={xml}")
    assert done.returncode == 1, done.stdout
    assert "**1 of 2 benchmarks differ from the baseline: prefill[256] more work (executed_flops +" in done.stdout
    assert "moved most: lm_head +0.30% FLOPs" in done.stdout
    assert "-k 'prefill[256]'" in done.stdout
    assert (
        f"If the change is intended, accept it: `nox -s baseline -- refresh --device meta --baseline-dir {baselines}`"
        in done.stdout
    )
    suite = ElementTree.parse(xml).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (report,) = (tmp_path / "out").rglob("report.md")
    assert "moved most: lm_head" in report.read_text()


def test_a_damaged_baseline_stops_the_run_before_it_measures(tmp_path: Path, baselines: Path) -> None:
    path = baselines / "meta" / "deepseek-ocr-v1-base.json"
    path.write_text(path.read_text()[:1000])
    done = run(*ONE_POINT, "--baseline-dir", str(baselines), "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 4, done.stdout
    assert "deepseek-ocr-v1-base.json: not valid JSON" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_baseline_a_run_passes_and_says_so_unless_one_is_required(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("--preset", "tiny", "--device", "meta", "--seq-len", "256", "-k", "prefill", "--output-dir", str(tmp_path))
    done = run(*arguments, "--baseline-dir", str(tmp_path / "empty"))
    assert done.returncode == 0, done.stdout
    assert "new: prefill[256]: no baseline" in done.stdout
    assert "nox -s baseline -- refresh --device meta --preset tiny --baseline-dir" in done.stdout
    done = run(*arguments, "--baseline-dir", str(tmp_path / "empty"), "--require-baseline", "--report-format", "github")
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert "::error title=prefill[256]::new: no baseline" in done.stdout


def test_a_benchmark_that_is_gone_fails_a_whole_run(tmp_path: Path, baselines: Path) -> None:
    def change(loaded: dict[str, Any]) -> None:
        points = loaded["exact"]["points"]
        points["prefill[300]"] = points["prefill[256]"]

    edit(baselines, change)
    whole = ("-k", "prefill and 256", "--baseline-dir", str(baselines), "--output-dir", str(tmp_path / "out"))
    done = run(*whole)
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "prefill[300]` missing: in deepseek-ocr-v1-base.json, but no longer measured" in done.stdout
    # a run that asks for less misses nothing
    assert run(*whole, "--seq-len", "256").returncode == 0


def test_pytest_benchmarks_own_file_names_the_record(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--seq-len", "64", "--device", "cpu", "--decode-steps", "2", "-k", "prefill")
    own = tmp_path / "own.json"
    done = run(*arguments, "--output-dir", str(tmp_path / "out"), f"--benchmark-json={own}")
    assert done.returncode == 0, done.stdout
    found = json.loads(own.read_text())
    folder = (tmp_path / "out" / "latest").resolve()
    assert found["dsocr_bench"] == {"version": 1, "run_id": folder.name}
    block = found["benchmarks"][0]["extra_info"]["dsocr_bench"]
    assert (block["version"], block["stage"], block["point"]) == (1, "prefill", "64")
    record = json.loads((folder / "record.json").read_text())
    assert block["time_s"] == record["timings"][0]["time_s"]
