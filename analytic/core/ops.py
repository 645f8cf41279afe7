"""One short formula per operator.

Dimension key, used in every formula of the package:

    B batch        S sequence (new tokens)   T tokens, B * S     P past tokens in the cache
    D model width  F feed-forward width      H heads             d head width
    E experts      K experts per token       V vocabulary        b bytes per element

Launches are the operators that torch dispatches, excluding views and allocations. FLOPs follow torch.utils.flop_counter
(a product of m x k and k x n is 2mkn); bytes are the operands and results of each operator.
"""

from __future__ import annotations

from typing import Final

from analytic.core.execution import Execution
from analytic.core.op import Count, Op, OpKind, Shape
from analytic.core.shape import Broadcast, Convolution, Product
from analytic.core.shape_class import ShapeClass

FLOPS_PER_ELEMENT: Final = {
    "add": 1,
    "softmax": 5,  # max, subtract, exp, sum, divide
    "layer_norm": 8,  # mean, subtract, square, variance, scale, weight, bias, root
    "gelu": 5,  # divide, erf, add, two products
    "silu": 4,  # negate, exp, add, divide
    "sigmoid": 4,
    "linear_interpolation": 3,  # two products, one sum
    "bicubic_interpolation": 32,  # 4 x 4 taps, a product and a sum each
}
"""FLOPs per element of pointwise arithmetic; an elementary function counts as one. The ledger uses the same table."""

BROADCAST_LEAST: Final = 4
"""Least bytes written per byte read for a pointwise operator to be classed as a broadcast."""
BOTH_GRADIENTS: Final = (2, 1)
WEIGHT_GRADIENT: Final = (1, 1)
FUSED_ATTENTION_GRADIENTS: Final = (5, 2)  # five products against the forward's two: the scores are recomputed


def product(
    *,
    kind: OpKind,
    rate_class: ShapeClass,
    shapes: tuple[Shape, ...],
    launches: Count,
    flops: Count,
    read: Count,
    written: Count,
    weight: Count,
    live: Count,
    useful: Count | None = None,
    counted: bool = True,
    untouched: Count = 0,
    backward_ratio: tuple[int, int] = BOTH_GRADIENTS,
) -> Op:
    """`launches` multiply-add operators: `flops` on tensor cores, bytes as given; `useful` defaults to `flops`."""
    return Op(
        kind=kind,
        rate_class=rate_class,
        shapes=shapes,
        launches=launches,
        executed_flops=flops,
        useful_flops=flops if useful is None else useful,
        counter_flops=flops if counted else 0,
        cuda_core_flops=0,
        read_bytes=read,
        written_bytes=written,
        weight_bytes=weight,
        untouched_bytes=untouched,
        live_bytes=live,
        backward_ratio=backward_ratio,
    )


def linear(*, tokens: Count, width_in: int, width_out: int, bias: bool, b: int, weight_b: int | None = None) -> Op:
    """y = x W^T (+ c): 2 T Din Dout FLOPs. x (T, Din), W (Dout, Din), y (T, Dout).

    `weight_b`: parameter bytes per weight element; 0 if the weight read is a cast copy.
    """
    weights = (width_in + bias) * width_out
    x, y = tokens * (width_in * b), tokens * (width_out * b)
    return product(
        kind=OpKind.MATMUL,
        rate_class=ShapeClass.BIASED_PRODUCT if bias else ShapeClass.PRODUCT,
        shapes=(Product(tokens, width_in, width_out),),
        launches=1,
        flops=tokens * (2 * width_in * width_out),
        read=x + weights * b,
        written=y,
        weight=weights * (b if weight_b is None else weight_b),
        live=x + y,
    )


def matmul(*, batch: Count, m: Count, k: Count, n: Count, b: int) -> Op:
    """C = A B for `batch` pairs: 2 batch m k n FLOPs. A (m, k), B (k, n), C (m, n); no parameters."""
    left, right, result = batch * m * k * b, batch * k * n * b, batch * m * n * b
    return product(
        kind=OpKind.MATMUL,
        rate_class=ShapeClass.PRODUCT,
        shapes=(Product(m, k, n, batch),),
        launches=1,
        flops=batch * m * k * n * 2,
        read=left + right,
        written=result,
        weight=0,
        live=left + right + result,
    )


def conv2d(
    *,
    batch: Count,
    channels_in: int,
    channels_out: int,
    side_in: int,
    side_out: int,
    kernel: int,
    bias: bool,
    b: int,
    first: bool = False,
) -> Op:
    """Square 2-D convolution: 2 B Cin Cout k^2 out^2 FLOPs; padding is counted like any pixel, as torch does.

    `first`: the input is the image, which needs no gradient.
    """
    x = batch * side_in * side_in * (channels_in * b)
    positions, window = batch * side_out * side_out, channels_in * kernel * kernel
    y = positions * (channels_out * b)
    weights = (window + bias) * channels_out * b
    return product(
        kind=OpKind.CONVOLUTION,
        # non-overlapping windows read every pixel once
        rate_class=ShapeClass.PATCHES if side_out * kernel <= side_in else ShapeClass.CONVOLUTION,
        shapes=(Convolution(positions, window, channels_out),),
        launches=1,
        flops=positions * (2 * window * channels_out),
        read=x + weights,
        written=y,
        weight=weights,
        live=x + y,
        backward_ratio=WEIGHT_GRADIENT if first else BOTH_GRADIENTS,
    )


def embedding(*, lookups: Count, width: int, b: int) -> Op:
    """Table lookup: no FLOPs; reads one int64 index and one row per lookup, writes the row."""
    rows = lookups * (width * b)
    return product(
        kind=OpKind.EMBEDDING,
        rate_class=ShapeClass.MOVEMENT,
        shapes=(),
        launches=1,
        flops=0,
        read=rows + lookups * 8,
        written=rows,
        weight=rows,
        live=rows + lookups * 8,
        backward_ratio=WEIGHT_GRADIENT,
    )


def pointwise(
    *,
    launches: Count,
    flops: Count,
    read: Count,
    written: Count,
    live: Count,
    weight: Count = 0,
    rate_class: ShapeClass = ShapeClass.WRITE,
    shapes: tuple[Shape, ...] = (),
) -> Op:
    """`launches` pointwise operators and reductions: FLOPs on CUDA cores, bytes read and written."""
    return Op(
        kind=OpKind.POINTWISE,
        rate_class=rate_class,
        shapes=shapes,
        launches=launches,
        executed_flops=0,
        useful_flops=0,
        counter_flops=0,
        cuda_core_flops=flops,
        read_bytes=read,
        written_bytes=written,
        weight_bytes=weight,
        untouched_bytes=0,
        live_bytes=live,
        backward_ratio=BOTH_GRADIENTS,
    )


def movement(
    *,
    launches: Count,
    read: Count,
    written: Count,
    weight: Count = 0,
    live: Count = 0,
    rate_class: ShapeClass = ShapeClass.MOVEMENT,
    waits: Count = 0,
) -> Op:
    """Copies, concatenations, padding and gathers: bytes and no FLOPs.

    `live`: bytes of live activations; 0 if another operator of the module keeps more alive. `waits`: see `Op`.
    """
    return Op(
        kind=OpKind.MOVEMENT,
        rate_class=rate_class,
        shapes=(),
        launches=launches,
        executed_flops=0,
        useful_flops=0,
        counter_flops=0,
        cuda_core_flops=0,
        read_bytes=read,
        written_bytes=written,
        weight_bytes=weight,
        untouched_bytes=0,
        live_bytes=live,
        backward_ratio=WEIGHT_GRADIENT,
        waits=waits,
    )


def add(*, elements: Count, b: int, times: int = 1) -> Op:
    """`times` residual sums of two tensors of `elements` each."""
    moved = elements * (b * times)
    return pointwise(launches=times, flops=elements * times, read=moved * 2, written=moved, live=elements * (3 * b))


def broadcast_sum(*, outer: Count, side: int, b: int, live: Count) -> Op:
    """Sum of (outer, side, 1) and (outer, 1, side) to (outer, side, side); `live`: bytes of live activations."""
    operand, elements = outer * (side * b), outer * (side * side)
    spread = side >= 2 * BROADCAST_LEAST  # it writes side / 2 bytes per byte read
    return pointwise(
        launches=1,
        flops=elements,
        read=operand * 2,
        written=elements * b,
        live=live,
        rate_class=ShapeClass.BROADCAST if spread else ShapeClass.WRITE,
        shapes=(Broadcast(outer, side, b),) if spread else (),
    )


def layer_norm(*, rows: Count, width: int, run: Execution) -> Op:
    """torch's single-kernel layer norm of `rows` x `width`; also writes mean and inverse standard deviation.

    These two are float32; on a CPU they have the dtype given by torch's profile.
    """
    b = run.dtype_bytes
    statistic = run.bytes_in(run.torch.cpu_statistics_dtype) if run.device == "cpu" else 4
    x, affine = rows * (width * b), 2 * width * b
    return pointwise(
        launches=1,
        flops=rows * (width * FLOPS_PER_ELEMENT["layer_norm"]),
        read=x + affine,
        written=x + rows * (2 * statistic),
        live=x * 2,
        weight=affine,
        rate_class=ShapeClass.LAYER_NORM,
    )


def rms_norm(*, rows: Count, width: int, run: Execution) -> Op:
    """RMSNorm as transformers runs it: cast, square, mean, epsilon, rsqrt, scale, cast back, weight."""
    b, dtype = run.dtype_bytes, run.transformers.norm_dtype
    c, casts = run.bytes_in(dtype), run.casts(dtype)
    cast_in, cast_out = b * casts, c * casts
    x = rows * width
    return pointwise(
        launches=6 + 2 * casts,  # square, mean, epsilon, rsqrt, scale, weight
        flops=x * 4 + rows * 2,
        read=x * (cast_in + 3 * c + cast_out + b) + rows * (3 * c) + width * b,
        written=x * (cast_out + 2 * c + cast_in + b) + rows * (3 * c),
        live=x * (2 * c + b),
        weight=width * b,
        rate_class=ShapeClass.RMS_NORM,
    )


def activation(*, elements: Count, name: str, b: int) -> Op:
    """A single-kernel activation (gelu, silu) over `elements`."""
    return pointwise(
        launches=1,
        flops=elements * FLOPS_PER_ELEMENT[name],
        read=elements * b,
        written=elements * b,
        live=elements * (2 * b),
        rate_class=ShapeClass.ACTIVATION,
    )


def quick_gelu(*, elements: Count, b: int) -> Op:
    """x * sigmoid(1.702 x) as three kernels."""
    return pointwise(
        launches=3,
        flops=elements * (2 + FLOPS_PER_ELEMENT["sigmoid"]),
        read=elements * (4 * b),
        written=elements * (3 * b),
        live=elements * (3 * b),
        rate_class=ShapeClass.ACTIVATION,
    )


def swiglu_product(*, elements: Count, b: int) -> Op:
    """The elementwise product in silu(gate) * up, without the SiLU."""
    return pointwise(launches=1, flops=elements, read=elements * (2 * b), written=elements * b, live=elements * (3 * b))
