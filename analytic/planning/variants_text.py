"""Variants side by side as text: a row a quantity, a column a variant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analytic.io.table import aligned, three_digits
from analytic.planning.variants import STAGES, VariantCost, Variants

MOST_COLUMNS: Final = 100
BESIDE: Final = 3
"""Most variants of one table: so many fit into MOST_COLUMNS."""
Row = tuple[str, Callable[[VariantCost], str]]


def lines(found: Variants) -> list[str]:
    """The heading and the tables, none wider than MOST_COLUMNS."""
    run, number = found.run, len(found.variants)
    heading = [
        f"{number} variants: the same page, a prompt of {found.prompt_tokens:,} tokens and {found.new_tokens:,} new tokens",
        f"{run.dtype}, attention {run.attention}, experts {run.experts}, batch 1"
        + ("" if found.device is None else f"; on {found.device.name}"),
    ]
    tables: list[str] = []
    for start in range(0, number, BESIDE):
        tables += ["", *_table(found.variants[start : start + BESIDE], _rows(found))]
    return [*heading, *tables, "", *_explained(found)]


def _table(variants: tuple[VariantCost, ...], rows: list[Row]) -> list[str]:
    first = ["", *(variant.spec.model_variant for variant in variants)]
    return aligned([first, *([name, *(value(variant) for variant in variants)] for name, value in rows)])


def _rows(found: Variants) -> list[Row]:
    rows: list[Row] = [
        ("page", lambda v: "no image" if v.page is None else v.page.label),
        ("views", lambda v: f"{0 if v.page is None else v.page.num_views:,}"),
        ("image tokens", lambda v: f"{v.image_tokens:,}"),
        ("positions of the prefill", lambda v: f"{v.seq_len:,}"),
        *((f"{stage}, TFLOP", _flops(stage)) for stage in STAGES),
        ("page, TFLOP", lambda v: three_digits(v.whole_page.executed_flops / 1e12)),
        ("page, GB moved", lambda v: three_digits(v.whole_page.eager_bytes / 1e9)),
        ("page, GB at least", lambda v: three_digits(v.whole_page.fused_bytes / 1e9)),
        ("weights, GB", lambda v: three_digits(v.memory.weight_bytes / 1e9)),
        ("KV cache, bytes a token", lambda v: f"{v.kv_bytes_per_token:,}"),
        ("KV cache at the end, MB", lambda v: three_digits(v.memory.kv_bytes / 1e6)),
        ("memory of one page, GB", lambda v: three_digits(v.memory.total_bytes / 1e9)),
    ]
    if found.device is not None:
        rows += [
            ("floor of vision, ms", lambda v: "" if v.times is None else three_digits(v.times.vision_s * 1e3)),
            ("floor of prefill, ms", lambda v: "" if v.times is None else three_digits(v.times.prefill_s * 1e3)),
            ("floor of a token, ms", lambda v: "" if v.times is None else three_digits(v.times.step_s * 1e3)),
            ("floor of the page, s", lambda v: "" if v.times is None else three_digits(v.times.page_s)),
            ("pages in flight", lambda v: "" if v.times is None else f"{v.times.pages_in_flight:,}"),
            ("pages/s at most", _pages_per_s),
        ]
    return rows


def _flops(stage: str) -> Callable[[VariantCost], str]:
    return lambda variant: three_digits(variant.stages[stage].executed_flops / 1e12)


def _pages_per_s(variant: VariantCost) -> str:
    if variant.times is None or variant.times.pages_per_s is None:
        return "-"
    return three_digits(variant.times.pages_per_s)


def _explained(found: Variants) -> list[str]:
    said = ["each variant cuts the page by its own rule; decode is all tokens after the first"]
    if found.device is not None:
        said.append("floor: the roofline of the datasheet, a lower bound on time; pages/s at most follow from it")
    return said
