"""`python -m analytic capacity`: pages that fit in a device's memory, throughput on a mix of pages, and cost.

The table goes to the terminal; `--output-dir` also writes `capacity.json`, `capacity.csv` and `capacity.png`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Final

from analytic.cli.commands import selected_page, selected_rule, with_notice
from analytic.core.checks import whole
from analytic.core.execution import Execution
from analytic.io import shell, stored
from analytic.io.documents import Document
from analytic.models.deepseek_ocr.workload import PageFormat
from analytic.models.registry import load_spec
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix
from analytic.planning.plan import Plan, plan
from analytic.planning.plan_text import lines
from analytic.planning.recorded_times import recorded_times
from analytic.planning.times import Times, floor_times, predicted_times
from analytic.prediction import hardware, rates

CAPACITY: Final = Document(name="capacity")
FILES: Final = ("capacity.json", "capacity.csv", "capacity.png")
SEQ_LEN: Final = 1024
PROMPT_TOKENS: Final = 16
LEAST_GB: Final = 1e-9
MOST_GB: Final = 1e9
"""Accepted memory sizes in GB: from one byte to more than any machine has."""


def capacity_command(args: argparse.Namespace) -> str:
    """Memory, throughput and cost of one page or a mix, as a table or JSON; also files if a folder is given."""
    spec = load_spec(args.preset)
    # on a serving device SDPA is one fused kernel
    run = Execution(device="cuda", attention=args.attention, experts=args.experts, dtype=args.dtype)
    memory_bytes = _memory_bytes(args)
    mix = _mix(args, spec.pages)
    for shape in mix.pages:
        # the first new token comes from the prefill, and the last is not fed back
        given = f"new_tokens {mix.new_tokens}, of which the last is not fed back,"
        spec.require_window(f"seq_len of {shape.label}", shape.seq_len, decoded=mix.new_tokens - 1, given=given)
    found = plan(
        spec,
        run,
        mix,
        device=args.device,
        memory_bytes=memory_bytes,
        times=_times(args, mix, spec, run),
        price_per_hour=args.price_per_hour,
    )
    written = [] if args.output_dir is None else write(found, args.output_dir)
    if args.json:
        return json.dumps(found.as_json(), indent=1)
    pages = any(shape.page is not None for shape in mix.pages)
    return with_notice(mix.crop_rule, "\n".join([*lines(found), *(f"wrote {path}" for path in written)]), pages=pages)


def write(found: Plan, folder: Path) -> list[Path]:
    """Write the three files of a plan with times, each atomically. Raises ValueError if one cannot be written."""
    from analytic.io.charts import write_png
    from analytic.planning.plan_chart import drawn

    picture = drawn(found)
    built = found.as_json()
    CAPACITY.check(built, where="the plan")
    paths = [folder / name for name in FILES]
    try:
        stored.require_writable(folder, *paths)
        CAPACITY.write(paths[0], built)
        stored.write_at_once(paths[1], _csv(found))
        write_png(picture, paths[2])
    except OSError as error:
        raise ValueError(f"output_dir: got {folder}, accepted: a writable folder ({error})") from error
    return paths


def _memory_bytes(args: argparse.Namespace) -> int:
    datasheet = None if args.device is None else hardware.device(args.device)
    gigabytes: float | None = args.memory_gb
    if gigabytes is None:
        if datasheet is None:
            known = ", ".join(datasheet.name for datasheet in hardware.devices())
            raise ValueError(f"device: got none, accepted: {known}; or give the memory alone with --memory-gb")
        return datasheet.memory_bytes
    if not LEAST_GB <= gigabytes <= MOST_GB:
        raise ValueError(
            f"memory_gb: got {gigabytes}, accepted: gigabytes from {LEAST_GB:g} (one byte) to {MOST_GB:g}; a device "
            f"has tens or hundreds of them"
        )
    return round(gigabytes * 1e9)


def _mix(args: argparse.Namespace, known: PageFormat) -> Mix:
    """The mix, or the single page; a single page has a prefill of SEQ_LEN positions by default."""
    prompt = PROMPT_TOKENS if args.prompt_tokens is None else args.prompt_tokens
    whole("prompt_tokens", prompt, least=0)
    if args.mix is not None:
        return Mix.parsed(
            args.mix,
            seq_len=args.seq_len,
            prompt_tokens=prompt,
            new_tokens=args.new_tokens,
            crop_rule=selected_rule(args, known),
            known=known,
        )
    page, length = selected_page(args, known), args.seq_len
    if length is None:
        length = SEQ_LEN if args.prompt_tokens is None else 1 + prompt + (0 if page is None else page.image_tokens)
    return Mix.of_one(page, seq_len=length, new_tokens=args.new_tokens, crop_rule=selected_rule(args, known))


def _times(args: argparse.Namespace, mix: Mix, spec: ModelSpec, run: Execution) -> Times | None:
    """The selected source of times; the floor by default if there is a datasheet; None if only memory is planned."""
    if args.rates is not None and args.times != "predicted":
        raise ValueError(f"rates: got {args.rates} without --times predicted, accepted: both together")
    if args.record is not None:
        if args.times is not None:
            raise ValueError(f"times: got {args.times} beside --record, accepted: one of them; sources are never mixed")
        return recorded_times(args.record, mix, spec, run, device=args.device)
    if args.times == "predicted":
        if args.rates is None:
            raise ValueError(
                f"rates: got none, accepted: the rates of the device; measure them with `{shell.nox('predict_study')}`"
            )
        if not args.rates.is_file():
            raise ValueError(
                f"rates: got {args.rates}, accepted: a file of rates; `{shell.nox('predict_study')}` writes one"
            )
        known = rates.read(args.rates)
        return predicted_times(spec, run, known, file=str(args.rates), device=args.device)
    wanted = any(getattr(args, name) is not None for name in ("times", "mix", "price_per_hour", "output_dir"))
    if args.device is not None:
        datasheet = hardware.device(args.device)
        return floor_times(spec, run, datasheet) if wanted or datasheet.flops_per_s(run.dtype) is not None else None
    if wanted:
        raise ValueError(
            "device: got none, accepted: one with a datasheet for the floor, such as --device h200; or give --memory-gb "
            "with --times predicted --rates FILE or with --record PATH"
        )
    return None


def _csv(found: Plan) -> str:
    """One row per number of pages in flight, for each shape alone and for the mix: the data of the chart."""
    rows = [(shape.page.label, shape.page.share, service) for shape in found.pages for service in shape.services]
    if len(found.pages) > 1:
        rows += [("the mix", 1.0, service) for service in found.services]
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    for number, (label, share, service) in enumerate(rows):
        values = service.as_json(found.price_per_hour)
        if number == 0:
            written.writerow(["page", "share", *values])
        written.writerow([label, share, *("" if value is None else value for value in values.values())])
    return text.getvalue()
