"""The crop rule: the grid of local views of a page, from the size of its image and from who serves it.

No crops if both sides fit one tile, otherwise the grid with the nearest aspect ratio, of 2 to as many tiles as the rule
allows: 9 in transformers and in the vendor's Hugging Face code, 6 in vLLM and in the vendor's code for it.
Source: transformers' preprocessing of unlimited_ocr; vLLM's transformers_utils/processors/deepseek_ocr.py (0.32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analytic.core.checks import accept, whole

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


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRule:
    """How an engine cuts the images of a request.

    name          who serves: `transformers`, `vllm`; `maxN` for a limit that the user gives
    max_tiles     most local views of an image
    cuts_several  whether the images of a request with more than one are cut
    """

    name: str
    max_tiles: int
    cuts_several: bool

    def __post_init__(self) -> None:
        if type(self.max_tiles) is not int or not MIN_TILES <= self.max_tiles <= MAX_TILES:
            raise ValueError(f"max_tiles: got {self.max_tiles!r}, accepted: {MIN_TILES} to {MAX_TILES}")

    @property
    def grids(self) -> tuple[CropGrid, ...]:
        """The grids of the rule, in the order that it tries them."""
        return tuple(grid for grid in ALL_GRIDS if grid.tiles <= self.max_tiles)

    @property
    def suffix(self) -> str:
        """What it adds to the label of a page given by its size: `-vllm`; nothing for the default."""
        return "" if self == TRANSFORMERS else f"-{self.name}"

    @property
    def notice(self) -> str | None:
        """The sentence that output about a page starts with; None for the default."""
        if self == TRANSFORMERS:
            return None
        several = "" if self.cuts_several else "; images of a request with several are not cut"
        return f"crop rule: {self.name}, at most {self.max_tiles} tiles{several} (default: at most {MAX_TILES})"

    def require(self, grid: CropGrid) -> None:
        """Raise ValueError for a grid that the rule never chooses."""
        if grid.tiles > self.max_tiles:
            raise ValueError(
                f"crop grid: got {grid} ({grid.tiles} tiles), accepted: at most {self.max_tiles} tiles, as {self.name} cuts"
            )


TRANSFORMERS: Final = CropRule(name="transformers", max_tiles=MAX_TILES, cuts_several=True)
RULES: Final = {rule.name: rule for rule in (TRANSFORMERS, CropRule(name="vllm", max_tiles=6, cuts_several=False))}
"""The rules by who serves; the first is the default."""


def crop_rule(served_by: str | None, max_tiles: int | None) -> CropRule:
    """The rule of an engine, with another limit if one is given. Raises ValueError naming the known engines."""
    accept("served_by", served_by or TRANSFORMERS.name, tuple(RULES))
    rule = RULES[served_by or TRANSFORMERS.name]
    if max_tiles is None or max_tiles == rule.max_tiles:
        return rule
    return CropRule(name=f"max{max_tiles}", max_tiles=max_tiles, cuts_several=rule.cuts_several)


def split_label(label: str) -> tuple[str, CropRule]:
    """A page's label without its rule, and the rule: `1920x1080px-vllm`, `a4-200dpi-max4`; without one, the default."""
    start, _, end = label.rpartition("-")
    if end in RULES and start:
        return start, RULES[end]
    if start and end.startswith("max") and end[3:].isascii() and end[3:].isdigit():
        return start, crop_rule(None, int(end[3:]))
    return label, TRANSFORMERS


def crop_grid_for(width_px: int, height_px: int, *, rule: CropRule = TRANSFORMERS, images: int = 1) -> CropGrid | None:
    """The grid for an image of this size in a request with `images` of them; None if it is not cut.

    The nearest aspect ratio wins. On a tie the later grid wins if the image has more than half of the grid's pixels.
    """
    whole("image width", width_px)
    whole("image height", height_px)
    whole("images", images)
    if max(width_px, height_px) <= TILE_PX or (images > 1 and not rule.cuts_several):
        return None
    ratio, best, distance = width_px / height_px, ALL_GRIDS[0], float("inf")
    for grid in rule.grids:
        off = abs(ratio - grid.columns / grid.rows)
        fills = width_px * height_px > 0.5 * TILE_PX * TILE_PX * grid.tiles
        if off < distance or (off == distance and fills):
            best, distance = grid, off
    return best
