"""A plan as text for a terminal: memory of a single shape, throughput, bottleneck and assumptions."""

from __future__ import annotations

import itertools
import textwrap
from typing import Final

from analytic.io.table import aligned, three_digits
from analytic.planning.capacity import MOST_PAGES
from analytic.planning.limits import BOUNDS, Limited
from analytic.planning.plan import PagePlan, Plan
from analytic.planning.throughput import Service, best

NEARLY: Final = 0.95
"""Fewer pages in flight are suggested if they reach this fraction of the most pages/s."""
WIDTH: Final = 100


def lines(found: Plan) -> list[str]:
    """The lines to print, with a memory breakdown if all pages have the same shape."""
    printed = [] if found.times is None else wrapped(f"times: {found.times.description}")
    printed += wrapped(_heading(found))
    if len(found.pages) == 1:
        printed += _memory_lines(found)
    if found.times is not None:
        sentences = (wrapped(text) for text in _sentences(found))
        printed += [*aligned(_rows(found)), *itertools.chain.from_iterable(sentences)]
    elif found.device is not None:
        printed.append(f"no pages/s: the datasheet of {found.device} has no dense peak for {found.run.dtype}")
    return printed


def wrapped(text: str) -> list[str]:
    """The lines of a sentence, with no word broken."""
    return textwrap.wrap(text, width=WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


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
    """The table, below headings of two lines."""
    price = found.asked.price_per_hour
    above = ["", "", "", "pages", "in", "vision", "prefill", "decode", "pages", "tokens", "hours"]
    heading = ["page", "share", "length", "fit", "flight", "ms/page", "ms/page", "ms/page", "per s", "per s", "per M"]
    above, heading = (row + [text] * (price is not None) for row, text in ((above, "cost"), (heading, "per M")))
    rows = [above, heading]
    if found.times is not None and found.times.source == "floor":  # lower bounds of time bound the rest
        rows.append(["", "", "", "", "", *["least"] * 3, *["most"] * 2, *["least"] * (1 if price is None else 2)])
    for shape in found.pages:
        page, cells = shape.page, _cells(shape.chosen, price)
        rows.append([page.label, f"{page.share:.4g}", f"{page.seq_len:,}", _pages(_fits(shape, found)), *cells])
    if len(found.pages) > 1:
        rows.append(["the mix", "1", "", _pages(found.pages_in_flight), *_cells(found.chosen, price)])
    return rows


def _fits(shape: PagePlan, found: Plan) -> int:
    """Pages in flight that fit, or pages per batch if times were measured on batches."""
    batches = found.times is not None and found.times.batch_size is not None
    return shape.fits.batch_size if batches else shape.fits.pages_in_flight


def _pages(pages: int) -> str:
    """The number of pages that fit; `at least` if the search stopped at its limit."""
    return f"{'at least ' if pages == MOST_PAGES else ''}{pages:,}"


def _cells(service: Service | None, price_per_hour: float | None) -> list[str]:
    """Table cells of a service: pages in flight, times, rates, and hours and cost of a million pages."""
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
    """The bottleneck, the latency for a user, what limits and loops cost, all devices together, and the assumptions."""
    chosen = found.chosen
    if chosen is None:
        return [_nothing(found), f"assumed: {'; '.join(found.assumed)}"] if found.services else [_nothing(found)]
    parts = ", ".join(f"{stage} {share:.0%}" for stage, share in chosen.shares.items())
    sentences = [f"bound by {chosen.bound_by} ({parts} of the device's time); {_waits(found, chosen)}"]
    if found.limited is not None:
        sentences.append(_within(found.limited, chosen, best(found.services)))
    else:
        sentences += _nearly(found, chosen)
    sentences += _loops(found, chosen)
    sentences += _all_devices(found, chosen)
    sentences.append(
        f"ms/page: time of the device per page; a decode step is shared by the {chosen.pages_in_flight:,} in flight, "
        f"and takes {_seconds(chosen.step_s)}"
    )
    return [*sentences, f"assumed: {'; '.join(found.assumed)}"]


def _nothing(found: Plan) -> str:
    limited = found.limited
    if limited is None or limited.fewest is None:
        return "no page fits in memory beside the weights: no throughput"
    few = limited.fewest
    if limited.bounded_by == "token_s":
        return (
            f"no pages/s within the limits: a token takes {_seconds(few.tpot_s or 0)} with {few.pages_in_flight:,} in "
            f"flight, and the limit is {_seconds(limited.limits.token_s or 0)}"
        )
    return (
        f"no pages/s within the limits: a first token takes {_seconds(few.ttft_s + limited.wait_s)} with "
        f"{few.pages_in_flight:,} in flight, and the limit is {_seconds(limited.limits.first_token_s or 0)}"
    )


def _waits(found: Plan, chosen: Service) -> str:
    waits = f"a first token after {_seconds(chosen.ttft_s)} without waiting"
    if found.limited is not None and found.limited.wait_s:
        wait_s = found.limited.wait_s
        waits = f"a first token after {_seconds(chosen.ttft_s + wait_s)}, {_seconds(wait_s)} of them waiting"
    if chosen.tpot_s is not None:
        waits += f", then one every {_seconds(chosen.tpot_s)}"
    return f"{waits} with {chosen.pages_in_flight:,} in flight"


def _within(limited: Limited, chosen: Service, without: Service | None) -> str:
    """The limits, and what they cost."""
    limits = limited.limits
    asked = [] if limits.token_s is None else [f"{_seconds(limits.token_s)} a token"]
    asked += [] if limits.first_token_s is None else [f"{_seconds(limits.first_token_s)} to the first"]
    most = "" if without is None else f", {chosen.pages_per_s / without.pages_per_s:.0%} of the most without limits"
    return (
        f"within {' and '.join(asked)}: {three_digits(chosen.pages_per_s)} pages/s{most}; bounded by "
        f"{BOUNDS[limited.bounded_by]}"
    )


def _nearly(found: Plan, chosen: Service) -> list[str]:
    nearly = next(service for service in found.services if service.pages_per_s >= NEARLY * chosen.pages_per_s)
    if nearly.pages_in_flight == chosen.pages_in_flight or nearly.tpot_s is None:
        return []
    more = "; more fit, but lower pages/s" if found.services[-1].pages_in_flight > chosen.pages_in_flight else ""
    return [
        f"{nearly.pages_in_flight:,} in flight already reach {nearly.pages_per_s / chosen.pages_per_s:.0%} of these "
        f"pages/s, and a token every {_seconds(nearly.tpot_s)}{more}"
    ]


def _loops(found: Plan, chosen: Service) -> list[str]:
    loop, cost = found.mix.loop, found.loops
    if loop is None or cost is None:
        return []
    tokens = [part.new_tokens for part in found.mix.classes if part.loops]
    ends = f"{min(tokens):,}" if min(tokens) == max(tokens) else f"{min(tokens):,} to {max(tokens):,}"
    without = "" if cost.chosen is None else f"; if all stopped: {three_digits(cost.chosen.pages_per_s)} pages/s"
    return [
        f"{100 * loop.share:.4g}% of the pages never stop and end after {ends} tokens: they are "
        f"{cost.in_flight_share:.0%} of the "
        f"pages in flight and of the decode time, and hold {cost.cache_share:.0%} of the cache; a page has "
        f"{found.mix.mean_new_tokens:,.1f} tokens in the mean{without}"
    ]


def _all_devices(found: Plan, chosen: Service) -> list[str]:
    count, asked = found.all_devices, found.asked
    if count is None or (count == 1 and asked.pages_per_s is None):
        return []
    price = "" if asked.price_per_hour is None else f", {count * asked.price_per_hour:,.2f} an hour"
    together = (
        f"{count:,} device{'' if count == 1 else 's'}, each with pages of its own: "
        f"{three_digits(count * chosen.pages_per_s)} pages/s, {three_digits(count * chosen.tokens_per_s)} tokens/s{price}"
    )
    if asked.pages_per_s is None:
        return [together]
    used = asked.pages_per_s / (count * chosen.pages_per_s)
    return [f"{three_digits(asked.pages_per_s)} pages/s take {together}; {used:.0%} of that is asked for"]


def _seconds(time_s: float) -> str:
    return f"{three_digits(time_s)} s" if time_s >= 1 else f"{three_digits(time_s * 1e3)} ms"
