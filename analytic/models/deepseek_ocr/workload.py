"""The workload of the model: the views of a page, the pages that a family knows, and what each decoder position holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from analytic.core.checks import whole
from analytic.models.deepseek_ocr.crop_rule import (
    ITS_RULES,
    TRANSFORMERS,
    CropGrid,
    CropRule,
    crop_grid_for,
    crop_rule,
    parse_pair,
    split_label,
)

PX_PER_TOKEN: Final = 64  # 16 px per patch, then two convolutions of stride 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewGroup:
    """`count` square views of `side_px` pixels that run as one call."""

    side_px: int
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionWorkload:
    """The views of one page: a global view of `base_size` pixels and, with a grid, local views of `image_size`."""

    base_size: int
    image_size: int
    grid: CropGrid | None

    def __post_init__(self) -> None:
        for field in ("base_size", "image_size"):
            size = getattr(self, field)
            whole(field, size)
            if size % PX_PER_TOKEN:
                raise ValueError(f"{field}: got {size}, accepted: a multiple of {PX_PER_TOKEN}")

    @classmethod
    def from_image(cls, width_px: int, height_px: int, *, rule: CropRule = TRANSFORMERS, images: int = 1) -> VisionWorkload:
        """Gundam mode (a global view and n tiles) for an image of this size, cut by `rule` in a request with `images`."""
        grid = crop_grid_for(width_px, height_px, rule=rule, images=images)
        return cls(base_size=BASE_PX, image_size=rule.tile_px, grid=grid)

    @property
    def view_groups(self) -> tuple[ViewGroup, ...]:
        """Views grouped by size, the global view first."""
        whole_page = ViewGroup(side_px=self.base_size, count=1)
        if self.grid is None:
            return (whole_page,)
        return whole_page, ViewGroup(side_px=self.image_size, count=self.grid.tiles)

    @property
    def num_views(self) -> int:
        """Number of global and local views."""
        return sum(group.count for group in self.view_groups)

    @property
    def global_tokens(self) -> int:
        """Tokens of the global view: q rows of q tokens and a newline, and the separator; q = base_size / 64."""
        q = self.base_size // PX_PER_TOKEN
        return q * (q + 1) + 1

    @property
    def newline_rows(self) -> int:
        """Tokens of the local views: rows over all tiles, each ending in a newline."""
        return 0 if self.grid is None else self.grid.rows * (self.image_size // PX_PER_TOKEN)

    @property
    def local_tokens(self) -> int:
        """Rows of local tokens over all tiles, each with one newline; 0 without crops."""
        if self.grid is None:
            return 0
        return self.newline_rows * (self.grid.columns * (self.image_size // PX_PER_TOKEN) + 1)

    @property
    def image_tokens(self) -> int:
        """Decoder positions of the page's image."""
        return self.global_tokens + self.local_tokens

    @classmethod
    def of_record(cls, page: Mapping[str, Any]) -> VisionWorkload:
        """The page as stored in a record: `base_size_px`, `image_size_px`, and `crop_grid` or null."""
        grid = None if page["crop_grid"] is None else CropGrid.parse(page["crop_grid"])
        return cls(base_size=page["base_size_px"], image_size=page["image_size_px"], grid=grid)

    def as_json(self) -> dict[str, Any]:
        """The page as described in files: label, grid, views and image tokens."""
        return {
            "page": self.label,
            "crop_grid": None if self.grid is None else str(self.grid),
            "views": self.num_views,
            "image_tokens": self.image_tokens,
        }

    @property
    def label(self) -> str:
        """`gundam-2x3` or the mode's name, otherwise the size: the label in test ids and tables."""
        if self.grid is not None:
            return f"gundam-{self.grid}"
        named = MODE_SIDES_PX.items() if self.image_size == self.base_size else ()
        return next((mode for mode, side_px in named if side_px == self.base_size), f"{self.base_size}px")


BASE_PX: Final = 1024
"""The global view beside local views."""
MODE_SIDES_PX: Final = {"tiny": 512, "small": 640, "base": 1024, "large": 1280}
"""The modes without crops: the side of their single view."""
PAGE_SIZES: Final = {
    "a4-200dpi": (1654, 2339),
    "a4-landscape": (2339, 1654),
    "letter-200dpi": (1700, 2200),
    "book-spread": (2480, 1754),
    "slide-16x9": (1920, 1080),
    "slide-4x3": (1600, 1200),
    "newspaper": (2500, 3900),
    "tall-receipt": (600, 2400),
    "wide-banner": (3000, 500),
    "exam-paper": (1440, 2037),
    "thumbnail": (600, 400),
}
"""Page sizes in pixels that are common in document benchmarks, from spread to receipt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFormat:
    """The pages that a family knows: by mode, grid, size in pixels or label.

    views  class of a page of the family
    rules  its crop rules; the first is the default, that of transformers
    swept  the pages of a sweep: the single view, and per number of tiles the squarest grid, portrait rather than landscape
    modes  the modes without crops: the side of their single view in pixels
    """

    views: type[VisionWorkload]
    rules: tuple[CropRule, ...]
    swept: tuple[str, ...]
    modes: Mapping[str, int]

    @property
    def rule(self) -> CropRule:
        """The default rule."""
        return self.rules[0]

    def mode(self, name: str) -> VisionWorkload:
        """The page of a mode, a single view. Raises ValueError naming the modes."""
        if name not in self.modes:
            raise ValueError(f"mode: got {name!r}, accepted: {', '.join(self.modes)}")
        return self.views(base_size=self.modes[name], image_size=self.modes[name], grid=None)

    def all_modes(self) -> dict[str, VisionWorkload]:
        """The page of every mode by name."""
        return {name: self.mode(name) for name in self.modes}

    def gundam(self, grid: CropGrid | None) -> VisionWorkload:
        """Gundam mode with this grid; only the global view if it is None. Raises ValueError for a grid that no rule has."""
        if grid is not None:
            self.rule.require(grid)
        return self.views(base_size=BASE_PX, image_size=self.rule.tile_px, grid=grid)

    def of_size(self, width_px: int, height_px: int, *, rule: CropRule | None = None, images: int = 1) -> VisionWorkload:
        """The page of an image of this size, cut by `rule` (default: that of transformers) in a request with `images`."""
        return self.views.from_image(width_px, height_px, rule=rule or self.rule, images=images)

    def rule_of(self, served_by: str | None, max_tiles: int | None) -> CropRule:
        """The rule of an engine, with another limit if one is given. Raises ValueError naming the known engines."""
        return crop_rule(served_by, max_tiles, rules=self.rules)

    def parse(self, field: str, text: str, *, rule: CropRule | None = None) -> VisionWorkload:
        """The page of a mode, of a grid `WxH` in Gundam mode, or of a size that `rule` cuts: `1920x1080px`, `a4-200dpi`.

        Raises ValueError naming `field` for anything else, and for a grid that the rule never chooses.
        """
        if text in self.modes:
            return self.mode(text)
        if text in PAGE_SIZES:
            return self.of_size(*PAGE_SIZES[text], rule=rule)
        if text.endswith("px"):
            return self.of_size(*parse_pair(field, text.removesuffix("px"), example="1920x1080px"), rule=rule)
        try:
            grid = CropGrid.parse(text)
            (rule or self.rule).require(grid)
        except ValueError as error:
            raise ValueError(
                f"{field}: {str(error).partition(': ')[2]}, or {', '.join(self.modes)}, or pixels such as 1920x1080px, or "
                f"{', '.join(PAGE_SIZES)}"
            ) from error
        return self.gundam(grid)

    def of_label(self, label: str) -> VisionWorkload:
        """The page of a label: a mode, `gundam-2x3`, `1654x2339px` or one of PAGE_SIZES.

        A size may name the rule that cuts it: `1654x2339px-vllm`, `a4-200dpi-max4`. Raises ValueError for any other label.
        """
        if label in self.modes:
            return self.mode(label)
        if label.startswith("gundam-"):
            return self.gundam(CropGrid.parse(label.removeprefix("gundam-")))
        name, rule = split_label(label, rules=self.rules)
        if name in PAGE_SIZES:
            return self.of_size(*PAGE_SIZES[name], rule=rule)
        if name.endswith("px"):
            return self.of_size(*parse_pair("page", name.removesuffix("px"), example="1654x2339px"), rule=rule)
        raise ValueError(
            f"page: got {label!r}, accepted: {', '.join(self.modes)}, gundam-WxH, WxHpx in pixels, or "
            f"{', '.join(PAGE_SIZES)}"
        )


PAGES: Final = PageFormat(
    views=VisionWorkload,
    rules=ITS_RULES,
    swept=("base", "1x2", "1x3", "2x2", "1x5", "2x3", "1x7", "2x4", "3x3"),
    modes=MODE_SIDES_PX,
)
"""The pages of DeepSeek-OCR."""
MODES: Final = PAGES.all_modes()
SWEPT_PAGES: Final = PAGES.swept
gundam, page_of, parse_page = PAGES.gundam, PAGES.of_label, PAGES.parse


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLayout:
    """The layout of a sequence: one BOS, the image tokens, then text."""

    seq_len: int
    image_tokens: int
    bos_tokens: int
    text_tokens: int

    @classmethod
    def of(cls, seq_len: int, workload: VisionWorkload | None) -> TokenLayout:
        """The layout of a requested length: the image tokens of the page, one BOS, and text in the remaining positions.

        Without a page every position but the BOS is text. Raises ValueError, naming the least sufficient length, if the
        image does not fit.
        """
        whole("seq_len", seq_len)
        image = 0 if workload is None else workload.image_tokens
        if seq_len < image + 1:
            views = "" if workload is None else f" ({workload.label}: {image} image tokens and 1 BOS)"
            raise ValueError(
                f"seq_len: got {seq_len}, accepted: at least {image + 1} for this page{views}; "
                f"choose a longer sequence, a smaller grid, or no image"
            )
        return cls(seq_len=seq_len, image_tokens=image, bos_tokens=1, text_tokens=seq_len - image - 1)
