"""Pages counted by size and by views, and the file that keeps their mix: one `PAGE=SHARE` in a line.

The file holds sizes in pixels, `1654x2339px=0.7`, so that every crop rule can be applied to it; lines that start with `#`
are comments. Plans group its pages by views, since pages that are cut alike cost the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from analytic.core.checks import whole
from analytic.io import shell, stored
from analytic.io.json_text import read_text
from analytic.models.deepseek_ocr.crop_rule import CropRule
from analytic.models.deepseek_ocr.workload import PAGES, PageFormat, VisionWorkload
from analytic.planning.mix import Mix, PageShare

MOST_LINES: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedSize:
    """`count` pages of one size in pixels; `example` is the name of the first, None if it has none."""

    width_px: int
    height_px: int
    count: int
    example: str | None

    @property
    def label(self) -> str:
        """`1654x2339`."""
        return f"{self.width_px}x{self.height_px}"

    def cut_by(self, rule: CropRule, known: PageFormat, images: int = 1) -> VisionWorkload:
        """The views of such a page in a request with `images` of them; `known`: the pages of the model's family."""
        return known.of_size(self.width_px, self.height_px, rule=rule, images=images)


def counted(pages: Iterable[tuple[int, int, str | None]]) -> tuple[CountedSize, ...]:
    """Pages (width, height, name) by size, the most frequent first."""
    examples: dict[tuple[int, int], str | None] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for width, height, name in pages:
        examples.setdefault((width, height), name)
        counts[width, height] += 1
    return tuple(
        CountedSize(width_px=size[0], height_px=size[1], count=count, example=examples[size])
        for size, count in counts.most_common()
    )


def mix_of(
    sizes: Sequence[CountedSize],
    *,
    seq_len: int | None,
    prompt_tokens: int,
    new_tokens: int,
    crop_rule: CropRule,
    known: PageFormat = PAGES,
    images: int = 1,
) -> Mix:
    """The mix of counted pages by views. By default the length of a page is its image, one BOS and the prompt."""
    whole("prompt_tokens", prompt_tokens, least=0)
    total = sum(size.count for size in sizes)
    shares = []
    for size in sizes:
        page = size.cut_by(crop_rule, known, images)
        length = page.image_tokens + 1 + prompt_tokens if seq_len is None else seq_len
        shares.append(PageShare(label=size.label, share=size.count / total, page=page, seq_len=length))
    return by_views(Mix(pages=tuple(shares), new_tokens=new_tokens, crop_rule=crop_rule), known)


def by_views(mix: Mix, known: PageFormat) -> Mix:
    """The mix with one page for all that have the same views and length, the largest share first."""
    groups: dict[tuple[object, ...], PageShare] = {}
    for shape in mix.pages:
        views = (None if shape.page is None else shape.page.view_groups, shape.seq_len)
        before = groups.get(views)
        label = shape.label if shape.page is None else views_label(shape.page, known)
        share = shape.share + (0 if before is None else before.share)
        groups[views] = replace(shape, label=label, share=min(share, 1.0))
    return replace(mix, pages=tuple(sorted(groups.values(), key=lambda shape: -shape.share)))


def views_label(page: VisionWorkload, known: PageFormat) -> str:
    """The name of a page's views in a mix: `gundam-2x3`, or the mode with the same single view."""
    modes = known.all_modes().items()
    return next((name for name, mode in modes if mode.view_groups == page.view_groups), page.label)


def as_options(mix: Mix) -> str:
    """The mix as the words of `--mix`: `2x3=0.75 base=0.25`."""
    return " ".join(f"{shape.label.removeprefix('gundam-')}={shape.share:.10g}" for shape in mix.pages)


def write_mix(path: Path, sizes: Sequence[CountedSize], *, told: str) -> None:
    """Write the file of a mix, below the comment `told`. Raises OSError."""
    total = sum(size.count for size in sizes)
    lines = [f"# {told}", *(f"{size.label}px={size.count / total!r}" for size in sizes)]
    stored.write_at_once(path, "\n".join(lines) + "\n")


def read_mix(path: Path) -> list[str]:
    """The `PAGE=SHARE` texts of a file. Raises ValueError if it cannot be read, or has none or too many."""
    if not path.is_file():
        raise ValueError(
            f"mix: got {path}, accepted: PAGE=SHARE, such as a4-200dpi=0.7, or a file of them; "
            f"`{shell.analytic('crops', '--images', 'DIR', '--write-mix', 'FILE')}` writes one"
        )
    try:
        lines = read_text(path).splitlines()
    except (ValueError, OSError) as error:
        raise ValueError(f"mix: got {path}, which is no text ({error}), accepted: lines of PAGE=SHARE") from error
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not 1 <= len(texts) <= MOST_LINES:
        raise ValueError(f"mix: got {path}, with {len(texts):,} pages, accepted: 1 to {MOST_LINES:,} lines of PAGE=SHARE")
    for text in texts:
        if "=" not in text:
            raise ValueError(f"mix: got {text[:60]!r} in {path}, accepted: PAGE=SHARE, such as 1654x2339px=0.7")
    return texts
