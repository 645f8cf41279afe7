"""`python -m analytic compare`: one page and its output tokens through several variants of the model.

The table goes to the terminal; `--output-dir` also writes `variants.json` and `variants.png`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from analytic.cli.arguments import (
    DTYPE,
    NEW_TOKENS,
    ON_WORD,
    PROMPT_TOKENS,
    add_execution,
    add_page,
    refuse_device,
    selected_page,
    selected_rule,
)
from analytic.core.checks import listed
from analytic.core.execution import DTYPE_BYTES, Execution
from analytic.io import stored
from analytic.io.argument_types import folder_path, integer
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.registry import load_spec
from analytic.models.spec import ModelSpec
from analytic.planning.variants import VARIANTS, Variants, beside
from analytic.planning.variants_text import lines
from analytic.prediction import hardware

FILES: Final = ("variants.json", "variants.png")


def add_compare(subparsers: Any) -> None:
    """Declare the command."""
    shown = "one page through several presets: tokens, FLOPs, bytes, memory, KV cache, floor and pages/s"
    command = subparsers.add_parser("compare", help=shown, description=f"{shown.capitalize()}.")
    command.add_argument("presets", nargs="+", metavar="PRESET", help=f"two or more of {listed(stored.names('presets'))}")
    add_page(command, required=True)
    prompt = f"tokens of the prompt beside the image and BOS (default: {PROMPT_TOKENS})"
    command.add_argument("--prompt-tokens", type=integer, default=PROMPT_TOKENS, metavar="P", help=prompt)
    tokens = f"new tokens per page (default: {NEW_TOKENS})"
    command.add_argument(
        "--new-tokens", "--tokens", dest="new_tokens", type=integer, default=NEW_TOKENS, metavar="K", help=tokens
    )
    device = "a device with a datasheet, such as h200: also floor and pages/s (default: none)"
    command.add_argument("--on", metavar="NAME", help=device)
    refuse_device(command, instead=ON_WORD)
    command.add_argument("--json", action="store_true", help="JSON in bytes, FLOPs and seconds")
    folder = "folder for variants.json and .png (default: none written)"
    command.add_argument("--output-dir", type=folder_path, metavar="DIR", help=folder)
    add_execution(command)
    command.add_argument("--dtype", default=DTYPE, help=f"{listed(tuple(DTYPE_BYTES))} (default: {DTYPE})")
    command.set_defaults(command=compare_command)


def compare_command(args: argparse.Namespace) -> str:
    """Variants side by side as a table or JSON; also files if a folder is given."""
    # on a serving device SDPA is one fused kernel
    run = Execution(device="cuda", attention=args.attention, experts=args.experts, dtype=args.dtype)
    specs = tuple(load_spec(preset) for preset in args.presets)

    def page_of(spec: ModelSpec) -> VisionWorkload | None:
        try:
            return selected_page(args, spec.pages)
        except ValueError as error:
            raise ValueError(f"{spec.model_variant}: {error}") from error

    found = beside(
        specs,
        run,
        page_of,
        prompt_tokens=args.prompt_tokens,
        new_tokens=args.new_tokens,
        device=None if args.on is None else hardware.device(args.on, field="--on"),
    )
    written = [] if args.output_dir is None else write(found, args.output_dir)
    if args.json:
        return json.dumps(found.as_json(), indent=1)
    notices = dict.fromkeys(_notice(args, spec) for spec in specs)
    return "\n".join([*(text for text in notices if text), *lines(found), *(f"wrote {path}" for path in written)])


def write(found: Variants, folder: Path) -> list[Path]:
    """Write both files, each atomically. Raises ValueError if one cannot be written."""
    from analytic.io.charts import write_png
    from analytic.planning.variants_chart import drawn

    picture, built = drawn(found), found.as_json()
    VARIANTS.check(built, where="the variants")
    paths = [folder / name for name in FILES]
    try:
        stored.require_writable(folder, *paths)
        VARIANTS.write(paths[0], built)
        write_png(picture, paths[1])
    except OSError as error:
        raise ValueError(f"output_dir: got {folder}, accepted: a writable folder ({error})") from error
    return paths


def _notice(args: argparse.Namespace, spec: ModelSpec) -> str | None:
    """The sentence about a crop rule that is not the default of `spec`; None if it is, or if there is no image."""
    text = None if args.no_image else selected_rule(args, spec.pages).notice
    return None if text is None else f"{spec.model_variant}: {text}"
