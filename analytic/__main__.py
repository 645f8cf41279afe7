"""`python -m analytic`: the cost of a page from the closed form, without torch.

`cost` prints one point by stage, `crops` the views of image sizes, `sweep` writes a scaling table, `demand` prints rates
required of a device, `predict` the time on a measured device, `capacity` memory, throughput and cost of a device.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from analytic.cli import commands
from analytic.cli.capacity import capacity_command
from analytic.cli.predict import predict_command
from analytic.core.checks import listed
from analytic.core.execution import ATTENTIONS, DEVICES, DTYPE_BYTES, EXPERTS
from analytic.io import shell, stored
from analytic.io.argument_types import file_path, folder_path, integer, real
from analytic.io.ending import ended
from analytic.models.deepseek_ocr.workload import PAGES
from analytic.planning.demand import FIRST_TOKEN_S, TOKEN_S

USAGE_ERROR = 2
WITHOUT_A_PAGE = "Without --crop-grid, --image-size, --mode or --mix it plans text only."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for invalid input)."""
    args = _parser().parse_args(arguments)
    try:
        text: str = args.command(args)
    except (ValueError, OSError) as error:
        print(f"python -m analytic {args.name}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analytic", description="Closed-form cost of a page for DeepSeek-OCR.")
    subparsers = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    cost = subparsers.add_parser("cost", help="FLOPs, bytes and memory of vision, prefill and decode at one point")
    _add_page(cost, required=True)
    cost.add_argument("--seq-len", type=integer, required=True, metavar="S", help="decoder positions, including the image")
    cost.add_argument("--logits", choices=("last", "all"), default="last", help="logits of prefill (default: last)")
    cost.add_argument("--by-module", action="store_true", help="also list every module, identical layers in one row")
    cost.add_argument("--json", action="store_true", help="JSON in base units; decode as the mean token and each step")
    cost.set_defaults(command=commands.cost_command)

    crops = subparsers.add_parser("crops", help="crop grid, views and tokens of image sizes")
    crops.add_argument("sizes", nargs="+", metavar="WxH", help="image size in pixels, such as 1654x2339")
    crops.add_argument("--images", type=integer, default=1, metavar="N", help="images in the request (default: 1)")
    crops.add_argument("--json", action="store_true", help="one JSON object per size")
    _add_crop_rule(crops)
    crops.set_defaults(command=commands.crops_command)

    sweep = subparsers.add_parser("sweep", help="a scaling table over sequence lengths and views, as JSON and CSV")
    _add_grid(sweep)
    sweep.add_argument("--output-dir", type=folder_path, required=True, metavar="DIR", help="folder for the two files")
    sweep.set_defaults(command=commands.sweep_command)

    demand = subparsers.add_parser("demand", help="FLOP/s and bytes/s required to answer within a target time")
    _add_grid(demand)
    for flag, times, what in (("--first-token-s", FIRST_TOKEN_S, "the first"), ("--token-s", TOKEN_S, "each further")):
        shown = f"target times for {what} token in seconds (default: {' '.join(map(str, times))})"
        demand.add_argument(flag, type=real, nargs="+", default=times, metavar="T", help=shown)
    demand.add_argument("--json", action="store_true", help="JSON with every length and page, in base units")
    demand.set_defaults(command=commands.demand_command)

    predict = subparsers.add_parser("predict", help="time of each stage on a device with measured rates")
    known = predict.add_mutually_exclusive_group(required=True)
    known.add_argument("--device", metavar="NAME", help="a device with stored rates (baselines/NAME/rates.json)")
    known.add_argument(
        "--rates", type=file_path, metavar="FILE", help=f"or a rates.json written by `{shell.nox('predict_study')}`"
    )
    _add_page(predict, required=True)
    predict.add_argument(
        "--seq-len", type=integer, required=True, metavar="S", help="decoder positions, including the image"
    )
    predict.add_argument("--json", action="store_true", help="JSON in seconds, also by operator class")
    predict.set_defaults(command=predict_command)

    capacity = "pages that fit in a device, pages/s, and cost per million pages"
    _add_capacity(
        subparsers.add_parser("capacity", help=capacity, description=f"{capacity.capitalize()}. {WITHOUT_A_PAGE}")
    )

    for command in (cost, sweep, demand, predict):
        command.add_argument("--decode-steps", type=integer, default=16, metavar="K", help="tokens decoded (default: 16)")
        command.add_argument("--batch-size", type=integer, default=1, metavar="B", help="pages per batch (default: 1)")
    for command in (cost, sweep, demand):
        command.add_argument("--device", default="meta", help=f"{listed(DEVICES)}; selects the kernels (default: meta)")
    experts = f"{listed(EXPERTS)}; on meta not eager (default: grouped_mm)"
    for command in (cost, sweep, demand, predict, subparsers.choices["capacity"]):
        command.add_argument("--attention", default="sdpa", help=f"{listed(ATTENTIONS)} (default: sdpa)")
        command.add_argument("--experts", default="grouped_mm", help=experts)
    for command in (cost, crops, sweep, demand, subparsers.choices["capacity"]):
        command.add_argument("--preset", default="deepseek-ocr-v1-base", metavar="NAME", help=_choices("presets"))
    for command in (cost, sweep, demand, subparsers.choices["capacity"]):
        command.add_argument("--dtype", default="bfloat16", help=f"{listed(tuple(DTYPE_BYTES))} (default: bfloat16)")
    return parser


def _add_capacity(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", metavar="NAME", help="a device with a datasheet, such as h200 or a100-80gb-sxm")
    command.add_argument("--memory-gb", type=real, metavar="N", help="memory in GB of 1e9 bytes (default: the device's)")
    page = _add_page(command, required=False)
    page.add_argument(
        "--mix", nargs="+", metavar="PAGE=SHARE", help="page shapes, shares summing to 1: a4-200dpi=0.7 base=0.3"
    )
    length = command.add_mutually_exclusive_group()
    length.add_argument("--seq-len", type=integer, metavar="S", help="decoder positions (default: 1024; for a mix, from P)")
    length.add_argument(
        "--prompt-tokens",
        type=integer,
        metavar="P",
        help="or positions for the image, BOS and a prompt of P tokens (default for a mix: 16)",
    )
    command.add_argument("--new-tokens", type=integer, default=512, metavar="K", help="new tokens per page (default: 512)")
    source = "times: floor (the datasheet's roofline) or predicted (default: floor if there is a datasheet)"
    command.add_argument("--times", choices=("floor", "predicted"), help=source)
    command.add_argument("--rates", type=file_path, metavar="FILE", help="rates.json for --times predicted")
    command.add_argument("--record", type=file_path, metavar="PATH", help="or times of a run: its folder or record")
    command.add_argument("--price-per-hour", type=real, metavar="X", help="device price, in any currency (default: none)")
    command.add_argument("--json", action="store_true", help="JSON in bytes and seconds")
    command.add_argument(
        "--output-dir",
        type=folder_path,
        metavar="DIR",
        help="folder for capacity.json, .csv and .png (default: none written)",
    )
    command.set_defaults(command=capacity_command)


def _add_grid(command: argparse.ArgumentParser) -> None:
    lengths, pages = [256, 512, 1024, 2048, 4096], " ".join(PAGES.swept)
    command.add_argument(
        "--seq-lens", type=integer, nargs="+", default=lengths, metavar="S", help=f"decoder positions (default: {lengths})"
    )
    command.add_argument(
        "--crop-grids",
        nargs="*",
        default=PAGES.swept,
        metavar="WxH",
        help=f"grids or modes; empty: no pages (default: {pages})",
    )


def _add_page(command: argparse.ArgumentParser, *, required: bool) -> Any:
    image = command.add_mutually_exclusive_group(required=required)
    image.add_argument("--crop-grid", metavar="WxH", help="1024 px view and WxH local views, such as 2x3")
    image.add_argument("--image-size", metavar="WxH", help="page in pixels, cut as the model cuts it")
    image.add_argument("--mode", metavar="NAME", help=f"one view without crops: {', '.join(PAGES.modes)}")
    image.add_argument("--no-image", action="store_true", help="the decoder only, without vision")
    _add_crop_rule(command)
    return image


def _add_crop_rule(command: argparse.ArgumentParser) -> None:
    rules = ", ".join(f"{rule.name} (at most {rule.max_tiles} tiles)" for rule in PAGES.rules)
    command.add_argument("--served-by", metavar="NAME", help=f"who cuts the page: {rules} (default: {PAGES.rule.name})")
    command.add_argument(
        "--max-tiles", type=integer, metavar="N", help="most tiles of a page (default: those of --served-by)"
    )


def _choices(folder: str) -> str:
    return f"{listed(stored.names(folder))} (default: deepseek-ocr-v1-base)"


if __name__ == "__main__":
    sys.exit(ended("python -m analytic", main, sys.argv[1:]))
