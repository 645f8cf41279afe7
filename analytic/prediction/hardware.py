"""Datasheet peaks of the devices people serve on: dense FLOP/s by dtype, bandwidth and memory, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from analytic.io import stored

SCHEMA: Final = "hardware.v1.schema.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePeaks:
    """What a datasheet promises. FLOP/s without sparsity, bytes per second and bytes in decimal units.

    name     how commands and records call the device
    matches  names the driver reports, makers' words aside
    """

    name: str
    matches: tuple[str, ...]
    peak_flops_per_s: tuple[tuple[str, int | None], ...]
    bandwidth_bytes_per_s: int
    memory_bytes: int
    source: str

    def flops_per_s(self, dtype: str) -> int | None:
        """Dense peak for `dtype`; None where the device has no unit for it. Raises ValueError for an unknown dtype."""
        peaks = dict(self.peak_flops_per_s)
        if dtype not in peaks:
            raise ValueError(f"dtype: got {dtype!r}, accepted: {', '.join(peaks)}")
        return peaks[dtype]


@cache
def devices() -> tuple[DevicePeaks, ...]:
    """All devices with a datasheet, in the order of the file."""
    loaded = stored.read(stored.DATA / "hardware.json", schema=SCHEMA)
    return tuple(
        DevicePeaks(
            name=row["name"],
            matches=tuple(row["matches"]),
            peak_flops_per_s=tuple(row["dense_peak_flops_per_s"].items()),
            bandwidth_bytes_per_s=row["bandwidth_bytes_per_s"],
            memory_bytes=row["memory_bytes"],
            source=row["source"],
        )
        for row in loaded["devices"]
    )


def device(name: str) -> DevicePeaks:
    """The device called `name`. Raises ValueError naming the known ones."""
    known = {datasheet.name: datasheet for datasheet in devices()}
    if name not in known:
        raise ValueError(f"device: got {name!r}, accepted: {', '.join(known)}")
    return known[name]


def recognized(reported: str) -> DevicePeaks | None:
    """The device whose driver reports the name `reported`; None when no datasheet is known to be its own: never a guess.

    Makers' and series' words aside, the name has to fit whole: a laptop's `RTX 4090` or an `A10G` is another device.
    """
    words = _words(reported)
    fitting = [datasheet for datasheet in devices() if any(_words(match) == words for match in datasheet.matches)]
    return fitting[0] if fitting else None


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in name.replace("-", " ").split() if word not in ("NVIDIA", "AMD", "Instinct", "Tesla"))
