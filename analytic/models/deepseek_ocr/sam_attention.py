"""SAM's attention: in windows or over the whole map, with relative positions decomposed into one table per axis.

Source: transformers' unlimited_ocr SAM encoder, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core import ops
from analytic.core.attention import AttentionShape, products, softmax_chain
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, linears, module
from analytic.core.op import Count, Op
from analytic.core.shape_class import ShapeClass
from analytic.models.spec import SamSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SamAttention(AnalyticLayer):
    """Attention with decomposed relative positions over `groups` maps of side x side positions.

    A windowed block has one group per window, a global block one per view.
    """

    spec: SamSpec
    groups: Count
    side: int
    windowed: bool
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, b = self.spec, self.run.dtype_bytes
        width = spec.hidden_size
        tokens = self.groups * (self.side * self.side)
        # the tables fit the window, or the native map of the model; they are interpolated for other sizes
        table_side = spec.window_size if self.windowed else spec.native_grid
        tables = 2 * (2 * table_side - 1) * spec.head_dim
        weights = (4 * width * width + 4 * width + tables) * b
        return module(
            name,
            "SamAttention",
            ops=(  # roughly in the order in which they run
                self._distances(),
                self._moved(),
                self._relative_position_products(),
                products(
                    self._shape(),
                    self.run,
                    fused=ShapeClass.BIASED_ATTENTION,
                    bias_bytes=self._shape().score_elements * b,
                    sources_bytes=self._sources(),
                ),
                softmax_chain(
                    self._shape(), self.run, biased=1, bias_reads=self._shape().score_elements * b, scales_queries=True
                ),
                self._relative_position_sum(),
                self._bias_copied(),
            ),
            parameters=tables,
            parameter_b=b,
            fused_bytes=tokens * (2 * width * b) + weights,
            children=(
                *linears("qkv", tokens=tokens, width_in=width, width_out=3 * width, bias=True, b=b),
                *linears("proj", tokens=tokens, width_in=width, width_out=width, bias=True, b=b),
            ),
        )

    def _shape(self) -> AttentionShape:
        positions = self.side * self.side
        return AttentionShape(
            groups=self.groups * self.spec.num_heads,
            queries=positions,
            keys=positions,
            head_dim=self.spec.head_dim,
            useful_pairs=positions * positions,
        )

    def _sources(self) -> Count:
        """Bytes of the fused q, k and v, and of their copies per head if there are several groups."""
        copies = 1 + (self.groups > 1)
        return self.groups * (self.side * self.side * 3 * self.spec.hidden_size * self.run.dtype_bytes) * copies

    def _relative_position_products(self) -> Op:
        """Two batched products, one per axis: (side, groups H side, d) x (side, d, side)."""
        rows = self.groups * (self.spec.num_heads * self.side)
        d, side, b = self.spec.head_dim, self.side, self.run.dtype_bytes
        axis = ops.matmul(batch=side, m=rows, k=d, n=side, b=b)
        return ops.product(
            kind=axis.kind,
            rate_class=axis.rate_class,
            shapes=axis.shapes * 2,
            launches=2,
            flops=axis.executed_flops * 2,
            read=axis.read_bytes * 2,
            written=axis.written_bytes * 2,
            weight=0,
            live=axis.live_bytes,
        )

    def _relative_position_sum(self) -> Op:
        """The sum of both axes into a bias per score."""
        b, scores = self.run.dtype_bytes, self._shape().score_elements
        return ops.broadcast_sum(
            outer=self.groups * (self.spec.num_heads * self.side**2),
            side=self.side,
            b=b,
            live=scores * (2 * b) + self._sources(),
        )

    def _distances(self) -> Op:
        """Per axis, the distances between positions and the table interpolated to their number."""
        b, n, pairs = self.run.dtype_bytes, self.side, self.side * self.side
        resized = 2 * (2 * n - 1) * self.spec.head_dim
        table_side = self.spec.window_size if self.windowed else self.spec.native_grid
        resizes = int(n != table_side or self.run.transformers.resizes_every_table)
        table = 2 * (2 * table_side - 1) * self.spec.head_dim
        return ops.pointwise(
            launches=2 * (7 + resizes),  # 2 arange, 2 products, difference, shift, cast; interpolation
            flops=resized * ops.FLOPS_PER_ELEMENT["linear_interpolation"] * resizes + 4 * (n + pairs),
            read=table * (b * resizes) + 2 * (24 * n + 8 * pairs),
            written=resized * (b * resizes) + 2 * (24 * n + 16 * pairs),
            live=0,
            weight=table * (b * resizes),
        )

    def _moved(self) -> Op:
        """Gathers of the tables, and the copies that make q, k, v and the output contiguous."""
        b, side = self.run.dtype_bytes, self.side
        tokens = self.groups * (side * side)
        gathered = 2 * side * side * self.spec.head_dim * b
        # copies of q, k and v; of q for one axis; of the output. With a single group q, k and v are views: q is copied for
        # both axes, and the output of a fused kernel, which keeps the layout of q, is not copied
        single = 2 + (self.run.attention_kernel != "fused")
        several = (self.groups > 1) * 1
        copied = tokens * (self.spec.hidden_size * b) * (single + (5 - single) * several)
        return ops.movement(
            launches=2 + single + (3 - single) * several,  # gathers, copies of width; q, k and v in one copy
            read=copied + gathered + 2 * side * side * 8,
            written=copied + gathered,
            # the distances of an axis are made by the host, and copied to the device from memory that is not pinned
            waits=2,
        )

    def _bias_copied(self) -> Op:
        """The copy that makes the bias contiguous."""
        bias = self._shape().score_elements * self.run.dtype_bytes
        return ops.movement(launches=1, read=bias, written=bias)
