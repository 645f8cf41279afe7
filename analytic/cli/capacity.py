"""`python -m analytic capacity`: pages that fit in a device's memory, throughput on a mix of pages, and cost.

The table goes to the terminal; `--output-dir` also writes `capacity.json`, `capacity.csv` and `capacity.png`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any, Final

from analytic.cli.arguments import (
    NEW_TOKENS,
    ON_WORD,
    add_execution,
    add_length,
    add_model,
    add_page,
    refuse_device,
    with_notice,
)
from analytic.cli.pages import add_page_files
from analytic.cli.plan_inputs import files_lines, plan_inputs
from analytic.cli.planned_device import more_real
from analytic.io import shell, stored
from analytic.io.argument_types import file_path, folder_path, integer, real
from analytic.io.documents import Document
from analytic.planning.limits import Limits
from analytic.planning.plan import Plan, plan
from analytic.planning.plan_request import PlanRequest
from analytic.planning.plan_text import lines

CAPACITY: Final = Document(name="capacity")
FILES: Final = ("capacity.json", "capacity.csv", "capacity.png")
WITHOUT_A_PAGE: Final = "Without --crop-grid, --image-size, --mode or --mix it plans text only."


def add_capacity(subparsers: Any) -> None:
    """Declare the command."""
    shown = "pages that fit in a device, pages/s, and cost per million pages"
    command = subparsers.add_parser("capacity", help=shown, description=f"{shown.capitalize()}. {WITHOUT_A_PAGE}")
    command.add_argument("--on", action=OneDevice, metavar="NAME", help="the device that is planned for, such as h200")
    refuse_device(command, instead=ON_WORD)
    command.add_argument("--memory-gb", type=real, metavar="N", help="memory in GB of 1e9 bytes (default: the device's)")
    page = add_page(command, required=False)
    mix = "page shapes, shares summing to 1: a4-200dpi=0.7 base=0.3, or a file of them"
    page.add_argument("--mix", nargs="+", metavar="PAGE=SHARE", help=mix)
    add_page_files(command)
    add_length(command)
    tokens = f"new tokens per page (default: {NEW_TOKENS})"
    command.add_argument("--new-tokens", type=integer, default=NEW_TOKENS, metavar="K", help=tokens)
    command.add_argument("--loop-share", type=real, metavar="X", help="share of pages that never stop (default: none)")
    ends = "tokens after which those end (default: those that fill the window)"
    command.add_argument("--loop-tokens", type=integer, metavar="K", help=ends)
    _add_asked(command)
    source = "times: floor (the datasheet's roofline) or predicted (default: floor if there is a datasheet)"
    command.add_argument("--times", choices=("floor", "predicted"), help=source)
    command.add_argument("--rates", type=file_path, metavar="FILE", help="rates.json for --times predicted")
    record = "or times of a run: its folder or record, which also gives memory, preset, dtype and kernels"
    command.add_argument("--record", type=file_path, metavar="PATH", help=record)
    command.add_argument("--json", action="store_true", help="JSON in bytes and seconds")
    folder = "folder for capacity.json, .csv and .png (default: none written)"
    command.add_argument("--output-dir", type=folder_path, metavar="DIR", help=folder)
    add_execution(command, default=False)
    add_model(command, default=False)
    command.set_defaults(command=capacity_command)


def _add_asked(command: argparse.ArgumentParser) -> None:
    token = "longest accepted time of each further token in seconds (default: no limit)"
    command.add_argument("--token-s", type=real, metavar="T", help=token)
    first = "longest accepted time to the first token in seconds, the wait included (default: no limit)"
    command.add_argument("--first-token-s", type=real, metavar="T", help=first)
    count = command.add_mutually_exclusive_group()
    count.add_argument("--devices", type=integer, default=1, metavar="N", help="equal devices (default: 1)")
    count.add_argument("--pages-per-s", type=real, metavar="X", help="or the pages/s to find the number of devices for")
    command.add_argument("--price-per-hour", type=real, metavar="X", help="device price, in any currency (default: none)")


class OneDevice(argparse.Action):
    """`--on` given once; a second device is refused with the command that takes several."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None:
            both = shell.analytic("devices", "--on", before, values)
            parser.error(f"argument --on: got {before} and {values}, accepted: one device; `{both}` puts both side by side")
        setattr(namespace, self.dest, values)


def capacity_command(args: argparse.Namespace) -> str:
    """Memory, throughput and cost of one page or a mix, as a table or JSON; also files if a folder is given."""
    limits = None
    if args.token_s is not None or args.first_token_s is not None:
        limits = Limits(token_s=args.token_s, first_token_s=args.first_token_s)
    asked = PlanRequest(
        price_per_hour=args.price_per_hour, limits=limits, devices=args.devices, pages_per_s=args.pages_per_s
    )
    given = plan_inputs(args)
    found = plan(
        given.spec,
        given.run,
        given.mix,
        device=given.device,
        memory_bytes=given.memory_bytes,
        times=given.times,
        asked=asked,
    )
    written = [] if args.output_dir is None else write(found, args.output_dir)
    if args.json:
        return json.dumps(found.as_json(), indent=1)
    pages = any(shape.page is not None for shape in given.mix.pages)
    source = None if given.times is None else given.times.source
    shown = [*files_lines(given.files), *lines(found), *more_real(given.device, source=source)]
    shown += [f"wrote {path}" for path in written]
    return with_notice(given.mix.crop_rule, "\n".join(shown), pages=pages)


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


def _csv(found: Plan) -> str:
    """One row per number of pages in flight, for each shape alone and for the mix: the data of the chart."""
    rows = [(shape.page.label, shape.page.share, service) for shape in found.pages for service in shape.services]
    if len(found.pages) > 1:
        rows += [("the mix", 1.0, service) for service in found.services]
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    for number, (label, share, service) in enumerate(rows):
        values = service.as_json(found.asked.price_per_hour)
        if number == 0:
            written.writerow(["page", "share", *values])
        written.writerow([label, share, *("" if value is None else value for value in values.values())])
    return text.getvalue()
