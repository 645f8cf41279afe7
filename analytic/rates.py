"""What a device does with one operator alone, by the class of the operator: rates and bandwidths, each measured on its own.

Nothing here is fitted to a model: a rate belongs to a shape class (how long the sums of a product are, how many bytes an
operator moves), and `fixtures/microbench.py` measures it with a single operator of that shape.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import exp, log
from pathlib import Path
from typing import Any, Final

from analytic import stored

SCHEMA: Final = "rates.v1.schema.json"


class ShapeClass(StrEnum):
    """Operators that a device treats alike.

    product      dense products, over the length of their sums: a linear's input width
    grouped      products of tokens grouped by expert, over the length of their sums
    convolution  over the length of their sums: channels in times kernel
    attention    fused attention, over the positions it looks at
    stream       pointwise operators and reductions, over the bytes of one operator
    movement     copies with another layout, padding, gathers, over the bytes of one operator
    norm         layer norm, over the bytes of one operator
    activation   GELU and SiLU, over the bytes of one operator
    """

    PRODUCT = "product"
    GROUPED = "grouped"
    CONVOLUTION = "convolution"
    ATTENTION = "attention"
    STREAM = "stream"
    MOVEMENT = "movement"
    NORM = "norm"
    ACTIVATION = "activation"


FLOP_CLASSES: Final = (ShapeClass.PRODUCT, ShapeClass.GROUPED, ShapeClass.CONVOLUTION, ShapeClass.ATTENTION)
"""Classes whose rate is in FLOP/s; that of the others is in bytes/s, read and written."""


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A rate over a size, measured at a few sizes: between them a power law, beyond them the nearest one."""

    sizes: tuple[float, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.rates):
            raise ValueError(
                f"rates: got {len(self.rates)} for {len(self.sizes)} sizes, accepted: one for each, at least one"
            )
        if list(self.sizes) != sorted(set(self.sizes)) or min(*self.sizes, *self.rates) <= 0:
            raise ValueError(f"sizes: got {self.sizes}, rates {self.rates}; accepted: rising sizes, all above zero")

    def at(self, size: float) -> float:
        """The rate at `size`."""
        place = bisect_left(self.sizes, size)
        if place == 0:
            return self.rates[0]
        if place == len(self.sizes):
            return self.rates[-1]
        low, high = self.sizes[place - 1], self.sizes[place]
        share = log(size / low) / log(high / low)
        return exp(log(self.rates[place - 1]) * (1 - share) + log(self.rates[place]) * share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """A device's rates for one model's dtype and head widths.

    launch_s     seconds that one operator takes beyond its work, launched from a stack of modules
    overlapped   the device works while the host launches: a stage takes the longer of the two, not the sum
    attention    by head width
    curves       the other classes
    """

    device_name: str
    model_variant: str
    dtype: str
    threads: int
    launch_s: float
    overlapped: bool
    attention: Mapping[int, RateCurve]
    curves: Mapping[ShapeClass, RateCurve]

    def as_json(self) -> dict[str, Any]:
        """The file (schemas/rates.v1.schema.json)."""
        plain = {
            name: getattr(self, name)
            for name in ("device_name", "model_variant", "dtype", "threads", "launch_s", "overlapped")
        }
        return {
            "schema_version": "1.0",
            **plain,
            "attention": {str(width): asdict(curve) for width, curve in self.attention.items()},
            "curves": {str(name): asdict(curve) for name, curve in self.curves.items()},
        }


def read(path: Path) -> Rates:
    """The rates in `path`. Raises ValueError naming the file and what is wrong with it."""
    loaded = stored.read(path, schema=SCHEMA)
    loaded.pop("schema_version")
    loaded["attention"] = {int(width): _curve(found) for width, found in loaded["attention"].items()}
    loaded["curves"] = {ShapeClass(name): _curve(found) for name, found in loaded["curves"].items()}
    return Rates(**loaded)


def write(rates: Rates, path: Path) -> None:
    """Write `rates` to `path`, whole or not at all; the folder is made. Raises ValueError for what fits no schema."""
    built = rates.as_json()
    problems = stored.violations(json.loads(json.dumps(built)), SCHEMA)
    if problems:
        raise ValueError(f"{path}: does not fit schemas/{SCHEMA}: {'; '.join(problems)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.write_at_once(path, json.dumps(built, indent=1, allow_nan=False) + "\n")


def _curve(found: Mapping[str, list[float]]) -> RateCurve:
    return RateCurve(tuple(found["sizes"]), tuple(found["rates"]))
