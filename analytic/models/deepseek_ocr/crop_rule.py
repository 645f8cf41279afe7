"""The crop rule: the grid of local views of a page, from the size of its image alone.

No crops if both sides fit one tile, otherwise the grid of 2 to 9 tiles with the nearest aspect ratio, as in the vendor's
preprocessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analytic.core.checks import whole

TILE_PX: Final = 640
MIN_TILES: Final = 2
MAX_TILES: Final = 9


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class CropGrid:
    """Local tiles: `columns` x `rows`, written `2x3`; 2 to 9 tiles in all."""

    columns: int
    rows: int

    def __post_init__(self) -> None:
        whole("crop grid columns", self.columns)
        whole("crop grid rows", self.rows)
        if not MIN_TILES <= self.tiles <= MAX_TILES:
            raise ValueError(
                f"crop grid: got {self} ({self.tiles} tiles), accepted: WxH with {MIN_TILES} to {MAX_TILES} tiles, "
                f"such as 2x1 or 2x3"
            )

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"

    @property
    def tiles(self) -> int:
        """Number of local views."""
        return self.columns * self.rows

    @classmethod
    def parse(cls, text: str) -> CropGrid:
        """Parse `WxH`. Raises ValueError for anything else, and for fewer than 2 or more than 9 tiles."""
        columns, rows = parse_pair("crop grid", text, example="2x3")
        return cls(columns=columns, rows=rows)


def parse_pair(field: str, text: str, *, example: str) -> tuple[int, int]:
    """Parse two positive whole numbers written `WxH`. Raises ValueError naming `field` otherwise."""
    left, cross, right = text.strip().lower().partition("x")
    digits = left.isascii() and left.isdigit() and right.isascii() and right.isdigit()
    if not (cross and digits and int(left) > 0 and int(right) > 0):
        raise ValueError(f"{field}: got {text!r}, accepted: WxH in positive whole numbers, such as {example}")
    return int(left), int(right)


ALL_GRIDS: Final = tuple(
    CropGrid(columns=columns, rows=rows)
    for columns, rows in sorted(
        (
            (columns, rows)
            for columns in range(1, MAX_TILES + 1)
            for rows in range(1, MAX_TILES + 1)
            if MIN_TILES <= columns * rows <= MAX_TILES
        ),
        key=lambda pair: pair[0] * pair[1],
    )
)
"""The 22 grids in the order that the crop rule tries them: fewest tiles first, narrow before wide."""


def crop_grid_for(width_px: int, height_px: int, *, tile_px: int = TILE_PX) -> CropGrid | None:
    """The grid for an image of this size; None if both sides fit one tile.

    The nearest aspect ratio wins. On a tie the later grid wins if the image has more than half of the grid's pixels.
    """
    whole("image width", width_px)
    whole("image height", height_px)
    if max(width_px, height_px) <= tile_px:
        return None
    ratio, best, distance = width_px / height_px, ALL_GRIDS[0], float("inf")
    for grid in ALL_GRIDS:
        off = abs(ratio - grid.columns / grid.rows)
        fills = width_px * height_px > 0.5 * tile_px * tile_px * grid.tiles
        if off < distance or (off == distance and fills):
            best, distance = grid, off
    return best
