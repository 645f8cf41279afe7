"""The commands `cost`, `crops`, `sweep` and `demand`: each takes the parsed arguments and returns the text to print.

Raises ValueError for invalid input; nothing is written before all input is checked.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from analytic.core.checks import MOST_STEPS, whole
from analytic.core.cost import Cost, CostNode, mean_of
from analytic.core.execution import Execution
from analytic.io import table
from analytic.models.deepseek_ocr.crop_rule import CropGrid, CropRule, parse_pair
from analytic.models.deepseek_ocr.workload import PageFormat, TokenLayout, VisionWorkload
from analytic.models.registry import load_spec, model_of
from analytic.models.spec import ModelSpec
from analytic.planning import demand


def cost_command(args: argparse.Namespace) -> str:
    """Cost of vision, prefill and each decode step at one point."""
    spec, run = load_spec(args.preset), _execution(args)
    page, rule = selected_page(args, spec.pages), selected_rule(args, spec.pages)
    layout = TokenLayout.of(args.seq_len, page)
    whole("decode_steps", args.decode_steps, most=MOST_STEPS)
    whole("batch_size", args.batch_size)
    spec.require_window("seq_len", args.seq_len, decoded=args.decode_steps)
    model = model_of(spec, run=run, logits=args.logits)
    stages: dict[str, dict[str, Any]] = {}
    trees: dict[str, CostNode] = {}
    steps, listed = [], []
    for call in model.walk(page, seq_len=args.seq_len, batch_size=args.batch_size, decode_steps=args.decode_steps):
        cost = model.forward_cost()
        if call.stage not in trees:
            trees[call.stage] = model.tree()
        if call.stage == "decode":
            steps.append(cost)
            listed.append({"step": len(steps), "context_len": call.context_len, **_stage(cost)})
        else:
            stages[call.stage] = _stage(cost)
    stages["decode"] = {**_stage(mean_of(steps)), "steps": listed}
    answer: dict[str, Any] = {
        "model": {"model_id": spec.model_id, "model_variant": spec.model_variant},
        "execution": run.choices(),
        "workload": {
            "seq_len": args.seq_len,
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
    if args.by_module:
        for name, tree in trees.items():
            stages[name]["modules"] = _modules(tree)
    return json.dumps(answer, indent=1) if args.json else with_notice(rule, _cost_text(answer), pages=page is not None)


def crops_command(args: argparse.Namespace) -> str:
    """Grid, views and tokens of each image size."""
    known = load_spec(args.preset).pages
    rows, rule = [], selected_rule(args, known)
    for text in args.sizes:
        width, height = parse_pair("size", text, example="1654x2339")
        page = known.of_size(width, height, rule=rule, images=args.images)
        rows.append(
            {
                "size": f"{width}x{height}",
                "grid": None if page.grid is None else str(page.grid),
                "views": page.num_views,
                "global_tokens": page.global_tokens,
                "local_tokens": page.local_tokens,
                "image_tokens": page.image_tokens,
            }
        )
    if args.json:
        return json.dumps([{**row, "served_by": rule.name, "max_tiles": rule.max_tiles} for row in rows], indent=1)
    return with_notice(rule, _joined([list(rows[0]), *([_plain(value) for value in row.values()] for row in rows)]))


def sweep_command(args: argparse.Namespace) -> str:
    """The scaling table over sequence lengths and views, written as JSON and CSV."""
    from analytic.planning import sweep

    spec = load_spec(args.preset)
    scaled = sweep.scaling(
        spec,
        _execution(args),
        seq_lens=_lengths(args, spec),
        decode_steps=args.decode_steps,
        batch_size=args.batch_size,
        pages=_pages(args, spec.pages),
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
    tables = [_joined(rows), *([_joined(views)] if scaled["crops"] else [])]
    return "\n".join([*tables, *(f"wrote {path}" for path in paths)])


def demand_command(args: argparse.Namespace) -> str:
    """The rates required by a first token and by each further token, over lengths and pages."""
    spec = load_spec(args.preset)
    found = demand.serving_demand(
        spec,
        _execution(args),
        seq_lens=_lengths(args, spec),
        pages=_pages(args, spec.pages),
        batch_size=args.batch_size,
        decode_steps=args.decode_steps,
        first_token_s=args.first_token_s,
        token_s=args.token_s,
    )
    return json.dumps(found.as_json(), indent=1) if args.json else "\n".join(demand.lines(found))


def _execution(args: argparse.Namespace) -> Execution:
    return Execution(device=args.device, attention=args.attention, experts=args.experts, dtype=args.dtype)


def selected_rule(args: argparse.Namespace, known: PageFormat) -> CropRule:
    """The crop rule given by `--served-by` and `--max-tiles`, of the pages `known` to the model."""
    return known.rule_of(args.served_by, args.max_tiles)


def with_notice(rule: CropRule, text: str, *, pages: bool = True) -> str:
    """`text` below the sentence that names the crop rule, unless it is the default or there are no `pages`."""
    return text if rule.notice is None or not pages else f"{rule.notice}\n{text}"


def selected_page(args: argparse.Namespace, known: PageFormat) -> VisionWorkload | None:
    """The page given by `--mode`, `--crop-grid` or `--image-size`, cut by the crop rule; None if no image is given."""
    if args.no_image:
        return None
    if args.mode is not None:
        return known.mode(args.mode)
    if args.crop_grid is not None:
        grid = CropGrid.parse(args.crop_grid)
        selected_rule(args, known).require(grid)
        return known.gundam(grid)
    if args.image_size is None:
        return None
    size = parse_pair("image size", args.image_size, example="1654x2339")
    return known.of_size(*size, rule=selected_rule(args, known))


def _lengths(args: argparse.Namespace, spec: ModelSpec) -> list[int]:
    """The lengths of `--seq-lens`, each once. Raises ValueError for one that passes the window with the decoded tokens."""
    whole("decode_steps", args.decode_steps, most=MOST_STEPS)
    for length in args.seq_lens:
        whole("seq_lens", length)
        spec.require_window("seq_lens", length, decoded=args.decode_steps)
    return list(dict.fromkeys(args.seq_lens))


def _pages(args: argparse.Namespace, known: PageFormat) -> list[VisionWorkload]:
    return [known.parse("crop_grids", text) for text in dict.fromkeys(args.crop_grids)]


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
    rows = [["stage", "launches", "GFLOP", "useful", "GB eager", "GB fused", "weights GB", "activations MB", "KV MB"]]
    for name, stage in answer["stages"].items():
        rows.append(
            [
                name if name != "decode" else f"decode, mean of {workload['decode_steps']} tokens",
                f"{stage['launches']:,}",
                f"{stage['executed_flops'] / 1e9:,.3f}",
                f"{stage['useful_flops'] / 1e9:,.3f}",
                f"{stage['eager_bytes'] / 1e9:,.3f}",
                f"{stage['fused_bytes'] / 1e9:,.3f}",
                f"{stage['weight_bytes'] / 1e9:,.3f}",
                f"{stage['activation_bytes'] / 1e6:,.3f}",
                f"{stage['kv_bytes'] / 1e6:,.3f}",
            ]
        )
    lines.append(_joined(rows))
    for name, stage in answer["stages"].items():
        if "modules" in stage:
            heading = ["module", "x", "launches", "FLOP", "bytes", "weight bytes"]
            body = [
                [row["module"], str(row["modules"])]
                + [f"{row[key]:,}" for key in ("launches", "executed_flops", "eager_bytes", "weight_bytes")]
                for row in stage["modules"]
            ]
            lines += ["", f"{name} by module", _joined([heading, *body])]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _joined(rows: list[list[str]]) -> str:
    return "\n".join(table.aligned(rows))
