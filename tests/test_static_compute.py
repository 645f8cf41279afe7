"""The independent counter against the closed form, what it can not see, and the report it makes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.core.cost import CostNode
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.spec import ModelSpec
from fixtures.cross_check import static_compute
from fixtures.cross_check.static_compute import StageCompute, StaticCompute, estimate_static_compute, write_static_compute
from fixtures.cross_check.static_text import lines
from tests.samples import flops_by_path

SUSPECTS = {"vision": {"aten.native_layer_norm"}, "prefill": set(), "decode": set()}
"""Operators without a formula in which two tensors meet: a norm's scale and shift, and no product."""
ROOT = Path(__file__).resolve().parent.parent


def closed_form(found: StaticCompute, spec: ModelSpec, *, experts: str) -> dict[str, CostNode]:
    run = replace(found.execution, experts=experts)
    root = DeepseekOCRModel.from_spec(spec, run=run)
    root.start_vision(workload=VisionWorkload.from_image(found.image_w, found.image_h))
    trees = {"vision": root.tree()}
    root.start_prefill(found.seq_len, 1)
    trees["prefill"] = root.tree()
    root.start_decode(kv_cache=root.start_prefill(found.context_len, 1))
    return trees | {"decode": root.tree()}


def stage_of(found: StaticCompute, name: str) -> StageCompute:
    return next(stage for stage in found.stages if stage.stage == name)


def suspects(stage: StageCompute) -> set[str]:
    return {one.operator for one in stage.unseen if one.kind == "products"}


@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_stage_and_block_is_the_closed_forms_to_the_flop(
    static_compute_with: Callable, full_spec: ModelSpec, attention: str, experts: str
) -> None:
    # counted with batched experts; the closed form executes as many FLOPs with grouped ones
    found = static_compute_with(attention)
    for name, tree in closed_form(found, full_spec, experts=experts).items():
        stage = stage_of(found, name)
        assert suspects(stage) == SUSPECTS[name]  # so nothing that multiplies is left out, and no difference is allowed
        assert stage.flops == tree.total().executed_flops
        whole = [block for part in stage.parts for block in part.blocks if not block.own_only]
        expected = flops_by_path(tree)
        assert {block.path: block.flops for block in whole} == {block.path: expected[block.path] for block in whole}
        assert sum(block.flops for block in whole) == stage.flops


def test_every_part_is_the_closed_forms_to_the_flop(static_compute_with: Callable, full_spec: ModelSpec) -> None:
    found = static_compute_with("sdpa")
    trees = closed_form(found, full_spec, experts="grouped_mm")
    paths = {
        "sam": "model.vision_tower.sam_encoder",
        "clip": "model.vision_tower.vision_encoder",
        "projector": "model.multi_modal_projector",
        "embedding": "model.language_model.embed_tokens",
        "decoder": "model.language_model",
        "head": "lm_head",
    }
    for stage in found.stages:
        expected = flops_by_path(trees[stage.stage])
        parts = {part.part: part.flops for part in stage.parts}
        assert parts.pop("assembly", 0) == 0
        assert parts == {name: expected[paths[name]] for name in parts}


def test_a_page_without_crops_and_another_context_agree_too(tiny_spec: ModelSpec) -> None:
    found = estimate_static_compute(400, 600, 300, spec=tiny_spec, context_len=7)
    assert (found.page, found.image_tokens, found.context_len) == ("1024px", 273, 7)
    for name, tree in closed_form(found, tiny_spec, experts="grouped_mm").items():
        assert stage_of(found, name).flops == tree.total().executed_flops


def test_parameters_are_those_of_the_model_by_part(static_compute_with: Callable) -> None:
    found = static_compute_with("sdpa")
    parts = {part.part: part.parameters for stage in found.stages for part in stage.parts}
    decoder = 32_852_480 + 11 * 233_720_320 + 1_280  # a dense layer, MoE layers, the last norm
    assert parts == {
        "sam": 95_569_152,
        "clip": 302_575_616,
        "projector": 2_622_720,
        "assembly": 2 * 1_280,  # newline and separator
        "embedding": 165_478_400,
        "decoder": decoder,
        "head": 165_478_400,
    }
    assert found.parameters == sum(parts.values()) == 3_335_504_128
    layers = {block.path: block.parameters for block in stage_of(found, "prefill").parts[1].blocks}
    assert layers["model.language_model.layers.0"] == 32_852_480
    assert layers["model.language_model.layers.11"] == 233_720_320


def test_convolutions_and_relative_positions_are_counted(static_compute_with: Callable) -> None:
    # per call of SAM 5 convolutions; 12 layers with two products of attention and two of relative positions; in CLIP's 24
    # layers two of attention; global and local views are two calls
    counted = {one.operator: one.calls for one in stage_of(static_compute_with("sdpa"), "vision").counted}
    assert counted["aten.convolution"] == 2 * 5
    assert counted["aten.bmm"] == 2 * (12 * 4 + 24 * 2)


def test_parts_that_are_not_the_whole_are_refused(static_compute_with: Callable) -> None:
    stage = stage_of(static_compute_with("sdpa"), "vision")
    with pytest.raises(RuntimeError, match="vision: the FLOPs of its parts are 3,468,866,060,288, the counter's total 1"):
        replace(stage, flops=1)


def test_both_files_are_written_and_the_same_each_time(
    static_compute_with: Callable, tmp_path: Path, tiny_spec: ModelSpec
) -> None:
    found = static_compute_with("sdpa")
    paths = write_static_compute(found, tmp_path / "new")
    assert [path.name for path in paths] == ["static_compute.json", "static_compute.md"]
    loaded = static_compute.STATIC_COMPUTE.read(paths[0])
    assert loaded["parameters"] == 3_335_504_128
    assert [stage["flops"] for stage in loaded["stages"]] == [stage.flops for stage in found.stages]
    text = paths[1].read_text(encoding="utf-8")
    layers = "| sam | `model.vision_tower.sam_encoder.layers.2,5,8,11` x 4 | UnlimitedOcrSamVisionLayer | 7,104,128 |"
    assert layers in text
    assert "`model.language_model.layers.1-11` x 11" in text
    assert "operators without a formula that combine two operands: aten.native_layer_norm in vision (150 calls)" in text
    first, second = (
        write_static_compute(estimate_static_compute(640, 640, 300, spec=tiny_spec), tmp_path / name) for name in "ab"
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_does_not_fit_the_schema_is_not_written(static_compute_with: Callable, tmp_path: Path) -> None:
    wrong = replace(static_compute_with("sdpa"), image_tokens=0)
    with pytest.raises(ValueError, match=r"static_compute.json: does not fit .*image_tokens"):
        write_static_compute(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_a_short_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--image-size", "1654x2339", "--seq-len", "1024", "--preset", "tiny", "--output-dir", str(tmp_path)]
    assert static_compute.main(asked) == 0
    printed = capsys.readouterr()
    loaded = json.loads((tmp_path / "static_compute.json").read_text(encoding="utf-8"))
    assert (loaded["image_h"], loaded["image_w"], loaded["page"]) == (2339, 1654, "gundam-2x3")
    assert "tiny, a page of 1654 x 2339 px (gundam-2x3, 903 image tokens) in 1,024 positions" in printed.out
    for stage in loaded["stages"]:
        assert f"{stage['flops']:,}" in printed.out
    assert str(tmp_path / "static_compute.md") in printed.out
    assert "prefill: 1,024 positions" in printed.err


def test_the_table_is_narrow(static_compute_with: Callable) -> None:
    assert max(map(len, lines(static_compute_with("sdpa")))) <= 124


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-size", "10"], "--image-size: got '10', accepted: WxH"),
        (["--image-size", "1654x2339", "--seq-len", "903"], "seq_len: got 903, accepted: at least 904 for this page"),
        (["--seq-len", "0"], "seq_len: got 0, accepted: a whole number of at least 1"),
        (["--seq-len", "9999999"], "seq_len: got 9999999, accepted: a whole number of at least 1 and at most 1048576"),
        (["--seq-len", "many"], "--seq-len: got 'many', accepted: a whole number"),
        (["--context-len", "-1"], "context_len: got -1"),
        (["--preset", "huge"], "--preset: got 'huge', accepted: deepseek-ocr"),
        (["--attention", "flash"], "--attention: got 'flash', accepted: sdpa, eager"),
        (["--output-dir", "/proc/nowhere"], "--output-dir: got '/proc/nowhere', accepted: a writable folder"),
        (["--output-dir", ""], "--output-dir: got '', accepted: a writable folder"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = static_compute.main(arguments)
    except SystemExit as stopped:  # argparse's own refusals
        code = int(stopped.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("height", "width"), [(0, 100), (100, -1), (True, 100), (1.5, 100)])
def test_a_page_that_can_not_be_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"image_[hw]: got .*, accepted: a whole number of at least 1"):
        estimate_static_compute(height, width, 1024)


def test_the_counter_imports_neither_the_closed_form_nor_the_ledger() -> None:
    script = """
import sys
from fixtures.cross_check import static_compute
assert static_compute.main(["--seq-len", "1"]) == 2
assert "torch" not in sys.modules
from analytic.models.spec import ModelSpec
static_compute.estimate_static_compute(640, 640, 300, spec=ModelSpec.from_preset("tiny"))
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("analytic", "fixtures")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    closed_form = {
        name for name in loaded if name.startswith(("analytic.core.", "analytic.prediction", "analytic.planning"))
    }
    assert closed_form == {"analytic.core.checks", "analytic.core.execution", "analytic.core.polynomial"}
    layers = {"sam", "sam_attention", "vision", "moe", "decoder", "language_model", "model", "mapping"}
    assert {name for name in loaded if name.rpartition(".")[2] in layers and name.startswith("analytic.")} == set()
    assert {name for name in loaded if name.startswith(("fixtures.op_counter", "fixtures.validation"))} == set()
    assert {f"analytic.models.deepseek_ocr.{name}" for name in layers} <= set(analytic_modules())


def analytic_modules() -> list[str]:
    """Every module of the closed form, by its name."""
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "analytic").rglob("*.py")]
