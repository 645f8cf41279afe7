"""The DeepSeek-V2 style decoder: dense and mixture-of-experts layers, norm, embedding and head.

Source: transformers' unlimited_ocr text model with every layer `full_attention`, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from analytic.core import ops
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, activation, linears, module
from analytic.core.op import Count
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaFlashAttention2
from analytic.models.deepseek_ocr.moe import DeepseekV2MoE
from analytic.models.spec import TextSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekV2RMSNorm(AnalyticLayer):
    """RMSNorm over `tokens` rows of `width`."""

    width: int
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        b = self.run.dtype_bytes
        return module(
            name,
            "DeepseekV2RMSNorm",
            ops=(ops.rms_norm(rows=self.tokens, width=self.width, run=self.run),),
            parameters=self.width,
            parameter_b=b,
            fused_bytes=self.width * b,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekV2MLP(AnalyticLayer):
    """SwiGLU feed-forward: down(silu(gate x) * up x), `tokens` rows of `width` with hidden width `hidden`."""

    width: int
    hidden: int
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        width, hidden, tokens, b = self.width, self.hidden, self.tokens, self.run.dtype_bytes
        return module(
            name,
            "DeepseekV2MLP",
            ops=(ops.swiglu_product(elements=tokens * hidden, b=b),),
            fused_bytes=tokens * (2 * width * b) + 3 * width * hidden * b,
            children=(
                *linears("gate_proj", "up_proj", tokens=tokens, width_in=width, width_out=hidden, bias=False, b=b),
                activation("act_fn", elements=tokens * hidden, kind="silu", b=b),
                *linears("down_proj", tokens=tokens, width_in=hidden, width_out=width, bias=False, b=b),
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekV2DecoderLayer(AnalyticLayer):
    """Norm, attention, norm, feed-forward, with two residual sums; dense or with routed experts (`sparse`)."""

    spec: TextSpec
    shape: DecoderShape
    sparse: bool
    run: Execution

    def tree(self, name: str, copies: tuple[str, ...] = ()) -> CostNode:
        spec, tokens, b = self.spec, self.shape.tokens, self.run.dtype_bytes
        width = spec.hidden_size
        norm = DeepseekV2RMSNorm(width=width, tokens=tokens, run=self.run)
        feed_forward: DeepseekV2MoE | DeepseekV2MLP
        if self.sparse:
            shared = DeepseekV2MLP(
                width=width, hidden=spec.n_shared_experts * spec.moe_intermediate_size, tokens=tokens, run=self.run
            )
            feed_forward = DeepseekV2MoE(spec=spec, shared=shared, tokens=tokens, run=self.run)
        else:
            feed_forward = DeepseekV2MLP(width=width, hidden=spec.intermediate_size, tokens=tokens, run=self.run)
        x = tokens * (width * b)
        mlp = feed_forward.tree("mlp")
        return module(
            name,
            "DeepseekV2DecoderLayer",
            ops=(ops.add(elements=tokens * width, b=b, times=2),),
            held_bytes=2 * x,  # the residual and its norm
            copies=copies,
            children=(
                norm.tree("input_layernorm"),
                LlamaFlashAttention2(spec=spec, shape=self.shape, run=self.run).tree("self_attn"),
                norm.tree("post_attention_layernorm"),
                replace(mlp, held_bytes=mlp.held_bytes + x + self._weights_kept()),  # plus the layer's input
            ),
        )

    def _weights_kept(self) -> Count:
        """Bytes of the attention weights that transformers' own attention returns; alive until the layer ends."""
        if self.run.attention_kernel != "eager":
            return 0
        pairs = self.shape.batch * self.shape.new_tokens * self.shape.context
        return pairs * (self.spec.num_heads * self.run.dtype_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEmbedding(AnalyticLayer):
    """The token embedding: `tokens` lookups in `vocab_size` rows; all rows are resident, looked-up rows touched."""

    vocab_size: int
    width: int
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        b = self.run.dtype_bytes
        op = ops.embedding(lookups=self.tokens, width=self.width, b=b)
        return module(
            name,
            "TokenEmbedding",
            ops=(op,),
            parameters=self.vocab_size * self.width,
            parameter_b=b,
            fused_bytes=op.eager_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LmHead(AnalyticLayer):
    """Logits of `rows` positions over the vocabulary; weights not tied to the embedding."""

    vocab_size: int
    width: int
    rows: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        b = self.run.dtype_bytes
        op = ops.linear(tokens=self.rows, width_in=self.width, width_out=self.vocab_size, bias=False, b=b)
        weights = self.width * self.vocab_size
        return module(name, "LmHead", ops=(op,), parameters=weights, parameter_b=b, fused_bytes=op.eager_bytes)
