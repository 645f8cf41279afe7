"""Capacity plans: pages that fit per shape and for the mix, with throughput and cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final

from analytic.core.execution import Execution
from analytic.models.spec import ModelSpec
from analytic.planning.capacity import Capacity, Demand, MixMemory, capacity_of
from analytic.planning.limits import Limited, served_within
from analytic.planning.loops import WithoutLoops, without_loops
from analytic.planning.mix import Mix, PageShare
from analytic.planning.plan_request import PlanRequest
from analytic.planning.throughput import Service, best
from analytic.planning.times import Times

ASSUMED: Final = (
    "one page at a time in vision and prefill, never during a decode step",
    "all pages in flight decode together at the mean context, with uniform routing",
)
ASSUMED_OF_BATCHES: Final = (
    "a batch of one shape passes vision, prefill and decode together",
    "every later token takes the same time as the timed ones",
)
"""The assumptions of a plan with measured times, which are those of whole batches."""
ARRIVALS: Final = "a next page is always waiting"
RANDOM_ARRIVALS: Final = (
    "pages arrive at random and wait for those before them and for the decode step that runs; times are means"
)
FULL_BATCHES: Final = "no wait for a batch to fill"
"""When pages arrive: without limits on times, with them, and with them for measured batches."""
HOST: Final = "the host and image preprocessing take no time"


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePlan:
    """The plan for one shape of page alone: pages that fit, and services by pages in flight (empty without times).

    limited  the service within the limits of the plan; None if it has none
    """

    page: PageShare
    fits: Capacity
    services: tuple[Service, ...]
    limited: Limited | None = None

    @property
    def chosen(self) -> Service | None:
        """The service with the most pages/s, within the limits if there are any."""
        return best(self.services) if self.limited is None else self.limited.service


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Memory, throughput and cost of a mix of pages on a device.

    device          name of the datasheet; None if only a memory size is given
    times           source of times; None if only memory is planned
    asked           price, limits, devices and pages/s that are asked for
    pages_in_flight most pages of the mix that fit, with their memory; None if none fits
    limited         the service of the mix within the limits; None if there are none
    loops           what pages that never stop take; None if there are none, and without times
    """

    spec: ModelSpec
    run: Execution
    device: str | None
    memory_bytes: int
    mix: Mix
    times: Times | None
    asked: PlanRequest
    pages: tuple[PagePlan, ...]
    pages_in_flight: int
    in_flight: Demand | None
    services: tuple[Service, ...]
    limited: Limited | None
    loops: WithoutLoops | None

    @property
    def chosen(self) -> Service | None:
        """The service of the mix with the most pages/s, within the limits if there are any."""
        return best(self.services) if self.limited is None else self.limited.service

    @property
    def all_devices(self) -> int | None:
        """The devices, or as many as the pages/s that are asked for need; None if no number of them gets there."""
        asked = self.asked
        if asked.pages_per_s is None:
            return asked.devices
        return None if self.chosen is None else math.ceil(asked.pages_per_s / self.chosen.pages_per_s)

    @property
    def assumed(self) -> tuple[str, ...]:
        """The assumptions behind the services."""
        if self.times is None:
            return ()
        batches = self.times.batch_size is not None
        arrivals = ARRIVALS
        if self.limited is not None:
            arrivals = FULL_BATCHES if batches else RANDOM_ARRIVALS
        whose = "every page generates" if self.mix.loop is None else "pages that stop generate"
        same = f"{whose} the same number of tokens"
        return (*(ASSUMED_OF_BATCHES if batches else ASSUMED), same, arrivals, HOST)

    def as_json(self) -> dict[str, Any]:
        """The content of the file (schemas/capacity.v1.schema.json)."""
        times = self.times
        return {
            "schema_version": "1.0",
            "model": {"model_id": self.spec.model_id, "model_variant": self.spec.model_variant},
            "execution": {name: getattr(self.run, name) for name in ("attention", "experts", "dtype")},
            "device": self.device,
            "memory_bytes": self.memory_bytes,
            "new_tokens": self.mix.new_tokens,
            "crop_rule": {"served_by": self.mix.crop_rule.name, "max_tiles": self.mix.crop_rule.max_tiles},
            "price_per_hour": self.asked.price_per_hour,
            "times": None
            if times is None
            else {
                "source": times.source,
                "told": times.description,
                "file": times.file,
                "batch_size": times.batch_size,
                "assumed": list(self.assumed),
            },
            "loop": None
            if self.mix.loop is None
            else {
                "share": self.mix.loop.share,
                "tokens": self.mix.loop.tokens,
                "mean_new_tokens": self.mix.mean_new_tokens,
                **({} if self.loops is None else self.loops.as_json()),
            },
            "devices": self._devices_json(),
            "pages": [self._page_json(shape) for shape in self.pages],
            "mix": {
                "in_flight": _demand(self.pages_in_flight, self.in_flight),
                **self._services_json(self.services, self.limited),
            },
        }

    def _devices_json(self) -> dict[str, Any] | None:
        """Pages/s and price of all devices together."""
        count, found, price = self.all_devices, self.chosen, self.asked.price_per_hour
        if count is None or found is None:
            return None
        return {
            "count": count,
            "pages_per_s": count * found.pages_per_s,
            "tokens_per_s": count * found.tokens_per_s,
            "pages_per_s_asked": self.asked.pages_per_s,
            "price_per_hour": None if price is None else count * price,
        }

    def _page_json(self, planned: PagePlan) -> dict[str, Any]:
        page, fits = planned.page, planned.fits
        shape = {"crop_grid": None, "views": 0, "image_tokens": 0} if page.page is None else page.page.as_json()
        return {
            **shape,
            "page": page.label,
            "share": page.share,
            "seq_len": page.seq_len,
            "one_page": fits.one_page.as_json(),
            "largest_batch": _demand(fits.batch_size, fits.batch),
            "in_flight": _demand(fits.pages_in_flight, fits.in_flight),
            **self._services_json(planned.services, planned.limited),
        }

    def _services_json(self, found: tuple[Service, ...], limited: Limited | None) -> dict[str, Any]:
        chosen = best(found)
        return {
            "within_limits": None if limited is None else limited.as_json(self.asked.price_per_hour),
            "best": None if chosen is None else chosen.as_json(self.asked.price_per_hour),
            "by_pages_in_flight": [service.as_json(self.asked.price_per_hour) for service in found],
        }


def plan(
    spec: ModelSpec,
    run: Execution,
    mix: Mix,
    *,
    device: str | None,
    memory_bytes: int,
    times: Times | None,
    asked: PlanRequest,
) -> Plan:
    """The plan of `mix` in `memory_bytes`. Raises ValueError for times measured with a batch that does not fit."""
    pages = []
    for page, alone in zip(mix.pages, mix.alone, strict=True):
        fits = capacity_of(spec, run, alone, memory_bytes=memory_bytes)
        most = fits.pages_in_flight if times is None or times.batch_size is None else fits.batch_size
        if times is not None and times.batch_size is not None and times.batch_size > most:
            raise ValueError(
                f"record: got times of batches of {times.batch_size}, accepted: at most {most}, which fit of {page.label} "
                f"in {memory_bytes / 1e9:g} GB; use a record with a smaller --batch-size, or more memory"
            )
        served, kept = served_within(alone, times, most, asked.limits)
        pages.append(PagePlan(page=page, fits=fits, services=served, limited=kept))
    memory = MixMemory(spec, run, mix)
    most = memory.most_in_flight(memory_bytes)
    served, kept = served_within(mix, times, most, asked.limits)
    return Plan(
        spec=spec,
        run=run,
        device=device,
        memory_bytes=memory_bytes,
        mix=mix,
        times=times,
        asked=asked,
        pages=tuple(pages),
        pages_in_flight=most,
        in_flight=memory.in_flight(most) if most else None,
        services=served,
        limited=kept,
        loops=None
        if mix.loop is None or times is None
        else without_loops(spec, run, mix, memory_bytes=memory_bytes, times=times, limits=asked.limits),
    )


def _demand(pages: int, need: Demand | None) -> dict[str, int | None]:
    if need is None:
        return {"pages": pages, **dict.fromkeys((*(field.name for field in fields(Demand)), "total_bytes"))}
    return {"pages": pages, **need.as_json()}
