"""SAM, the query encoder and the projector on every view of a page, and the assembly of the image tokens.

Source: transformers' deepseek_ocr2 vision model, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from analytic.core import ops
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, module
from analytic.core.op import Count, Op
from analytic.models.deepseek_ocr.sam import ImageEncoderViT
from analytic.models.deepseek_ocr.vision import MlpProjector
from analytic.models.deepseek_ocr.workload import PX_PER_TOKEN
from analytic.models.deepseek_ocr2.encoder import QueryEncoder, QueryShape
from analytic.models.deepseek_ocr2.spec import DeepseekOCR2Spec
from analytic.models.deepseek_ocr2.workload import QUERIES, queries_of
from analytic.models.page_vision import PageVision


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryVisionTower(AnalyticLayer):
    """SAM on `views` square views of `side_px` pixels, its features joined by the queries of their size, the encoder."""

    spec: DeepseekOCR2Spec
    views: int
    side_px: int
    run: Execution

    @property
    def shape(self) -> QueryShape:
        """The call of the encoder."""
        side = -(-self.side_px // PX_PER_TOKEN)
        return QueryShape(views=self.views, features=side * side, queries=queries_of(self.side_px))

    def tree(self, name: str) -> CostNode:
        spec, shape = self.spec, self.shape
        row = spec.encoder.hidden_size * self.run.dtype_bytes
        features = shape.views * (shape.features * row)
        return module(
            name,
            "QueryVisionTower",
            ops=(
                ops.movement(
                    launches=1,
                    read=features + shape.queries * row,  # one table of queries serves all views
                    written=shape.rows * row,
                    weight=shape.queries * row,
                ),
            ),
            fused_bytes=shape.queries * row,
            held_bytes=features,
            children=(
                ImageEncoderViT(spec=spec.sam, views=self.views, side_px=self.side_px, run=self.run).tree("sam_encoder"),
                *(self._queries(side_px, count) for side_px, count in QUERIES.items()),
                QueryEncoder(spec=spec.encoder, shape=shape, run=self.run).tree("vision_encoder"),
            ),
        )

    def _queries(self, side_px: int, count: int) -> CostNode:
        """A table of queries: parameters of the tower, which reads one of the tables; the module itself never runs."""
        width = self.spec.encoder.hidden_size
        return module(
            f"query_{side_px}_resolution", "Embedding", parameters=count * width, parameter_b=self.run.dtype_bytes
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryProjector(AnalyticLayer):
    """The linear projector on the queries of `views` views, the end of every sequence of the encoder's output.

    Those of several views do not lie side by side: they are copied, and the bias is added after the product.
    """

    width_in: int
    width_out: int
    views: Count
    queries: int
    run: Execution

    def tree(self, name: str) -> CostNode:
        tokens, b = self.views * self.queries, self.run.dtype_bytes
        one = MlpProjector(width_in=self.width_in, width_out=self.width_out, tokens=tokens, run=self.run).tree(name)
        if self.views == 1:
            return one
        product = ops.linear(tokens=tokens, width_in=self.width_in, width_out=self.width_out, bias=False, b=b)
        copied, written, bias = tokens * (self.width_in * b), tokens * (self.width_out * b), self.width_out * b
        biased = ops.pointwise(
            launches=1, flops=tokens * self.width_out, read=written + bias, written=written, live=2 * written, weight=bias
        )
        return replace(one, ops=(ops.movement(launches=1, read=copied, written=copied), product, biased))


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryVisionStack(PageVision):
    """SAM, query encoder and projector on every view of `batch` equal pages, and the assembly of the image tokens.

    Views of one size run as one call: the global views of all pages, then all local views.
    """

    spec: DeepseekOCR2Spec

    def tree(self, name: str) -> CostNode:
        calls = [self._call(group.side_px, self.batch * group.count) for group in self.workload.view_groups]
        tower, projector = calls[0]
        for other_tower, other_projector in calls[1:]:
            tower, projector = tower.merged(other_tower), projector.merged(other_projector)
        separator, b = self.spec.text.hidden_size, self.run.dtype_bytes
        return module(
            name,
            "QueryVisionStack",
            ops=(self._assembly(),),
            parameters=separator,
            parameter_b=b,
            fused_bytes=separator * b,
            children=(tower, projector),
        )

    def _call(self, side_px: int, views: int) -> tuple[CostNode, CostNode]:
        tower = QueryVisionTower(spec=self.spec, views=views, side_px=side_px, run=self.run)
        projector = QueryProjector(
            width_in=self.spec.encoder.hidden_size,
            width_out=self.spec.text.hidden_size,
            views=views,
            queries=tower.shape.queries,
            run=self.run,
        )
        return tower.tree("vision_tower"), projector.tree("multi_modal_projector")

    def _assembly(self) -> Op:
        """One copy per page: the tokens of its tiles in reading order, of the global view, then the separator."""
        moved = self.batch * (self.workload.image_tokens * self.spec.text.hidden_size * self.run.dtype_bytes)
        return ops.movement(launches=self.batch, read=moved, written=moved)
