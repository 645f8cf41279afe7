"""How many operators run: by hand for a few layers, held to the ledger, and what the number does not depend on."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.core.execution import FULL_SIZE, Execution
from analytic.framework import Framework
from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS, CropGrid
from analytic.models.deepseek_ocr.decoder import DeepseekV2DecoderLayer, DeepseekV2MLP, DeepseekV2RMSNorm
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaFlashAttention2
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.moe import DeepseekV2MoE, MoEGate, RoutedExperts
from analytic.models.deepseek_ocr.sam import ImageEncoderViT, SamBlock
from analytic.models.deepseek_ocr.sam_attention import SamAttention
from analytic.models.deepseek_ocr.vision import NoTPTransformerBlock, VisionStack
from analytic.models.deepseek_ocr.workload import MODES, TokenLayout, VisionWorkload, gundam
from analytic.models.spec import ModelSpec
from fixtures.model import counted_stages as stages
from fixtures.validation.comparison import Quantity, compare

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
SAM, CLIP, TEXT = SPEC.sam, SPEC.clip, SPEC.text
BY_HAND = replace(FULL_SIZE, framework=Framework.of(transformers="5.23.0", torch="2.13.0"))
"""The full size under the releases whose operators are counted by hand here."""
FLOAT32 = replace(BY_HAND, dtype="float32")
EAGER = replace(BY_HAND, attention="eager", experts="batched_mm")
CPU = replace(BY_HAND, device="cpu")
PORTRAIT, LANDSCAPE = (VisionWorkload(base_size=256, image_size=192, grid=CropGrid.parse(grid)) for grid in ("1x2", "2x1"))
KERNELS = list(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm")))
RUNS = st.builds(
    Execution,
    device=st.sampled_from(["meta", "cpu", "cuda"]),
    attention=st.sampled_from(["sdpa", "eager"]),
    experts=st.sampled_from(["grouped_mm", "batched_mm"]),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
)


def shape(*, new: int, past: int = 0, batch: int = 1) -> DecoderShape:
    return DecoderShape(batch=batch, new_tokens=new, past_tokens=past)


def attention(run: Execution, **sizes: int) -> int:
    return LlamaFlashAttention2(spec=TEXT, shape=shape(**sizes), run=run).forward_cost().launches


def test_rms_norm_by_hand() -> None:
    # square, mean, epsilon, rsqrt, scale, weight; in bfloat16 a cast to float32 and one back
    for run, launches in ((BY_HAND, 8), (FLOAT32, 6)):
        assert DeepseekV2RMSNorm(width=1280, tokens=10, run=run).forward_cost().launches == launches


def test_feed_forward_by_hand() -> None:
    # dense: three linears, silu, product
    dense = DeepseekV2MLP(width=1280, hidden=1792, tokens=10, run=BY_HAND)
    assert dense.forward_cost().launches == 5
    # router: a linear, softmax, top K, scaling, and x and table cast
    assert MoEGate(spec=TEXT, tokens=10, run=BY_HAND).forward_cost().launches == 6
    assert MoEGate(spec=TEXT, tokens=10, run=FLOAT32).forward_cost().launches == 4
    # grouped: 9 to sort by expert, two products, silu, product, a gather back, weights, sum, cast
    grouped = 9 + 2 + 2 + 1 + 3
    assert RoutedExperts(spec=TEXT, tokens=10, run=BY_HAND).forward_cost().launches == grouped
    # batched: tokens repeated, two tables gathered, two products, silu, product, weights, sum, cast
    assert RoutedExperts(spec=TEXT, tokens=10, run=EAGER).forward_cost().launches == 3 + 2 + 2 + 3
    # the shared experts' sum on top
    mixture = DeepseekV2MoE(spec=TEXT, shared=dense, tokens=10, run=BY_HAND)
    assert mixture.forward_cost().launches == 6 + grouped + 5 + 1


def test_attention_by_hand() -> None:
    # four linears, two rotations (two products, negation, join, sum), the cache's two joins
    around = 4 + 2 * 5 + 2
    # SDPA decomposed: two products, q and k scaled, softmax, five casts; with several tokens a mask of five operators, its
    # sum, and the output's copy; in a batch q is copied too
    assert attention(BY_HAND, new=1, past=9) == around + 2 + 2 + 1 + 5
    assert attention(BY_HAND, new=10) == around + 2 + 2 + 1 + 5 + 5 + 1 + 1
    assert attention(BY_HAND, new=10, batch=3) == attention(BY_HAND, new=10) + 1
    assert attention(BY_HAND, new=1, past=9, batch=3) == attention(BY_HAND, new=1, past=9)
    # transformers' own: scores scaled, mask added, softmax, two casts; one kernel on a CPU
    assert attention(EAGER, new=1, past=9) == around + 2 + 1 + 1 + 1 + 2
    assert attention(CPU, new=10) == attention(CPU, new=1, batch=3) == around + 1


def test_a_decoded_token_by_hand() -> None:
    norm, attended = 8, 26
    dense, sparse = (
        DeepseekV2DecoderLayer(spec=TEXT, shape=shape(new=1, past=9), sparse=sparse, run=BY_HAND).forward_cost().launches
        for sparse in (False, True)
    )
    assert (dense, sparse) == (2 + 2 * norm + attended + 5, 2 + 2 * norm + attended + 29)
    # one lookup, 23 for masks, 9 for angles, 12 layers, the last norm, the head
    token = Decoder(spec=TEXT, shape=shape(new=1, past=9), logits="last", run=BY_HAND).forward_cost()
    assert token.launches == 1 + 23 + 9 + dense + 11 * sparse + norm + 1 == 894


def test_vision_blocks_by_hand() -> None:
    # CLIP: two norms, two sums, four projections, two linears around three operators; two products, q and k scaled,
    # softmax, five casts, the output's copy; with several views q, k and v are copied
    block = NoTPTransformerBlock(spec=CLIP, views=1, tokens=257, run=BY_HAND)
    assert block.forward_cost().launches == 2 + 2 + 4 + 5 + 2 + 2 + 1 + 5 + 1
    assert replace(block, views=2).forward_cost().launches == block.forward_cost().launches + 3
    # SAM: qkv and out, products for each axis, 8 for each axis' distances and their sum, two gathers, four copies; then two
    # products, q and k scaled, bias, softmax, five casts
    inner = 2 + 2 + 2 * 8 + 1 + 2 + 4 + 2 + 2 + 1 + 1 + 5
    assert SamAttention(spec=SAM, groups=1, side=64, windowed=False, run=BY_HAND).forward_cost().launches == inner
    # its block: two norms, two sums, two linears and gelu; windows: padding, splitting, joining, cropping
    wide, windowed = (SamBlock(spec=SAM, views=1, grid=64, windowed=windowed, run=BY_HAND) for windowed in (False, True))
    assert wide.forward_cost().launches == inner + 2 + 2 + 3
    assert windowed.forward_cost().launches == inner + 2 + 2 + 3 + 4
    # 14 x 14 patches are one window, 28 x 28 fit: no splitting and joining, no cropping
    assert replace(windowed, grid=14).forward_cost().launches == inner + 2 + 2 + 3 + 1
    assert replace(windowed, grid=28).forward_cost().launches == inner + 2 + 2 + 3 + 3


def test_positions_are_resized_only_where_they_do_not_fit() -> None:
    # two casts and the interpolation of SAM's table
    fitting, other = (ImageEncoderViT(spec=SAM, views=1, side_px=side, run=BY_HAND) for side in (1024, 640))
    assert other.forward_cost().launches == fitting.forward_cost().launches + 3


@pytest.mark.parametrize(("page", "copies"), [(MODES["base"], 2), (PORTRAIT, 3), (LANDSCAPE, 4)])
def test_tokens_are_put_together_page_by_page(page: VisionWorkload, copies: int) -> None:
    stack = VisionStack(spec=SPEC, workload=page, batch=3, run=FULL_SIZE)
    assert [op.launches for op in stack.tree("model").ops] == [3 * copies]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
@pytest.mark.parametrize(("device", "dtype"), [("meta", "bfloat16"), ("cpu", "float32")])
def test_every_module_launches_what_the_ledger_counts(
    subject_on: Callable, device: str, dtype: str, attention: str, experts: str, batch_size: int
) -> None:
    subject = subject_on(device, attention, experts, "tiny", dtype)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    for page in (PORTRAIT, LANDSCAPE):
        measured = stages.vision(subject, page, batch_size=batch_size)
        root.start_vision(workload=page, batch_size=batch_size)
        check(root, measured, subject)
    for seq_len in (1, 2, 16, 17):
        measured, cache = stages.prefill(subject, TokenLayout.of(seq_len, None), batch_size=batch_size)
        root.start_prefill(seq_len, batch_size)
        check(root, measured, subject)
        root.start_decode()
        for step in stages.decode(subject, cache, batch_size=batch_size, steps=1):
            check(root, step, subject)
            root.decode_one_token()


def check(root: DeepseekOCRModel, measured: stages.Measured, subject: stages.ModelUnderTest) -> None:
    agreed = compare(root.tree(), ledger=measured.ledger, run=subject.run)
    assert agreed.differences() == ()
    ran = sum(entry.launches for entry in measured.ledger.entries.values())
    assert root.forward_cost().launches == agreed.total("measured", "launches") == ran


def test_an_operator_that_moves_nothing_is_found(subject_on: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm", "tiny")
    norm, nothing = subject.model.model.language_model.norm, torch.empty(0, device="meta")
    run = norm.forward

    def and_a_copy_of_nothing(x: torch.Tensor) -> torch.Tensor:
        nothing.clone()
        return run(x)

    monkeypatch.setattr(norm, "forward", and_a_copy_of_nothing)
    measured, _ = stages.prefill(subject, TokenLayout.of(8, None), batch_size=1)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_prefill(8, 1)
    (found,) = compare(root.tree(), ledger=measured.ledger, run=subject.run).differences()
    assert found.quantity == Quantity(call="", path="model.language_model.norm", group="other", name="launches")
    assert (found.closed_form, found.measured) == (8, 9)


@given(run=RUNS, length=st.integers(2, 5000), more=st.integers(1, 500), batch=st.integers(2, 6), fewer=st.integers(2, 6))
@settings(max_examples=40)
def test_a_prefill_launches_the_same_at_any_length_and_batch(
    run: Execution, length: int, more: int, batch: int, fewer: int
) -> None:
    decoder = Decoder(spec=TEXT, shape=shape(new=length, batch=batch), logits="all", run=run)
    launches = decoder.forward_cost().launches
    assert replace(decoder, shape=shape(new=length + more, batch=fewer)).forward_cost().launches == launches
    # a batch copies the queries of every layer, but for one fused kernel
    alone = replace(decoder, shape=shape(new=length), logits="last").forward_cost().launches
    assert launches - alone == (0 if run.attention_kernel == "fused" else TEXT.num_layers)


@given(run=RUNS, past=st.integers(0, 5000), batch=st.integers(1, 6))
@settings(max_examples=40)
def test_every_decoded_token_launches_the_same(run: Execution, past: int, batch: int) -> None:
    decoder = Decoder(spec=TEXT, shape=shape(new=1, past=past, batch=batch), logits="last", run=run)
    first = replace(decoder, shape=shape(new=1)).forward_cost().launches
    assert decoder.forward_cost().launches == first


@given(run=RUNS, grid=st.sampled_from(ALL_GRIDS), batch=st.integers(2, 6))
@settings(max_examples=20)
def test_a_batch_of_pages_launches_more_only_to_put_them_together(run: Execution, grid: CropGrid, batch: int) -> None:
    two, many = (VisionStack(spec=SPEC, workload=gundam(grid), batch=pages, run=run).tree("model") for pages in (2, batch))
    assembly = 3 + (grid.columns > 1)
    assert many.total().launches - two.total().launches == (batch - 2) * assembly
