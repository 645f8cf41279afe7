"""SAM ViT-B: patch embedding, windowed and global blocks, neck and the two down-convolutions.

A square view of `side_px` pixels becomes a map of g x g patches, g = side_px / 16. Windowed blocks pad the map to a
multiple of the window; padded positions are counted like any other, since their work runs.
Source: transformers' unlimited_ocr SAM encoder, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core import ops
from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer, activation, conv2d, layer_norm, linears, module
from analytic.core.op import Count, Op
from analytic.models.deepseek_ocr.sam_attention import SamAttention
from analytic.models.spec import SamSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SamBlock(AnalyticLayer):
    """One transformer block over `views` maps of grid x grid patches, with windowed or global attention."""

    spec: SamSpec
    views: Count
    grid: int
    windowed: bool
    run: Execution

    def tree(self, name: str, copies: tuple[str, ...] = ()) -> CostNode:
        spec, b, width = self.spec, self.run.dtype_bytes, self.spec.hidden_size
        patches = self.views * (self.grid * self.grid)
        x = patches * (width * b)
        if self.windowed:
            per_side = -(-self.grid // spec.window_size)
            padded = per_side * spec.window_size
            attention = SamAttention(
                spec=spec, groups=self.views * per_side**2, side=spec.window_size, windowed=True, run=self.run
            )
            moves = self._window_moves(padded)
        else:
            attention = SamAttention(spec=spec, groups=self.views, side=self.grid, windowed=False, run=self.run)
            moves = ()
        hidden = spec.mlp_dim
        mlp_weights = (2 * width * hidden + width + hidden) * b
        return module(
            name,
            "SamBlock",
            ops=(ops.add(elements=patches * width, b=b, times=2), *moves),
            held_bytes=2 * x,  # the residual and its norm
            copies=copies,
            children=(
                layer_norm("layer_norm1", rows=patches, width=width, run=self.run),
                attention.tree("attn"),
                layer_norm("layer_norm2", rows=patches, width=width, run=self.run),
                module(
                    "mlp",
                    "SamMLP",
                    fused_bytes=2 * x + mlp_weights,
                    children=(
                        *linears("lin1", tokens=patches, width_in=width, width_out=hidden, bias=True, b=b),
                        activation("act", elements=patches * hidden, kind="gelu", b=b),
                        *linears("lin2", tokens=patches, width_in=hidden, width_out=width, bias=True, b=b),
                    ),
                ),
            ),
        )

    def _window_moves(self, padded: int) -> tuple[Op, ...]:
        """Padding, window partition, window merge and cropping; a single window needs no partition and merge."""
        b, width = self.run.dtype_bytes, self.spec.hidden_size
        small = self.views * (self.grid**2 * width * b)
        large = self.views * (padded**2 * width * b)
        turns = 2 if padded > self.spec.window_size else 0
        split_and_joined = ops.movement(launches=turns, read=large * turns, written=large * turns)
        crops = int(padded > self.grid)
        cropped = small * crops
        # the padding runs even if it adds nothing
        padding = ops.movement(launches=1 + crops, read=small + cropped, written=large + cropped)
        return split_and_joined, padding


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoderViT(AnalyticLayer):
    """The SAM encoder on `views` square views of `side_px` pixels: (V, 3, s, s) to (V, C, s/64, s/64)."""

    spec: SamSpec
    views: Count
    side_px: int
    run: Execution

    def tree(self, name: str) -> CostNode:
        spec, b, views = self.spec, self.run.dtype_bytes, self.views
        grid = self.side_px // spec.patch_size
        windowed = SamBlock(spec=spec, views=views, grid=grid, windowed=True, run=self.run)
        wide = SamBlock(spec=spec, views=views, grid=grid, windowed=False, run=self.run)
        wide_names = tuple(str(index) for index in spec.global_attn_indexes)
        windowed_names = tuple(str(index) for index in range(spec.num_layers) if str(index) not in wide_names)
        table = spec.native_grid**2 * spec.hidden_size
        blocks = [
            block.tree("layers", copies=names) for block, names in ((windowed, windowed_names), (wide, wide_names)) if names
        ]
        return module(
            name,
            "ImageEncoderViT",
            ops=self._positions(grid),
            parameters=table,
            parameter_b=b,
            fused_bytes=table * b,
            children=(self._patches(grid), *blocks, self._neck(grid), self._downsample(grid)),
        )

    def _patches(self, grid: int) -> CostNode:
        """Pixels to patches: one convolution with its kernel as wide as its stride."""
        projection = conv2d(
            "projection",
            batch=self.views,
            channels_in=3,
            channels_out=self.spec.hidden_size,
            side_in=self.side_px,
            side_out=grid,
            kernel=self.spec.patch_size,
            bias=True,
            b=self.run.dtype_bytes,
            first=True,
        )
        return module("patch_embed", "PatchEmbedding", children=(projection,))

    def _neck(self, grid: int) -> CostNode:
        """To the neck's channels by a 1x1 and a 3x3 convolution, each followed by a norm."""
        neck, b, rows = self.spec.neck_channels, self.run.dtype_bytes, self.views * (grid * grid)
        norms = [layer_norm(name, rows=rows, width=neck, run=self.run) for name in ("layer_norm1", "layer_norm2")]
        convolutions = [
            conv2d(
                name,
                batch=self.views,
                channels_in=channels_in,
                channels_out=neck,
                side_in=grid,
                side_out=grid,
                kernel=kernel,
                b=b,
            )
            for name, channels_in, kernel in (("conv1", self.spec.hidden_size, 1), ("conv2", neck, 3))
        ]
        return module("neck", "SamNeck", children=(convolutions[0], norms[0], convolutions[1], norms[1]))

    def _downsample(self, grid: int) -> CostNode:
        """Two 3x3 convolutions of stride 2: the side shrinks to a quarter."""
        half, quarter = -(-grid // 2), -(-grid // 4)
        mid, out = self.spec.downsample_channels
        steps = (("conv1", self.spec.neck_channels, mid, grid, half), ("conv2", mid, out, half, quarter))
        convolutions = tuple(
            conv2d(
                name,
                batch=self.views,
                channels_in=channels_in,
                channels_out=channels_out,
                side_in=side_in,
                side_out=side_out,
                kernel=3,
                b=self.run.dtype_bytes,
            )
            for name, channels_in, channels_out, side_in, side_out in steps
        )
        return module("proj", "SamDownsample", children=convolutions)

    def _positions(self, grid: int) -> tuple[Op, ...]:
        """The absolute position table added to the patches; resized unless the map has the native size."""
        spec, b = self.spec, self.run.dtype_bytes
        patches = self.views * (grid * grid * spec.hidden_size)
        position = grid * grid * spec.hidden_size
        table = spec.native_grid**2 * spec.hidden_size
        added = ops.pointwise(
            launches=1,
            flops=patches,
            read=(patches + position) * b,
            written=patches * b,
            live=patches * (2 * b) + position * b,
            weight=position * b if grid == spec.native_grid else 0,
        )
        if grid == spec.native_grid:
            return (added,)
        return (added, resized_positions(table=table, position=position, run=self.run))


def resized_positions(*, table: int, position: int, run: Execution) -> Op:
    """Bicubic resizing of a position table of `table` elements to `position` elements, between two casts."""
    b, dtype = run.dtype_bytes, run.transformers.resize_dtype
    c, casts = run.bytes_in(dtype), run.casts(dtype)
    return ops.pointwise(
        launches=1 + 2 * casts,
        flops=position * ops.FLOPS_PER_ELEMENT["bicubic_interpolation"],
        read=table * (b * casts + c) + position * (c * casts),
        written=table * (c * casts) + position * (c + b * casts),
        live=(table + position) * (c + b),
        weight=table * b,
    )
