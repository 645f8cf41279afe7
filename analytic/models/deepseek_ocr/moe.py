"""The mixture-of-experts feed-forward: router, routed experts, shared experts.

All E experts are resident; a call touches only those that tokens are routed to. Under uniform routing, T tokens that each
pick K of E experts touch an expected E (1 - (1 - K/E)^T) of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from analytic.core import ops
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, activation, module
from analytic.core.op import Count, Op, OpKind
from analytic.core.polynomial import Polynomial
from analytic.core.shape import Product
from analytic.core.shape_class import ShapeClass
from analytic.models.spec import TextSpec


def expected_unique_experts(tokens: Count, *, experts: int, per_token: int) -> Any:
    """Expected experts touched by `tokens` tokens under uniform routing: E (1 - (1 - K/E)^T), a float or an array."""
    return experts * (1.0 - (1.0 - per_token / experts) ** tokens)


def expected_bytes(tokens: Count, *, experts: int, per_token: int, expert_bytes: int) -> Count:
    """Expected bytes of the touched experts, rounded to whole bytes."""
    if isinstance(tokens, Polynomial):
        name = f"{expert_bytes} bytes of {per_token} in {experts} experts"
        rule = partial(expected_bytes, experts=experts, per_token=per_token, expert_bytes=expert_bytes)
        symbol: Count = tokens.mapped(name, rule)
        return symbol
    expected = expected_unique_experts(tokens, experts=experts, per_token=per_token) * expert_bytes
    return round(expected) if isinstance(expected, float) else expected.round().astype("int64")


@dataclass(frozen=True, kw_only=True, slots=True)
class MoEGate(AnalyticLayer):
    """The router: a float32 product of the tokens with one row per expert, softmax, top K."""

    spec: TextSpec
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, tokens, b = self.spec, self.tokens, self.run.dtype_bytes
        width, experts, picked = spec.hidden_size, spec.n_routed_experts, spec.num_experts_per_tok
        table = width * experts
        scores = tokens * experts
        table_b = self.run.bytes_in(self.run.transformers.router_weight_dtype)
        casts, casts_table = self.run.casts("float32"), table_b != 4
        cast = tokens * width * casts + table * casts_table
        routed = ops.pointwise(
            # casts of tokens, and of weights if not float32, to float32; softmax; top K with int64 indices; scaling
            launches=3 + casts + casts_table,
            flops=scores * ops.FLOPS_PER_ELEMENT["softmax"] + tokens * picked,
            read=cast * b + scores * 8 + tokens * (picked * 4),
            written=cast * 4 + scores * 4 + tokens * (picked * 16),
            live=cast * 4 + scores * 8,
            weight=table * (b * casts_table),
            rate_class=ShapeClass.GATE,
        )
        weight_b = 0 if casts_table else 4
        product = ops.linear(tokens=tokens, width_in=width, width_out=experts, bias=False, b=4, weight_b=weight_b)
        return module(name, "MoEGate", ops=(product, routed), parameters=table, parameter_b=table_b)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutedExperts(AnalyticLayer):
    """The routed experts: each token through the SwiGLU of its K experts, summed with the routing weights."""

    spec: TextSpec
    tokens: Count
    run: Execution

    @property
    def expert_bytes(self) -> int:
        """Parameters of one expert."""
        return 3 * self.spec.hidden_size * self.spec.moe_intermediate_size * self.run.dtype_bytes

    @property
    def touched_bytes(self) -> Count:
        """Expected parameters of the experts that tokens are routed to."""
        return expected_bytes(
            self.tokens,
            experts=self.spec.n_routed_experts,
            per_token=self.spec.num_experts_per_tok,
            expert_bytes=self.expert_bytes,
        )

    def tree(self, name: str) -> CostNode:
        rows = self.tokens * self.spec.num_experts_per_tok
        hidden = rows * self.spec.moe_intermediate_size
        b = self.run.dtype_bytes
        ways = {"grouped_mm": self._grouped, "batched_mm": self._batched, "eager": self._looped}
        calls = self._hit if self.run.experts == "eager" else 1
        silu = activation("act_fn", elements=hidden, kind="silu", b=b)
        return module(
            name,
            "RoutedExperts",
            ops=(
                *ways[self.run.experts](rows),
                replace(ops.swiglu_product(elements=hidden, b=b), launches=calls),
            ),
            parameters=self.spec.n_routed_experts * 3 * self.spec.hidden_size * self.spec.moe_intermediate_size,
            parameter_b=b,
            children=(replace(silu, ops=tuple(replace(op, launches=calls) for op in silu.ops)),),
        )

    @property
    def _hit(self) -> Count:
        """Expected number of experts that tokens are routed to, rounded."""
        spec = self.spec
        return expected_bytes(
            self.tokens, experts=spec.n_routed_experts, per_token=spec.num_experts_per_tok, expert_bytes=1
        )

    def _activations(self, rows: Count) -> tuple[Count, Count]:
        """Bytes (read, written) of the two products: D to 2 F, then F to D."""
        width, hidden, b = self.spec.hidden_size, self.spec.moe_intermediate_size, self.run.dtype_bytes
        return rows * ((width + hidden) * b), rows * ((2 * hidden + width) * b)

    def _flops(self, rows: Count) -> Count:
        return rows * (6 * self.spec.hidden_size * self.spec.moe_intermediate_size)

    def _products(self, rows: Count) -> tuple[Product, Product]:
        """The two products of an expert: gate and up in one, then down."""
        width, hidden = self.spec.hidden_size, self.spec.moe_intermediate_size
        return Product(rows, width, 2 * hidden), Product(rows, hidden, width)

    def _grouped(self, rows: Count) -> tuple[Op, ...]:
        """Sort tokens by expert, two grouped products over all resident experts, restore the order of rows."""
        spec, b = self.spec, self.run.dtype_bytes
        read, written = self._activations(rows)
        weights = spec.n_routed_experts * self.expert_bytes
        row = spec.hidden_size * b
        products = ops.product(
            kind=OpKind.MATMUL,
            rate_class=ShapeClass.GROUPED,
            shapes=self._products(rows),
            launches=2,
            flops=self._flops(rows),
            counted=self.run.counter_sees_experts,
            read=read + weights + 2 * spec.n_routed_experts * 4,
            written=written,
            weight=weights,
            untouched=weights - self.touched_bytes,
            live=rows * ((spec.hidden_size + 2 * spec.moe_intermediate_size) * b),
        )
        counts = spec.n_routed_experts * 4
        # bytes read: sort of ids 8, order divided into tokens 8, row gather by token 8, weight gather by order 8 + 4, id
        # cast 8 and count 4, inverse order 8 + 8; written: sorted ids and order 16, tokens 8, weights 4, int32 ids 4,
        # arange 8, inverse order 8; a count and an offset per expert
        sorting = ops.movement(
            launches=9,  # sort, divide, two gathers, cast, count, cumulate, arange, put
            read=rows * (8 + 8 + 8 + 12 + 8 + 4 + 16) + rows * row + counts,
            written=rows * (16 + 8 + 4 + 4 + 8 + 8) + rows * row + 2 * counts,
            rate_class=ShapeClass.ROUTING,
        )
        c = self.run.bytes_in(self.run.transformers.expert_sum_dtype)
        restored = ops.movement(
            launches=1,
            read=rows * (8 + spec.hidden_size * c),
            written=rows * (spec.hidden_size * c),
            live=rows * (spec.hidden_size * (2 * b + 2 * c)),  # tokens, outputs, weighted outputs sorted and in order
            rate_class=ShapeClass.ROUTING,
        )
        return products, sorting, restored, self._weighted_sum(rows)

    def _batched(self, rows: Count) -> tuple[Op, ...]:
        """Copy the weights of its expert for every row, then two batched products."""
        spec, b = self.spec, self.run.dtype_bytes
        read, written = self._activations(rows)
        copied = rows * self.expert_bytes
        row = spec.hidden_size * b
        products = ops.product(
            kind=OpKind.MATMUL,
            rate_class=ShapeClass.GROUPED,
            shapes=self._products(rows),
            launches=2,
            flops=self._flops(rows),
            counted=self.run.counter_sees_experts,
            read=read + copied,
            written=written,
            weight=0,
            live=copied + rows * (2 * row),
        )
        gathered = ops.movement(
            launches=3, read=copied + rows * 16 + self.tokens * row, written=copied + rows * row, weight=self.touched_bytes
        )
        return products, gathered, self._weighted_sum(rows)

    def _looped(self, rows: Count) -> tuple[Op, ...]:
        """Two products per hit expert, on its tokens; the number of hit experts, launches and bytes are expected values."""
        spec, b = self.spec, self.run.dtype_bytes
        read, written = self._activations(rows)
        row = spec.hidden_size * b
        products = ops.product(
            kind=OpKind.MATMUL,
            rate_class=ShapeClass.GROUPED,
            shapes=self._products(rows),
            launches=2 * self._hit,
            flops=self._flops(rows),
            counted=self.run.counter_sees_experts,
            read=read + self.touched_bytes,
            written=written,
            weight=self.touched_bytes,
            live=rows * ((spec.hidden_size + 2 * spec.moe_intermediate_size) * b),
        )
        masks = self.tokens * (spec.num_experts_per_tok * (spec.n_routed_experts + 1) * 8)
        looped = ops.pointwise(
            # output, one-hot routing mask with its bounds, hit experts; then per hit expert: index read four times and
            # compared, tokens found and gathered, weights gathered, a product, a sum into the output
            launches=9 + (10 + self.run.casts(self.run.transformers.expert_sum_dtype)) * self._hit,
            flops=rows * (2 * spec.hidden_size),
            read=masks * 2 + rows * (2 * row + 4 * spec.hidden_size + 40),
            written=masks * 2 + rows * (2 * row + 4 * spec.hidden_size + 24) + self.tokens * row,
            live=masks + rows * row,
        )
        return products, looped

    def _weighted_sum(self, rows: Count) -> Op:
        """Rows times their float32 routing weight, summed over the K experts of a token and cast back."""
        width, b, dtype = self.spec.hidden_size, self.run.dtype_bytes, self.run.transformers.expert_sum_dtype
        c, casts = self.run.bytes_in(dtype), self.run.casts(dtype)
        outputs = self.tokens * width
        return ops.pointwise(
            launches=2 + casts,
            flops=rows * (2 * width),
            read=rows * (width * (b + c) + 4) + outputs * (c * casts),
            written=rows * (width * c) + outputs * (c + b * casts),
            live=rows * (width * (b + c)) + outputs * c,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekV2MoE(AnalyticLayer):
    """Router, routed experts and `shared`, the feed-forward of every token."""

    spec: TextSpec
    shared: AnalyticLayer
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        width, b = self.spec.hidden_size, self.run.dtype_bytes
        gate = MoEGate(spec=self.spec, tokens=self.tokens, run=self.run)
        experts = RoutedExperts(spec=self.spec, tokens=self.tokens, run=self.run)
        router_b = self.run.bytes_in(self.run.transformers.router_weight_dtype)
        router_bytes = width * self.spec.n_routed_experts * router_b
        return module(
            name,
            "DeepseekV2MoE",
            ops=(ops.add(elements=self.tokens * width, b=b),),
            # the shared experts account for one read of x and one write of the sum
            fused_bytes=router_bytes + experts.touched_bytes,
            children=(gate.tree("gate"), experts.tree("experts"), self.shared.tree("shared_experts")),
        )
