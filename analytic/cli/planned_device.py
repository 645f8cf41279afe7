"""The device of a plan: its datasheet, its memory, and the measured rates of it that are given or stored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from analytic.cli.predict import stored_rates
from analytic.io import shell
from analytic.planning.recorded_times import RecordedChoices
from analytic.prediction import hardware, rates
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.rates import Rates

LEAST_GB: Final = 1e-9
MOST_GB: Final = 1e9
"""Accepted memory sizes in GB: from one byte to more than any machine has."""


def rates_of(args: argparse.Namespace) -> tuple[Path, Rates] | None:
    """The rates of `--rates`, or those stored for `--on` where they are the times that are asked for."""
    if args.rates is not None:
        if args.times != "predicted":
            raise ValueError(f"rates: got {args.rates} without --times predicted, accepted: both together")
        if not args.rates.is_file():
            raise ValueError(
                f"rates: got {args.rates}, accepted: a file of rates; `{shell.nox('predict_study')}` writes one"
            )
        return args.rates, rates.read(args.rates)
    kept = stored_rates()
    without_datasheet = args.times is None and args.record is None and not _is_datasheet(args.on)
    if args.on in kept and (args.times == "predicted" or without_datasheet):
        return kept[args.on], rates.read(kept[args.on])
    if args.times == "predicted":
        raise ValueError(
            f"rates: got none, accepted: the rates of the device; measure them with `{shell.nox('predict_study')}`, and "
            f"give the file with --rates"
        )
    return None


def _is_datasheet(name: str | None) -> bool:
    return any(datasheet.name == name for datasheet in hardware.devices())


def datasheet_of(args: argparse.Namespace, known: tuple[Path, Rates] | None) -> DevicePeaks | None:
    """The datasheet of `--on`; for a device of stored rates that of the name its driver reports, None if it has none."""
    if args.on is None:
        return None
    if known is not None and args.on in stored_rates() and not _is_datasheet(args.on):
        return hardware.recognized(known[1].device_name)
    if not _is_datasheet(args.on):
        raise ValueError(f"--on: got {args.on!r}, accepted: {_named()}{hardware.suggestion(args.on)}")
    return hardware.device(args.on, field="--on")


def memory_of(args: argparse.Namespace, datasheet: DevicePeaks | None, record: RecordedChoices | None) -> int:
    """Bytes of memory: those given, or else of the datasheet or the record. Raises ValueError if nothing says."""
    gigabytes: float | None = args.memory_gb
    if gigabytes is None:
        if datasheet is not None:
            return datasheet.memory_bytes
        if record is not None and record.memory_bytes is not None:
            return record.memory_bytes
        raise ValueError(f"--on: got {args.on or 'none'}, accepted: {_named()}; or give the memory alone with --memory-gb")
    if not LEAST_GB <= gigabytes <= MOST_GB:
        raise ValueError(
            f"memory_gb: got {gigabytes}, accepted: gigabytes from {LEAST_GB:g} (one byte) to {MOST_GB:g}; a device "
            f"has tens or hundreds of them"
        )
    return round(gigabytes * 1e9)


def more_real(datasheet: str | None, *, source: str | None) -> list[str]:
    """How to get times that are closer to real ones than a floor is; nothing for another source of times."""
    if source != "floor" or datasheet is None:
        return []
    for name, path in stored_rates().items():
        sheet = hardware.recognized(rates.read(path).device_name)
        if sheet is not None and sheet.name == datasheet:
            return [f"closer to real times: --on {name}, from the measured rates of its operators"]
    measures = shell.nox("qualify", "--device", "cuda")
    return [f"closer to real times: from rates that `{measures}` measures on the device"]


def _named() -> str:
    """The devices that `--on` takes."""
    sheets = ", ".join(datasheet.name for datasheet in hardware.devices())
    return f"{sheets}; or a device with measured rates: {', '.join(stored_rates())}"
