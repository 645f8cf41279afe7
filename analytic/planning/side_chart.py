"""The chart of devices side by side: pages/s of each by source, and beside it the cost or the energy of a million pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analytic.io.charts import FAINT, INK, SERIES, label, plain, styled
from analytic.io.table import three_digits
from analytic.planning.plan_chart import WORTH
from analytic.planning.side_by_side import SOURCES, DeviceSide, SideBySide, slowest_first
from analytic.planning.times import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES: Final[dict[Source, str]] = {
    "floor": "floor (no device reaches it)",
    "predicted": "predicted",
    "measured": "measured",
}
COLOURS: Final[dict[Source, str]] = {"floor": FAINT, "predicted": SERIES[1], "measured": SERIES[0]}
BAR_IN: Final = 0.26
WIDTH_IN: Final = 8.4


def drawn(found: SideBySide) -> Figure:
    """The chart. Raises ValueError if no device has pages/s."""
    from matplotlib.figure import Figure

    sides = [side for side in slowest_first(found.planned, found.source) if side.service(found.source) is not None]
    if not sides:
        raise ValueError("devices: got none with pages/s, accepted: at least one; plan with looser limits or smaller pages")
    sources = [source for source in SOURCES if any(side.service(source) is not None for side in sides)]
    height_in = 1.3 + BAR_IN * len(sides) * len(sources) + 0.12 * len(sides)
    chart = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    rates, beside = chart.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    values = {source: [_rate(side, source) for side in sides] for source in sources}
    _bars(rates, sides, values, {source: COLOURS[source] for source in sources})
    for axes in (rates, beside):
        styled(axes).grid(visible=False, axis="y")
    pages = "pages/s" if len(sources) > 1 else WORTH[found.source]
    label(rates, title=f"{found.spec.model_variant}: {pages}", x="pages/s", y="")
    priced = all(side.cost_per_million(found.source) is not None for side in sides)
    worth = [side.cost_per_million(found.source) if priced else side.kwh_per_million(found.source) for side in sides]
    _bars(beside, sides, {found.source: worth}, {found.source: SERIES[2]})
    unit = "in the currency of the price" if priced else "kWh at the full power of the board"
    label(beside, title=f"{'cost' if priced else 'energy'} of a million pages", x=f"{unit}, {found.source}", y="")
    if len(sources) > 1:
        chart.legend(
            *rates.get_legend_handles_labels(),
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            ncols=3,
            loc="outside lower center",
        )
    return chart


def _rate(side: DeviceSide, source: Source) -> float | None:
    service = side.service(source)
    return None if service is None else service.pages_per_s


def _bars(
    axes: Axes, sides: list[DeviceSide], values: dict[Source, list[float | None]], colours: dict[Source, str]
) -> None:
    """Horizontal bars with their values; a missing value has no bar."""
    thick = 0.8 / len(values)
    most = max((value for found in values.values() for value in found if value is not None), default=1.0)
    for number, (source, found) in enumerate(values.items()):
        at = [row + 0.4 - thick * (number + 0.5) for row in range(len(sides))]
        axes.barh(at, [value or 0.0 for value in found], height=0.9 * thick, color=colours[source], label=NAMES[source])
        for place, value in zip(at, found, strict=True):
            text = "-" if value is None else three_digits(value)
            axes.text((value or 0.0) + 0.015 * most, place, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(sides)), [plain(side.device.name) for side in sides])
    axes.set_xlim(0, 1.16 * most)
    axes.set_ylim(-0.55, len(sides) - 0.45)
