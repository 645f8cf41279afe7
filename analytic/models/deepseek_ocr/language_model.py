"""The language model and its head, for one call or an array of calls: embedding, dense and sparse layers, norm, logits.

Source: transformers' unlimited_ocr text model with every layer `full_attention`, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from analytic.core import ops
from analytic.core.cost import Cost, CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, module
from analytic.core.op import Count, Op
from analytic.core.polynomial import Evaluation, Polynomial
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.decoder import DeepseekV2DecoderLayer, DeepseekV2RMSNorm, LmHead, TokenEmbedding
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaRotaryEmbedding, refuse_overflow
from analytic.models.spec import TextSpec

Logits = Literal["last", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder(AnalyticLayer):
    """The language model and its head for one call: embedding, dense and sparse layers, norm, logits."""

    spec: TextSpec
    shape: DecoderShape
    logits: Logits
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, shape, run = self.spec, self.shape, self.run
        refuse_overflow(spec, shape)
        width, tokens = spec.hidden_size, shape.tokens
        dense = DeepseekV2DecoderLayer(spec=spec, shape=shape, sparse=False, run=run)
        sparse = DeepseekV2DecoderLayer(spec=spec, shape=shape, sparse=True, run=run)
        names = tuple(str(index) for index in range(spec.num_layers))
        layers = [
            layer.tree("layers", copies=own)
            for layer, own in ((dense, names[: spec.num_dense_layers]), (sparse, names[spec.num_dense_layers :]))
            if own
        ]
        rows = shape.batch if self.logits == "last" else tokens
        return module(
            name,
            "DeepseekOCRModel",
            children=(
                module(
                    "model.language_model",
                    "Decoder",
                    ops=(self._masks(),),
                    held_bytes=self._held(),
                    children=(
                        TokenEmbedding(vocab_size=spec.vocab_size, width=width, tokens=tokens, run=run).tree(
                            "embed_tokens"
                        ),
                        LlamaRotaryEmbedding(head_dim=spec.head_dim, new_tokens=shape.new_tokens, run=run).tree(
                            "rotary_emb"
                        ),
                        *layers,
                        DeepseekV2RMSNorm(width=width, tokens=tokens, run=run).tree("norm"),
                    ),
                ),
                LmHead(vocab_size=spec.vocab_size, width=width, rows=rows, run=run).tree("lm_head"),
            ),
        )

    def forward_cost(self) -> Cost:
        """All quantities of one forward call, or of an array of calls: those of `tree`, by polynomials made once."""
        refuse_overflow(self.spec, self.shape)
        given = self.shape.dimensions
        template = replace(self.shape, **dict.fromkeys(given, 1))
        kinds = tuple(_kind(count, 0 if name == "past_tokens" else 1) for name, count in given.items())
        return Cost(**prepared_cost(self.spec, template, kinds, self.logits, self.run).at(given))

    @property
    def _idle_masks(self) -> int:
        """Sliding masks that a call builds: for layers that slide, and for none in DeepSeek-OCR."""
        return int(self.spec.prepares_sliding and self.run.transformers.builds_sliding_mask)

    def _held(self) -> Count:
        """Bytes alive across all layers: the embedded tokens, cos and sin, and the masks."""
        shape, b, sliding = self.shape, self.run.dtype_bytes, self._idle_masks
        pairs = shape.new_tokens * shape.context
        if self.run.attention == "eager":
            masks = pairs * ((1 + sliding) * b) * shape.batch
        else:
            masks = pairs * (sliding + shape.continues)
        angles = shape.new_tokens * (2 * self.spec.head_dim * b)
        return shape.tokens * (self.spec.hidden_size * b) + angles + masks

    def _masks(self) -> Op:
        """Positions and boolean masks, once per call: a sliding mask, whether or not layers slide, and the causal mask.

        SDPA needs the causal mask only if several tokens extend a cache; transformers' own attention converts each mask to
        additive values.
        """
        shape, b = self.shape, self.run.dtype_bytes
        new, context, batch = shape.new_tokens, shape.context, shape.batch
        pairs, sliding = new * context, self._idle_masks
        made = self._sliding_mask() if sliding else ops.movement(launches=0, read=0, written=0)
        own = int(self.run.attention == "eager")
        causal = shape.continues if not own else 1
        as_numbers = (1 + sliding) * own
        return ops.movement(
            # positions: int64 arange, + past; the causal mask alone: arange of all four axes, two sums, <=; then zero,
            # lowest and selection per mask
            launches=2 + made.launches + 7 * causal + 3 * as_numbers,
            read=new * 8 + made.read_bytes + (new + context) * (16 * causal) + (pairs + 2 * b) * as_numbers,
            written=new * 16
            + made.written_bytes
            + (pairs + (new + context) * 16 + batch * 8 + 8) * causal
            + (pairs * (batch * b) + 2 * b) * as_numbers,
            live=made.live_bytes,
            rate_class=ShapeClass.MASK,
        )

    def _sliding_mask(self) -> Op:
        """Comparisons of int64 positions and bitwise operators over (new tokens) x (context)."""
        shape = self.shape
        new, context, batch = shape.new_tokens, shape.context, shape.batch
        pairs = new * context
        # per query position: int64 arange, + past, - window (27 bytes written with three bools); these and the operands of
        # two <=, one > and three bool operators are read (43 bytes). Per context position: arange, + 0, - 0
        # and one bool (25 bytes written); these and the operands of two <=, one >, one < and one bool are read (49 bytes)
        # launches: 3 on query positions, 3 on context positions, arange of batch and of heads, 4 comparisons, 6 bitwise
        # operators and the 3 single-element masks that they start from
        return ops.movement(
            launches=21,
            read=pairs * 8 + new * 43 + context * 49,
            written=pairs * 9 + new * 27 + context * 25 + batch * 8 + 8,
            live=pairs * 2 + context * 16,  # operands of a bitwise operator, with one mask kept; positions
        )


Kind = tuple[int, bool]
"""The least value of a dimension, and whether it has no other."""


def _kind(count: Count, edge: int) -> Kind:
    """Whether a dimension is at its `edge`, where formulas change, above it, or both."""
    if isinstance(count, int):
        return (edge, True) if count == edge else (min(count, edge + 1), False)
    if not count.size:
        return 0, False
    least = int(count.min())
    return min(least, edge + 1), least == edge and int(count.max()) == edge


@cache
def prepared_cost(
    spec: TextSpec, template: DecoderShape, kinds: tuple[Kind, ...], logits: Logits, run: Execution
) -> Evaluation:
    """The cost of a call of `template` in its dimensions, of these kinds."""
    symbols: dict[str, Any] = {
        name: least if single else Polynomial.dimension(name, least=least)
        for name, (least, single) in zip(template.dimensions, kinds, strict=True)
    }
    decoder = Decoder(spec=spec, shape=replace(template, **symbols), logits=logits, run=run)
    return Evaluation(decoder.tree("").total().as_dict())
