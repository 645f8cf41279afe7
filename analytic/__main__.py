"""`python -m analytic`: what a page must cost, without torch.

Three commands: `cost` one point by stage, `crops` how images are cut, `sweep` a scaling table as files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from analytic import stored
from analytic.checks import positive
from analytic.cost import Cost, CostNode, in_sequence
from analytic.execution import DTYPE_BYTES, Execution
from analytic.model import DeepseekOCRModel
from analytic.spec import ModelSpec
from analytic.workload import MODES, CropGrid, TokenLayout, VisionWorkload, crop_grid_for, gundam, parse_pair

USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for input that can not be used)."""
    asked = _parser().parse_args(arguments)
    try:
        text: str = asked.command(asked)
    except (ValueError, OSError) as error:
        print(f"python -m analytic {asked.name}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(text)
    return 0


def cost_command(asked: argparse.Namespace) -> str:
    """Cost of vision, prefill and each decode step at one point."""
    page = _page(asked)
    layout = TokenLayout.of(asked.seq_len, page)
    positive("decode_steps", asked.decode_steps)
    positive("batch_size", asked.batch_size)
    spec, run = ModelSpec.from_preset(asked.preset), _execution(asked)
    model = DeepseekOCRModel.from_spec(spec, run=run, logits=asked.logits)
    stages: dict[str, dict[str, Any]] = {}
    trees: dict[str, CostNode] = {}
    if page is not None:
        model.start_vision(batch_size=asked.batch_size, workload=page)
        stages["vision"], trees["vision"] = _stage(model.forward_cost()), model.tree()
    model.start_prefill(asked.seq_len, asked.batch_size)
    stages["prefill"], trees["prefill"] = _stage(model.forward_cost()), model.tree()
    cache = model.start_decode()
    trees["decode"] = model.tree()
    steps, listed = [], []
    for number in range(1, asked.decode_steps + 1):
        context = cache.length
        steps.append(model.forward_cost())
        cache = model.decode_one_token()
        listed.append({"step": number, "context_len": context, **_stage(steps[-1])})
    stages["decode"] = {**_stage(_mean(steps)), "steps": listed}
    answer: dict[str, Any] = {
        "model": {"model_id": spec.model_id, "model_variant": spec.model_variant},
        "execution": {"device": run.device, "attention": run.attention, "experts": run.experts, "dtype": run.dtype},
        "workload": {
            "seq_len": asked.seq_len,
            "batch_size": asked.batch_size,
            "decode_steps": asked.decode_steps,
            "logits": asked.logits,
            "page": None if page is None else page.label,
            "views": 0 if page is None else page.num_views,
            "image_tokens": layout.image_tokens,
            "bos_tokens": layout.bos_tokens,
            "text_tokens": layout.text_tokens,
        },
        "stages": stages,
    }
    if asked.by_module:
        for name, tree in trees.items():
            stages[name]["modules"] = _modules(tree)
    return json.dumps(answer, indent=1) if asked.json else _cost_text(answer)


def crops_command(asked: argparse.Namespace) -> str:
    """Grid, views and tokens of each image size."""
    rows = []
    for text in asked.sizes:
        width, height = parse_pair("size", text, example="1654x2339")
        page = gundam(crop_grid_for(width, height))
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
    if asked.json:
        return json.dumps(rows, indent=1)
    return _table([list(rows[0]), *([_plain(value) for value in row.values()] for row in rows)])


def sweep_command(asked: argparse.Namespace) -> str:
    """The scaling table over sequence lengths, written as JSON and CSV."""
    for length in asked.seq_lens:
        positive("seq_lens", length)
    positive("decode_steps", asked.decode_steps)
    positive("batch_size", asked.batch_size)
    from analytic import sweep

    scaled = sweep.scaling(
        ModelSpec.from_preset(asked.preset),
        _execution(asked),
        seq_lens=list(dict.fromkeys(asked.seq_lens)),
        decode_steps=asked.decode_steps,
        batch_size=asked.batch_size,
    )
    try:
        paths = sweep.write(scaled, asked.output_dir)
    except OSError as error:
        raise ValueError(f"output_dir: got {asked.output_dir}, accepted: a folder that can be written ({error})") from error
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
    return "\n".join([_table(rows), *(f"wrote {path}" for path in paths)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analytic", description="What a page must cost DeepSeek-OCR.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    cost = commands.add_parser("cost", help="FLOPs, bytes and memory of vision, prefill and decode at one point")
    image = cost.add_mutually_exclusive_group(required=True)
    image.add_argument("--crop-grid", metavar="WxH", help="1024 px view and WxH local views, such as 2x3")
    image.add_argument("--image-size", metavar="WxH", help="page in pixels, cut as the model cuts it")
    image.add_argument("--mode", metavar="NAME", help=f"one view without crops: {', '.join(MODES)}")
    image.add_argument("--no-image", action="store_true", help="the decoder alone")
    cost.add_argument("--seq-len", type=int, required=True, metavar="S", help="decoder positions, image included")
    cost.add_argument("--logits", choices=("last", "all"), default="last", help="logits of prefill (default: last)")
    cost.add_argument("--by-module", action="store_true", help="every module too, copies of a layer together")
    cost.add_argument("--json", action="store_true", help="JSON in base units; decode is the mean token and its steps")
    cost.set_defaults(command=cost_command)

    crops = commands.add_parser("crops", help="crop grid, views and tokens of image sizes")
    crops.add_argument("sizes", nargs="+", metavar="WxH", help="image size in pixels, such as 1654x2339")
    crops.add_argument("--json", action="store_true", help="one JSON object a size")
    crops.set_defaults(command=crops_command)

    sweep = commands.add_parser("sweep", help="a scaling table over sequence lengths, as JSON and CSV")
    lengths = [256, 512, 1024, 2048, 4096]
    sweep.add_argument("--seq-lens", type=int, nargs="+", default=lengths, metavar="S", help=f"(default: {lengths})")
    sweep.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="where the two files go")
    sweep.set_defaults(command=sweep_command)

    for command in (cost, sweep):
        command.add_argument("--decode-steps", type=int, default=16, metavar="K", help="tokens decoded (default: 16)")
        command.add_argument("--batch-size", type=int, default=1, metavar="B", help="(default: 1)")
        command.add_argument("--preset", default="deepseek-ocr-v1-base", metavar="NAME", help=_choices("presets"))
        command.add_argument("--device", default="meta", help="meta, cpu or cuda: which kernels run (default: meta)")
        command.add_argument("--attention", default="sdpa", help="sdpa or eager (default: sdpa)")
        command.add_argument("--experts", default="grouped_mm", help="grouped_mm or batched_mm (default: grouped_mm)")
        command.add_argument("--dtype", default="bfloat16", help=f"{', '.join(DTYPE_BYTES)} (default: bfloat16)")
    return parser


def _choices(folder: str) -> str:
    return f"{', '.join(stored.names(folder))} (default: deepseek-ocr-v1-base)"


def _execution(asked: argparse.Namespace) -> Execution:
    return Execution(device=asked.device, attention=asked.attention, experts=asked.experts, dtype=asked.dtype)


def _page(asked: argparse.Namespace) -> VisionWorkload | None:
    if asked.no_image:
        return None
    if asked.mode is not None:
        if asked.mode not in MODES:
            raise ValueError(f"mode: got {asked.mode!r}, accepted: {', '.join(MODES)}")
        return MODES[asked.mode]
    if asked.crop_grid is not None:
        return gundam(CropGrid.parse(asked.crop_grid))
    return VisionWorkload.from_image(*parse_pair("image size", asked.image_size, example="1654x2339"))


def _stage(cost: Cost) -> dict[str, Any]:
    values = {name: int(value) for name, value in cost.as_dict().items()}
    return {**values, "arithmetic_intensity_flops_per_byte": round(float(cost.arithmetic_intensity), 6)}


def _mean(steps: list[Cost]) -> Cost:
    """The mean token: work and traffic a token; weights, the peak and the last cache as they are."""
    kept = ("weight_bytes", "activation_bytes", "kv_bytes")
    together = in_sequence(steps).as_dict()
    return Cost(**{name: value if name in kept else value // len(steps) for name, value in together.items()})


def _modules(tree: CostNode) -> list[dict[str, Any]]:
    """Own cost of every module, copies of a layer in one row."""
    rows = []

    def visit(node: CostNode, prefix: str, times: int) -> None:
        name = f"{node.name}.*" if len(node.copies) > 1 else ".".join((node.name, *node.copies))
        path, times = ".".join(part for part in (prefix, name) if part), times * (len(node.copies) or 1)
        if node.ops or node.parameter_bytes:
            rows.append(
                {
                    "module": path,
                    "layer": node.layer,
                    "modules": times,
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


def _cost_text(answer: dict[str, Any]) -> str:
    workload, execution = answer["workload"], answer["execution"]
    lines = [
        f"{answer['model']['model_variant']}, {execution['dtype']}, attention {execution['attention']}, experts "
        f"{execution['experts']}, as on {execution['device']}",
        f"{workload['seq_len']} positions = {workload['image_tokens']} image ({workload['page'] or 'no page'}) + "
        f"{workload['bos_tokens']} BOS + {workload['text_tokens']} text; batch {workload['batch_size']}, logits "
        f"{workload['logits']}",
    ]
    rows = [["stage", "GFLOP", "useful", "GB eager", "GB fused", "weights GB", "activations MB", "KV MB"]]
    for name, stage in answer["stages"].items():
        rows.append(
            [
                name if name != "decode" else f"decode, a token of {workload['decode_steps']}",
                f"{stage['executed_flops'] / 1e9:,.3f}",
                f"{stage['useful_flops'] / 1e9:,.3f}",
                f"{stage['eager_bytes'] / 1e9:,.3f}",
                f"{stage['fused_bytes'] / 1e9:,.3f}",
                f"{stage['weight_bytes'] / 1e9:,.3f}",
                f"{stage['activation_bytes'] / 1e6:,.3f}",
                f"{stage['kv_bytes'] / 1e6:,.3f}",
            ]
        )
    lines.append(_table(rows))
    for name, stage in answer["stages"].items():
        if "modules" in stage:
            heading = ["module", "x", "FLOP", "bytes", "weight bytes"]
            body = [
                [row["module"], str(row["modules"])]
                + [f"{row[key]:,}" for key in ("executed_flops", "eager_bytes", "weight_bytes")]
                for row in stage["modules"]
            ]
            lines += ["", f"{name} by module", _table([heading, *body])]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _table(rows: list[list[str]]) -> str:
    """Columns of equal width, the first flush left, numbers flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
