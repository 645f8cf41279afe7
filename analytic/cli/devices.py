"""`python -m analytic devices`: devices side by side, by floor, prediction and measurement, with power and price.

The tables go to the terminal; `--output-dir` also writes `devices.json` and `devices.png`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analytic.cli.arguments import ON_WORD, add_execution, add_length, add_model, add_page, refuse_device, with_notice
from analytic.cli.pages import add_page_files
from analytic.cli.plan_inputs import DEFAULTS, Held, choice, files_lines, given_files, selected_mix, spec_of
from analytic.core.checks import whole
from analytic.core.execution import Execution
from analytic.io import stored
from analytic.io.argument_types import file_path, folder_path, integer, real
from analytic.models.spec import ModelSpec
from analytic.planning.limits import Limits
from analytic.planning.mix import Mix
from analytic.planning.plan import Plan, plan
from analytic.planning.plan_request import PlanRequest
from analytic.planning.recorded_times import RecordedTimes, recorded_choices, recorded_times
from analytic.planning.side_by_side import DEVICES, DeviceSide, SideBySide, StageSide, costed_stages, stage_side
from analytic.planning.side_text import lines
from analytic.planning.times import Source, floor_times, predicted_times
from analytic.prediction import hardware, rates
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.rates import Rates

FILES: Final = ("devices.json", "devices.png")
DECODE_STEPS: Final = 16


def add_devices(subparsers: Any) -> None:
    """Declare the command."""
    shown = "devices side by side: pages that fit, pages/s, MFU, MBU, power and price"
    command = subparsers.add_parser("devices", help=shown, description=f"{shown.capitalize()}.")
    names = "devices with a datasheet, such as a100-80gb-sxm h100-sxm (default: all)"
    command.add_argument("--on", nargs="+", action="extend", metavar="NAME", help=names)
    refuse_device(command, instead=ON_WORD)
    page = add_page(command, required=False)
    mix = "page shapes, shares summing to 1: a4-200dpi=0.7 base=0.3, or a file of them"
    page.add_argument("--mix", nargs="+", metavar="PAGE=SHARE", help=mix)
    add_page_files(command)
    add_length(command)
    command.add_argument("--new-tokens", type=integer, default=512, metavar="K", help="new tokens per page (default: 512)")
    command.add_argument("--loop-share", type=real, metavar="X", help="share of pages that never stop (default: none)")
    command.add_argument("--loop-tokens", type=integer, metavar="K", help="tokens after which those end")
    command.add_argument("--token-s", type=real, metavar="T", help="longest accepted time of each further token in seconds")
    command.add_argument("--first-token-s", type=real, metavar="T", help="longest accepted time to the first token")
    prices = "price of each device, in the order of --on, or one of all (default: none)"
    command.add_argument("--price-per-hour", type=real, nargs="+", default=[], metavar="X", help=prices)
    files = "rates.json of the devices, each by the name that it was measured on"
    command.add_argument("--rates", type=file_path, nargs="+", default=[], metavar="FILE", help=files)
    records = "runs of the devices, their folders or records"
    command.add_argument("--record", type=file_path, nargs="+", default=[], metavar="PATH", help=records)
    batch = "pages per batch of the stages (default: 1, or that of the records)"
    command.add_argument("--batch-size", type=integer, metavar="B", help=batch)
    command.add_argument("--json", action="store_true", help="JSON in bytes and seconds")
    folder = "folder for devices.json and .png (default: none written)"
    command.add_argument("--output-dir", type=folder_path, metavar="DIR", help=folder)
    add_execution(command, default=False)
    add_model(command, default=False)
    command.set_defaults(command=devices_command)


def devices_command(args: argparse.Namespace) -> str:
    """Devices side by side as tables or JSON; also files if a folder is given."""
    chosen = _chosen(args.on)
    known = _by_device([(path, rates.read(path)) for path in args.rates], chosen)
    held = _held(args, known)
    preset, dtype, attention, experts = (choice(args, name, held) for name in DEFAULTS)
    spec = spec_of(args, preset, held)
    run = Execution(device="cuda", attention=attention, experts=experts, dtype=dtype)  # type: ignore[arg-type]  # checked there
    files = given_files(args)
    mix = selected_mix(args, spec, recorded_choices(args.record[0]) if args.record else None, files)
    recorded = _recorded(args.record, chosen, mix, spec, run)
    batch_size = _batch_size(args.batch_size, recorded)
    steps = next((times.decoded for times in recorded.values() if times.decoded), DECODE_STEPS)
    alone = mix.pages[0] if len(mix.pages) == 1 else None
    works = [] if alone is None else costed_stages(spec, run, alone, batch_size=batch_size, decode_steps=steps)
    sides = []
    for device, price in zip(chosen, _prices(args.price_per_hour, len(chosen)), strict=True):
        limits = _limits(args)
        asked = PlanRequest(price_per_hour=price, limits=limits)
        if device.flops_per_s(run.dtype) is None:
            sides.append(_left_out(device, price, f"no pages/s: its datasheet has no dense peak for {run.dtype}"))
            continue
        pair, times = known.get(device.name), recorded.get(device.name)
        found = None if pair is None else pair[1]
        plans = _plans(spec, run, mix, device, asked, rates_of=pair, recorded=times)
        stages: tuple[StageSide, ...] = ()
        if alone is not None:
            stages = tuple(stage_side(work, device, run, alone, rates=found, recorded=times) for work in works)
        sides.append(DeviceSide(device=device, plans=plans, price_per_hour=price, stages=stages, left_out=None))
    beside = SideBySide(spec=spec, run=run, mix=mix, batch_size=batch_size, decode_steps=steps, devices=tuple(sides))
    written = [] if args.output_dir is None else write(beside, args.output_dir)
    if args.json:
        return json.dumps(beside.as_json(), indent=1)
    pages = any(shape.page is not None for shape in mix.pages)
    text = "\n".join([*files_lines(files), *lines(beside), *(f"wrote {path}" for path in written)])
    return with_notice(mix.crop_rule, text, pages=pages)


def write(found: SideBySide, folder: Path) -> list[Path]:
    """Write both files, each atomically. Raises ValueError if one cannot be written."""
    from analytic.io.charts import write_png
    from analytic.planning.side_chart import drawn

    picture, built = drawn(found), found.as_json()
    DEVICES.check(built, where="the devices")
    paths = [folder / name for name in FILES]
    try:
        stored.require_writable(folder, *paths)
        DEVICES.write(paths[0], built)
        write_png(picture, paths[1])
    except OSError as error:
        raise ValueError(f"output_dir: got {folder}, accepted: a writable folder ({error})") from error
    return paths


def _chosen(names: Sequence[str] | None) -> list[DevicePeaks]:
    if names is None:
        return list(hardware.devices())
    return [hardware.device(name, field="--on") for name in dict.fromkeys(names)]


def _by_device(found: Sequence[tuple[Path, Rates]], chosen: Sequence[DevicePeaks]) -> dict[str, tuple[Path, Rates]]:
    """Each file of rates by its device. Raises ValueError for that of another device, and for two of one."""
    by_name: dict[str, tuple[Path, Rates]] = {}
    for path, one in found:
        name = _device_of("rates", path, one.device_name, chosen)
        if name in by_name:
            raise ValueError(f"rates: got {by_name[name][0]} and {path}, both of {name}, accepted: one of each device")
        by_name[name] = (path, one)
    return by_name


def _device_of(field: str, path: Path, measured_on: str | None, chosen: Sequence[DevicePeaks]) -> str:
    known = None if measured_on is None else hardware.recognized(measured_on)
    if known is None or known not in chosen:
        names = ", ".join(device.name for device in chosen)
        raise ValueError(
            f"{field}: got {path}, measured on {measured_on or 'a device without a name'}, accepted: a file of {names}; "
            f"add its device with --on if it has a datasheet"
        )
    return known.name


def _held(args: argparse.Namespace, known: dict[str, tuple[Path, Rates]]) -> Held | None:
    """What the first record, or the first file of rates, holds."""
    if args.record:
        first = recorded_choices(args.record[0])
        return Held(file=first.file, choices=first.choices)
    for path, found in known.values():
        return Held(file=path, choices={"preset": found.model_variant, "dtype": found.dtype})
    return None


def _recorded(
    paths: Sequence[Path], chosen: Sequence[DevicePeaks], mix: Mix, spec: ModelSpec, run: Execution
) -> dict[str, RecordedTimes]:
    found: dict[str, RecordedTimes] = {}
    for path in paths:
        name = _device_of("record", path, recorded_choices(path).device_name, chosen)
        if name in found:
            raise ValueError(f"record: got {found[name].file} and {path}, both of {name}, accepted: one of each device")
        found[name] = recorded_times(path, mix, spec, run, device=name)
    return found


def _batch_size(given: int | None, recorded: dict[str, RecordedTimes]) -> int:
    """The batch of the stages. Raises ValueError for records of several, or of another than is given."""
    sizes = {times.batch_size or 1 for times in recorded.values()} | ({given} if given is not None else set())
    if len(sizes) > 1:
        listed = " and ".join(map(str, sorted(sizes)))
        raise ValueError(f"batch_size: got {listed}, in the records and on the command line, accepted: one for all devices")
    size = sizes.pop() if sizes else 1
    whole("batch_size", size)
    return size


def _prices(given: Sequence[float], devices: int) -> list[float | None]:
    if len(given) not in (0, 1, devices):
        raise ValueError(
            f"price_per_hour: got {len(given)} prices for {devices} devices, accepted: one of all, or one of each in the "
            f"order of --on"
        )
    return [*given] if len(given) == devices else [given[0] if given else None] * devices


def _limits(args: argparse.Namespace) -> Limits | None:
    if args.token_s is None and args.first_token_s is None:
        return None
    return Limits(token_s=args.token_s, first_token_s=args.first_token_s)


def _plans(
    spec: ModelSpec,
    run: Execution,
    mix: Mix,
    device: DevicePeaks,
    asked: PlanRequest,
    *,
    rates_of: tuple[Path, Rates] | None,
    recorded: RecordedTimes | None,
) -> dict[Source, Plan]:
    """The plan of every source of times that the device has."""
    times: dict[Source, Any] = {"floor": floor_times(spec, run, device)}
    if rates_of is not None:
        path, found = rates_of
        times["predicted"] = predicted_times(spec, run, found, file=str(path), device=device.name)
    if recorded is not None:
        times["measured"] = recorded
    return {
        source: plan(spec, run, mix, device=device.name, memory_bytes=device.memory_bytes, times=one, asked=asked)
        for source, one in times.items()
    }


def _left_out(device: DevicePeaks, price: float | None, why: str) -> DeviceSide:
    return DeviceSide(device=device, plans={}, price_per_hour=price, stages=(), left_out=why)
