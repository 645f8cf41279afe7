"""The most pages/s within limits on the time per output token and the time to the first token.

Pages arrive at random (Poisson) at the rate that the device serves with N in flight, and enter one at a time, before the
next decode step. That is an M/G/1 queue in which the server goes away for a decode step whenever nobody waits, so the mean
wait is

    wait_s = rate * E[S^2] / (2 * (1 - rate * E[S])) + step_s / 2

with S the vision and prefill of a page and step_s a decode step of all pages in flight (Pollaczek and Khinchine, with
vacations). The first token comes after the wait and S. A further token takes a decode step and the pages that enter
meanwhile. Both grow with N, so the limits bound N, and the most pages/s are found below that bound. A batch that was
measured has its own times, and no wait is added to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from analytic.planning.capacity import most
from analytic.planning.demand import LEAST_S, MOST_S
from analytic.planning.mix import Mix
from analytic.planning.throughput import Service, best, ladder, service, services
from analytic.planning.times import Times

BoundedBy = Literal["token_s", "first_token_s", "memory"]
BOUNDS: Final[dict[BoundedBy, str]] = {
    "token_s": "the limit on a token",
    "first_token_s": "the limit on the first token",
    "memory": "memory",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The longest accepted times of a page's first token and of each further token, in seconds; None is no limit."""

    token_s: float | None
    first_token_s: float | None

    def __post_init__(self) -> None:
        for field in ("token_s", "first_token_s"):
            got = getattr(self, field)
            if got is not None and not LEAST_S <= got <= MOST_S:
                raise ValueError(f"{field}: got {got:g}, accepted: seconds above zero, from {LEAST_S:g} to {MOST_S:g}")

    def broken_by(self, found: Service, wait_s: float) -> BoundedBy | None:
        """The limit that a service breaks; None if it keeps both."""
        if self.token_s is not None and (found.tpot_s or 0.0) > self.token_s:
            return "token_s"
        if self.first_token_s is not None and found.ttft_s + wait_s > self.first_token_s:
            return "first_token_s"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limited:
    """The service with the most pages/s within `limits`, and what keeps it from more pages in flight.

    service  None if no number of pages in flight keeps the limits
    wait_s   mean time that a page waits before its first view; of `fewest` if there is no service
    fewest   the service with the fewest pages in flight; None if no page fits
    """

    limits: Limits
    service: Service | None
    wait_s: float
    bounded_by: BoundedBy
    fewest: Service | None

    def as_json(self, price_per_hour: float | None) -> dict[str, Any]:
        """The answer (schemas/capacity.v1.schema.json)."""
        found = self.service
        return {
            "token_s": self.limits.token_s,
            "first_token_s": self.limits.first_token_s,
            "bounded_by": self.bounded_by,
            "wait_s": None if found is None else self.wait_s,
            "service": None if found is None else found.as_json(price_per_hour),
        }


def limited(mix: Mix, times: Times, most_pages: int, limits: Limits) -> Limited:
    """The most pages/s of `mix` with up to `most_pages` in flight. Raises ValueError if a page has a single token."""
    if mix.new_tokens < 2:
        raise ValueError(
            f"new_tokens: got {mix.new_tokens} with a limit on tokens, accepted: at least 2; a page of one token keeps the "
            f"device busy with first tokens alone, and leaves none to wait for"
        )
    together = times.batch_size or 1
    if together > most_pages:
        return Limited(limits=limits, service=None, wait_s=0.0, bounded_by="memory", fewest=None)

    def broken(pages: int) -> BoundedBy | None:
        found = service(mix, times, pages)
        return limits.broken_by(found, wait_s(mix, times, found))

    fewest = service(mix, times, together)
    if (by := broken(together)) is not None:
        return Limited(limits=limits, service=None, wait_s=wait_s(mix, times, fewest), bounded_by=by, fewest=fewest)
    if times.batch_size is not None:
        return Limited(limits=limits, service=fewest, wait_s=0.0, bounded_by="memory", fewest=fewest)
    kept = most(lambda pages: pages <= most_pages and broken(pages) is None)
    found = best([service(mix, times, pages) for pages in ladder(kept)]) or fewest
    by = None if kept == most_pages else broken(kept + 1)
    return Limited(limits=limits, service=found, wait_s=wait_s(mix, times, found), bounded_by=by or "memory", fewest=fewest)


def wait_s(mix: Mix, times: Times, found: Service) -> float:
    """Mean seconds that a page which arrives at random waits before its first view; 0 for a measured batch."""
    if times.batch_size is not None:
        return 0.0
    enters_s = [(page.share, times.vision_s(page) + times.prefill_s(page)) for page in mix.pages]
    mean_s = math.fsum(share * seconds for share, seconds in enters_s)
    squared = math.fsum(share * seconds**2 for share, seconds in enters_s)
    rate = found.pages_per_s
    return rate * squared / (2 * (1 - rate * mean_s)) + found.step_s / 2


def served_within(
    mix: Mix, times: Times | None, most: int, limits: Limits | None
) -> tuple[tuple[Service, ...], Limited | None]:
    """The services of a mix by pages in flight, that within the limits among them, and what the limits leave."""
    if times is None:
        return (), None
    found = services(mix, times, most)
    if limits is None:
        return found, None
    kept = limited(mix, times, most, limits)
    if kept.service is not None and kept.service not in found:
        found = tuple(sorted((*found, kept.service), key=lambda service: service.pages_in_flight))
    return found, kept
