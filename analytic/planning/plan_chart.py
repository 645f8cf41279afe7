"""The chart of a plan: pages/s over pages in flight, for each shape alone and for the mix, up to the memory limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analytic.io.charts import INK, MARKERS, SERIES, figure, label, legend, log_axis, plain
from analytic.io.table import three_digits
from analytic.planning.plan import Plan
from analytic.planning.throughput import Service

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_IN: Final = (6.4, 4.4)
WORTH: Final = {"floor": "pages/s at most (floor)", "predicted": "predicted pages/s", "measured": "measured pages/s"}


def drawn(plan: Plan) -> Figure:
    """The chart, with a marker at the maximum of each line. Raises ValueError if there is nothing to draw."""
    if plan.times is None or not plan.services:
        raise ValueError(
            f"memory: {plan.memory_bytes / 1e9:g} GB is too small for one page of the mix: there are no pages/s to "
            f"draw; plan with more memory"
        )
    chart, axes = figure(size_in=SIZE_IN)
    if len(plan.pages) > 1:
        _line(axes, plan.services, plan.chosen, name="the mix", color=INK, number=0, width=2.8)
        for number, shape in enumerate(plan.pages):
            color = SERIES[number % len(SERIES)]
            _line(
                axes,
                shape.services,
                shape.chosen,
                name=f"{shape.page.label} alone",
                color=color,
                number=number + 1,
                width=1.5,
            )
    else:
        _line(axes, plan.services, plan.chosen, name=plan.pages[0].page.label, color=SERIES[0], number=0, width=2.2)
    shown = [service for found in (plan.services, *(shape.services for shape in plan.pages)) for service in found]
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.25 * max(service.pages_in_flight for service in shown))
    axes.set_ylim(0, 1.08 * max(service.pages_per_s for service in shown))
    log_axis(axes.xaxis)
    axes.minorticks_off()
    where = f"on {plan.device}" if plan.device else f"in {plan.memory_bytes / 1e9:g} GB"
    measured = plan.times.batch_size is not None
    marked = "the measured batch" if measured else "up to the limit"
    if plan.limited is not None and not measured:
        marked = "up to memory; marked: the most within the limits"
    label(
        axes,
        title=f"{plan.spec.model_variant} {where}: {WORTH[plan.times.source]}",
        x=f"pages in flight, {marked}",
        y=f"pages/s, {plan.mix.new_tokens:,} new token{'' if plan.mix.new_tokens == 1 else 's'} per page",
    )
    legend(axes, columns=2)
    return chart


def _line(
    axes: Axes, found: tuple[Service, ...], top: Service | None, *, name: str, color: str, number: int, width: float
) -> None:
    """Draw one line with a marker at `top`, also given in the legend; nothing if there is none."""
    if top is None:
        return
    axes.plot(
        [service.pages_in_flight for service in found],
        [service.pages_per_s for service in found],
        color=color,
        linewidth=width if len(found) > 1 else 0,
        marker=MARKERS[number % len(MARKERS)],
        markevery=[found.index(top)],
        markersize=6.5,
        label=plain(f"{name}: {three_digits(top.pages_per_s)} pages/s with {top.pages_in_flight:,}"),
        zorder=3 if width > 2 else 2,
    )
