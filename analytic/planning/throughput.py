"""Pages/s and tokens/s of a device on a mix of pages, from the times of single calls, and the stage that bounds them.

A page occupies the device for its vision, its prefill and its share of the decode steps, in sequence: nothing overlaps. It
enters alone, between two decode steps of all pages in flight (continuous batching), and the next page enters when one is
done, so the number in flight is constant. Times measured on a batch are used as measured: the batch enters, decodes and
leaves together. Queueing, the host, the network and image preprocessing are not included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from analytic.planning.mix import Mix
from analytic.planning.times import Times

MILLION: Final = 1_000_000
STAGES: Final = ("vision", "prefill", "decode")


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """Throughput and latency with `pages_in_flight`: times of the mean page of the mix, in seconds.

    vision_s   device time per page
    prefill_s  device time per page
    decode_s   device time per page: its share of every decode step that it takes part in
    step_s     one decode step of all pages in flight
    new_tokens in the mean
    ttft_s     from a page's first view to its first token
    tpot_s     between two tokens of a page, while other pages enter; None if a page has one token
    """

    pages_in_flight: int
    new_tokens: float
    vision_s: float
    prefill_s: float
    decode_s: float
    step_s: float
    ttft_s: float
    tpot_s: float | None

    @property
    def page_s(self) -> float:
        """Device seconds per page."""
        return self.vision_s + self.prefill_s + self.decode_s

    @property
    def pages_per_s(self) -> float:
        """Pages finished per second."""
        return 1 / self.page_s

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second."""
        return self.new_tokens / self.page_s

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of device time per stage."""
        return {stage: getattr(self, f"{stage}_s") / self.page_s for stage in STAGES}

    @property
    def bound_by(self) -> str:
        """The stage with the largest share of device time."""
        return max(self.shares.items(), key=lambda item: item[1])[0]

    @property
    def device_hours_per_million_pages(self) -> float:
        """Device hours per million pages."""
        return self.page_s * MILLION / 3600

    def cost_per_million_pages(self, price_per_hour: float) -> float:
        """Cost per million pages, in the currency of the price."""
        return self.device_hours_per_million_pages * price_per_hour

    def as_json(self, price_per_hour: float | None) -> dict[str, Any]:
        """The service (schemas/capacity.v1.schema.json)."""
        cost = None if price_per_hour is None else self.cost_per_million_pages(price_per_hour)
        return {
            "pages_in_flight": self.pages_in_flight,
            "vision_s": self.vision_s,
            "prefill_s": self.prefill_s,
            "decode_s": self.decode_s,
            "step_s": self.step_s,
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "pages_per_s": self.pages_per_s,
            "tokens_per_s": self.tokens_per_s,
            "bound_by": self.bound_by,
            "device_hours_per_million_pages": self.device_hours_per_million_pages,
            "cost_per_million_pages": cost,
        }


def service(mix: Mix, times: Times, pages: int) -> Service:
    """The service with `pages` pages of the mix in flight."""
    together = times.batch_size or 1
    vision_s = math.fsum(shape.share * times.vision_s(shape) for shape in mix.pages) / together
    prefill_s = math.fsum(shape.share * times.prefill_s(shape) for shape in mix.pages) / together
    steps = mix.mean_decode_steps if times.batch_size is None else mix.batch_steps(together)
    step_s = times.step_s(mix, pages) if steps else 0.0
    # while a page decodes, every other page in flight is replaced once: so many pages enter between its tokens
    tpot_s = step_s + (pages - together) * (vision_s + prefill_s) / steps if steps else None
    return Service(
        pages_in_flight=pages,
        new_tokens=mix.mean_new_tokens,
        vision_s=vision_s,
        prefill_s=prefill_s,
        decode_s=steps * step_s / pages,
        step_s=step_s,
        ttft_s=together * (vision_s + prefill_s),
        tpot_s=tpot_s,
    )


def services(mix: Mix, times: Times, most: int) -> tuple[Service, ...]:
    """The services with 1, 2, 3, 4, 6, 8, 12, ... and `most` pages in flight; with measured times, at their batch only.

    Empty if nothing fits: `most` is 0 or below the measured batch size.
    """
    if times.batch_size is not None:
        return (service(mix, times, times.batch_size),) if times.batch_size <= most else ()
    return tuple(service(mix, times, pages) for pages in ladder(most))


def ladder(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... below `most`, and `most`; empty if that is 0."""
    steps = {pages for power in range(most.bit_length()) for pages in (1 << power, 3 << power) if pages < most}
    return sorted(steps | {most}) if most else []


def best(found: Sequence[Service]) -> Service | None:
    """The service with the most pages/s, with the fewest pages in flight on a tie; None if there are none."""
    return max(found, key=lambda service: (service.pages_per_s, -service.pages_in_flight), default=None)
