"""Devices side by side as text for a terminal: one row a device, then the stages of a page by device."""

from __future__ import annotations

from typing import Final

from analytic.io.table import aligned, three_digits
from analytic.planning.plan_text import wrapped
from analytic.planning.side_by_side import SOURCES, DeviceSide, SideBySide
from analytic.planning.times import Source

MOST_WITH_STAGES: Final = 4
"""More devices than these are listed without the stages of each."""
WORTH: Final[dict[Source, str]] = {
    "floor": "the floor: the roofline of each datasheet, which no device reaches",
    "predicted": "predicted: every operator at the measured rate of its class",
    "measured": "measured: medians of the records",
}


def lines(found: SideBySide) -> list[str]:
    """The tables, and what they are of."""
    source = found.source
    pages = found.mix.pages
    what = (
        f"a page: {pages[0].label}, {pages[0].seq_len:,} positions" if len(pages) == 1 else f"a mix of {len(pages)} shapes"
    )
    heading = f"{found.spec.model_variant}, {found.run.dtype}; {what}, {found.mix.new_tokens:,} new tokens"
    shown = sorted(found.planned, key=lambda side: -_pages_per_s(side, source)) if len(found.devices) > 1 else found.planned
    printed = [*wrapped(heading), *aligned(_rows(found, shown, source))]
    text = f"in flight, token, first, kWh and cost: {WORTH[source]}; M: a million pages"
    printed += wrapped(f"{text}; kWh at the full power of the board")
    limits = next((plan.limited.limits for side in found.planned for plan in side.plans.values() if plan.limited), None)
    if limits is not None:
        kept = [f"a token within {limits.token_s:g} s"] if limits.token_s is not None else []
        kept += [f"the first within {limits.first_token_s:g} s"] if limits.first_token_s is not None else []
        printed += wrapped(f"limits: {', '.join(kept)}; a device without pages/s keeps them with no number of pages")
    printed += [line for side in found.devices if side.left_out for line in wrapped(f"{side.device.name}: {side.left_out}")]
    if 0 < len(shown) <= MOST_WITH_STAGES and len(pages) == 1:
        printed += ["", *_stage_lines(found)]
    return printed


def _pages_per_s(side: DeviceSide, source: Source) -> float:
    service = side.service(source)
    return 0.0 if service is None else service.pages_per_s


def _rows(found: SideBySide, shown: tuple[DeviceSide, ...] | list[DeviceSide], source: Source) -> list[list[str]]:
    sources = [one for one in SOURCES if any(one in side.plans for side in shown)]
    priced = any(side.price_per_hour is not None for side in shown)
    named = {"floor": "floor", "predicted": "predict", "measured": "measure"}
    above = ["", "", "board", "pages", "in", "token", "first", *("pages/s" for _ in sources), "of", "kWh"]
    below = ["device", "GB", "W", "fit", "flight", "ms", "ms", *(named[one] for one in sources), "most", "per M"]
    rows = [above + ["cost"] * priced, below + ["per M"] * priced]
    most = max((_pages_per_s(side, source) for side in shown), default=0.0)
    for side in shown:
        service, device = side.service(source), side.device
        fit = max(plan.pages_in_flight for plan in side.plans.values())
        cells = [device.name, f"{device.memory_bytes / 1e9:g}", _plain(device.board_power_w), f"{fit:,}"]
        if service is None:
            rows.append([*cells, *("-" for _ in range(len(rows[0]) - len(cells)))])
            continue
        cells += [
            f"{service.pages_in_flight:,}",
            "-" if service.tpot_s is None else three_digits(service.tpot_s * 1e3),
            three_digits((side.first_token_s(source) or 0.0) * 1e3),
        ]
        cells += ["-" if not _pages_per_s(side, one) else three_digits(_pages_per_s(side, one)) for one in sources]
        energy, cost = side.kwh_per_million(source), side.cost_per_million(source)
        cells += [f"{service.pages_per_s / most:.0%}", "-" if energy is None else three_digits(energy)]
        rows.append(cells + ["-" if cost is None else f"{cost:,.2f}"] * priced)
    return rows


def _stage_lines(found: SideBySide) -> list[str]:
    """The stages of one page, or of a batch, on each device."""
    rows = [["stage", "device", "floor ms", "predicted ms", "measured ms", "bound", "MFU", "MBU", "W"]]
    for number, stage in enumerate(stage.stage for stage in found.planned[0].stages):
        for side in found.planned:
            one = side.stages[number]
            times = [one.times_s.get(source) for source in SOURCES]
            shares = ["-" if share is None else f"{share:.1%}" for share in (one.mfu, one.mbu)]
            cells = ["-" if time_s is None else f"{time_s * 1e3:,.3f}" for time_s in times]
            rows.append(
                [stage, side.device.name, *cells, one.bound_by, *shares, "-" if one.watts is None else f"{one.watts:,.0f}"]
            )
    steps = f"decode: the mean of {found.decode_steps} tokens" if found.decode_steps > 1 else "decode: a token"
    said = [column for column in range(len(rows[0])) if any(row[column] != "-" for row in rows[1:])]
    utilized = "; MFU, MBU: of the measured time, else predicted" if "MFU" in [rows[0][one] for one in said] else ""
    return [
        *aligned([[row[column] for column in said] for row in rows], left=2),
        *wrapped(f"batch {found.batch_size}; {steps}; bound: of the floor{utilized}"),
    ]


def _plain(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
