"""What is asked of a plan besides the mix and the device: a price, limits on times, a number of devices, pages/s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analytic.core.checks import whole
from analytic.planning.limits import Limits

MOST_PRICE: Final = 1e9
"""The highest accepted price per hour: far from overflow in any currency."""
MOST_DEVICES: Final = 1_000_000
MOST_PAGES_PER_S: Final = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What a plan is asked for.

    price_per_hour  of one device, in any currency; None without cost
    limits          on the times of tokens; None without
    devices         equal devices, each with pages of its own
    pages_per_s     pages/s that as many devices have to reach as it takes; None to take `devices`
    """

    price_per_hour: float | None = None
    limits: Limits | None = None
    devices: int = 1
    pages_per_s: float | None = None

    def __post_init__(self) -> None:
        price, rate = self.price_per_hour, self.pages_per_s
        if price is not None and not 0 < price <= MOST_PRICE:
            raise ValueError(
                f"price_per_hour: got {price:g}, accepted: the price of an hour of the device, above zero and at most "
                f"{MOST_PRICE:g}"
            )
        whole("devices", self.devices, most=MOST_DEVICES)
        if rate is not None and not 0 < rate <= MOST_PAGES_PER_S:
            raise ValueError(f"pages_per_s: got {rate:g}, accepted: above zero and at most {MOST_PAGES_PER_S:g}")
