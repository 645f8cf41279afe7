"""The full-size model on meta: closed form and operators agree, integer for integer, in every module.

FLOPs by convention, pointwise arithmetic, bytes read and written of every class of operator, parameters, cache and tokens.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from analytic.core.execution import FULL_SIZE
from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES, TokenLayout, VisionWorkload, gundam
from fixtures.adapter import image_tokens_of
from fixtures.model import counted_stages as stages
from fixtures.model.inputs import page_inputs
from fixtures.op_counter.ledger import Ledger
from fixtures.validation.comparison import compare
from tests.samples import BY_HAND

PAGES = {f"gundam-{grid}": gundam(grid) for grid in ALL_GRIDS} | MODES
KERNELS = list(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm")))
LENGTHS = (1, 2, 255, 256, 257, 512, 1024, 2048, 4096, 8192)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_vision_agrees_in_every_module(subject_on: Callable, page: VisionWorkload, attention: str) -> None:
    subject = subject_on("meta", attention, "grouped_mm")
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    measured = stages.vision(subject, page, batch_size=1)
    root.start_vision(workload=page)
    extra = {"image_tokens": (page.image_tokens, measured.image_tokens)}
    agreed = compare(root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model, extra=extra)
    assert agreed.differences() == ()
    assert agreed.total("measured", "executed_flops") > 1e11
    assert root.forward_memory_activation() == pytest.approx(measured.activation_bytes, rel=0.05)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("side_px", range(64, 1281, 64))
def test_views_of_any_size_agree(subject_on: Callable, side_px: int, views: int, attention: str) -> None:
    subject = subject_on("meta", attention, "grouped_mm", "tiny")
    page = VisionWorkload(base_size=side_px, image_size=side_px, grid=None)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    measured = stages.vision(subject, page, batch_size=views)
    root.start_vision(batch_size=views, workload=page)
    extra = {"image_tokens": (page.image_tokens, measured.image_tokens)}
    assert compare(root.tree(), ledger=measured.ledger, run=subject.run, extra=extra).differences() == ()


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_vision_agrees_on_a_batch_of_pages(subject_on: Callable, attention: str, batch_size: int) -> None:
    subject, page = subject_on("meta", attention, "grouped_mm"), PAGES["gundam-2x1"]
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    measured = stages.vision(subject, page, batch_size=batch_size)
    root.start_vision(batch_size=batch_size, workload=page)
    assert compare(root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model).differences() == ()


@pytest.mark.parametrize("seq_len", LENGTHS)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_prefill_and_decode_agree_in_every_module(
    subject_on: Callable, attention: str, experts: str, batch_size: int, seq_len: int
) -> None:
    subject = subject_on("meta", attention, experts)
    layout = TokenLayout.of(seq_len, None)
    for logits in ("all", "last"):
        root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run, logits=logits)
        measured, cache = stages.prefill(subject, layout, batch_size=batch_size, logits=logits)
        kv = root.start_prefill(seq_len, batch_size)
        extra = {"kv_bytes": (kv.kv_bytes, measured.kv_bytes)}
        agreed = compare(root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model, extra=extra)
        assert agreed.differences() == (), logits
        if seq_len >= 512:
            assert root.forward_memory_activation() == pytest.approx(measured.activation_bytes, rel=0.05)
    root.start_decode()
    for step in stages.decode(subject, cache, batch_size=batch_size, steps=2):
        agreed = compare(root.tree(), ledger=step.ledger, run=subject.run, model=subject.model)
        if seq_len >= 512:
            assert root.forward_memory_activation() == pytest.approx(step.activation_bytes, rel=0.05)
        kv = root.decode_one_token()
        assert agreed.differences() == ()
        assert kv.kv_bytes == step.kv_bytes


def test_parameters_add_up_to_the_whole_model(subject_on: Callable) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm")
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_vision()
    trees, weights = [root.tree()], root.forward_memory_weight()
    root.start_prefill(1, 1)
    trees, weights = [*trees, root.tree()], weights + root.forward_memory_weight()
    real = list(subject.model.parameters())
    number = sum(node.parameters for tree in trees for _, node in tree.walk())
    assert number == sum(parameter.numel() for parameter in real) == 3_335_504_128
    assert weights == sum(parameter.numel() * parameter.element_size() for parameter in real)


def test_parameters_by_part(full_spec: object) -> None:
    # SAM 95,569,152, CLIP 302,575,616 executed, projector 2,622,720; dense layer 32,852,480, MoE layer 233,720,320
    root = DeepseekOCRModel.from_spec(full_spec, run=replace(FULL_SIZE, framework=BY_HAND))
    root.start_vision()
    nodes = dict(root.tree().walk())
    tower = "model.vision_tower"
    assert nodes[f"{tower}.sam_encoder"].total().weight_bytes == 2 * 95_569_152
    assert nodes[f"{tower}.vision_encoder"].total().weight_bytes == 2 * 302_575_616
    assert nodes["model.multi_modal_projector"].total().weight_bytes == 2 * 2_622_720
    root.start_prefill(1, 1)
    layers = {path: node for path, node in root.tree().walk() if node.layer == "DeepseekV2DecoderLayer"}
    one = {path: replace(node, copies=()).total().weight_bytes for path, node in layers.items()}
    assert one["model.language_model.layers.0"] == 2 * 32_852_480
    assert one["model.language_model.layers.11"] == 2 * 233_720_320
    assert len(one) == 12


@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_gradients_of_a_small_point_agree_in_every_module(subject_on: Callable, attention: str, experts: str) -> None:
    subject = subject_on("meta", attention, experts)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run, logits="all")

    page = gundam(ALL_GRIDS[0])
    inputs = page_inputs(page, batch_size=1, run=subject.run)
    with Ledger(subject.model, outside="model") as ledger:
        torch.cat(image_tokens_of(subject.model.get_image_features(**inputs.as_arguments()))).sum().backward()
    root.start_vision(workload=page)
    on_vision = compare(root.tree(), ledger=ledger, run=subject.run, backward=True)
    assert on_vision.differences() == ()
    assert on_vision.total("measured", "executed_flops") == root.backward_tensor_core_flops()

    ids = torch.zeros((1, 64), dtype=torch.long, device="meta")
    with Ledger(subject.model, outside="") as ledger:
        subject.model(input_ids=ids, use_cache=True).logits.sum().backward()
    root.start_prefill(64, 1)
    on_text = compare(root.tree(), ledger=ledger, run=subject.run, backward=True)
    assert on_text.differences() == ()
    assert on_text.total("measured", "executed_flops") == root.backward_tensor_core_flops() == 147_471_728_640
    subject.model.zero_grad(set_to_none=True)
