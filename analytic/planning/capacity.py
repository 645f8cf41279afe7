"""Pages that fit in a device's memory: the largest batch, and the most pages in flight.

A batch needs the weights, the KV cache of every page at its full length, and the activations of the largest stage on the
whole batch. Pages in flight share the weights and have one cache each, but pass vision and prefill one at a time, as under
continuous batching; decode runs on all of them. For pages of several shapes in flight, and for those that never stop, the
mean cache of the pages in flight is counted, so a sequence of longer pages than the mean needs additional memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from analytic.core.checks import whole
from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.workload import TokenLayout, VisionWorkload
from analytic.models.registry import model_of
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix

MOST_PAGES: Final = 1 << 20
"""Limit of the search: if this many pages fit, the result is a lower bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Memory in bytes for a number of pages: parameters, cache, and the largest activations of any stage."""

    weight_bytes: int
    kv_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of the three parts."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    def as_json(self) -> dict[str, Any]:
        """The parts and their sum (schemas/capacity.v1.schema.json)."""
        return {**asdict(self), "total_bytes": self.total_bytes}


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """Pages that fit in `memory_bytes`, as one batch and in flight; 0 if not even one fits, at most MOST_PAGES."""

    memory_bytes: int
    batch_size: int
    pages_in_flight: int
    one_page: Demand
    batch: Demand | None
    in_flight: Demand | None


class PageMemory:
    """Memory needed by pages of one shape, from the closed form."""

    def __init__(
        self, spec: ModelSpec, run: Execution, *, seq_len: int, new_tokens: int, page: VisionWorkload | None
    ) -> None:
        """Raises ValueError if the page does not fit in the length, and for counts below one."""
        whole("new_tokens", new_tokens)
        TokenLayout.of(seq_len, page)
        self._model = model_of(spec, run=run)
        self._seq_len, self._new_tokens, self._page = seq_len, new_tokens, page

    def of_batch(self, pages: int) -> Demand:
        """Memory of `pages` pages that pass every stage together."""
        return self._demand(pages, together=pages)

    def in_flight(self, pages: int) -> Demand:
        """Memory of `pages` pages that decode together while one at a time passes vision and prefill."""
        return self._demand(pages, together=1)

    def _demand(self, pages: int, *, together: int) -> Demand:
        model, peaks = self._model, []
        if self._page is not None:
            model.start_vision(self._page, batch_size=together)
            peaks.append(int(model.forward_memory_activation()))
        model.start_prefill(self._seq_len, together)
        peaks.append(int(model.forward_memory_activation()))
        # the first new token comes from the prefill, and the last is not fed back
        longest = model.start_decode(
            kv_cache=model.cache_after(self._seq_len, decoded=self._new_tokens - 1, batch_size=pages)
        )
        peaks.append(int(model.forward_memory_activation()))
        return Demand(weight_bytes=model.weight_bytes, kv_bytes=longest.kv_bytes, activation_bytes=max(peaks))


class MixMemory:
    """Memory of a mix in flight: weights once, the mean cache of the pages in flight, the activations of the largest."""

    def __init__(self, spec: ModelSpec, run: Execution, mix: Mix) -> None:
        self._classes = [
            (part, PageMemory(spec, run, seq_len=part.page.seq_len, new_tokens=part.new_tokens, page=part.page.page))
            for part in mix.classes
        ]

    def in_flight(self, pages: int) -> Demand:
        """Memory of `pages` pages of the mix that decode together while one of any shape passes vision and prefill."""
        return self._mean([(part.in_flight_share, memory.in_flight(pages)) for part, memory in self._classes])

    def of_batch(self, pages: int) -> Demand:
        """Memory of `pages` pages of the mix that pass every stage together."""
        return self._mean([(part.share, memory.of_batch(pages)) for part, memory in self._classes])

    def looping_share(self) -> float:
        """The part of the cache in flight that pages which never stop take."""
        needs = [(part, part.in_flight_share * memory.in_flight(1).kv_bytes) for part, memory in self._classes]
        return math.fsum(need for part, need in needs if part.loops) / math.fsum(need for _, need in needs)

    @staticmethod
    def _mean(found: list[tuple[float, Demand]]) -> Demand:
        return Demand(
            weight_bytes=found[0][1].weight_bytes,
            kv_bytes=math.ceil(math.fsum(share * need.kv_bytes for share, need in found)),
            activation_bytes=max(need.activation_bytes for _, need in found),
        )

    def most_in_flight(self, memory_bytes: int) -> int:
        """The most pages in flight that fit in `memory_bytes`; 0 if not even one fits."""
        return most(lambda pages: self.in_flight(pages).total_bytes <= memory_bytes)


def capacity(
    spec: ModelSpec,
    run: Execution,
    *,
    memory_bytes: int,
    seq_len: int,
    new_tokens: int,
    page: VisionWorkload | None,
) -> Capacity:
    """The most pages of one shape that fit in `memory_bytes`. Raises ValueError for counts below one."""
    return capacity_of(spec, run, Mix.of_one(page, seq_len=seq_len, new_tokens=new_tokens), memory_bytes=memory_bytes)


def capacity_of(spec: ModelSpec, run: Execution, mix: Mix, *, memory_bytes: int) -> Capacity:
    """The most pages of a mix that fit in `memory_bytes`."""
    whole("memory_bytes", memory_bytes, most=1 << 60)
    memory = MixMemory(spec, run, mix)
    batch = most(lambda pages: memory.of_batch(pages).total_bytes <= memory_bytes)
    flying = memory.most_in_flight(memory_bytes)
    return Capacity(
        memory_bytes=memory_bytes,
        batch_size=batch,
        pages_in_flight=flying,
        one_page=memory.of_batch(1),
        batch=memory.of_batch(batch) if batch else None,
        in_flight=memory.in_flight(flying) if flying else None,
    )


def most(fits: Callable[[int], bool]) -> int:
    """The largest number up to MOST_PAGES that fits, by doubling and bisection; 0 if 1 does not fit."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST_PAGES and fits(high):
        low, high = high, high * 2
    high = min(high, MOST_PAGES + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
