"""DeepSeek-OCR-2 at full size on meta: closed form and operators agree, integer for integer, in every module.

FLOPs by convention, pointwise arithmetic, launches, bytes read and written of every class of operator, parameters, cache
and tokens. A representative part of the grid runs with the other tests; all of it runs with `-m full_size`.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from analytic.core.execution import FULL_SIZE
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import TokenLayout, VisionWorkload
from analytic.models.deepseek_ocr2.mapping import MODULE_LAYERS, NAMED_BY_PATH
from analytic.models.registry import load_spec, model_of
from fixtures.config.stages import usual
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.profiling.predict_study import names
from fixtures.report.blocks import block_of
from fixtures.validation.comparison import compare
from tests.samples import BY_HAND

FULL, SMALL = "deepseek-ocr-2-base", "ocr-2-tiny"
PAGES = load_spec(FULL).pages
GRIDS = {f"gundam-{grid}": PAGES.gundam(grid) for grid in PAGES.rule.grids}
LENGTHS = (1, 255, 256, 257, 1024, 4096, 8192)
KERNELS = tuple(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm")))


def vision_differs(subject: ModelUnderTest, page: VisionWorkload, *, batch_size: int) -> tuple[object, ...]:
    """Every quantity of vision on which the two sides disagree; peak activations agree to 5%."""
    root = model_of(subject.spec, run=subject.run)
    measured = stages.vision(subject, page, batch_size=batch_size)
    root.start_vision(batch_size=batch_size, workload=page)
    extra = {"image_tokens": (page.image_tokens, measured.image_tokens or 0)}
    agreed = compare(root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model, extra=extra)
    assert agreed.total("measured", "executed_flops") > 0
    assert root.forward_memory_activation() == pytest.approx(measured.activation_bytes, rel=0.05)
    return agreed.differences()


def text_differs(subject: ModelUnderTest, seq_len: int, *, batch_size: int) -> tuple[object, ...]:
    """Every quantity of prefill, with all logits and with the last, and of two decoded tokens, that disagrees."""
    found: list[object] = []
    for logits in ("all", "last"):
        root = model_of(subject.spec, run=subject.run, logits=logits)
        measured, cache = stages.prefill(subject, TokenLayout.of(seq_len, None), batch_size=batch_size, logits=logits)
        kv = root.start_prefill(seq_len, batch_size)
        extra = {"kv_bytes": (kv.kv_bytes, measured.kv_bytes)}
        found += compare(
            root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model, extra=extra
        ).differences()
    root.start_decode()
    for step in stages.decode(subject, cache, batch_size=batch_size, steps=2):
        tree, kv = root.tree(), root.decode_one_token()
        extra = {"kv_bytes": (kv.kv_bytes, step.kv_bytes)}
        found += compare(tree, ledger=step.ledger, run=subject.run, model=subject.model, extra=extra).differences()
    return tuple(found)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("label", ["tile", "base", "gundam-2x1", "gundam-2x3"])
def test_vision_agrees_in_every_module(subject_on: Callable, label: str, attention: str) -> None:
    assert vision_differs(subject_on("meta", attention, "grouped_mm", FULL), PAGES.of_label(label), batch_size=1) == ()


@pytest.mark.parametrize("batch_size", [2, 4])
def test_vision_agrees_on_a_batch_of_pages(subject_on: Callable, batch_size: int) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm", FULL)
    assert vision_differs(subject, PAGES.of_label("gundam-2x1"), batch_size=batch_size) == ()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("page", GRIDS.values(), ids=GRIDS)
def test_every_grid_agrees_on_a_small_model(subject_on: Callable, page: VisionWorkload, attention: str) -> None:
    assert vision_differs(subject_on("meta", attention, "grouped_mm", SMALL), page, batch_size=1) == ()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side_px", [64, 448, 704, 832, 1280])
def test_views_of_other_sizes_take_the_table_that_transformers_takes(
    subject_on: Callable, side_px: int, attention: str
) -> None:
    # 11 x 11 = 121 features are read by 144 queries, 13 x 13 = 169 and 20 x 20 = 400 by 256
    page = PAGES.views(base_size=side_px, image_size=side_px, grid=None)
    assert page.image_tokens == (145 if side_px <= 768 else 257)
    assert vision_differs(subject_on("meta", attention, "grouped_mm", SMALL), page, batch_size=2) == ()


SOME = ((1, 4), (257, 2), (1024, 1), (8192, 1))


@pytest.mark.parametrize(("attention", "experts"), KERNELS)
@pytest.mark.parametrize(("seq_len", "batch_size"), SOME)
def test_prefill_and_decode_agree_in_every_module(
    subject_on: Callable, attention: str, experts: str, seq_len: int, batch_size: int
) -> None:
    assert text_differs(subject_on("meta", attention, experts, FULL), seq_len, batch_size=batch_size) == ()


@pytest.mark.full_size
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("seq_len", LENGTHS)
def test_all_lengths_and_batches_agree(
    subject_on: Callable, attention: str, experts: str, seq_len: int, batch_size: int
) -> None:
    assert text_differs(subject_on("meta", attention, experts, FULL), seq_len, batch_size=batch_size) == ()


@pytest.mark.full_size
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("page", (GRIDS | PAGES.all_modes()).values(), ids=GRIDS | PAGES.all_modes())
def test_all_pages_agree(subject_on: Callable, page: VisionWorkload, batch_size: int, attention: str) -> None:
    assert vision_differs(subject_on("meta", attention, "grouped_mm", FULL), page, batch_size=batch_size) == ()


def test_parameters_add_up_to_the_whole_model(subject_on: Callable) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm", FULL)
    root = model_of(subject.spec, run=subject.run)
    root.start_vision()
    trees = [root.tree()]
    root.start_prefill(1, 1)
    trees.append(root.tree())
    real = list(subject.model.parameters())
    number = sum(node.parameters for tree in trees for _, node in tree.walk())
    assert number == sum(parameter.numel() for parameter in real) == 3_389_119_360
    assert root.weight_bytes == sum(parameter.numel() * parameter.element_size() for parameter in real)


def test_parameters_by_part() -> None:
    # SAM 94,979,328; 24 layers of 896 + 896 + 4 x 896^2-ish: q 803,712, k and v 114,816 each, o 802,816, three times
    # 896 x 4864 = 4,358,144, two norms of 896: 14,912,384 a layer; a norm; projector (896 + 1) x 1280
    root = model_of(load_spec(FULL), run=replace(FULL_SIZE, framework=BY_HAND))
    root.start_vision()
    nodes = dict(root.tree().walk())
    tower = "model.vision_tower"
    assert nodes[f"{tower}.sam_encoder"].total().weight_bytes == 2 * 94_979_328
    assert nodes[f"{tower}.vision_encoder"].total().weight_bytes == 2 * (24 * 14_912_384 + 896)
    assert nodes[f"{tower}.query_768_resolution"].parameters == 144 * 896
    assert nodes[f"{tower}.query_1024_resolution"].parameters == 256 * 896
    assert nodes["model.multi_modal_projector"].total().weight_bytes == 2 * 1_148_160


def test_the_mixed_mask_keeps_the_features_and_the_triangle_of_the_queries() -> None:
    # 256 features see 256 each; query i of 256 sees the features and i + 1 queries: 256^2 + 256 x 256 + 256 x 257 / 2
    pairs = 256**2 + 256 * 256 + 256 * 257 // 2
    root = model_of(load_spec(FULL), run=replace(FULL_SIZE, framework=BY_HAND))
    root.start_vision()
    attention = dict(root.tree().walk())["model.vision_tower.vision_encoder.layers.0.self_attn"]
    masked = next(op for op in attention.ops if op.executed_flops)
    assert masked.executed_flops == 4 * 896 * 512 * 512
    assert masked.useful_flops == 4 * 896 * pairs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_module_has_its_layer_at_its_path(subject_on: Callable, attention: str) -> None:
    subject = subject_on("meta", attention, "grouped_mm", FULL)
    root = model_of(subject.spec, run=subject.run)
    root.start_vision(workload=PAGES.gundam(CropGrid(columns=2, rows=1)))
    layers = {path: node.layer for path, node in root.tree().walk()}
    root.start_prefill(8, 1)
    layers |= {path: node.layer for path, node in root.tree().walk()}
    classes = {path: type(found).__name__ for path, found in subject.model.named_modules()}
    expected = {
        path: NAMED_BY_PATH.get(path) or MODULE_LAYERS[name] for path, name in classes.items() if name != "ModuleList"
    }
    assert layers == expected
    assert {*MODULE_LAYERS.values(), *NAMED_BY_PATH.values()} == set(layers.values())


def test_a_study_times_the_parts_of_its_model_alone() -> None:
    assert usual(SMALL) == tuple(
        f"{stage}[gundam-2x1]" if stage not in ("prefill", "decode") else f"{stage}[1024]"
        for stage in ("vision", "sam", "projector", "queries", "prefill", "decode")
    )
    assert "clip[gundam-2x1]" in usual("tiny")
    assert not any("queries" in name for name in (*usual("tiny"), *names("tiny")))
    assert not any("clip" in name or "3x3" in name for name in names(SMALL))


def test_reports_name_the_second_encoder_of_each_model() -> None:
    path = "model.vision_tower.vision_encoder.layers.3.mlp"
    assert [block_of(path, model) for model in (FULL, SMALL, "deepseek-ocr-v1-base")] == ["query encoder"] * 2 + ["CLIP"]


def test_a_page_has_144_tokens_a_tile_and_257_for_the_whole() -> None:
    assert {label: PAGES.of_label(label).image_tokens for label in ("tile", "base", "gundam-1x2", "gundam-2x3")} == {
        "tile": 145,
        "base": 257,
        "gundam-1x2": 257 + 2 * 144,
        "gundam-2x3": 257 + 6 * 144,
    }
    assert [PAGES.of_label(label).label for label in ("tile", "base", "gundam-2x3")] == ["tile", "base", "gundam-2x3"]
    assert len(PAGES.rule.grids) == 13  # 2 to 6 tiles: 2, 2, 3, 2 and 4 grids
    with pytest.raises(ValueError, match=r"crop grid: got 7x1 \(7 tiles\), accepted: WxH with 2 to 6 tiles"):
        PAGES.of_label("gundam-7x1")


def test_the_canvas_of_a_page_is_transformers() -> None:
    import random

    from transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2 import get_optimal_tiled_canvas

    drawn = random.Random(17)
    for width, height in [(drawn.randint(1, 4000), drawn.randint(1, 4000)) for _ in range(500)]:
        grid = PAGES.of_size(width, height).grid
        if max(width, height) <= 768:
            assert grid is None
        else:
            assert (grid.columns, grid.rows) == get_optimal_tiled_canvas((height, width), (768, 768), 2, 6)


@pytest.mark.parametrize("size", [(768, 768), (769, 768), (640, 700), (96, 900), (1536, 768), (1200, 1600)])
def test_transformers_processor_gives_the_views_of_the_page(size: tuple[int, int]) -> None:
    from PIL import Image
    from transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2 import DeepseekOcr2ImageProcessorPil

    made = DeepseekOcr2ImageProcessorPil()(images=Image.new("RGB", size), return_tensors="np")
    page = PAGES.of_size(*size)
    sides = [tuple(view.shape) for name in ("pixel_values", "pixel_values_local") for view in made.get(name, ())]
    assert sides == [(3, group.side_px, group.side_px) for group in page.view_groups for _ in range(group.count)]
