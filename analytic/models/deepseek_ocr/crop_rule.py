"""The crop rule: the grid of local views of a page, from the size of its image and from who serves it.

No crops if both sides fit one tile, otherwise the grid with the nearest aspect ratio, of 2 to as many tiles as the rule
allows. The rule is the same for every family; the side of a tile and the most tiles are not. DeepSeek-OCR: 640 px; 9 tiles
in transformers and in the vendor's Hugging Face code, 6 in vLLM and in the vendor's code for it.
Source: transformers' preprocessing of unlimited_ocr; vLLM's transformers_utils/processors/deepseek_ocr.py (0.32).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from analytic.core.checks import accept, whole

TILE_PX: Final = 640
MIN_TILES: Final = 2
MAX_TILES: Final = 9


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class CropGrid:
    """Local tiles: `columns` x `rows`, written `2x3`; at least 2 in all. The most are those of a crop rule."""

    columns: int
    rows: int

    def __post_init__(self) -> None:
        whole("crop grid columns", self.columns)
        whole("crop grid rows", self.rows)
        if self.tiles < MIN_TILES:
            raise self.refused(f"{MIN_TILES} tiles or more")

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"

    @property
    def tiles(self) -> int:
        """Number of local views."""
        return self.columns * self.rows

    @classmethod
    def parse(cls, text: str) -> CropGrid:
        """Parse `WxH`. Raises ValueError for anything else, and for fewer than 2 tiles."""
        columns, rows = parse_pair("crop grid", text, example="2x3")
        return cls(columns=columns, rows=rows)

    def refused(self, accepted: str) -> ValueError:
        """The error about a grid of another number of tiles than `accepted`."""
        return ValueError(f"crop grid: got {self} ({self.tiles} tiles), accepted: WxH with {accepted}, such as 2x1 or 2x3")


def parse_pair(field: str, text: str, *, example: str) -> tuple[int, int]:
    """Parse two positive whole numbers written `WxH`. Raises ValueError naming `field` otherwise."""
    left, cross, right = text.strip().lower().partition("x")
    digits = left.isascii() and left.isdigit() and right.isascii() and right.isdigit()
    if not (cross and digits and int(left) > 0 and int(right) > 0):
        raise ValueError(f"{field}: got {text!r}, accepted: WxH in positive whole numbers, such as {example}")
    return int(left), int(right)


@cache
def grids_of(max_tiles: int) -> tuple[CropGrid, ...]:
    """The grids of 2 to `max_tiles` tiles in the order that the rule tries them: fewest tiles first, narrow before wide."""
    sides = range(1, max_tiles + 1)
    pairs = ((columns, rows) for columns in sides for rows in sides if MIN_TILES <= columns * rows <= max_tiles)
    return tuple(
        CropGrid(columns=columns, rows=rows) for columns, rows in sorted(pairs, key=lambda pair: pair[0] * pair[1])
    )


ALL_GRIDS: Final = grids_of(MAX_TILES)
"""The 22 grids of DeepSeek-OCR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRule:
    """How an engine cuts the images of a request.

    name          who serves: `transformers`, `vllm`; with a limit that the user gives `maxN`, `vllm-maxN`
    max_tiles     most local views of an image
    cuts_several  whether the images of a request with more than one are cut
    tile_px       side of a local view in pixels
    limit         most local views under any rule of the family; those of transformers, whose rule is the default
    """

    name: str
    max_tiles: int
    cuts_several: bool
    tile_px: int
    limit: int

    def __post_init__(self) -> None:
        if type(self.max_tiles) is not int or not MIN_TILES <= self.max_tiles <= self.limit:
            raise ValueError(f"max_tiles: got {self.max_tiles!r}, accepted: {MIN_TILES} to {self.limit}")

    @property
    def grids(self) -> tuple[CropGrid, ...]:
        """The grids of the rule, in the order that it tries them."""
        return grids_of(self.max_tiles)

    @property
    def suffix(self) -> str:
        """What it adds to the label of a page given by its size: `-vllm`; nothing for the default."""
        return "" if self.name == DEFAULT else f"-{self.name}"

    @property
    def notice(self) -> str | None:
        """The sentence that output about a page starts with; None for the default."""
        if self.name == DEFAULT:
            return None
        several = "" if self.cuts_several else "; images of a request with several are not cut"
        return f"crop rule: {self.name}, at most {self.max_tiles} tiles{several} (default: at most {self.limit})"

    def require(self, grid: CropGrid) -> None:
        """Raise ValueError for a grid that the rule never chooses."""
        if grid.tiles > self.limit:
            raise grid.refused(f"{MIN_TILES} to {self.limit} tiles")
        if grid.tiles > self.max_tiles:
            raise ValueError(
                f"crop grid: got {grid} ({grid.tiles} tiles), accepted: at most {self.max_tiles} tiles, as {self.name} cuts"
            )


DEFAULT: Final = "transformers"
"""The name of every family's default rule."""
TRANSFORMERS: Final = CropRule(name=DEFAULT, max_tiles=MAX_TILES, cuts_several=True, tile_px=TILE_PX, limit=MAX_TILES)
VLLM: Final = replace(TRANSFORMERS, name="vllm", max_tiles=6, cuts_several=False)
RULES: Final = {rule.name: rule for rule in (TRANSFORMERS, VLLM)}
"""DeepSeek-OCR's rules by who serves; the first is the default."""
ITS_RULES: Final = tuple(RULES.values())


def crop_rule(served_by: str | None, max_tiles: int | None, *, rules: Sequence[CropRule] = ITS_RULES) -> CropRule:
    """The rule of an engine, with another limit if one is given. Raises ValueError naming the engines of `rules`."""
    accept("served_by", served_by or DEFAULT, tuple(rule.name for rule in rules))
    chosen = next(rule for rule in rules if rule.name == (served_by or DEFAULT))
    if max_tiles is None or max_tiles == chosen.max_tiles:
        return chosen
    limit = f"max{max_tiles}" if chosen.name == DEFAULT else f"{chosen.name}-max{max_tiles}"
    return replace(chosen, name=limit, max_tiles=max_tiles)


def split_label(label: str, *, rules: Sequence[CropRule] = ITS_RULES) -> tuple[str, CropRule]:
    """A page's label without its rule, and the rule; without one, the default.

    `1920x1080px-vllm`, `a4-200dpi-max4`, `a4-200dpi-vllm-max4`.
    """
    names = "|".join(re.escape(rule.name) for rule in rules)
    found = re.fullmatch(rf"(?P<label>.+?)(-(?P<served_by>{names}))?(-max(?P<most>[0-9]+))?", label)
    if found is None:
        return label, rules[0]
    most = None if found["most"] is None else int(found["most"])
    return found["label"], crop_rule(found["served_by"], most, rules=rules)


def crop_grid_for(width_px: int, height_px: int, *, rule: CropRule = TRANSFORMERS, images: int = 1) -> CropGrid | None:
    """The grid for an image of this size in a request with `images` of them; None if it is not cut.

    The nearest aspect ratio wins. On a tie the later grid wins if the image has more than half of the grid's pixels.
    """
    whole("image width", width_px)
    whole("image height", height_px)
    whole("images", images)
    if max(width_px, height_px) <= rule.tile_px or (images > 1 and not rule.cuts_several):
        return None
    ratio, best, distance = width_px / height_px, rule.grids[0], float("inf")
    for grid in rule.grids:
        off = abs(ratio - grid.columns / grid.rows)
        fills = width_px * height_px > 0.5 * rule.tile_px * rule.tile_px * grid.tiles
        if off < distance or (off == distance and fills):
            best, distance = grid, off
    return best
