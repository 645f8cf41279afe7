"""`python -m analytic sweep` and `demand`: costs, and rates required of a device, over sequence lengths and pages."""

from __future__ import annotations

import argparse
import json
from typing import Any

from analytic.cli.arguments import (
    add_execution,
    add_grid,
    add_kernels,
    add_model,
    add_steps_and_batch,
    execution,
    joined,
    selected_lengths,
    selected_pages,
    selected_rule,
    with_notice,
)
from analytic.io.argument_types import folder_path, real
from analytic.models.registry import load_spec
from analytic.planning import demand
from analytic.planning.demand import FIRST_TOKEN_S, TOKEN_S


def add_sweep(subparsers: Any) -> None:
    """Declare `sweep`."""
    command = subparsers.add_parser("sweep", help="a scaling table over sequence lengths and views, as JSON and CSV")
    add_grid(command)
    command.add_argument("--output-dir", type=folder_path, required=True, metavar="DIR", help="folder for the two files")
    _add_rest(command)
    command.set_defaults(command=sweep_command)


def add_demand(subparsers: Any) -> None:
    """Declare `demand`."""
    command = subparsers.add_parser("demand", help="FLOP/s and bytes/s required to answer within a target time")
    add_grid(command)
    for flag, times, what in (("--first-token-s", FIRST_TOKEN_S, "the first"), ("--token-s", TOKEN_S, "each further")):
        shown = f"target times for {what} token in seconds (default: {' '.join(map(str, times))})"
        command.add_argument(flag, type=real, nargs="+", default=times, metavar="T", help=shown)
    command.add_argument("--json", action="store_true", help="JSON with every length and page, in base units")
    _add_rest(command)
    command.set_defaults(command=demand_command)


def _add_rest(command: argparse.ArgumentParser) -> None:
    add_steps_and_batch(command)
    add_kernels(command)
    add_execution(command)
    add_model(command)


def sweep_command(args: argparse.Namespace) -> str:
    """The scaling table over sequence lengths and views, written as JSON and CSV."""
    from analytic.planning import sweep

    spec = load_spec(args.preset)
    scaled = sweep.scaling(
        spec,
        execution(args),
        seq_lens=selected_lengths(args, spec),
        decode_steps=args.decode_steps,
        batch_size=args.batch_size,
        pages=selected_pages(args, spec.pages),
    )
    try:
        paths = sweep.write(scaled, args.output_dir)
    except OSError as error:
        raise ValueError(f"output_dir: got {args.output_dir}, accepted: a writable folder ({error})") from error
    rows = [["seq_len", "prefill GFLOP", "decode GFLOP/token", "KV MB after"]]
    for point in scaled["points"]:
        rows.append(
            [
                f"{point['seq_len_prefill']:,}",
                f"{point['prefill']['executed_flops'] / 1e9:,.3f}",
                f"{point['decode']['executed_flops_per_token'] / 1e9:,.3f}",
                f"{point['decode']['kv_bytes_final'] / 1e6:,.3f}",
            ]
        )
    views = [["page", "views", "vision GFLOP", "GB fused"]]
    for crop in scaled["crops"]:
        vision = crop["vision"]
        views.append(
            [
                crop["page"],
                str(crop["views"]),
                f"{vision['executed_flops'] / 1e9:,.3f}",
                f"{vision['fused_bytes'] / 1e9:,.3f}",
            ]
        )
    tables = [joined(rows), *([joined(views)] if scaled["crops"] else [])]
    text = "\n".join([*tables, *(f"wrote {path}" for path in paths)])
    return with_notice(selected_rule(args, spec.pages), text, pages=bool(scaled["crops"]))


def demand_command(args: argparse.Namespace) -> str:
    """The rates required by a first token and by each further token, over lengths and pages."""
    spec = load_spec(args.preset)
    found = demand.serving_demand(
        spec,
        execution(args),
        seq_lens=selected_lengths(args, spec),
        pages=selected_pages(args, spec.pages),
        batch_size=args.batch_size,
        decode_steps=args.decode_steps,
        first_token_s=args.first_token_s,
        token_s=args.token_s,
    )
    if args.json:
        return json.dumps(found.as_json(), indent=1)
    return with_notice(selected_rule(args, spec.pages), "\n".join(demand.lines(found)), pages=bool(found.first_token))
