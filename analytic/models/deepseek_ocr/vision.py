"""CLIP-L on the SAM features, the projector, and the vision stack that runs all encoders on every view of a page.

Source: transformers' unlimited_ocr vision encoder, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core import ops
from analytic.core.attention import AttentionShape, head_copies, operand_copies, products, softmax_chain
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, layer_norm, linears, module
from analytic.core.op import Count, Op
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.sam import ImageEncoderViT, resized_positions
from analytic.models.deepseek_ocr.spec import ClipSpec, DeepseekOCRSpec
from analytic.models.deepseek_ocr.workload import PX_PER_TOKEN
from analytic.models.page_vision import PageVision


@dataclass(frozen=True, kw_only=True, slots=True)
class NoTPTransformerBlock(AnalyticLayer):
    """One CLIP block: full attention over `tokens` positions of each of `views` views, then the feed-forward."""

    spec: ClipSpec
    views: Count
    tokens: int
    run: Execution

    def tree(self, name: str, copies: tuple[str, ...] = ()) -> CostNode:
        b, width = self.run.dtype_bytes, self.spec.hidden_size
        rows, hidden = self.views * self.tokens, self.spec.intermediate_size
        x = rows * (width * b)
        return module(
            name,
            "NoTPTransformerBlock",
            ops=(ops.add(elements=rows * width, b=b, times=2),),
            held_bytes=2 * x,  # the residual and its norm
            copies=copies,
            children=(
                layer_norm("layer_norm1", rows=rows, width=width, run=self.run),
                module(
                    "self_attn",
                    "NoTPAttention",
                    ops=self._attention(),
                    fused_bytes=2 * x + 4 * (width + 1) * width * b,
                    children=linears(
                        "q_proj",
                        "k_proj",
                        "v_proj",
                        "out_proj",
                        tokens=rows,
                        width_in=width,
                        width_out=width,
                        bias=True,
                        b=b,
                    ),
                ),
                layer_norm("layer_norm2", rows=rows, width=width, run=self.run),
                module(
                    "mlp",
                    "NoTPFeedForward",
                    fused_bytes=2 * x + (2 * width * hidden + width + hidden) * b,
                    children=(
                        *linears("fc1", tokens=rows, width_in=width, width_out=hidden, bias=True, b=b),
                        module("activation_fn", "Activation", ops=(ops.quick_gelu(elements=rows * hidden, b=b),)),
                        *linears("fc2", tokens=rows, width_in=hidden, width_out=width, bias=True, b=b),
                    ),
                ),
            ),
        )

    def _attention(self) -> tuple[Op, ...]:
        shape = AttentionShape(
            groups=self.views * self.spec.num_heads,
            queries=self.tokens,
            keys=self.tokens,
            head_dim=self.spec.head_dim,
            useful_pairs=self.tokens * self.tokens,
        )
        # with several views, a batched product needs contiguous transposed operands
        operands = operand_copies(shape.query_elements, self.run, tensors=3 * (self.views > 1))
        sources = 3 * shape.query_elements * self.run.dtype_bytes
        return (
            products(shape, self.run, fused=ShapeClass.ATTENTION, sources_bytes=sources),
            softmax_chain(shape, self.run),
            head_copies(shape, self.run),
            operands,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoTPTransformer(AnalyticLayer):
    """The stack of CLIP blocks."""

    spec: ClipSpec
    views: Count
    tokens: int
    run: Execution

    def tree(self, name: str) -> CostNode:
        block = NoTPTransformerBlock(spec=self.spec, views=self.views, tokens=self.tokens, run=self.run)
        names = tuple(str(index) for index in range(self.spec.num_layers))
        return module(name, "NoTPTransformer", children=(block.tree("layers", copies=names),))


@dataclass(frozen=True, kw_only=True, slots=True)
class VitModel(AnalyticLayer):
    """CLIP-L on a SAM feature map of side x side instead of pixels: side^2 positions and a class token."""

    spec: ClipSpec
    views: Count
    side: int
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec = self.spec
        tokens = self.side * self.side + 1
        return module(
            name,
            "VitModel",
            children=(
                self._embeddings(tokens),
                layer_norm("pre_layrnorm", rows=self.views * tokens, width=spec.hidden_size, run=self.run),
                NoTPTransformer(spec=spec, views=self.views, tokens=tokens, run=self.run).tree("encoder"),
            ),
        )

    def _embeddings(self, tokens: int) -> CostNode:
        """The class token prepended and positions added: looked up for the native map, otherwise resized."""
        spec, b, width = self.spec, self.run.dtype_bytes, self.spec.hidden_size
        rows, native = self.views * tokens, spec.native_grid**2 + 1
        is_native = tokens == native
        patches = rows - self.views  # the class token is read once for all views
        joined = ops.movement(launches=1, read=(patches + 1) * (width * b), written=rows * (width * b), weight=width * b)
        summed = ops.pointwise(
            launches=1,
            flops=rows * width,
            read=(rows + tokens) * (width * b),
            written=rows * (width * b),
            live=(2 * rows + tokens) * (width * b),
        )
        lookup = (ops.embedding(lookups=native, width=width, b=b),) if is_native else ()
        resized = (
            ()
            if is_native
            else (
                resized_positions(table=(native - 1) * width, position=(tokens - 1) * width, run=self.run),
                ops.movement(launches=1, read=tokens * width * b, written=tokens * width * b, weight=width * b),
            )
        )
        return module(
            "embeddings",
            "ClipEmbeddings",
            ops=(joined, summed, *resized),
            parameters=width,
            parameter_b=b,
            fused_bytes=(native + 1) * width * b,
            children=(module("position_embedding", "Embedding", ops=lookup, parameters=native * width, parameter_b=b),),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpProjector(AnalyticLayer):
    """The linear projector: `tokens` rows of concatenated SAM and CLIP features to the decoder's width."""

    width_in: int
    width_out: int
    tokens: Count
    run: Execution

    def tree(self, name: str) -> CostNode:
        b = self.run.dtype_bytes
        op = ops.linear(tokens=self.tokens, width_in=self.width_in, width_out=self.width_out, bias=True, b=b)
        weights = (self.width_in + 1) * self.width_out
        return module(name, "MlpProjector", ops=(op,), parameters=weights, parameter_b=b, fused_bytes=op.eager_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionStack(PageVision):
    """SAM, CLIP and projector on every view of `batch` equal pages, and the assembly of the image tokens.

    Views of one size run as one call: the global views of all pages, then all local views.
    """

    spec: DeepseekOCRSpec

    def tree(self, name: str) -> CostNode:
        calls = [
            self._call(side_px, self.batch * count)
            for side_px, count in ((group.side_px, group.count) for group in self.workload.view_groups)
        ]
        tower, projector = calls[0]
        for other_tower, other_projector in calls[1:]:
            tower, projector = tower.merged(other_tower), projector.merged(other_projector)
        separators, b = 2 * self.spec.text.hidden_size, self.run.dtype_bytes
        return module(
            name,
            "VisionStack",
            ops=(self._assembly(),),
            parameters=separators,
            parameter_b=b,
            fused_bytes=separators * b,
            children=(tower, projector),
        )

    def _call(self, side_px: int, views: int) -> tuple[CostNode, CostNode]:
        spec, b = self.spec, self.run.dtype_bytes
        side = -(-(side_px // spec.sam.patch_size) // 4)
        tokens = views * side * side
        sam_width, clip_width = spec.sam.downsample_channels[-1], spec.clip.hidden_size
        features = tokens * (sam_width + clip_width) * b
        tower = module(
            "vision_tower",
            "VisionTower",
            ops=(ops.movement(launches=1, read=features, written=features),),
            held_bytes=tokens * sam_width * b,
            children=(
                ImageEncoderViT(spec=spec.sam, views=views, side_px=side_px, run=self.run).tree("sam_encoder"),
                VitModel(spec=spec.clip, views=views, side=side, run=self.run).tree("vision_encoder"),
            ),
        )
        projector = MlpProjector(
            width_in=sam_width + clip_width, width_out=spec.text.hidden_size, tokens=tokens, run=self.run
        )
        return tower, projector.tree("multi_modal_projector")

    def _assembly(self) -> Op:
        """A newline after every row, the separator at the end, local before global views, page by page.

        Two copies per page; with crops one more, and another one if tiles lie side by side, to restore reading order.
        """
        row = self.spec.text.hidden_size * self.run.dtype_bytes
        page, side = self.workload, self.workload.base_size // PX_PER_TOKEN
        tiles = page.local_tokens - page.newline_rows
        cropped = page.grid is not None
        side_by_side = page.grid is not None and page.grid.columns > 1
        newlines_read = 1 + cropped  # one newline serves every row of a view
        turned = tiles * side_by_side
        written = side * (side + 1) + page.local_tokens + turned + page.image_tokens
        read = side * side + tiles + newlines_read + turned + page.image_tokens
        return ops.movement(
            launches=self.batch * (2 + cropped + side_by_side),
            read=self.batch * read * row,
            written=self.batch * written * row,
        )
