"""softmax(Q K^T) V, counted for each attention kernel, and the rotary embedding of its inputs.

Three kernels (see `Execution.attention_kernel`):

    eager  transformers' own: two products in the model's dtype, softmax in the profile's `softmax_dtype`
    math   SDPA decomposed, as on the meta device: everything in the `math_attention_dtype` of torch's profile
    fused  SDPA as one kernel: Q, K and V in, the output out, and on a CPU one float32 per row; no S x S traffic
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core.execution import Execution
from analytic.core.op import Count, Op, OpKind
from analytic.core.ops import BOTH_GRADIENTS, FLOPS_PER_ELEMENT, FUSED_ATTENTION_GRADIENTS, movement, pointwise, product
from analytic.core.shape import Product
from analytic.core.shape_class import ShapeClass
from analytic.framework import GlueDtype

SOFTMAX = FLOPS_PER_ELEMENT["softmax"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """Shapes of one attention: `groups` independent attentions (batch x heads) of `queries` x `keys`, width `head_dim`.

    useful_pairs  query-key pairs that are not masked, per group
    """

    groups: Count
    queries: Count
    keys: Count
    head_dim: int
    useful_pairs: Count

    @property
    def query_elements(self) -> Count:
        """Elements of Q, and of the output."""
        return self.groups * self.queries * self.head_dim

    @property
    def key_elements(self) -> Count:
        """Elements of K, and of V."""
        return self.groups * self.keys * self.head_dim

    @property
    def score_elements(self) -> Count:
        """Elements of the score matrix."""
        return self.groups * self.queries * self.keys

    @property
    def work(self) -> Count:
        """FLOPs of both products, masked pairs included."""
        return self.score_elements * (4 * self.head_dim)

    @property
    def size(self) -> Count:
        """Positions that each query attends to."""
        return self.keys

    @property
    def second_size(self) -> int:
        """Head width."""
        return self.head_dim


def products(
    shape: AttentionShape, run: Execution, *, fused: ShapeClass, bias_bytes: Count = 0, sources_bytes: Count = 0
) -> Op:
    """Q K^T and P V: 4 groups queries keys d FLOPs, causal or not; `useful` counts the unmasked pairs.

    `fused`: the rate class if attention is one kernel; otherwise it is two products.
    `bias_bytes`: an additive bias over the scores; a fused kernel reads it, otherwise adding it is a pointwise operator.
    `sources_bytes`: the tensor that Q, K and V were split from, if it is still alive.
    """
    live = alive(shape, run) + bias_bytes + sources_bytes
    q, k, scores = shape.query_elements, shape.key_elements, shape.score_elements
    d = shape.head_dim
    flops = scores * (4 * d)
    useful = shape.groups * shape.useful_pairs * (4 * d)
    b = run.dtype_bytes
    if run.attention_kernel == "fused":
        rows = shape.groups * shape.queries * int(run.writes_row_statistics)
        return product(
            kind=OpKind.ATTENTION,
            rate_class=fused,
            shapes=(shape,),
            launches=1,
            flops=flops,
            useful=useful,
            counted=run.counter_sees_attention,
            read=(q + 2 * k) * b + bias_bytes,
            written=q * b + rows * 4,
            weight=0,
            live=live,
            backward_ratio=FUSED_ATTENTION_GRADIENTS,
        )
    if run.attention_kernel == "math":
        b = run.bytes_in(run.torch.math_attention_dtype)
    return product(
        kind=OpKind.MATMUL,
        rate_class=ShapeClass.PRODUCT,
        shapes=(
            Product(shape.queries, d, shape.keys, shape.groups),
            Product(shape.queries, shape.keys, d, shape.groups),
        ),
        launches=2,
        flops=flops,
        useful=useful,
        read=(q + 2 * k + scores) * b,
        written=(q + scores) * b,
        weight=0,
        live=live,
        backward_ratio=BOTH_GRADIENTS,
    )


def alive(shape: AttentionShape, run: Execution) -> Count:
    """Peak bytes that an attention keeps alive, excluding its bias and the tensor that Q, K and V were split from.

    eager  the scores in the model's dtype and in the softmax dtype, and the softmax
    math   Q, K and V in the compute dtype, plus a scaled copy of K; the scores before and
           after the bias (or the softmax)
    fused  the output
    """
    q, k, scores, b = shape.query_elements, shape.key_elements, shape.score_elements, run.dtype_bytes
    if run.attention_kernel == "fused":
        return q * b
    if run.attention_kernel == "math":
        c, casts = _computed(run, run.torch.math_attention_dtype)
        return scores * (2 * c) + ((q + 3 * k) * c if casts else (q + k) * c)
    c, casts = _computed(run, run.transformers.softmax_dtype)
    return scores * (b + c * casts + c)


def _computed(run: Execution, dtype: GlueDtype) -> tuple[int, bool]:
    """Bytes per element in a step that computes in `dtype`, and whether it is cast to that dtype and back."""
    return run.bytes_in(dtype), run.casts(dtype)


def softmax_chain(
    shape: AttentionShape,
    run: Execution,
    *,
    biased: Count = 0,
    bias_reads: Count = 0,
    scales_queries: bool = False,
) -> Op:
    """Everything around the two products: scaling, additive bias, softmax and the casts to the softmax dtype and back.

    Live bytes are counted in `alive`.

    `biased`: 1 if a bias is added to the scores, else 0; `bias_reads`: the bytes of that bias. `scales_queries`:
    transformers' own attention scales the queries (SAM) instead of the scores.
    """
    q, k, scores, b = shape.query_elements, shape.key_elements, shape.score_elements, run.dtype_bytes
    if run.attention_kernel == "fused":
        return pointwise(launches=0, flops=0, read=0, written=0, live=0)
    if run.attention_kernel == "math":
        c, casts = _computed(run, run.torch.math_attention_dtype)
        cast, full = b * casts, c * casts
        return pointwise(
            # casts of q, k, v; scaling of q and k; bias; softmax; weights and output cast back
            launches=3 + biased + 5 * casts,
            flops=q + k + scores * (SOFTMAX + biased),
            read=(q + 2 * k) * cast + (q + k) * c + scores * (c * biased + c + full) + bias_reads + q * full,
            written=(q + 2 * k) * full + (q + k) * c + scores * (c * biased + c + cast) + q * cast,
            live=0,
        )
    c, casts = _computed(run, run.transformers.softmax_dtype)
    cast, full = b * casts, c * casts
    scaled = q if scales_queries else scores
    return pointwise(
        # scaling; bias; cast; softmax; cast back
        launches=2 + biased + 2 * casts,
        flops=scaled + scores * (SOFTMAX + biased),
        read=scaled * b + scores * (b * biased + cast + c + full) + bias_reads,
        written=scaled * b + scores * (b * biased + full + c + cast),
        live=0,
    )


def rotary(*, elements: Count, angles: Count, b: int) -> Op:
    """x cos + rotate_half(x) sin for one tensor: two products, a negation of half of it, a concatenation and a sum.

    `elements` counts those of the tensor, `angles` those of cos (and of sin).
    """
    halves = elements // 2
    return pointwise(
        launches=5,
        flops=elements * 3 + halves,
        read=(elements * 5 + halves + angles * 2) * b,
        written=(elements * 4 + halves) * b,
        live=elements * (4 * b),
        rate_class=ShapeClass.ROTARY,
    )


def head_copies(shape: AttentionShape, run: Execution) -> Op:
    """The copy of the output to (B, S, H d); not needed for a single query or a fused kernel on transposed heads."""
    copies = (shape.queries > 1) * int(run.attention_kernel != "fused")
    copied = shape.query_elements * (copies * run.dtype_bytes)
    return movement(launches=copies, read=copied, written=copied)


def operand_copies(elements: Count, run: Execution, *, tensors: Count) -> Op:
    """`tensors` transposed operands made contiguous for a batched product; a fused kernel needs no copies.

    `elements`: the size of each; nothing is copied if `tensors` is 0.
    """
    if run.attention_kernel == "fused":
        return movement(launches=0, read=0, written=0)
    b = run.bytes_in(run.torch.math_attention_dtype) if run.attention_kernel == "math" else run.dtype_bytes
    copied = elements * tensors * b
    return movement(launches=tensors, read=copied, written=copied)


def causal_pairs(new_tokens: Count, past_tokens: Count) -> Count:
    """Query-key pairs that a causal mask keeps: each new token attends to the past, itself and the new tokens before it."""
    return new_tokens * past_tokens + new_tokens * (new_tokens + 1) // 2
