"""The scripts of examples/: each is run, and says what the closed form, the shadow or the gate says."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from analytic.__main__ import main as analytic
from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.spec import ModelSpec
from tests.command_parsers import check
from tests.serving_runs import run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
FEW = ("--image-size", "64x64", "--concurrency", "1", "--warmup", "0", "--requests", "2", "--output-tokens", "1")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a script prints, run in this process, which has torch loaded."""

    def run_script(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_script


def test_every_script_is_short_and_named_in_the_docs_with_a_command_that_it_takes() -> None:
    scripts = sorted(path for path in EXAMPLES.iterdir() if path.is_file())
    assert len(scripts) == 3
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert 20 <= len(text.splitlines()) <= 60
        assert f"examples/{script.name}" in page
        (command,) = re.findall(r"^(?:#  )? +((?:python|URL=\S+) examples/.*)$", text, re.MULTILINE)
        assert command in page
        check(command)


def test_a_folder_costs_what_the_closed_form_says_of_each_page(
    said: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (1654, 2339)).save(tmp_path / "a4.png")
    Image.new("L", (2339, 3308)).save(tmp_path / "again.png")  # cut alike, so it costs the same
    Image.new("L", (600, 400)).save(tmp_path / "card.png")
    found = said("folder_cost.py", tmp_path, "--on", "h200", "--new-tokens", "16", "--price-per-hour", "3.6")
    rows = {cells[0]: cells[1:] for cells in (line.split() for line in found.splitlines())}
    # 1 global view of 273 tokens; 2 x 3 local views add (10 * 2 + 1) * 10 * 3 = 630
    assert rows["card.png"][:2] == ["1", "273"]
    assert rows["a4.png"][:2] == ["7", "903"]
    assert rows["a4.png"] == rows["again.png"]
    arguments = [
        "cost",
        "--image-size",
        "1654x2339",
        "--seq-len",
        "920",
        "--decode-steps",
        "15",
        "--kernels",
        "cuda",
        "--json",
    ]
    assert analytic(arguments) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    steps = stages["decode"]["steps"]
    calls = [stages["vision"], stages["prefill"], *steps]
    flops = sum(call["executed_flops"] for call in calls)
    assert rows["a4.png"][2] == f"{flops / 1e12:.2f}"
    # the larger of FLOPs over 989.4 TFLOP/s and bytes over 4,800 GB/s; 3.6 an hour is 0.001 a second, so 1 for 1,000 s
    least_s = sum(max(call["executed_flops"] / 989.4e12, call["fused_bytes"] / 4.8e12) for call in calls)
    assert float(rows["a4.png"][3]) == pytest.approx(least_s * 1e3, abs=0.06)
    assert float(rows["a4.png"][4]) == pytest.approx(1_000 * least_s * 0.001, abs=0.0006)
    assert found.splitlines()[-1].startswith("3 pages: at least ")


def test_a_loop_of_ones_own_is_shadowed_by_stage(said: Callable[..., str], tiny_spec: ModelSpec, tmp_path: Path) -> None:
    found = said("shadow_generate.py", "--new-tokens", "3", "--output-dir", tmp_path)
    # 273 tokens of one view, a BOS and 16 of text, then two tokens after the first
    run = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
    root, flops = DeepseekOCRModel.from_spec(tiny_spec, run=run), dict.fromkeys(("vision", "prefill", "decode"), 0)
    for call in root.walk(tiny_spec.pages.of_size(600, 400), seq_len=290, batch_size=1, decode_steps=2):
        flops[call.stage] += int(root.forward_cost().executed_flops)
    printed = re.findall(r"^(\w+) +([\d,.]+) MFLOP", found, re.MULTILINE)
    assert printed == [(stage, f"{number / 1e6:,.3f}") for stage, number in flops.items()]
    assert "3 tokens, 2 of them decoded after the first" in found
    steps = json.loads((tmp_path / "decoder_steps.json").read_text())
    assert {step["stage"] for step in steps["steps"]} == {"prefill", "decode"}


def gated(stub: Stub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The job, run against a server."""
    given = {"URL": stub.url, "BASELINE": str(folder / "served.json"), "RESULTS": str(folder / "results")}
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB"))}
    return subprocess.run(
        [str(EXAMPLES / "gate_server.sh"), *FEW],
        cwd=ROOT,
        env={**usual, "PYTHON": sys.executable, **given, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def accepted_times(path: Path, time_s: float) -> None:
    """Let a baseline accept these times."""
    document = json.loads(path.read_text())
    for cell in document["cells"].values():
        cell["medians_s"] = {time: [time_s] * len(values) for time, values in cell["medians_s"].items()}
    path.write_text(json.dumps(document))


def test_a_server_is_accepted_once_and_held_to_that_by_every_later_job(
    started: Callable[..., Stub], tmp_path: Path
) -> None:
    stub, baseline, summary = started(), tmp_path / "served.json", tmp_path / "summary.md"
    first = gated(stub, tmp_path)
    assert (first.returncode, f"commit {baseline}" in first.stdout) == (0, True), first.stderr
    accepted_times(baseline, 60.0)
    passed = gated(stub, tmp_path, GITHUB_STEP_SUMMARY=str(summary))
    assert (passed.returncode, "baseline: passed" in passed.stdout) == (0, True), passed.stdout + passed.stderr
    assert summary.read_text() == (tmp_path / "results" / "latest-serve" / "report.md").read_text()
    accepted_times(baseline, 1e-9)
    slower = gated(stub, tmp_path)
    assert (slower.returncode, "baseline: FAILED" in slower.stdout) == (1, True), slower.stdout + slower.stderr


def test_a_server_with_another_token_a_page_fails_the_job(started: Callable[..., Stub], tmp_path: Path) -> None:
    assert gated(started(), tmp_path).returncode == 0
    accepted_times(tmp_path / "served.json", 60.0)
    changed = gated(started(around=1), tmp_path)
    assert (changed.returncode, "WRONG: " in changed.stdout + changed.stderr) == (1, True)
