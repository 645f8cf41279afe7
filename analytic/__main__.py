"""`python -m analytic`: the cost of a page from the closed form, without torch.

`cost` prints one point by stage, `crops` the views of image sizes and files, `sweep` writes a scaling table, `demand`
prints rates required of a device, `predict` the time on a measured device, `capacity` memory, throughput and cost of a
device, `devices` several side by side, `compare` several variants of the model.
"""

from __future__ import annotations

import argparse
import sys

from analytic.cli.capacity import add_capacity
from analytic.cli.compare import add_compare
from analytic.cli.cost import add_cost
from analytic.cli.crops import add_crops
from analytic.cli.devices import add_devices
from analytic.cli.predict import add_predict
from analytic.cli.sweep import add_demand, add_sweep
from analytic.io.ending import ended

USAGE_ERROR = 2


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
    for add in (add_cost, add_crops, add_sweep, add_demand, add_predict, add_capacity, add_devices, add_compare):
        add(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(ended("python -m analytic", main, sys.argv[1:]))
