"""Several tokens on a past: transformers makes a mask for SDPA, and the closed form counts it as it runs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from analytic.core.execution import FULL_SIZE, Execution
from analytic.core.op import Count
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import TokenLayout
from analytic.models.spec import ModelSpec
from fixtures.adapter import forward_arguments
from fixtures.model import caches
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.inputs import token_ids
from fixtures.op_counter.ledger import Ledger
from fixtures.op_counter.memory import MemoryLedger
from fixtures.validation.comparison import compare

PAST, NEW = 192, 96


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("device", "dtype", "experts"),
    [("meta", "bfloat16", "grouped_mm"), ("meta", "float32", "batched_mm"), ("cpu", "float32", "grouped_mm")],
)
def test_every_module_of_a_continued_prefill_is_counted(
    subject_on: Callable[..., ModelUnderTest], device: str, dtype: str, experts: str, attention: str, batch_size: int
) -> None:
    subject = subject_on(device, attention, experts, "tiny", dtype)
    model, spec, run = subject.model, subject.spec, subject.run
    _, cache = stages.prefill(subject, TokenLayout.of(PAST, None), batch_size=batch_size)
    kept = caches.cache_tensors(cache)
    ids = token_ids(TokenLayout.of(NEW, None), spec, batch_size=batch_size, run=run)
    with torch.no_grad(), Ledger(model, outside="") as ledger, MemoryLedger() as memory:
        model(**forward_arguments(model, ids, cache=cache))
    root = DeepseekOCRModel.from_spec(spec, run=run)
    longer = root.start_prefill(NEW, batch_size, kv_cache=root.start_prefill(PAST, batch_size))
    assert longer.kv_bytes == caches.cache_bytes(cache)
    assert compare(root.tree(), ledger=ledger, run=run, model=model, extra={}).differences() == ()
    grown = caches.cache_tensors(cache)
    peak = memory.peak_bytes(without=[*kept, *grown])
    assert int(root.forward_memory_activation()) == pytest.approx(peak, rel=0.05, abs=1 << 16)


def test_a_mask_is_made_for_sdpa_only_where_tokens_continue_a_past(tiny_spec: ModelSpec) -> None:
    """Decoder operators of one layer more or less, by hand: 7 for the causal mask, 3 a layer instead of 5 or none."""
    layers = tiny_spec.text.num_layers
    for run, change in ((FULL_SIZE, 7 - 2 * layers), (replace(FULL_SIZE, device="cpu"), 7 + 3 * layers)):
        root = DeepseekOCRModel.from_spec(tiny_spec, run=run)
        cache = root.start_prefill(PAST, 1)
        alone = int(root.forward_cost().launches)
        root.start_prefill(NEW, 1, kv_cache=cache)
        assert int(root.forward_cost().launches) - alone == change


@pytest.mark.parametrize(
    "run", [FULL_SIZE, Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="float16")]
)
def test_arrays_of_calls_count_as_single_calls_do(tiny_spec: ModelSpec, run: Execution) -> None:
    from analytic.models.deepseek_ocr.decoder_attention import DecoderShape
    from analytic.models.deepseek_ocr.language_model import Decoder

    def launches(new: Count, past: Count) -> Count:
        shape = DecoderShape(batch=1, new_tokens=new, past_tokens=past)
        return Decoder(spec=tiny_spec.text, shape=shape, logits="last", run=run).forward_cost().launches

    pairs = [(1, 0), (1, 5), (4, 0), (4, 5)]
    together = launches(np.array([new for new, _ in pairs]), np.array([past for _, past in pairs]))
    assert list(together) == [launches(new, past) for new, past in pairs]
