"""Measured rates of single operators on a device, per operator class: a start time and a rate.

Nothing here is fitted to a model. A rate belongs to an operator class and a size (the length of a product's sums, the bytes
moved); `fixtures/microbench/device_rates.py` measures it with operators of that class alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import exp, log
from pathlib import Path
from typing import Any, Final

from analytic.core.shape_class import ShapeClass
from analytic.io.documents import Document
from analytic.prediction.roofline import Ceilings

RATES: Final = Document(name="rates")


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A rate over a size, measured at a few sizes: a power law between them, the nearest rate beyond them."""

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
        return _between(self.sizes, self.rates, size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRates:
    """One operator class: `start_s`, seconds of an operator without work, and its rate beyond that.

    `curves` are keyed by the second size: rows of a product, head width of an attention, length of the axis that a
    broadcast fills; by 0 if there is none. `issue_s`: seconds of the host to issue one operator to a device that runs while
    the host continues; None if the device does not, or if it was not measured.
    """

    start_s: float
    curves: Mapping[int, RateCurve]
    issue_s: float | None = None

    def __post_init__(self) -> None:
        if not (self.start_s >= 0 and self.curves):
            raise ValueError(
                f"start_s: got {self.start_s}, {len(self.curves)} curves; accepted: seconds, at least one curve"
            )

    def at(self, size: float, *, second_size: float = 0) -> float:
        """The rate at `size`, with the second size `second_size`."""
        if len(self.curves) == 1:
            return next(iter(self.curves.values())).at(size)
        keys = sorted(self.curves)
        return _between(keys, [self.curves[key].at(size) for key in keys], second_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """A device's rates for one model's dtype, widths and heads.

    flops_per_s  of a large product: a ceiling of the floor
    bytes_per_s  of a large copy or sum: a ceiling of the floor
    host_s       host seconds per operator of transformers' modules: Python, views, and the launch if the device runs while
                 the host continues (`overlapped`)
    python_s     the share of `host_s` that is not spent on issuing operators; None if `issue_s` of the classes are unknown
    cache_bytes  capacity of the last-level cache, which keeps data between calls; weights beyond it are read from memory,
                 all of them if it is unknown (None)
    """

    device_name: str
    model_variant: str
    dtype: str
    threads: int
    flops_per_s: float
    bytes_per_s: float
    host_s: float
    overlapped: bool
    cache_bytes: int | None
    classes: Mapping[ShapeClass, ClassRates]
    python_s: float | None = None

    def __post_init__(self) -> None:
        missing = [str(name) for name in ShapeClass if name not in self.classes]
        if missing:
            raise ValueError(f"classes: got none for {', '.join(missing)}; accepted: all of {', '.join(ShapeClass)}")

    @property
    def ceilings(self) -> Ceilings:
        """The ceilings that a time floor is computed with."""
        return Ceilings(flops_per_s=self.flops_per_s, bytes_per_s=self.bytes_per_s)

    def host_of(self, shape_class: ShapeClass) -> float:
        """Host seconds per operator of a class; the same for every class unless the issue of each was measured."""
        issue_s = self.classes[shape_class].issue_s
        return self.host_s if self.python_s is None or issue_s is None else self.python_s + issue_s

    def as_json(self) -> dict[str, Any]:
        """The content of the file (schemas/rates.v1.schema.json)."""
        names = [field.name for field in fields(self) if field.name != "classes"]
        return {
            "schema_version": RATES.version,
            **{name: getattr(self, name) for name in names},
            "classes": {
                str(name): {
                    "start_s": measured.start_s,
                    "curves": {str(key): asdict(curve) for key, curve in measured.curves.items()},
                    "issue_s": measured.issue_s,
                }
                for name, measured in self.classes.items()
            },
        }


def read(path: Path) -> Rates:
    """The rates in `path`. Raises ValueError naming the file and the problem."""
    loaded = RATES.read(path)
    loaded.pop("schema_version")
    try:
        loaded["classes"] = {ShapeClass(name): _class(found) for name, found in loaded["classes"].items()}
        return Rates(**loaded)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write(rates: Rates, path: Path) -> None:
    """Write `rates` to `path` atomically, creating the folder. Raises ValueError if they violate the schema."""
    RATES.write(path, rates.as_json())


def _class(found: Mapping[str, Any]) -> ClassRates:
    curves = {int(key): RateCurve(tuple(curve["sizes"]), tuple(curve["rates"])) for key, curve in found["curves"].items()}
    return ClassRates(start_s=found["start_s"], curves=curves, issue_s=found["issue_s"])


def _between(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """The value at `size`: a power law between two neighbours, the nearest value beyond the ends."""
    place = bisect_left(sizes, size)
    if place == 0:
        return values[0]
    if place == len(sizes):
        return values[-1]
    low, high = sizes[place - 1], sizes[place]
    if low <= 0:
        return values[place]
    if high / low == 1:  # neighbours that a float does not tell apart
        return values[place]
    share = log(size / low) / log(high / low)
    return exp(log(values[place - 1]) * (1 - share) + log(values[place]) * share)
