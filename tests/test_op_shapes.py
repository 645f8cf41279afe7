"""Every operator says its rate class and its dimensions: they agree with its FLOPs, whatever is run and wherever."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analytic.core.attention import AttentionShape
from analytic.core.cost import CostNode
from analytic.core.execution import Execution, Experts
from analytic.core.op import Count, Op, OpKind
from analytic.core.ops import broadcast_sum, conv2d, linear, matmul
from analytic.core.shape import Broadcast, Convolution, Product
from analytic.core.shape_class import ShapeClass
from analytic.framework import Framework
from analytic.io import stored
from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaFlashAttention2
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.moe import MoEGate, RoutedExperts
from analytic.models.deepseek_ocr.sam_attention import SamAttention
from analytic.models.deepseek_ocr.vision import VisionStack
from analytic.models.deepseek_ocr.workload import MODES, VisionWorkload, gundam
from analytic.models.spec import ModelSpec
from analytic.prediction import rates as stored_rates
from analytic.prediction.predict import PRODUCTS, SHAPED

FULL, TINY = (ModelSpec.from_preset(name) for name in ("deepseek-ocr-v1-base", "tiny"))
CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
RATES = stored_rates.read(stored.ROOT / "baselines/xeon-2-threads/rates.json")
PROFILES = st.sampled_from([Framework.of(transformers=line, torch="2.13.0") for line in ("5.20.2", "5.23.0", "5.24.0")])
PRODUCT_KINDS = (OpKind.MATMUL, OpKind.CONVOLUTION, OpKind.ATTENTION)


@st.composite
def runs(draw: st.DrawFn) -> Execution:
    device, experts = (
        draw(st.sampled_from(["meta", "cpu", "cuda"])),
        draw(st.sampled_from(["grouped_mm", "batched_mm", "eager"])),
    )
    assume((device, experts) != ("meta", "eager"))
    return Execution(
        device=device,
        attention=draw(st.sampled_from(["sdpa", "eager"])),
        experts=experts,
        dtype=draw(st.sampled_from(["bfloat16", "float16", "float32"])),
        framework=draw(PROFILES),
    )


def operators(tree: CostNode) -> Iterator[Op]:
    """Those of every module, each copy once."""
    yield from tree.ops
    for child in tree.children:
        yield from operators(child)


def check(tree: CostNode) -> None:
    for op in operators(tree):
        check_one(op)


def check_one(op: Op) -> None:
    assert op.rate_class in RATES.classes
    # a class whose rate is over dimensions has them, and only products have FLOPs
    assert bool(op.shapes) == (op.rate_class in PRODUCTS | SHAPED)
    assert (op.kind in PRODUCT_KINDS) == (op.rate_class in (PRODUCTS | SHAPED) - {ShapeClass.BROADCAST})
    flops, written = 0, 0
    for shape in op.shapes:
        assert shape.work > 0
        if isinstance(shape, Product):
            flops += 2 * prod(shape)
            assert (shape.size, shape.second_size) == (
                shape.sum_length,
                0 if isinstance(shape, Convolution) else shape.rows,
            )
        elif isinstance(shape, AttentionShape):
            flops += 2 * shape.groups * shape.queries * shape.keys * shape.head_dim * 2
            assert (shape.size, shape.second_size) == (shape.keys, shape.head_dim)
        else:
            assert isinstance(shape, Broadcast)
            written += shape.outer * shape.side**2 * shape.b
            assert (shape.size, shape.second_size) == (written, shape.side)
    assert op.executed_flops == flops
    assert written in (0, op.written_bytes)
    if op.kind in PRODUCT_KINDS:
        assert sum(shape.work for shape in op.shapes) == flops


@given(
    run=runs(),
    spec=st.sampled_from([FULL, TINY]),
    new=st.integers(1, 5000),
    past=st.integers(0, 5000),
    batch=st.integers(1, 4),
)
@settings(max_examples=60)
def test_shapes_of_the_decoder_give_its_flops(run: Execution, spec: ModelSpec, new: int, past: int, batch: int) -> None:
    shape = DecoderShape(batch=batch, new_tokens=new, past_tokens=past)
    check(Decoder(spec=spec.text, shape=shape, logits="all", run=run).tree(""))
    static = replace(shape, capacity=past + new)
    check(Decoder(spec=spec.text, shape=static, logits="last", run=run).tree(""))


@given(
    run=runs(),
    spec=st.sampled_from([FULL, TINY]),
    page=st.sampled_from([*MODES.values(), *(gundam(grid) for grid in ALL_GRIDS)]),
    batch=st.integers(1, 3),
)
@settings(max_examples=30)
def test_shapes_of_vision_give_its_flops(run: Execution, spec: ModelSpec, page: VisionWorkload, batch: int) -> None:
    check(VisionStack(spec=spec, workload=page, batch=batch, run=run).tree(""))


@given(sizes=st.tuples(*[st.integers(1, 3000)] * 4), bias=st.booleans(), kernel=st.integers(1, 16))
def test_shapes_of_formulas_give_their_flops(sizes: tuple[int, int, int, int], bias: bool, kernel: int) -> None:
    batch, m, k, n = sizes
    check_one(linear(tokens=m, width_in=k, width_out=n, bias=bias, b=2))
    check_one(matmul(batch=batch, m=m, k=k, n=n, b=2))
    check_one(
        conv2d(batch=batch, channels_in=k, channels_out=n, side_in=kernel * m, side_out=m, kernel=kernel, bias=bias, b=2)
    )


def test_shapes_hold_arrays() -> None:
    tokens = np.array([1, 7, 64])
    (op,) = (op for op in MoEGate(spec=FULL.text, tokens=tokens, run=CPU).tree("gate").ops if op.shapes)
    assert (op.shapes[0].work == op.executed_flops).all()
    assert (op.shapes[0].second_size == tokens).all()


@pytest.mark.parametrize("transformers", ["5.23.0", "5.24.0"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_routers_sums_are_as_long_as_the_model_is_wide(transformers: str, dtype: str) -> None:
    run = replace(CPU, dtype=dtype, framework=Framework.of(transformers=transformers, torch="2.13.0"))
    product, routed = MoEGate(spec=TINY.text, tokens=64, run=run).tree("gate").ops
    assert TINY.text.hidden_size == 64
    assert product.shapes == (Product(rows=64, sum_length=64, columns=8),)
    assert (product.shapes[0].size, product.shapes[0].second_size) == (64, 64)
    assert (product.rate_class, routed.rate_class) == (ShapeClass.PRODUCT, ShapeClass.GATE)


@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm", "eager"])
def test_rows_of_experts_are_those_of_all_of_them(experts: Experts) -> None:
    # 10 tokens to 6 experts each; gate and up in one, then down
    tree = RoutedExperts(spec=FULL.text, tokens=10, run=replace(CPU, experts=experts)).tree("experts")
    (products,) = (op for op in tree.ops if op.shapes)
    assert products.rate_class is ShapeClass.GROUPED
    assert products.shapes == (Product(60, 1280, 2 * 896), Product(60, 896, 1280))


def test_rows_of_batched_products_are_those_of_one() -> None:
    # 5 windows of 14 x 14, 12 heads of 64: for each of 14 places on an axis, 5 * 12 * 14 rows against 14 distances
    ops = SamAttention(spec=FULL.sam, groups=5, side=14, windowed=True, run=replace(CPU, attention="eager")).tree("").ops
    relative, attended = (op.shapes for op in ops if op.kind is OpKind.MATMUL)
    assert relative == (Product(rows=840, sum_length=64, columns=14, groups=14),) * 2
    assert attended == (Product(196, 64, 196, groups=60), Product(196, 196, 64, groups=60))


@pytest.mark.parametrize(
    ("new", "past", "expected"),
    [
        (1, 9, ShapeClass.SINGLE_QUERY),
        (1, 0, ShapeClass.SINGLE_QUERY),
        (2, 9, ShapeClass.CAUSAL_ATTENTION),
        (40, 0, ShapeClass.CAUSAL_ATTENTION),
        (np.array([1, 2]), 9, ShapeClass.CAUSAL_ATTENTION),
    ],
)
def test_one_query_is_a_class_of_its_own_and_two_on_a_past_are_not(new: Count, past: int, expected: ShapeClass) -> None:
    shape = DecoderShape(batch=1, new_tokens=new, past_tokens=past)
    ops = LlamaFlashAttention2(spec=TINY.text, shape=shape, run=CPU).tree("").ops
    assert [op.rate_class for op in ops if op.kind is OpKind.ATTENTION] == [expected]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_scores_of_unfused_attention_are_no_rotation(dtype: str) -> None:
    # in bfloat16 scaling, mask, softmax and two casts are five operators, as a rotation is
    run = replace(CPU, attention="eager", dtype=dtype)
    shape = DecoderShape(batch=1, new_tokens=9, past_tokens=0)
    ops = LlamaFlashAttention2(spec=TINY.text, shape=shape, run=run).tree("").ops
    found = [op.rate_class for op in ops if op.kind is OpKind.POINTWISE]
    assert found == [ShapeClass.ROTARY, ShapeClass.ROTARY, ShapeClass.WRITE]


def test_only_a_cache_that_grows_is_joined() -> None:
    shape = DecoderShape(batch=1, new_tokens=1, past_tokens=9)
    for one, expected in ((shape, ShapeClass.JOIN), (replace(shape, capacity=16), ShapeClass.MOVEMENT)):
        ops = LlamaFlashAttention2(spec=TINY.text, shape=one, run=CPU).tree("").ops
        assert next(op for op in ops if op.kind is OpKind.MOVEMENT).rate_class is expected


def test_windows_that_do_not_overlap_are_patches_and_a_bias_makes_another_product() -> None:
    apart = conv2d(batch=1, channels_in=3, channels_out=8, side_in=64, side_out=4, kernel=16, bias=True, b=4)
    over = conv2d(batch=1, channels_in=8, channels_out=8, side_in=64, side_out=64, kernel=3, bias=False, b=4)
    assert (apart.rate_class, over.rate_class) == (ShapeClass.PATCHES, ShapeClass.CONVOLUTION)
    assert apart.shapes == (Convolution(rows=16, sum_length=3 * 16 * 16, columns=8),)
    classes = [linear(tokens=9, width_in=8, width_out=6, bias=bias, b=4).rate_class for bias in (False, True)]
    assert classes == [ShapeClass.PRODUCT, ShapeClass.BIASED_PRODUCT]


@pytest.mark.parametrize(("side", "expected"), [(7, ShapeClass.WRITE), (8, ShapeClass.BROADCAST)])
def test_a_broadcast_writes_four_times_what_it_reads(side: int, expected: ShapeClass) -> None:
    op = broadcast_sum(outer=3, side=side, b=2, live=0)
    assert op.rate_class is expected
    assert op.shapes == ((Broadcast(3, side, 2),) if expected is ShapeClass.BROADCAST else ())
