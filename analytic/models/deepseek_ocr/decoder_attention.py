"""Attention of the decoder with rotary positions and a KV cache, and the shape of one call.

`DecoderShape`: `new_tokens` positions for each of `batch` sequences, with `past_tokens` in the cache. Prefill is many new
tokens on an empty cache, decode one new token on a growing cache; the same formulas serve both, and arrays of both.
Source: transformers' unlimited_ocr text model with every layer `full_attention`, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core import ops
from analytic.core.attention import (
    AttentionShape,
    causal_pairs,
    head_copies,
    operand_copies,
    products,
    rotary,
    softmax_chain,
)
from analytic.core.checks import whole_numbers
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, linears, module
from analytic.core.op import Count, Op
from analytic.core.shape_class import ShapeClass
from analytic.models.spec import TextSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderShape:
    """One call of the decoder: `batch` sequences, `new_tokens` positions each, `past_tokens` already in the cache.

    `capacity`: the positions of a static cache, all of which are attended to; None for a cache that grows.
    """

    batch: Count
    new_tokens: Count
    past_tokens: Count
    capacity: int | None = None

    def __post_init__(self) -> None:
        whole_numbers("batch_size", self.batch)
        whole_numbers("new_tokens", self.new_tokens)
        whole_numbers("past_tokens", self.past_tokens, least=0)

    @property
    def tokens(self) -> Count:
        """Positions computed, summed over the batch."""
        return self.batch * self.new_tokens

    @property
    def context(self) -> Count:
        """Positions attended to per sequence: the whole capacity of a static cache, masked or not."""
        return self.past_tokens + self.new_tokens if self.capacity is None else self.capacity

    @property
    def continues(self) -> Count:
        """1 if several tokens extend a growing, non-empty cache, else 0: SDPA then takes a mask instead of making one."""
        return (self.new_tokens > 1) * (self.past_tokens > 0) * int(self.capacity is None)

    @property
    def dimensions(self) -> dict[str, Count]:
        """The fields that differ between the calls of a decoder, by name."""
        return {"batch": self.batch, "new_tokens": self.new_tokens, "past_tokens": self.past_tokens}

    # what differs in a decoder whose cache does not keep every position

    @property
    def pairs(self) -> Count:
        """Query-key pairs of one sequence and head that are not masked."""
        return causal_pairs(self.new_tokens, self.past_tokens)

    @property
    def stored(self) -> Count:
        """Positions per sequence in the cache after the call."""
        return self.context

    @property
    def given_mask(self) -> Count:
        """1 if every layer is given a mask, which SDPA converts, else 0."""
        return self.continues

    @property
    def always_masked(self) -> bool:
        """Whether every call is given a mask, so that its attention of many queries is not the causal kernel."""
        return False

    @property
    def joins(self) -> tuple[Count, Count]:
        """Concatenations of keys (and as many of values) that extend a growing cache, and positions in their results."""
        return 1, self.context

    @property
    def copies_window(self) -> bool:
        """Whether every layer's first call copies the size of a window to a device other than the CPU."""
        return False

    @property
    def gathered(self) -> Count:
        """Positions per sequence that attention reads from a copy beside the cache."""
        return 0


def refuse_overflow(spec: TextSpec, shape: DecoderShape) -> None:
    """Raise ValueError if the counts of an array of shapes could exceed 64 bits; single shapes use Python integers.

    The bound is generous: 16 bytes or FLOPs per parameter and token; per pair of positions, head and layer 4 FLOPs per
    feature and 128 bytes of scores, biases and masks.
    """
    parts = (shape.batch, shape.new_tokens, shape.past_tokens)
    if not any(hasattr(part, "dtype") for part in parts):
        return
    batch, new_tokens, past_tokens = (part if isinstance(part, int) else int(part.max(initial=0)) for part in parts)
    width, layers = spec.hidden_size, spec.num_layers
    experts = spec.n_routed_experts * spec.moe_intermediate_size + spec.intermediate_size
    parameters = layers * (4 * width * width + 3 * width * experts) + 2 * width * spec.vocab_size
    pairs = layers * spec.num_heads * (4 * spec.head_dim + 128)
    positions = max(past_tokens + new_tokens, shape.capacity or 0)
    largest = batch * new_tokens * (16 * parameters + pairs * positions)
    if largest >= 1 << 63:
        raise ValueError(
            f"batch_size x tokens: got {batch} x {new_tokens} new on {past_tokens} past, accepted: points whose counts fit "
            f"64 bits; use fewer or shorter sequences"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaRotaryEmbedding(AnalyticLayer):
    """cos and sin of the angles of `new_tokens` positions, computed once per call for all layers."""

    head_dim: int
    new_tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        half = self.new_tokens * (self.head_dim // 2)
        full = self.new_tokens * self.head_dim
        dtype = self.run.transformers.rotary_dtype
        c, casts = self.run.bytes_in(dtype), self.run.casts(dtype)
        cast_read, cast_written = c * casts, self.run.dtype_bytes * casts
        angles = ops.pointwise(
            # positions cast, times the frequencies, joined, cos, sin, each scaled and cast to the model's dtype
            launches=7 + 2 * casts,
            flops=half + full * 4,
            read=self.new_tokens * (8 + c) + (self.head_dim // 2 + half) * c + full * (4 * c + 2 * cast_read),
            written=self.new_tokens * c + half * c + full * (5 * c + 2 * cast_written),
            live=full * (3 * c),
        )
        return module(name, "LlamaRotaryEmbedding", ops=(angles,))


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaFlashAttention2(AnalyticLayer):
    """Multi-head attention with rotary positions and a KV cache; `run` selects the kernel, whatever the class name says."""

    spec: TextSpec
    shape: DecoderShape
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, shape, b = self.spec, self.shape, self.run.dtype_bytes
        width, kv_width = spec.hidden_size, spec.num_kv_heads * spec.head_dim
        tokens = shape.tokens
        attention = AttentionShape(
            groups=shape.batch * spec.num_heads,
            queries=shape.new_tokens,
            keys=shape.context,
            head_dim=spec.head_dim,
            useful_pairs=shape.pairs,
        )
        mask_bytes, mask_made = self._mask(attention)
        mask_alive = mask_bytes if self.run.attention_kernel != "eager" else 0  # the decoder counts an eager mask
        # with a batch, a batched product needs contiguous rotated queries; cached keys and values are contiguous
        query_copy = operand_copies(tokens * width, self.run, tensors=1 * (shape.batch > 1) * (shape.new_tokens > 1))
        kv_bytes = shape.batch * (2 * kv_width * b)
        attended = kv_bytes * shape.context
        weights = 2 * (width + kv_width) * width * b
        return module(
            name,
            "LlamaFlashAttention2",
            ops=(
                rotary(elements=tokens * width, angles=shape.new_tokens * spec.head_dim, b=b),
                rotary(elements=tokens * kv_width, angles=shape.new_tokens * spec.head_dim, b=b),
                *self._cached(kv_bytes),
                products(
                    attention,
                    self.run,
                    fused=self._fused_class,
                    bias_bytes=mask_alive,
                    sources_bytes=tokens * (width * b) + kv_bytes * shape.gathered,
                ),
                softmax_chain(attention, self.run, biased=self._masked, bias_reads=mask_bytes),
                mask_made,
                head_copies(attention, self.run),
                query_copy,
            ),
            fused_bytes=tokens * (2 * width * b) + weights + attended,
            kv_bytes=kv_bytes * shape.stored,
            children=(
                *linears("q_proj", "o_proj", tokens=tokens, width_in=width, width_out=width, bias=False, b=b),
                *linears("k_proj", "v_proj", tokens=tokens, width_in=width, width_out=kv_width, bias=False, b=b),
            ),
        )

    def _cached(self, kv_bytes: Count) -> tuple[Op, ...]:
        """Keys and values stored in the cache: concatenated to a growing one, copied into a static one.

        `kv_bytes`: those of one position of every sequence.
        """
        if self.shape.capacity is None:
            times, positions = self.shape.joins
            joined = kv_bytes * positions
            join = ops.movement(launches=2 * times, read=joined, written=joined, rate_class=ShapeClass.JOIN)
            if not self.shape.copies_window or self.run.device == "cpu":
                return (join,)
            begun = (self.shape.past_tokens == 0) * 1
            return join, ops.movement(launches=begun, read=8 * begun, written=8 * begun)
        new = self.shape.tokens * (2 * self.spec.num_kv_heads * self.spec.head_dim * self.run.dtype_bytes)
        positions = self.shape.new_tokens * 8
        # arange, + current length, increment of the length, two copies by these positions
        return (ops.movement(launches=5, read=new + 3 * positions + 16, written=new + 2 * positions + 8),)

    @property
    def _fused_class(self) -> ShapeClass:
        """The rate class: one query per sequence has its own; an array of calls is classed as several queries."""
        if isinstance(self.shape.new_tokens, int) and self.shape.new_tokens == 1:
            return ShapeClass.SINGLE_QUERY
        return ShapeClass.BIASED_ATTENTION if self.shape.always_masked else ShapeClass.CAUSAL_ATTENTION

    @property
    def _masked(self) -> Count:
        """1 if a mask is added: always in transformers' own attention, in decomposed SDPA if given or of several rows."""
        if self.run.attention_kernel == "math":
            several, given = (self.shape.new_tokens > 1) * 1, self.shape.given_mask
            return several + given - several * given
        return int(self.run.attention_kernel == "eager")

    def _mask(self, attention: AttentionShape) -> tuple[Count, Op]:
        """Bytes of the added mask (one for all heads), and the operators that build it.

        Decomposed SDPA builds its causal mask in every layer: ones, lower triangle, two scalars, selection of values.
        It also converts a boolean mask argument to the model's dtype in every layer: two scalars and a selection.
        """
        pairs, b = attention.queries * attention.keys, self.run.dtype_bytes
        if self.run.attention_kernel == "eager":
            return self.shape.batch * pairs * b, ops.movement(launches=0, read=0, written=0)
        given = self.shape.given_mask
        own = self._masked * (1 - given)
        numbers, c = self.shape.batch * pairs * b, self.run.bytes_in(self.run.torch.math_attention_dtype)
        made = ops.movement(
            launches=5 * own + 3 * given,
            read=(pairs * 2 + 2 * c) * own + (pairs + 2 * b) * given,
            written=(pairs * (2 + c) + 2 * c) * own + (numbers + 2 * b) * given,
        )
        return pairs * (c * own) + numbers * given, made
