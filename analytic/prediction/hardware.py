"""Datasheet peaks of common serving devices: dense FLOP/s by dtype, bandwidth and memory, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from analytic.core.checks import listed
from analytic.io import stored
from analytic.io.documents import Document

HARDWARE: Final = Document(name="hardware")


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePeaks:
    """Peaks from a datasheet: FLOP/s without sparsity, bytes/s, and bytes in decimal units.

    name     name of the device in commands and records
    matches  names reported by the driver, without manufacturer and series words
    board_power_w  the most that the board draws, in watts; None where it depends on the form or the configuration
    """

    name: str
    matches: tuple[str, ...]
    peak_flops_per_s: tuple[tuple[str, int | None], ...]
    bandwidth_bytes_per_s: int
    memory_bytes: int
    source: str
    board_power_w: int | None = None

    def flops_per_s(self, dtype: str) -> int | None:
        """Dense peak FLOP/s for `dtype`; None if the device has no unit for it. Raises ValueError for an unknown dtype."""
        peaks = dict(self.peak_flops_per_s)
        if dtype not in peaks:
            raise ValueError(f"dtype: got {dtype!r}, accepted: {', '.join(peaks)}")
        return peaks[dtype]


@cache
def devices() -> tuple[DevicePeaks, ...]:
    """All devices with a datasheet, in file order."""
    loaded = HARDWARE.read(stored.DATA / "hardware.json")
    return tuple(
        DevicePeaks(
            name=row["name"],
            matches=tuple(row["matches"]),
            peak_flops_per_s=tuple(row["dense_peak_flops_per_s"].items()),
            bandwidth_bytes_per_s=row["bandwidth_bytes_per_s"],
            memory_bytes=row["memory_bytes"],
            source=row["source"],
            board_power_w=row["board_power_w"],
        )
        for row in loaded["devices"]
    )


def device(name: str, *, field: str = "device") -> DevicePeaks:
    """The device `name`. Raises ValueError naming `field` and listing the known devices."""
    known = {datasheet.name: datasheet for datasheet in devices()}
    if name not in known:
        raise ValueError(f"{field}: got {name!r}, accepted: {', '.join(known)}{suggestion(name)}")
    return known[name]


def suggestion(name: str) -> str:
    """`; did you mean h100-sxm, h100-pcie or h100-nvl?` for a name that is nearly one; nothing for another."""
    asked = [known.name for known in devices() if name and known.name.startswith(name.lower().removeprefix("nvidia-"))]
    return f"; did you mean {listed(asked)}?" if asked else ""


def recognized(reported: str) -> DevicePeaks | None:
    """The device whose driver reports the name `reported`; None if no datasheet is known for it: never a guess.

    The whole name has to match, except for manufacturer and series words: a laptop's `RTX 4090` or an `A10G` is another
    device.
    """
    words = _words(reported)
    fitting = [datasheet for datasheet in devices() if any(_words(match) == words for match in datasheet.matches)]
    return fitting[0] if fitting else None


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in name.replace("-", " ").split() if word not in ("NVIDIA", "AMD", "Instinct", "Tesla"))
