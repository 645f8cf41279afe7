"""`python -m analytic cost`: FLOPs, bytes and memory of vision, prefill and each decode step at one point."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from analytic.cli.arguments import (
    DECODE_STEPS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    add_execution,
    add_kernels,
    add_model,
    add_page,
    add_steps_and_batch,
    execution,
    joined,
    positions_of,
    selected_page,
    selected_rule,
    with_notice,
)
from analytic.core.checks import MOST_STEPS, whole
from analytic.core.cost import Cost, CostNode, mean_of
from analytic.io.argument_types import integer
from analytic.models.deepseek_ocr.workload import TokenLayout
from analytic.models.registry import load_spec, model_of
from analytic.prediction import hardware
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.roofline import Ceilings, floor_s

SUMMED: Final = ("launches", "executed_flops", "useful_flops", "eager_bytes", "fused_bytes")
"""Counts that add up over the calls of a page."""


def add_cost(subparsers: Any) -> None:
    """Declare the command."""
    command = subparsers.add_parser("cost", help="FLOPs, bytes and memory of vision, prefill and decode at one point")
    add_page(command, required=True)
    positions = f"decoder positions, including the image (default: image, BOS and a prompt of {PROMPT_TOKENS} tokens)"
    command.add_argument("--seq-len", type=integer, metavar="S", help=positions)
    command.add_argument(
        "--on", metavar="NAME", help="also the floor: least time by the datasheet of a device, such as h200"
    )
    command.add_argument("--logits", choices=("last", "all"), default="last", help="logits of prefill (default: last)")
    command.add_argument("--by-module", action="store_true", help="also list every module, identical layers in one row")
    command.add_argument("--json", action="store_true", help="JSON in base units; decode as the mean token and each step")
    add_steps_and_batch(command, planned=True)
    add_kernels(command, planned=True)
    add_execution(command)
    add_model(command)
    command.set_defaults(command=cost_command)


def cost_command(args: argparse.Namespace) -> str:
    """Cost of vision, prefill and each decode step at one point."""
    _complete(args)
    spec, run = load_spec(args.preset), execution(args)
    page, rule = selected_page(args, spec.pages), selected_rule(args, spec.pages)
    seq_len = positions_of(page, args.seq_len)
    layout = TokenLayout.of(seq_len, page)
    datasheet = None if args.on is None else hardware.device(args.on, field="--on")
    whole("decode_steps", args.decode_steps, most=MOST_STEPS)
    whole("batch_size", args.batch_size)
    spec.require_window("seq_len", seq_len, decoded=args.decode_steps)
    model = model_of(spec, run=run, logits=args.logits)
    stages: dict[str, dict[str, Any]] = {}
    trees: dict[str, CostNode] = {}
    costs: dict[str, Cost] = {}
    steps, listed = [], []
    for call in model.walk(page, seq_len=seq_len, batch_size=args.batch_size, decode_steps=args.decode_steps):
        cost = model.forward_cost()
        if call.stage not in trees:
            trees[call.stage] = model.tree()
        if call.stage == "decode":
            steps.append(cost)
            listed.append({"step": len(steps), "context_len": call.context_len, **_stage(cost)})
        else:
            stages[call.stage], costs[call.stage] = _stage(cost), cost
    stages["decode"] = {**_stage(mean_of(steps)), "steps": listed}
    answer: dict[str, Any] = {
        "model": {"model_id": spec.model_id, "model_variant": spec.model_variant},
        "execution": run.choices(),
        "workload": {
            "seq_len": seq_len,
            "batch_size": args.batch_size,
            "decode_steps": args.decode_steps,
            "logits": args.logits,
            "page": None if page is None else page.label,
            "views": 0 if page is None else page.num_views,
            "image_tokens": layout.image_tokens,
            "bos_tokens": layout.bos_tokens,
            "text_tokens": layout.text_tokens,
            "served_by": rule.name,
            "max_tiles": rule.max_tiles,
        },
        "stages": stages,
    }
    if datasheet is not None:
        answer["floor"] = _floor(datasheet, run.dtype, costs, steps)
    if args.by_module:
        for name, tree in trees.items():
            stages[name]["modules"] = _modules(tree)
    return json.dumps(answer, indent=1) if args.json else with_notice(rule, _cost_text(answer), pages=page is not None)


def _complete(args: argparse.Namespace) -> None:
    """Fill in the kernels and the decoded tokens that are not given: with `--on` those that `capacity` plans with."""
    if args.kernels is None:
        # every device with a datasheet runs torch's CUDA kernels
        args.kernels = "meta" if args.on is None else "cuda"
    if args.decode_steps is None:
        args.decode_steps = DECODE_STEPS if args.on is None else NEW_TOKENS - 1


def _floor(device: DevicePeaks, dtype: str, costs: Mapping[str, Cost], steps: Sequence[Cost]) -> dict[str, Any]:
    """Roofline lower bound on the time of each stage and of all of them, in seconds, by the datasheet of `device`."""
    peak = device.flops_per_s(dtype)
    if peak is None:
        raise ValueError(
            f"dtype: got {dtype}, of which the datasheet of {device.name} has no dense peak, accepted: another"
        )
    ceilings = Ceilings(flops_per_s=peak, bytes_per_s=device.bandwidth_bytes_per_s)
    floors = {name: floor_s(cost, ceilings) or 0.0 for name, cost in costs.items()}
    decoded = [floor_s(cost, ceilings) or 0.0 for cost in steps]
    return {
        "device": device.name,
        "flops_per_s": peak,
        "bytes_per_s": device.bandwidth_bytes_per_s,
        "stages_s": {**floors, "decode": sum(decoded) / len(decoded)},
        "all_s": sum(floors.values()) + sum(decoded),
        "all": {name: sum(int(getattr(cost, name)) for cost in (*costs.values(), *steps)) for name in SUMMED},
    }


def _stage(cost: Cost) -> dict[str, Any]:
    values = {name: int(value) for name, value in cost.as_dict().items()}
    return {**values, "arithmetic_intensity_flops_per_byte": round(float(cost.arithmetic_intensity), 6)}


def _modules(tree: CostNode) -> list[dict[str, Any]]:
    """Own cost of every module (children excluded), with copies of a layer in one row."""
    rows = []

    def visit(node: CostNode, prefix: str, times: int) -> None:
        name = ".".join(part for part in (node.name, _indices(node.copies)) if part)
        path, times = ".".join(part for part in (prefix, name) if part), times * (len(node.copies) or 1)
        if node.ops or node.parameter_bytes:
            rows.append(
                {
                    "module": path,
                    "layer": node.layer,
                    "modules": times,
                    "launches": times * sum(int(op.launches) for op in node.ops),
                    "executed_flops": times * sum(int(op.executed_flops) for op in node.ops),
                    "cuda_core_flops": times * sum(int(op.cuda_core_flops) for op in node.ops),
                    "eager_bytes": times * sum(int(op.eager_bytes) for op in node.ops),
                    "weight_bytes": times * node.parameter_bytes,
                }
            )
        for child in node.children:
            visit(child, path, times)

    visit(tree, "", 1)
    return rows


def _indices(copies: tuple[str, ...]) -> str:
    """`0`, `1-11` or `2,5,8,11`: the layers that a row covers."""
    if len(copies) < 2 or len(copies) != int(copies[-1]) - int(copies[0]) + 1:
        return ",".join(copies)
    return f"{copies[0]}-{copies[-1]}"


def _cost_text(answer: dict[str, Any]) -> str:
    workload, execution = answer["workload"], answer["execution"]
    lines = [
        f"{answer['model']['model_variant']}, {execution['dtype']}, attention {execution['attention']}, experts "
        f"{execution['experts']}, as on {execution['device']}",
        f"{workload['seq_len']} positions = {workload['image_tokens']} image ({workload['page'] or 'no page'}) + "
        f"{workload['bos_tokens']} BOS + {workload['text_tokens']} text; batch {workload['batch_size']}, logits "
        f"{workload['logits']}",
    ]
    lines.append(joined(_rows(answer)))
    lines.append("GB fused: the least that must be moved; GB eager: what the operators move, each for itself")
    if "floor" in answer:
        lines += _floor_lines(answer["floor"], workload)
    for name, stage in answer["stages"].items():
        if "modules" in stage:
            heading = ["module", "x", "launches", "FLOP", "bytes", "weight bytes"]
            body = [
                [row["module"], str(row["modules"])]
                + [f"{row[key]:,}" for key in ("launches", "executed_flops", "eager_bytes", "weight_bytes")]
                for row in stage["modules"]
            ]
            lines += ["", f"{name} by module", joined([heading, *body])]
    return "\n".join(lines)


def _rows(answer: Mapping[str, Any]) -> list[list[str]]:
    """The table of the stages; with a floor also its milliseconds, and all stages with every decoded token."""
    floor, steps = answer.get("floor"), answer["workload"]["decode_steps"]
    rows = [["stage", "launches", "GFLOP", "useful", "GB eager", "GB fused", "weights GB", "activations MB", "KV MB"]]
    for name, stage in answer["stages"].items():
        memory = (stage["weight_bytes"] / 1e9, stage["activation_bytes"] / 1e6, stage["kv_bytes"] / 1e6)
        shown = name if name != "decode" else f"decode, mean of {steps} tokens"
        rows.append([shown, *_counts(stage), *(f"{size:,.3f}" for size in memory)])
    if floor is not None:
        rows.append([f"all, {steps} tokens decoded", *_counts(floor["all"]), "-", "-", "-"])
        times_s = [*(floor["stages_s"][name] for name in answer["stages"]), floor["all_s"]]
        for row, cell in zip(rows, ["floor ms", *(f"{time_s * 1e3:,.3f}" for time_s in times_s)], strict=True):
            row.append(cell)
    return rows


def _counts(counted: Mapping[str, int]) -> list[str]:
    """Launches, GFLOP and GB as cells."""
    return [f"{counted['launches']:,}", *(f"{counted[name] / 1e9:,.3f}" for name in SUMMED[1:])]


def _floor_lines(floor: Mapping[str, Any], workload: Mapping[str, Any]) -> list[str]:
    """What the floor is, and the tokens that it covers."""
    rates = f"{floor['flops_per_s'] / 1e12:,.1f} TFLOP/s, {floor['bytes_per_s'] / 1e9:,.0f} GB/s"
    steps = workload["decode_steps"]
    return [
        f"floor ms: a lower bound on time by the datasheet of {floor['device']} ({rates}), from GFLOP and GB fused",
        f"all: {steps + 1:,} new tokens, the first from the prefill and {steps:,} decoded; at least "
        f"{floor['all_s'] * 1e3:,.3f} ms, batch {workload['batch_size']}; --decode-steps changes the tokens",
    ]
