"""A mix of pages: the shapes that a device reads, their shares, and the number of tokens generated per page.

Some pages never stop generating (`Loop`): they end at a limit of tokens or of the window. A page in flight is then one of
them more often than a page that arrives is, since they stay longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from analytic.core.checks import whole
from analytic.models.deepseek_ocr.crop_rule import MIN_TILES, TRANSFORMERS, CropGrid, CropRule
from analytic.models.deepseek_ocr.workload import PAGE_SIZES, PAGES, PageFormat, TokenLayout, VisionWorkload

NO_IMAGE: Final = "no image"
MOST_OFF: Final = 1e-6
"""Accepted deviation of the sum of shares from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageShare:
    """Pages of one shape: their `share` of all pages, and the `seq_len` positions of each prefill.

    label  name of the page in tables and records
    page   None for the decoder alone
    """

    label: str
    share: float
    page: VisionWorkload | None
    seq_len: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"mix: got a share of {self.share:g} for {self.label}, accepted: above 0 and at most 1")
        TokenLayout.of(self.seq_len, self.page)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """The `share` of pages that never stop generating: they end after `tokens` tokens, or when the `window` is full."""

    share: float
    tokens: int
    window: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"loop_share: got {self.share:g}, accepted: above 0 and below 1, such as 0.05")
        whole("loop_tokens", self.tokens)

    def tokens_after(self, seq_len: int) -> int:
        """Tokens of such a page after a prefill of `seq_len`; the last is not fed back."""
        return min(self.tokens, self.window - seq_len + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageClass:
    """Pages of one shape that generate the same number of tokens: their `share` of all pages, and those in flight.

    loops  whether they are those that never stop
    """

    page: PageShare
    share: float
    in_flight_share: float
    new_tokens: int
    loops: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Pages of several shapes, whose shares sum to 1; `new_tokens` tokens are generated per page that stops.

    `crop_rule` cut those pages that are given by their size. `loop`: the pages that never stop; None if there are none.
    """

    pages: tuple[PageShare, ...]
    new_tokens: int
    crop_rule: CropRule = TRANSFORMERS
    loop: Loop | None = None

    def __post_init__(self) -> None:
        whole("new_tokens", self.new_tokens)
        if self.loop is not None and self.loop.tokens < self.new_tokens:
            raise ValueError(
                f"loop_tokens: got {self.loop.tokens}, accepted: at least new_tokens, {self.new_tokens}; a page that never "
                f"stops generates more than one that does"
            )
        labels = [shape.label for shape in self.pages]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"mix: got {label} {labels.count(label)} times, accepted: each page once")
        total = math.fsum(shape.share for shape in self.pages)
        if abs(total - 1) > MOST_OFF:
            raise ValueError(f"mix: got shares that sum to {total:g}, accepted: 1, such as a4-200dpi=0.7 base=0.3")

    @classmethod
    def of_one(
        cls, page: VisionWorkload | None, *, seq_len: int, new_tokens: int, crop_rule: CropRule = TRANSFORMERS
    ) -> Mix:
        """A mix of a single shape."""
        label = NO_IMAGE if page is None else page.label
        return cls(
            pages=(PageShare(label=label, share=1.0, page=page, seq_len=seq_len),),
            new_tokens=new_tokens,
            crop_rule=crop_rule,
        )

    @classmethod
    def parsed(
        cls,
        texts: Sequence[str],
        *,
        seq_len: int | None,
        prompt_tokens: int,
        new_tokens: int,
        crop_rule: CropRule = TRANSFORMERS,
        known: PageFormat = PAGES,
    ) -> Mix:
        """Parse `PAGE=SHARE` texts; by default the length of a page is its image, one BOS and the prompt.

        `known`: the pages of the model's family.
        Raises ValueError naming `mix` and the offending part.
        """
        whole("prompt_tokens", prompt_tokens, least=0)
        pages = []
        for text in texts:
            name, equals, number = text.partition("=")
            try:
                share = float(number)
            except ValueError:
                share = math.nan
            if not equals or math.isnan(share):
                raise ValueError(f"mix: got {text!r}, accepted: PAGE=SHARE with a number, such as a4-200dpi=0.7")
            label, page = _page(name, crop_rule, known)
            length = page.image_tokens + 1 + prompt_tokens if seq_len is None else seq_len
            pages.append(PageShare(label=label, share=share, page=page, seq_len=length))
        return cls(pages=tuple(pages), new_tokens=new_tokens, crop_rule=crop_rule)

    @property
    def alone(self) -> tuple[Mix, ...]:
        """One mix per shape, consisting of that shape alone."""
        return tuple(replace(self, pages=(replace(shape, share=1.0),)) for shape in self.pages)

    @property
    def classes(self) -> tuple[PageClass, ...]:
        """Pages by shape and by whether they stop; in flight they are by the decode steps that they stay for."""
        parts: list[tuple[PageShare, float, int, bool]] = []
        for page in self.pages:
            looping = 0.0 if self.loop is None else self.loop.share
            parts.append((page, page.share * (1 - looping), self.new_tokens, False))
            if self.loop is not None:
                parts.append((page, page.share * looping, self.loop.tokens_after(page.seq_len), True))
        stays = math.fsum(share * (tokens - 1) for _, share, tokens, _ in parts)
        alike = self.loop is None or not stays
        return tuple(
            PageClass(
                page=page,
                share=share,
                in_flight_share=share if alike else share * (tokens - 1) / stays,
                new_tokens=tokens,
                loops=loops,
            )
            for page, share, tokens, loops in parts
        )

    @property
    def mean_new_tokens(self) -> float:
        """New tokens per page, in the mean."""
        if self.loop is None:
            return self.new_tokens
        return math.fsum(part.share * part.new_tokens for part in self.classes)

    @property
    def decode_steps(self) -> int:
        """Decode steps of a page that stops; the first token comes from the prefill."""
        return self.new_tokens - 1

    @property
    def mean_decode_steps(self) -> float:
        """Decode steps per page, in the mean."""
        return self.mean_new_tokens - 1

    def batch_steps(self, pages: int) -> float:
        """Decode steps of a batch of `pages` pages, which lasts until its longest is done, in the mean."""
        if self.loop is None:
            return self.decode_steps
        some_loops = 1 - (1 - self.loop.share) ** pages
        longest = math.fsum(page.share * self.loop.tokens_after(page.seq_len) for page in self.pages)
        return self.new_tokens - 1 + some_loops * (longest - self.new_tokens)

    @property
    def mean_context_len(self) -> int:
        """Positions in a cache that keeps all before a decode step: the mean over the pages in flight and steps."""
        return self.mean_attended(lambda steps: max(0, steps - 1) / 2)

    def mean_attended(self, mean_decoded: Callable[[int], float]) -> int:
        """Positions that a decode step attends to before its own: the mean over pages in flight and steps, rounded down.

        `mean_decoded`: of a number of steps, the mean number of decoded positions among them.
        """
        if self.loop is None:
            prefilled = math.fsum(shape.share * shape.seq_len for shape in self.pages)
            return int(prefilled + mean_decoded(self.new_tokens - 1))
        return int(
            math.fsum(
                part.in_flight_share * (part.page.seq_len + mean_decoded(part.new_tokens - 1)) for part in self.classes
            )
        )


def _page(name: str, rule: CropRule, known: PageFormat) -> tuple[str, VisionWorkload]:
    """The label and the page of a name accepted by `of_label`, or of a grid such as `2x3`; a size is cut by `rule`."""
    try:
        if name[:1].isdigit() and "px" not in name:
            grid = CropGrid.parse(name)
            rule.require(grid)
            return known.gundam(grid).label, known.gundam(grid)
        by_size = name in PAGE_SIZES or name.endswith("px")
        label = f"{name}{rule.suffix}" if by_size else name
        return label, known.of_label(label)
    except ValueError as error:
        raise ValueError(
            f"mix: got {name!r}, accepted: {', '.join(known.modes)}, a grid of {MIN_TILES} to {known.rule.limit} tiles "
            f"such as 2x3, pixels such as 1654x2339px, or {', '.join(PAGE_SIZES)}"
        ) from error
