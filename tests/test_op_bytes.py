"""Bytes of each operator by hand: read, written, of weights, and alive at once; no two sizes are alike."""

import math
from dataclasses import replace
from typing import Literal

import pytest

from analytic.core import attention, ops
from analytic.core.attention import AttentionShape
from analytic.core.cost import relative_error
from analytic.core.execution import Attention, Device, Execution, Experts
from analytic.core.op import Op
from analytic.core.shape_class import ShapeClass
from tests.samples import BY_HAND


def running(
    device: Device = "meta", way: Attention = "sdpa", dtype: Literal["bfloat16", "float32"] = "bfloat16"
) -> Execution:
    return Execution(device=device, attention=way, experts="grouped_mm", dtype=dtype, framework=BY_HAND)


def moved(op: Op) -> tuple[object, ...]:
    """Bytes read, written, of weights, and alive."""
    return op.read_bytes, op.written_bytes, op.weight_bytes, op.live_bytes


# --- operators with a product


@pytest.mark.parametrize(("bias", "weights"), [(False, 3 * 5), (True, 4 * 5)])
def test_a_linear_layer_reads_its_input_and_weights(bias: bool, weights: int) -> None:
    op = ops.linear(tokens=7, width_in=3, width_out=5, bias=bias, b=2)
    assert moved(op) == (2 * (7 * 3 + weights), 2 * 7 * 5, 2 * weights, 2 * (7 * 3 + 7 * 5))
    assert op.executed_flops == op.useful_flops == 2 * 7 * 3 * 5
    cast = ops.linear(tokens=7, width_in=3, width_out=5, bias=bias, b=4, weight_b=0)
    assert moved(cast) == (4 * (7 * 3 + weights), 4 * 7 * 5, 0, 4 * (7 * 3 + 7 * 5))


def test_a_product_of_two_activations_has_no_weights() -> None:
    op = ops.matmul(batch=2, m=3, k=5, n=7, b=4)
    left, right, result = 4 * 2 * 3 * 5, 4 * 2 * 5 * 7, 4 * 2 * 3 * 7
    assert moved(op) == (left + right, result, 0, left + right + result)
    assert op.executed_flops == 2 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_reads_every_pixel_once(bias: bool) -> None:
    op = ops.conv2d(batch=2, channels_in=3, channels_out=5, side_in=12, side_out=6, kernel=4, bias=bias, b=2)
    pixels, results, weights = 2 * 2 * 12 * 12 * 3, 2 * 2 * 6 * 6 * 5, 2 * 5 * (3 * 4 * 4 + bias)
    assert moved(op) == (pixels + weights, results, weights, pixels + results)
    assert op.executed_flops == 2 * (2 * 6 * 6) * (3 * 4 * 4) * 5


def test_a_lookup_reads_an_index_and_a_row() -> None:
    op = ops.embedding(lookups=7, width=3, b=2)
    assert moved(op) == (7 * 3 * 2 + 7 * 8, 7 * 3 * 2, 7 * 3 * 2, 7 * 3 * 2 + 7 * 8)
    assert op.executed_flops == 0


# --- pointwise operators


def test_sums_read_two_tensors_and_keep_three() -> None:
    op = ops.add(elements=7, b=2, times=3)
    assert moved(op) == (3 * 2 * 7 * 2, 3 * 7 * 2, 0, 3 * 7 * 2)
    assert (op.launches, op.cuda_core_flops) == (3, 21)
    spread = ops.broadcast_sum(outer=3, side=5, b=2, live=11)
    assert moved(spread) == (2 * 3 * 5 * 2, 3 * 5 * 5 * 2, 0, 11)
    assert spread.cuda_core_flops == 3 * 5 * 5


@pytest.mark.parametrize(
    ("device", "dtype", "b", "statistic"),
    [("meta", "bfloat16", 2, 4), ("cuda", "bfloat16", 2, 4), ("cpu", "bfloat16", 2, 2), ("cpu", "float32", 4, 4)],
)
def test_a_layer_norm_writes_two_statistics_a_row(
    device: Device, dtype: Literal["bfloat16", "float32"], b: int, statistic: int
) -> None:
    op = ops.layer_norm(rows=7, width=3, run=running(device, dtype=dtype))
    assert moved(op) == (b * (7 * 3 + 2 * 3), b * 7 * 3 + 7 * 2 * statistic, b * 2 * 3, b * 2 * 7 * 3)
    assert op.cuda_core_flops == 8 * 7 * 3


def test_an_rms_norm_computes_in_float32() -> None:
    # an element: cast 2 -> 4, square 4 -> 4, mean 4, scale 4 -> 4, cast 4 -> 2, weight 2 -> 2; a row: mean, epsilon, root
    half = ops.rms_norm(rows=7, width=3, run=running())
    assert moved(half) == (
        21 * (2 + 4 + 4 + 4 + 4 + 2) + 7 * (4 + 4 + 4) + 3 * 2,
        21 * (4 + 4 + 4 + 2 + 2) + 7 * (4 + 4 + 4),
        3 * 2,
        21 * (4 + 4 + 2),
    )
    single = ops.rms_norm(rows=7, width=3, run=running("cpu", dtype="float32"))  # without the two casts
    assert moved(single) == (21 * 4 * 4 + 7 * 12 + 3 * 4, 21 * 3 * 4 + 7 * 12, 3 * 4, 21 * 3 * 4)
    assert (half.launches, single.launches) == (8, 6)
    assert half.cuda_core_flops == single.cuda_core_flops == 4 * 21 + 2 * 7


def test_activations_read_and_write_every_element() -> None:
    gelu, quick, product = (
        ops.activation(elements=7, name="gelu", b=2),
        ops.quick_gelu(elements=7, b=2),
        ops.swiglu_product(elements=7, b=2),
    )
    assert moved(gelu) == (14, 14, 0, 28)
    assert moved(quick) == (4 * 14, 3 * 14, 0, 3 * 14)  # scale, sigmoid, product of two
    assert moved(product) == (28, 14, 0, 42)
    assert [op.cuda_core_flops for op in (gelu, quick, product)] == [7 * 5, 7 * (1 + 4 + 1), 7]
    assert [op.launches for op in (gelu, quick, product)] == [1, 3, 1]


# --- attention: 2 heads, 3 queries on 5 keys of 4 features

SHAPE = AttentionShape(groups=2, queries=3, keys=5, head_dim=4, useful_pairs=12)
Q, K, SCORES = 2 * 3 * 4, 2 * 5 * 4, 2 * 3 * 5


@pytest.mark.parametrize(
    ("run", "live"),
    [
        (running("cpu"), Q * 2),  # one kernel: the output
        (running("meta"), SCORES * (4 + 4) + (Q + 3 * K) * 4),  # float32: two scores; Q, K, V and a scaled K
        (running("meta", dtype="float32"), SCORES * (4 + 4) + (Q + K) * 4),  # without the casts: scaled Q and K
        (running("meta", "eager"), SCORES * (2 + 4 + 4)),  # scores, their cast, the softmax
        (running("meta", "eager", "float32"), SCORES * (4 + 4)),
    ],
)
def test_what_an_attention_keeps_alive(run: Execution, live: int) -> None:
    assert attention.alive(SHAPE, run) == live
    op = attention.products(SHAPE, run, fused=ops.ShapeClass.CAUSAL_ATTENTION, bias_bytes=100, sources_bytes=1_000)
    assert op.live_bytes == live + 1_100
    assert (op.executed_flops, op.useful_flops) == (4 * SCORES * 4, 4 * 2 * 12 * 4)


@pytest.mark.parametrize(
    ("run", "read", "written"),
    [
        (running("cpu"), (Q + 2 * K) * 2 + 100, Q * 2 + 6 * 4),  # reads the bias; writes a float32 a row
        (running("cuda"), (Q + 2 * K) * 2 + 100, Q * 2),
        (running("meta"), (Q + 2 * K + SCORES) * 4, (Q + SCORES) * 4),
        (running("meta", "eager"), (Q + 2 * K + SCORES) * 2, (Q + SCORES) * 2),
    ],
)
def test_what_the_products_of_attention_move(run: Execution, read: int, written: int) -> None:
    op = attention.products(SHAPE, run, fused=ops.ShapeClass.CAUSAL_ATTENTION, bias_bytes=100)
    assert (op.read_bytes, op.written_bytes, op.weight_bytes) == (read, written, 0)


@pytest.mark.parametrize(
    ("run", "launches", "read", "written"),
    [
        (running("cpu"), 0, 0, 0),
        # casts of Q, K, V, of the weights and of the output; scaled Q and K; bias; softmax: 3 + 1 + 5 operators
        (
            running("meta"),
            9,
            (Q + 2 * K) * 2 + (Q + K) * 4 + SCORES * (4 + 4 + 4) + 100 + Q * 4,
            (Q + 2 * K) * 4 + (Q + K) * 4 + SCORES * (4 + 4 + 2) + Q * 2,
        ),
        (running("meta", dtype="float32"), 4, (Q + K) * 4 + SCORES * 8 + 100, (Q + K) * 4 + SCORES * 8),
        # scaled scores, bias, cast, softmax, cast back
        (running("meta", "eager"), 5, SCORES * (2 + 2 + 2 + 4 + 4) + 100, SCORES * (2 + 2 + 4 + 4 + 2)),
        (running("meta", "eager", "float32"), 3, SCORES * 12 + 100, SCORES * 12),
    ],
)
def test_what_the_softmax_and_all_around_it_move(run: Execution, launches: int, read: int, written: int) -> None:
    op = attention.softmax_chain(SHAPE, run, biased=1, bias_reads=100)
    assert (op.launches, *moved(op)) == (launches, read, written, 0, 0)


@pytest.mark.parametrize(
    ("device", "way", "counts", "seen"),
    [
        ("meta", "sdpa", False, True),  # decomposed into two products
        ("cpu", "sdpa", False, False),  # one kernel without a formula, in a release that has none for it
        ("cpu", "sdpa", True, True),
        ("cpu", "eager", False, True),
        ("cuda", "sdpa", False, True),
    ],
)
def test_which_attention_the_counter_sees(device: Device, way: Attention, counts: bool, seen: bool) -> None:
    torch = replace(BY_HAND.profile.torch, counts_cpu_attention=counts)
    run = running(device, way)
    told = replace(run, framework=replace(BY_HAND, profile=replace(BY_HAND.profile, torch=torch)))
    assert told.counter_sees_attention is seen
    op = attention.products(SHAPE, told, fused=ops.ShapeClass.CAUSAL_ATTENTION)
    assert op.counter_flops == (op.executed_flops if seen else 0)


@pytest.mark.parametrize(("experts", "counts", "seen"), [("grouped_mm", False, False), ("grouped_mm", True, True)])
def test_which_experts_the_counter_sees(experts: Experts, counts: bool, seen: bool) -> None:
    torch = replace(BY_HAND.profile.torch, counts_grouped_mm=counts)
    run = replace(running(), experts=experts, framework=replace(BY_HAND, profile=replace(BY_HAND.profile, torch=torch)))
    assert run.counter_sees_experts is seen
    assert replace(run, experts="batched_mm").counter_sees_experts


def test_scaled_queries_are_moved_in_place_of_scaled_scores() -> None:
    op = attention.softmax_chain(SHAPE, running("meta", "eager"), scales_queries=True)
    assert (op.launches, *moved(op)) == (4, Q * 2 + SCORES * (2 + 4 + 4), Q * 2 + SCORES * (4 + 4 + 2), 0, 0)
    assert op.cuda_core_flops == Q + SCORES * 5


def test_a_rotation_keeps_four_tensors() -> None:
    # two products with cos and sin, a negation of half, a concatenation and a sum
    op = attention.rotary(elements=24, angles=6, b=2)
    assert moved(op) == (2 * (24 * 5 + 12 + 2 * 6), 2 * (24 * 4 + 12), 0, 2 * 24 * 4)
    assert (op.launches, op.cuda_core_flops) == (5, 24 * 3 + 12)


@pytest.mark.parametrize(
    ("run", "queries", "copied"),
    [(running("meta"), 3, Q * 2), (running("meta"), 1, 0), (running("meta", "eager"), 3, Q * 2), (running("cpu"), 3, 0)],
)
def test_the_output_of_several_queries_is_copied_unless_one_kernel_writes_it(
    run: Execution, queries: int, copied: int
) -> None:
    op = attention.head_copies(replace(SHAPE, queries=queries), run)
    assert (op.launches, *moved(op)) == (int(copied > 0), copied, copied, 0, 0)


@pytest.mark.parametrize(
    ("run", "copied"), [(running("meta"), 7 * 3 * 4), (running("meta", "eager"), 7 * 3 * 2), (running("cpu"), 0)]
)
def test_operands_are_copied_in_the_dtype_of_the_product(run: Execution, copied: int) -> None:
    op = attention.operand_copies(7, run, tensors=3)
    assert (op.launches, *moved(op)) == (3 if copied else 0, copied, copied, 0, 0)
    assert attention.operand_copies(7, run, tensors=0).launches == 0


# --- gradients and errors


def test_gradients_are_two_products_for_one_and_five_for_the_two_of_a_fused_attention() -> None:
    product = ops.linear(tokens=3, width_in=5, width_out=7, bias=False, b=2)
    assert (product.backward_flops, product.backward_bytes) == (2 * 2 * 3 * 5 * 7, 2 * 2 * (3 * 5 + 5 * 7 + 3 * 7))
    shape = AttentionShape(groups=2, queries=4, keys=6, head_dim=8, useful_pairs=24)
    fused = attention.products(shape, running("cuda"), fused=ShapeClass.ATTENTION)
    assert fused.backward_flops == 5 * fused.executed_flops // 2 == 5 * 2 * (2 * 4 * 6 * 8)
    assert fused.backward_bytes == 5 * fused.eager_bytes // 2 > 0


def test_an_error_is_relative_to_what_was_measured_and_infinite_where_that_is_nothing() -> None:
    assert [relative_error(*pair) for pair in ((3, 2), (1, 2), (2, 2), (0, 0), (1, 0))] == [0.5, 0.5, 0, 0, math.inf]
