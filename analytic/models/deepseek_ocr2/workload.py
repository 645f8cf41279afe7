"""The pages of DeepSeek-OCR-2: a global view of 1024 px and up to six tiles of 768 px, each read by learned queries.

Source: transformers' image processor of deepseek_ocr2 (`tile_size` 768, `min_patches` 2, `max_patches` 6), whose view
without tiles is 1024 px, or 768 px with `crop_to_patches` off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from analytic.models.deepseek_ocr.crop_rule import TRANSFORMERS
from analytic.models.deepseek_ocr.workload import BASE_PX, PX_PER_TOKEN, PageFormat, VisionWorkload

TILE_PX: Final = 768
MAX_TILES: Final = 6
SIDES_PX: Final = {"tile": TILE_PX, "base": BASE_PX}
"""The modes without crops: the side of their single view."""
QUERIES: Final = {768: 144, 1024: 256}
"""Learned queries by the side of a view in pixels: one per feature of that view."""


def queries_of(side_px: int) -> int:
    """The queries of a view, which are its tokens: the smaller table if it has one for every feature, else the larger."""
    features = (-(-side_px // PX_PER_TOKEN)) ** 2
    small, large = QUERIES[TILE_PX], QUERIES[BASE_PX]
    return small if features <= small else large


def split_positions(positions: int) -> tuple[int, int]:
    """Features and queries of a sequence of so many positions: the larger table serves more features than the smaller."""
    small, large = QUERIES[TILE_PX], QUERIES[BASE_PX]
    queries = small if positions <= 2 * small else large
    return positions - queries, queries


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryWorkload(VisionWorkload):
    """The views of one page. Tokens are queries: neither rows nor newlines, and one separator after the global view."""

    @property
    def global_tokens(self) -> int:
        """The queries of the global view, and the separator."""
        return queries_of(self.base_size) + 1

    @property
    def newline_rows(self) -> int:
        """0: tiles are joined without newlines."""
        return 0

    @property
    def local_tokens(self) -> int:
        """The queries of all tiles; 0 without crops."""
        return 0 if self.grid is None else self.grid.tiles * queries_of(self.image_size)

    @property
    def label(self) -> str:
        """`gundam-2x3` or the mode's name, otherwise the size: the label in test ids and tables."""
        if self.grid is not None:
            return f"gundam-{self.grid}"
        named = SIDES_PX.items() if self.image_size == self.base_size else ()
        return next((mode for mode, side_px in named if side_px == self.base_size), f"{self.base_size}px")


CUT_BY_TRANSFORMERS: Final = replace(TRANSFORMERS, max_tiles=MAX_TILES, tile_px=TILE_PX, limit=MAX_TILES)
QUERY_PAGES: Final = PageFormat(
    views=QueryWorkload,
    rules=(CUT_BY_TRANSFORMERS, replace(CUT_BY_TRANSFORMERS, name="vllm")),
    swept=("base", "1x2", "1x3", "2x2", "1x5", "2x3"),
    modes=SIDES_PX,
)
"""The pages of DeepSeek-OCR-2."""
