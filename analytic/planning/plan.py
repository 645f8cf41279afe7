"""Capacity plans: pages that fit per shape and for the mix, with throughput and cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from analytic.core.execution import Execution
from analytic.models.spec import ModelSpec
from analytic.planning.capacity import Capacity, Demand, MixMemory, capacity
from analytic.planning.mix import Mix, PageShare
from analytic.planning.throughput import Service, best, services
from analytic.planning.times import Times

ALWAYS: Final = "a next page is always waiting, and the host and image preprocessing take no time"
ASSUMED: Final = (
    "one page at a time in vision and prefill, never during a decode step",
    "all pages in flight decode together at the mean context, to the same number of tokens, with uniform routing",
    ALWAYS,
)
ASSUMED_OF_BATCHES: Final = (
    "a batch of one shape passes vision, prefill and decode together",
    "every later token takes the same time as the timed ones",
    ALWAYS,
)
"""The assumptions of a plan with measured times, which are those of whole batches."""
MOST_PRICE: Final = 1e9
"""The highest accepted price per hour: far from overflow in any currency."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePlan:
    """The plan for one shape of page alone: pages that fit, and services by pages in flight (empty without times)."""

    page: PageShare
    fits: Capacity
    services: tuple[Service, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Memory, throughput and cost of a mix of pages on a device.

    device          name of the datasheet; None if only a memory size is given
    times           source of times; None if only memory is planned
    price_per_hour  of the device, in any currency; None without cost
    pages_in_flight most pages of the mix that fit, with their memory; None if none fits
    """

    spec: ModelSpec
    run: Execution
    device: str | None
    memory_bytes: int
    mix: Mix
    times: Times | None
    price_per_hour: float | None
    pages: tuple[PagePlan, ...]
    pages_in_flight: int
    in_flight: Demand | None
    services: tuple[Service, ...]

    @property
    def assumed(self) -> tuple[str, ...]:
        """The assumptions behind the services."""
        if self.times is None:
            return ()
        return ASSUMED if self.times.batch_size is None else ASSUMED_OF_BATCHES

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
            "price_per_hour": self.price_per_hour,
            "times": None
            if times is None
            else {
                "source": times.source,
                "told": times.description,
                "file": times.file,
                "batch_size": times.batch_size,
                "assumed": list(self.assumed),
            },
            "pages": [self._page_json(shape) for shape in self.pages],
            "mix": {
                "in_flight": _demand(self.pages_in_flight, self.in_flight),
                **self._services_json(self.services),
            },
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
            **self._services_json(planned.services),
        }

    def _services_json(self, found: tuple[Service, ...]) -> dict[str, Any]:
        chosen = best(found)
        return {
            "best": None if chosen is None else chosen.as_json(self.price_per_hour),
            "by_pages_in_flight": [service.as_json(self.price_per_hour) for service in found],
        }


def plan(
    spec: ModelSpec,
    run: Execution,
    mix: Mix,
    *,
    device: str | None,
    memory_bytes: int,
    times: Times | None,
    price_per_hour: float | None,
) -> Plan:
    """The plan of `mix` in `memory_bytes`. Raises ValueError for a price that is not positive or above MOST_PRICE.

    Also raises ValueError for times measured with a batch that does not fit.
    """
    if price_per_hour is not None and not 0 < price_per_hour <= MOST_PRICE:
        raise ValueError(
            f"price_per_hour: got {price_per_hour:g}, accepted: the price of an hour of the device, above zero and at most "
            f"{MOST_PRICE:g}"
        )
    pages = []
    for page, alone in zip(mix.pages, mix.alone, strict=True):
        fits = capacity(
            spec, run, memory_bytes=memory_bytes, seq_len=page.seq_len, new_tokens=mix.new_tokens, page=page.page
        )
        most = fits.pages_in_flight if times is None or times.batch_size is None else fits.batch_size
        if times is not None and times.batch_size is not None and times.batch_size > most:
            raise ValueError(
                f"record: got times of batches of {times.batch_size}, accepted: at most {most}, which fit of {page.label} "
                f"in {memory_bytes / 1e9:g} GB; use a record with a smaller --batch-size, or more memory"
            )
        found = () if times is None else services(alone, times, most)
        pages.append(PagePlan(page=page, fits=fits, services=found))
    memory = MixMemory(spec, run, mix)
    most = memory.most_in_flight(memory_bytes)
    return Plan(
        spec=spec,
        run=run,
        device=device,
        memory_bytes=memory_bytes,
        mix=mix,
        times=times,
        price_per_hour=price_per_hour,
        pages=tuple(pages),
        pages_in_flight=most,
        in_flight=memory.in_flight(most) if most else None,
        services=() if times is None else services(mix, times, most),
    )


def _demand(pages: int, need: Demand | None) -> dict[str, int | None]:
    if need is None:
        return {"pages": pages, **dict.fromkeys((*(field.name for field in fields(Demand)), "total_bytes"))}
    return {"pages": pages, **need.as_json()}
