"""The chart of variants side by side: what each takes, relative to the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from analytic.io.charts import FAINT, INK, SERIES, figure, label, legend, plain
from analytic.planning.variants import VariantCost, Variants

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_IN: Final = (7.2, 4.4)
WIDTH: Final = 0.8
"""Of a group of bars; groups are one apart."""


def drawn(found: Variants) -> Figure:
    """One group of bars a quantity, one bar a variant; the first variant is 1."""
    chart, axes = figure(size_in=SIZE_IN)
    quantities = _quantities(found)
    bar = WIDTH / len(found.variants)
    for number, variant in enumerate(found.variants):
        left = [group - WIDTH / 2 + (number + 0.5) * bar for group in range(len(quantities))]
        of_first = [value(variant) / (value(found.variants[0]) or 1) for _, value in quantities]
        axes.bar(left, of_first, bar * 0.92, color=SERIES[number % len(SERIES)], label=plain(variant.spec.model_variant))
        for at, height in zip(left, of_first, strict=True):
            text = f"{height:.2f}"
            axes.annotate(
                text, (at, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5, color=INK
            )
    axes.axhline(1, color=FAINT, linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(quantities)), [name for name, _ in quantities])
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    where = "" if found.device is None else f" on {found.device.name}"
    label(
        axes,
        title=f"One page and {found.new_tokens:,} new tokens{where}",
        x="",
        y=f"relative to {found.variants[0].spec.model_variant}",
    )
    legend(axes, columns=min(3, len(found.variants)))
    return chart


def _quantities(found: Variants) -> list[tuple[str, Callable[[VariantCost], float]]]:
    quantities: list[tuple[str, Callable[[VariantCost], float]]] = [
        ("image\ntokens", lambda v: v.image_tokens),
        ("vision\nFLOPs", lambda v: v.stages["vision"].executed_flops),
        ("page\nFLOPs", lambda v: v.whole_page.executed_flops),
        ("bytes at\nleast", lambda v: v.whole_page.fused_bytes),
        ("KV cache\nat the end", lambda v: v.memory.kv_bytes),
        ("memory of\none page", lambda v: v.memory.total_bytes),
    ]
    if found.device is not None:
        quantities += [
            ("floor of\nthe page", lambda v: 0.0 if v.times is None else v.times.page_s),
            ("pages/s\nat most", lambda v: 0.0 if v.times is None else v.times.pages_per_s or 0.0),
        ]
    return quantities
