"""`python -m analytic predict`: predicted time per stage on a device with measured rates."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analytic.cli.arguments import (
    ON_WORD,
    PROMPT_TOKENS,
    add_execution,
    add_page,
    add_steps_and_batch,
    positions_of,
    refuse_device,
    selected_page,
    selected_rule,
    with_notice,
)
from analytic.core.checks import MOST_STEPS, whole
from analytic.core.cost import Cost, CostNode, in_sequence, mean_of
from analytic.core.execution import Attention, Execution, Experts
from analytic.core.shape_class import ShapeClass
from analytic.io import shell, stored, table
from analytic.io.argument_types import file_path, integer
from analytic.models.deepseek_ocr.workload import TokenLayout, VisionWorkload
from analytic.models.registry import load_spec, model_of
from analytic.prediction import hardware, rates
from analytic.prediction.predict import Predicted, predict
from analytic.prediction.rates import Rates
from analytic.prediction.roofline import floor_s

FOLDER: Final = stored.ROOT / "baselines"
FILE: Final = "rates.json"


def add_predict(subparsers: Any) -> None:
    """Declare the command."""
    command = subparsers.add_parser("predict", help="time of each stage on a device with measured rates")
    known = command.add_mutually_exclusive_group(required=True)
    known.add_argument("--on", metavar="NAME", help="a device with stored rates (baselines/NAME/rates.json)")
    written = f"or a rates.json written by `{shell.nox('predict_study')}`"
    known.add_argument("--rates", type=file_path, metavar="FILE", help=written)
    refuse_device(command, instead=ON_WORD)
    add_page(command, required=True)
    positions = f"decoder positions, including the image (default: image, BOS and a prompt of {PROMPT_TOKENS} tokens)"
    command.add_argument("--seq-len", type=integer, metavar="S", help=positions)
    command.add_argument("--json", action="store_true", help="JSON in seconds, also by operator class")
    add_steps_and_batch(command)
    add_execution(command)
    command.set_defaults(command=predict_command)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """A stage, or the mean decoded token: floor at the device's ceilings, and time predicted from operator rates."""

    stage: str
    cost: Cost
    floor_s: float
    predicted: Predicted

    def as_json(self) -> dict[str, Any]:
        """Seconds; device time also by operator class."""
        return {
            "floor_s": self.floor_s,
            "predicted_s": self.predicted.time_s,
            "host_s": self.predicted.host_s,
            "launches": self.predicted.launches,
            "device_s": {str(name): seconds for name, seconds in self.predicted.device_s.items()},
        }


def stored_rates() -> dict[str, Path]:
    """The files of stored rates by the name of their device."""
    return {file.parent.name: file for file in sorted(FOLDER.glob(f"*/{FILE}"))}


def known_rates(name: str | None, path: Path | None) -> Rates:
    """The rates in `path`, or the stored rates of device `name`. Raises ValueError naming the devices with stored rates."""
    if path is not None:
        return rates.read(path)
    kept = stored_rates()
    if name not in kept:
        floor = f"; {name} has a datasheet, and `{shell.analytic('capacity', '--on', name)}` its floor"
        has_datasheet = any(datasheet.name == name for datasheet in hardware.devices())
        raise ValueError(
            f"--on: got {name!r}, accepted: {', '.join(kept)}, the devices with stored rates; measure those of another "
            f"with `{shell.nox('predict_study')}`{floor if has_datasheet else ''}"
        )
    return rates.read(kept[name])


def stage_times(
    known: Rates,
    *,
    page: VisionWorkload | None,
    seq_len: int,
    decode_steps: int,
    batch_size: int,
    attention: Attention,
    experts: Experts,
) -> list[StageTime]:
    """Vision (if there is a page), prefill, and the mean decoded token. Raises ValueError for invalid input."""
    TokenLayout.of(seq_len, page)
    whole("decode_steps", decode_steps, most=MOST_STEPS)
    whole("batch_size", batch_size)
    spec = load_spec(known.model_variant)
    spec.require_window("seq_len", seq_len, decoded=decode_steps)
    run = Execution(device="cuda" if known.overlapped else "cpu", attention=attention, experts=experts, dtype=known.dtype)
    model = model_of(spec, run=run)
    calls: dict[str, list[tuple[Cost, CostNode]]] = {}
    for call in model.walk(page, seq_len=seq_len, batch_size=batch_size, decode_steps=decode_steps):
        calls.setdefault(call.stage, []).append((model.forward_cost(), model.tree()))
    return [_stage(stage, found, known) for stage, found in calls.items()]


def lines(found: list[StageTime], known: Rates, *, page: VisionWorkload | None, args: argparse.Namespace) -> list[str]:
    """The table: floor and prediction per stage, the host's share, and the operator classes with most device time."""
    decode_steps = args.decode_steps
    rows = [["stage", "launches", "floor ms", "predicted ms", "over floor", "host", "most of the device's time"]]
    for timed in found:
        predicted = timed.predicted
        rows.append(
            [
                timed.stage if timed.stage != "decode" else f"decode, mean of {decode_steps} tokens",
                f"{predicted.launches:,}",
                f"{timed.floor_s * 1e3:,.3f}",
                f"{predicted.time_s * 1e3:,.3f}",
                f"{predicted.time_s / timed.floor_s:,.1f}x",
                f"{predicted.host_s / predicted.time_s:.0%}",
                _largest(predicted.device_s),
            ]
        )
    whole_s = sum(timed.predicted.time_s * (decode_steps if timed.stage == "decode" else 1) for timed in found)
    joined = "a queue that the host fills and the device empties" if known.overlapped else "their sum"
    return [
        f"{known.model_variant}, {known.dtype}, attention {args.attention}, experts {args.experts}, on "
        f"{known.device_name}, {known.threads} threads; {page.label if page else 'no page'}, {args.seq_len:,} positions, "
        f"batch {args.batch_size:,}",
        *table.aligned(rows),
        f"all stages and {decode_steps} tokens: {whole_s * 1e3:,.3f} ms",
        f"floor: fused bytes and FLOPs at {known.flops_per_s / 1e9:,.1f} GFLOP/s and {known.bytes_per_s / 1e9:,.1f} GB/s; "
        f"predicted: operators at their own rates, and the host between them: {joined}",
    ]


def predict_command(args: argparse.Namespace) -> str:
    """Floor and predicted time of vision, prefill and decode at one point."""
    known = known_rates(args.on, args.rates)
    pages = load_spec(known.model_variant).pages
    page, rule = selected_page(args, pages), selected_rule(args, pages)
    args.seq_len = positions_of(page, args.seq_len)
    found = stage_times(
        known,
        page=page,
        seq_len=args.seq_len,
        decode_steps=args.decode_steps,
        batch_size=args.batch_size,
        attention=args.attention,
        experts=args.experts,
    )
    if not args.json:
        return with_notice(rule, "\n".join(lines(found, known, page=page, args=args)), pages=page is not None)
    answer = {
        "device_name": known.device_name,
        "model_variant": known.model_variant,
        "dtype": known.dtype,
        "attention": args.attention,
        "experts": args.experts,
        "threads": known.threads,
        "page": None if page is None else page.label,
        "served_by": rule.name,
        "max_tiles": rule.max_tiles,
        "seq_len": args.seq_len,
        "batch_size": args.batch_size,
        "decode_steps": args.decode_steps,
        "stages": {timed.stage: timed.as_json() for timed in found},
    }
    return json.dumps(answer, indent=1)


def _stage(name: str, calls: Sequence[tuple[Cost, CostNode]], known: Rates) -> StageTime:
    """Floor and predicted time of the mean of one or more calls of a stage."""
    count, costs, trees = len(calls), [cost for cost, _ in calls], [tree for _, tree in calls]
    cost = mean_of(costs) if count > 1 else in_sequence(costs)
    floor = floor_s(cost, known.ceilings)
    assert floor is not None, "rates without ceilings"
    found = predict(trees, known)
    each = Predicted(
        time_s=found.time_s / count,
        host_s=found.host_s / count,
        launches=found.launches // count,
        device_s={name: seconds / count for name, seconds in found.device_s.items()},
    )
    return StageTime(stage=name, cost=cost, floor_s=floor, predicted=each)


def _largest(device_s: Mapping[ShapeClass, float]) -> str:
    """The three operator classes with most device time."""
    total = sum(device_s.values())
    first = sorted(device_s.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{str(name).replace('_', ' ')} {seconds / total:.0%}" for name, seconds in first)
