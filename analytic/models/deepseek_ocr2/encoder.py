"""The query encoder: Qwen2 layers over the features of a view and learned queries, which become the view's tokens.

A sequence holds the n features of a view, then its q queries. Features attend to all features, a query attends to all
features and to the queries up to itself; the mask is added to the scores, so the full (n + q)^2 runs.
Source: transformers' deepseek_ocr2 vision encoder, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, linears, module
from analytic.core.op import Count, Op
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.decoder import DeepseekV2MLP, DeepseekV2RMSNorm
from analytic.models.deepseek_ocr.decoder_attention import LlamaRotaryEmbedding
from analytic.models.deepseek_ocr2.spec import QueryEncoderSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryShape:
    """One call of the encoder: `views` sequences of `features` positions, then `queries` positions."""

    views: Count
    features: int
    queries: int

    @property
    def positions(self) -> int:
        """Positions of a sequence."""
        return self.features + self.queries

    @property
    def pairs(self) -> int:
        """Pairs of positions of a sequence, masked ones included: the elements of its mask."""
        return self.positions * self.positions

    @property
    def rows(self) -> Count:
        """Positions of all sequences."""
        return self.views * self.positions


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryAttention(AnalyticLayer):
    """Grouped-query attention with rotary positions under the mixed mask; no cache.

    Keys and values are repeated for every query head, since a call with a mask does not use grouped kernels.
    """

    spec: QueryEncoderSpec
    shape: QueryShape
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, shape, b = self.spec, self.shape, self.run.dtype_bytes
        width, kv_width, rows = spec.hidden_size, spec.kv_width, shape.rows
        angles = shape.positions * spec.head_dim
        attention = AttentionShape(
            groups=shape.views * spec.num_heads,
            queries=shape.positions,
            keys=shape.positions,
            head_dim=spec.head_dim,
            useful_pairs=shape.features * shape.features + causal_pairs(shape.queries, shape.features),
        )
        mask_bytes, weights = shape.views * (shape.pairs * b), self._weights()
        grouped = spec.num_heads > spec.num_kv_heads
        # with several views a batched product needs contiguous operands; repeated keys and values are contiguous
        operands = operand_copies(rows * width, self.run, tensors=(1 if grouped else 3) * (shape.views > 1))
        return module(
            name,
            "QueryAttention",
            ops=(
                rotary(elements=rows * width, angles=angles, b=b),
                rotary(elements=rows * kv_width, angles=angles, b=b),
                *self._repeated(),
                products(
                    attention,
                    self.run,
                    fused=ShapeClass.BIASED_ATTENTION,
                    bias_bytes=mask_bytes,
                    sources_bytes=rows * ((width + 2 * kv_width) * b),
                ),
                softmax_chain(attention, self.run, biased=1, bias_reads=mask_bytes),
                *self._mask_in_numbers(mask_bytes),
                head_copies(attention, self.run),
                operands,
            ),
            fused_bytes=rows * (2 * width * b) + weights * b,
            children=(
                *linears("q_proj", tokens=rows, width_in=width, width_out=width, bias=True, b=b),
                *linears("k_proj", "v_proj", tokens=rows, width_in=width, width_out=kv_width, bias=True, b=b),
                *linears("o_proj", tokens=rows, width_in=width, width_out=width, bias=False, b=b),
            ),
        )

    def _weights(self) -> int:
        width, kv_width = self.spec.hidden_size, self.spec.kv_width
        return (2 * width + 1) * width + 2 * (width + 1) * kv_width

    def _repeated(self) -> tuple[Op, ...]:
        """Keys and values copied once for every query head; as they are if each head has its own."""
        if self.spec.num_heads == self.spec.num_kv_heads:
            return ()
        rows, b = self.shape.rows, self.run.dtype_bytes
        return (
            ops.movement(
                launches=2, read=rows * (2 * self.spec.kv_width * b), written=rows * (2 * self.spec.hidden_size * b)
            ),
        )

    def _mask_in_numbers(self, mask_bytes: Count) -> tuple[Op, ...]:
        """The boolean mask as numbers of the model's dtype, which SDPA makes in every layer: two scalars, a selection."""
        if self.run.attention_kernel == "eager":
            return ()
        b = self.run.dtype_bytes
        read = self.shape.views * self.shape.pairs + 2 * b
        return (ops.movement(launches=3, read=read, written=mask_bytes + 2 * b),)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryEncoderLayer(AnalyticLayer):
    """Norm, attention, norm, SwiGLU feed-forward, with two residual sums."""

    spec: QueryEncoderSpec
    shape: QueryShape
    run: Execution

    def tree(self, name: str, copies: tuple[str, ...] = ()) -> CostNode:
        spec, rows, b = self.spec, self.shape.rows, self.run.dtype_bytes
        width = spec.hidden_size
        norm = DeepseekV2RMSNorm(width=width, tokens=rows, run=self.run)
        mlp = DeepseekV2MLP(width=width, hidden=spec.intermediate_size, tokens=rows, run=self.run).tree("mlp")
        x = rows * (width * b)
        return module(
            name,
            "QueryEncoderLayer",
            ops=(ops.add(elements=rows * width, b=b, times=2),),
            held_bytes=2 * x,  # the residual and its norm
            copies=copies,
            children=(
                norm.tree("input_layernorm"),
                QueryAttention(spec=spec, shape=self.shape, run=self.run).tree("self_attn"),
                norm.tree("post_attention_layernorm"),
                replace(mlp, held_bytes=mlp.held_bytes + x + self._scores_kept()),  # plus the layer's input
            ),
        )

    def _scores_kept(self) -> Count:
        """Bytes of the attention weights that transformers' own attention returns; alive until the layer ends."""
        if self.run.attention_kernel != "eager":
            return 0
        return self.shape.views * (self.shape.pairs * self.spec.num_heads * self.run.dtype_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryEncoder(AnalyticLayer):
    """The stack of layers under one mask: (V, n + q, D) to the same shape. There is no token embedding."""

    spec: QueryEncoderSpec
    shape: QueryShape
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, shape, run = self.spec, self.shape, self.run
        layer = QueryEncoderLayer(spec=spec, shape=shape, run=run)
        names = tuple(str(index) for index in range(spec.num_layers))
        return module(
            name,
            "QueryEncoder",
            ops=self._mask(),
            held_bytes=self._held(),
            children=(
                LlamaRotaryEmbedding(head_dim=spec.head_dim, new_tokens=shape.positions, run=run).tree("rotary_emb"),
                layer.tree("layers", copies=names),
                DeepseekV2RMSNorm(width=spec.hidden_size, tokens=shape.rows, run=run).tree("norm"),
            ),
        )

    def _held(self) -> Count:
        """Bytes alive across all layers: the input, cos and sin, and the mask."""
        shape, b = self.shape, self.run.dtype_bytes
        mask = b if self.run.attention_kernel == "eager" else 1
        angles = shape.positions * (2 * self.spec.head_dim * b)
        return shape.rows * (self.spec.hidden_size * b) + angles + shape.views * (shape.pairs * mask)

    def _mask(self) -> tuple[Op, ...]:
        """Positions, the block of every position (0 for a feature, -1 for a query), and the boolean mask from both.

        A key is visible if it is not after the query, or if both are features. On a device the blocks of the features are
        filled in place, on meta they are copied from a scalar.
        """
        shape, views, b = self.shape, self.shape.views, self.run.dtype_bytes
        n, pairs = shape.positions, shape.pairs
        copied = int(self.run.device == "meta")
        boolean = ops.movement(
            # arange of positions and of the four axes, blocks, features' blocks, two sums, zero, <=, two gathers, =, >=,
            # and, two ors
            launches=18 + copied,
            read=n * 48 + views * (n * 41 + 16) + pairs * 2 + views * (pairs * 2) + 1 + 8 * copied,
            written=n * 40 + views * (n * 25 + 8 + shape.features * 8) + pairs * 2 + views * (pairs * 3) + 9 + 8 * copied,
            rate_class=ShapeClass.MASK,
        )
        if self.run.attention_kernel != "eager":
            return (boolean,)
        # zero, lowest and a selection
        numbers = ops.movement(
            launches=3,
            read=views * pairs + 2 * b,
            written=views * (pairs * b) + 2 * b,
            rate_class=ShapeClass.MASK,
        )
        return boolean, numbers
