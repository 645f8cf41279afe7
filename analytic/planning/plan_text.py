"""A plan as text for a terminal: memory of a single shape, throughput, bottleneck and assumptions."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Final

from analytic.io.table import aligned, three_digits
from analytic.planning.capacity import MOST_PAGES
from analytic.planning.plan import PagePlan, Plan
from analytic.planning.throughput import STAGES, Service, best

NEARLY: Final = 0.95
"""Fewer pages in flight are suggested if they reach this fraction of the most pages/s."""
WIDTH: Final = 124


def lines(found: Plan) -> list[str]:
    """The lines to print, with a memory breakdown if all pages have the same shape."""
    printed = [] if found.times is None else [f"times: {found.times.description}"]
    printed += [_heading(found)]
    if len(found.pages) == 1:
        printed += _memory_lines(found)
    if found.times is not None:
        sentences = (textwrap.wrap(text, width=WIDTH, subsequent_indent="  ") for text in _sentences(found))
        printed += [*aligned(_rows(found)), *itertools.chain.from_iterable(sentences)]
    elif found.device is not None:
        printed.append(f"no pages/s: the datasheet of {found.device} has no dense peak for {found.run.dtype}")
    return printed


def _heading(found: Plan) -> str:
    where = f"{found.memory_bytes / 1e9:g} GB" + ("" if found.device is None else f" ({found.device})")
    start = f"{found.spec.model_variant} in {where}, {found.run.dtype}; "
    new_tokens = f"{found.mix.new_tokens:,} new token{'' if found.mix.new_tokens == 1 else 's'}"
    if len(found.pages) > 1:
        return f"{start}a mix of {len(found.pages)} page shapes, {new_tokens} per page; their mean cache has to fit"
    page = found.pages[0].page
    return f"{start}a page: {page.label}, {page.seq_len} positions, {new_tokens}"


def _memory_lines(found: Plan) -> list[str]:
    fits = found.pages[0].fits
    rows = [["", "pages", "weights GB", "KV GB", "activations GB", "total GB"]]
    demands = (("one page", 1, fits.one_page), ("largest batch", fits.batch_size, fits.batch))
    for label, pages, need in (*demands, ("in flight", fits.pages_in_flight, fits.in_flight)):
        parts = () if need is None else need.as_json().values()
        rows.append([label, _pages(pages), *(f"{part / 1e9:,.3f}" for part in parts), *["-"] * (4 - len(parts))])
    return [*aligned(rows), "in flight: one page at a time in vision and prefill, all of them in decode"]


def _rows(found: Plan) -> list[list[str]]:
    price = found.price_per_hour
    heading = [
        "page",
        "share",
        "positions",
        "fit",
        "in flight",
        *(f"{stage} ms" for stage in STAGES),
        "pages/s",
        "tokens/s",
    ]
    rows = [[*heading, "h/million", *([] if price is None else ["cost/million"])]]
    for shape in found.pages:
        page, cells = shape.page, _cells(shape.services, price)
        rows.append([page.label, f"{page.share:.4g}", f"{page.seq_len:,}", _pages(_fits(shape, found)), *cells])
    if len(found.pages) > 1:
        rows.append(["the mix", "1", "", _pages(found.pages_in_flight), *_cells(found.services, price)])
    return rows


def _fits(shape: PagePlan, found: Plan) -> int:
    """Pages in flight that fit, or pages per batch if times were measured on batches."""
    batches = found.times is not None and found.times.batch_size is not None
    return shape.fits.batch_size if batches else shape.fits.pages_in_flight


def _pages(pages: int) -> str:
    """The number of pages that fit; `at least` if the search stopped at its limit."""
    return f"{'at least ' if pages == MOST_PAGES else ''}{pages:,}"


def _cells(found: Sequence[Service], price_per_hour: float | None) -> list[str]:
    """Table cells of the service with the most pages/s: pages in flight, times, rates and cost."""
    service = best(found)
    if service is None:
        return ["-"] * (7 if price_per_hour is None else 8)
    times_s = (service.vision_s, service.prefill_s, service.decode_s)
    cost = [] if price_per_hour is None else [f"{service.cost_per_million_pages(price_per_hour):,.2f}"]
    return [
        f"{service.pages_in_flight:,}",
        *(f"{time_s * 1e3:,.3f}" for time_s in times_s),
        three_digits(service.pages_per_s),
        three_digits(service.tokens_per_s),
        three_digits(service.device_hours_per_million_pages),
        *cost,
    ]


def _sentences(found: Plan) -> list[str]:
    """The bottleneck, the latency for a user, and the assumptions."""
    chosen = best(found.services)
    if chosen is None:
        return ["no page fits in memory beside the weights: no throughput"]
    parts = ", ".join(f"{stage} {share:.0%}" for stage, share in chosen.shares.items())
    waits = f"a first token after {_seconds(chosen.ttft_s)}"
    if chosen.tpot_s is not None:
        waits += f", then one every {_seconds(chosen.tpot_s)}"
    sentences = [
        f"bound by {chosen.bound_by} ({parts} of the device's time); {waits} with {chosen.pages_in_flight:,} in flight"
    ]
    nearly = next(service for service in found.services if service.pages_per_s >= NEARLY * chosen.pages_per_s)
    if nearly.pages_in_flight < chosen.pages_in_flight and nearly.tpot_s is not None:
        more = "; more fit, but lower pages/s" if found.services[-1].pages_in_flight > chosen.pages_in_flight else ""
        sentences.append(
            f"{nearly.pages_in_flight:,} in flight already reach {nearly.pages_per_s / chosen.pages_per_s:.0%} of these "
            f"pages/s, and a token every {_seconds(nearly.tpot_s)}{more}"
        )
    return [*sentences, f"assumed: {'; '.join(found.assumed)}"]


def _seconds(time_s: float) -> str:
    return f"{three_digits(time_s)} s" if time_s >= 1 else f"{three_digits(time_s * 1e3)} ms"
