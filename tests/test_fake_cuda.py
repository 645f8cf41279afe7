"""On CUDA that is not there: transformers' CUDA branches cost, operator by operator, what the closed form says for CUDA.

Verified is everything but torch's choice of SDPA's kernel, which is made from properties of the GPU. Of DeepSeek-OCR-2 the
decoder alone is compared: on fake tensors its vision copies the projector's input and a number for each group of
views, which an H200 did not. The closed form is held to what the H200 counted.
"""

import itertools
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import TokenLayout
from analytic.models.registry import load_spec, model_of
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import Measured
from fixtures.validation.comparison import closed_form_of, compare
from tests.fake_cuda import CAPABILITY, Subject, fake_cuda

__all__ = ["fake_cuda"]

KERNELS = list(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm")))
SMALL = ("tiny", "unlimited-tiny", "ocr-2-tiny")
FULL_SIZES = ("deepseek-ocr-v1-base", "unlimited-ocr-base", "deepseek-ocr-2-base")
DECODER_ALONE = "deepseek_ocr2"
UNVERIFIED = ("choice of SDPA's kernel",)
"""What stands in for a GPU here and decides what is counted."""


def differences(measured: Measured, root: Any, subject: Any, **extra: tuple[int, int]) -> tuple[Any, ...]:
    agreed = compare(root.tree(), ledger=measured.ledger, run=subject.run, model=subject.model, extra=extra)
    assert agreed.total("measured", "executed_flops") > 0
    return tuple(map(str, agreed.differences()))


def stages_agree(subject: Any, *, seq_len: int, batch_size: int = 1) -> None:
    """Vision, prefill and two decode steps of `subject`, each compared with the closed form of its execution on CUDA."""
    assert next(subject.model.parameters()).device.type == "cuda"
    root = model_of(subject.spec, run=subject.run)
    if subject.spec.family != DECODER_ALONE:
        page = subject.spec.pages.gundam(CropGrid.parse("2x1"))
        measured = stages.vision(subject, page, batch_size=batch_size)
        root.start_vision(batch_size=batch_size, workload=page)
        assert differences(measured, root, subject, image_tokens=(page.image_tokens, measured.image_tokens or 0)) == ()
    measured, cache = stages.prefill(subject, TokenLayout.of(seq_len, None), batch_size=batch_size)
    kv = root.start_prefill(seq_len, batch_size)
    assert differences(measured, root, subject, kv_bytes=(kv.kv_bytes, measured.kv_bytes)) == ()
    calls = root.walk_decode(2)
    for call, step in zip(calls, stages.decode(subject, cache, batch_size=batch_size, steps=2), strict=True):
        assert call.cache is not None
        assert differences(step, root, subject, kv_bytes=(call.cache.kv_bytes, step.kv_bytes)) == ()


@pytest.mark.parametrize("preset", SMALL)
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_a_small_model_costs_on_cuda_what_its_closed_form_says(
    fake_cuda: Subject, preset: str, attention: str, experts: str
) -> None:
    stages_agree(fake_cuda(preset, attention, experts), seq_len=300)


@pytest.mark.full_size
@pytest.mark.parametrize("preset", FULL_SIZES)
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_the_full_size_costs_on_cuda_what_its_closed_form_says(
    fake_cuda: Subject, preset: str, attention: str, experts: str
) -> None:
    stages_agree(fake_cuda(preset, attention, experts), seq_len=1024)


def test_the_mask_of_the_query_encoder_costs_what_an_h200_counted() -> None:
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    spec = load_spec("deepseek-ocr-2-base")
    root = model_of(spec, run=run)
    root.start_vision(batch_size=1, workload=spec.pages.gundam(CropGrid.parse("2x1")))
    closed = closed_form_of((root.tree(),))
    found = {
        quantity.name: value
        for quantity, value in closed.items()
        if (quantity.path, quantity.group) == ("model.vision_tower.vision_encoder", "other")
    }
    counted = {"launches": 36, "read_bytes": 1_629_298, "written_bytes": 2_037_866}
    assert {name: found[name] for name in counted} == counted


def test_tensors_are_on_a_gpu_that_is_not_there(fake_cuda: Subject) -> None:
    subject = fake_cuda("tiny", "sdpa", "grouped_mm")
    parameter = next(subject.model.parameters())
    assert isinstance(parameter.data, FakeTensor)
    assert (parameter.device.type, parameter.dtype) == ("cuda", torch.bfloat16)
    assert torch.cuda.get_device_capability(parameter.device) == CAPABILITY
    with pytest.raises(RuntimeError):
        parameter.sum().item()  # nothing is computed


def test_transformers_takes_other_branches_on_cuda_than_on_meta(fake_cuda: Subject) -> None:
    """A ledger of CUDA compared with the closed form of meta differs, so that the comparison above is not one of meta."""
    subject = fake_cuda("tiny", "sdpa", "grouped_mm")
    meta = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    root = model_of(subject.spec, run=meta)
    measured, _ = stages.prefill(subject, TokenLayout.of(300, None), batch_size=1)
    root.start_prefill(300, 1)
    assert differences(measured, root, subject) != ()
    operators = {key.operator for key in measured.ledger.entries}
    assert "aten._scaled_dot_product_flash_attention" in operators
    assert "aten._grouped_mm" in operators
    assert UNVERIFIED == ("choice of SDPA's kernel",)
