"""What pages that never stop generating take of a device, and what it would serve if all pages stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from analytic.core.execution import Execution
from analytic.models.spec import ModelSpec
from analytic.planning.capacity import MixMemory
from analytic.planning.limits import Limits, served_within
from analytic.planning.mix import Mix
from analytic.planning.throughput import Service, best
from analytic.planning.times import Times


@dataclass(frozen=True, kw_only=True, slots=True)
class WithoutLoops:
    """What the pages that never stop take, and the service if all pages stopped.

    in_flight_share  of the pages in flight, and so of the decode time
    cache_share      of the cache of the pages in flight
    """

    in_flight_share: float
    cache_share: float
    chosen: Service | None

    def as_json(self) -> dict[str, Any]:
        """The shares and the pages/s (schemas/capacity.v1.schema.json)."""
        pages_per_s = None if self.chosen is None else self.chosen.pages_per_s
        return {
            "in_flight_share": self.in_flight_share,
            "cache_share": self.cache_share,
            "pages_per_s_without": pages_per_s,
        }


def without_loops(
    spec: ModelSpec, run: Execution, mix: Mix, *, memory_bytes: int, times: Times, limits: Limits | None
) -> WithoutLoops:
    """The shares of the pages of `mix` that never stop, and the service of the others in their place."""
    stopping = replace(mix, loop=None)
    most = MixMemory(spec, run, stopping).most_in_flight(memory_bytes)
    served, kept = served_within(stopping, times, most, limits)
    return WithoutLoops(
        in_flight_share=math.fsum(part.in_flight_share for part in mix.classes if part.loops),
        cache_share=MixMemory(spec, run, mix).looping_share(),
        chosen=best(served) if kept is None else kept.service,
    )
