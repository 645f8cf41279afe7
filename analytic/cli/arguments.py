"""Arguments that several commands take, and the page, crop rule, grid and kernels that they select.

`--on NAME` is the device that is planned for, `--kernels` those whose operators are counted. `--device` is the word of the
commands that run the model, and is refused here with the word that takes its place.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analytic.core.checks import MOST_STEPS, listed, whole
from analytic.core.execution import ATTENTIONS, DEVICES, DTYPE_BYTES, EXPERTS, Execution
from analytic.io import page_files, shell, stored, table
from analytic.io.argument_types import file_path, integer, real
from analytic.models.deepseek_ocr.crop_rule import CropGrid, CropRule, parse_pair
from analytic.models.deepseek_ocr.workload import PAGE_SIZES, PAGES, PageFormat, VisionWorkload
from analytic.models.spec import ModelSpec

PRESET: Final = "deepseek-ocr-v1-base"
DTYPE: Final = "bfloat16"
ATTENTION: Final = "sdpa"
EXPERT: Final = "grouped_mm"
PROMPT_TOKENS: Final = 16
DECODE_STEPS: Final = 16
NEW_TOKENS: Final = 512
"""New tokens of a page that is planned for; the first comes from the prefill."""
SEQ_LEN: Final = 1024
"""Positions of a plan without an image."""
KERNELS_WORD: Final = "--kernels DEVICE, whose operators are counted"
ON_WORD: Final = "--on NAME, the device that is planned for"


class RefusedDevice(argparse.Action):
    """`--device` in a command that runs nothing: an error that names the option which takes its place (`const`)."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        parser.error(
            f"argument --device: got {values!r}, accepted: {self.const}; --device is where a command runs the model, and "
            f"this one runs nothing"
        )


def refuse_device(command: argparse.ArgumentParser, *, instead: str) -> None:
    """Refuse `--device`, naming the word that is meant `instead`."""
    command.add_argument("--device", action=RefusedDevice, const=instead, help=argparse.SUPPRESS)


def add_kernels(command: argparse.ArgumentParser, *, planned: bool = False) -> None:
    """`--kernels`: the device whose operators are counted; where one is `planned` for, None if it is not given."""
    usual = "meta; with --on cuda" if planned else "meta"
    shown = f"{listed(DEVICES)}; the kernels whose operators are counted (default: {usual})"
    command.add_argument("--kernels", default=None if planned else "meta", metavar="DEVICE", help=shown)
    refuse_device(command, instead=KERNELS_WORD)


def add_execution(command: argparse.ArgumentParser, *, default: bool = True) -> None:
    """`--attention` and `--experts`; without `default`, None if they are not given."""
    experts = f"{listed(EXPERTS)}; on meta not eager (default: {EXPERT})"
    command.add_argument(
        "--attention", default=ATTENTION if default else None, help=f"{listed(ATTENTIONS)} (default: {ATTENTION})"
    )
    command.add_argument("--experts", default=EXPERT if default else None, help=experts)


def add_preset(command: argparse.ArgumentParser, *, default: bool = True) -> None:
    """`--preset`; without `default`, None if it is not given."""
    presets = f"{listed(stored.names('presets'))} (default: {PRESET})"
    command.add_argument("--preset", default=PRESET if default else None, metavar="NAME", help=presets)


def add_model(command: argparse.ArgumentParser, *, default: bool = True) -> None:
    """`--preset` and `--dtype`; without `default`, None if they are not given."""
    add_preset(command, default=default)
    dtypes = f"{listed(tuple(DTYPE_BYTES))} (default: {DTYPE})"
    command.add_argument("--dtype", default=DTYPE if default else None, help=dtypes)


def add_steps_and_batch(command: argparse.ArgumentParser, *, planned: bool = False) -> None:
    """`--decode-steps` and `--batch-size`; where a device is `planned` for, steps are None if they are not given."""
    usual = f"{DECODE_STEPS}; with --on {NEW_TOKENS - 1}, for {NEW_TOKENS} new tokens" if planned else f"{DECODE_STEPS}"
    steps = None if planned else DECODE_STEPS
    command.add_argument(
        "--decode-steps", type=integer, default=steps, metavar="K", help=f"tokens decoded (default: {usual})"
    )
    command.add_argument("--batch-size", type=integer, default=1, metavar="B", help="pages per batch (default: 1)")


def add_page(command: argparse.ArgumentParser, *, required: bool) -> Any:
    """The options that select one page, as a group of which one is given; returns the group."""
    image = command.add_mutually_exclusive_group(required=required)
    image.add_argument("--crop-grid", metavar="WxH", help="1024 px view and WxH local views, such as 2x3")
    sizes = f"page in pixels, cut as the model cuts it, or a name: {', '.join(PAGE_SIZES)}"
    image.add_argument("--image-size", metavar="WxH", help=sizes)
    image.add_argument("--image", type=file_path, metavar="FILE", help="page of the size of an image, or of a one-page PDF")
    image.add_argument("--mode", metavar="NAME", help=f"one view without crops: {', '.join(PAGES.modes)}")
    image.add_argument("--no-image", action="store_true", help="the decoder only, without vision")
    add_dpi(command)
    add_crop_rule(command)
    return image


def add_length(command: argparse.ArgumentParser) -> None:
    """`--seq-len` or `--prompt-tokens`: the positions of the pages of a plan."""
    length = command.add_mutually_exclusive_group()
    positions = f"decoder positions (default: from P; without an image {SEQ_LEN})"
    length.add_argument("--seq-len", type=integer, metavar="S", help=positions)
    prompt = f"or positions for the image, BOS and a prompt of P tokens (default: {PROMPT_TOKENS})"
    length.add_argument("--prompt-tokens", type=integer, metavar="P", help=prompt)


def add_crop_rule(command: argparse.ArgumentParser) -> None:
    """`--served-by` and `--max-tiles`."""
    rules = ", ".join(f"{rule.name} (at most {rule.max_tiles} tiles)" for rule in PAGES.rules)
    command.add_argument("--served-by", metavar="NAME", help=f"who cuts the page: {rules} (default: {PAGES.rule.name})")
    command.add_argument(
        "--max-tiles", type=integer, metavar="N", help="most tiles of a page (default: those of --served-by)"
    )


def add_dpi(command: argparse.ArgumentParser) -> None:
    """`--dpi`, at which PDF pages are rendered."""
    shown = f"dots per inch that PDF pages are rendered at (default: {page_files.DPI})"
    command.add_argument("--dpi", type=real, default=page_files.DPI, metavar="N", help=shown)


def add_grid(command: argparse.ArgumentParser) -> None:
    """`--seq-lens` and `--crop-grids`, and who cuts the pages."""
    lengths, pages = [256, 512, 1024, 2048, 4096], " ".join(PAGES.swept)
    command.add_argument(
        "--seq-lens", type=integer, nargs="+", default=lengths, metavar="S", help=f"decoder positions (default: {lengths})"
    )
    command.add_argument(
        "--crop-grids",
        nargs="*",
        metavar="PAGE",
        help=f"grids, modes, sizes such as 1920x1080px or names such as a4-200dpi; empty: no pages (default: those of "
        f"{pages} that are cut so)",
    )
    add_crop_rule(command)


def execution(args: argparse.Namespace) -> Execution:
    """The kernels, attention, experts and dtype of the command line."""
    return Execution(device=args.kernels, attention=args.attention, experts=args.experts, dtype=args.dtype)


def selected_rule(args: argparse.Namespace, known: PageFormat) -> CropRule:
    """The crop rule given by `--served-by` and `--max-tiles`, of the pages `known` to the model."""
    return known.rule_of(args.served_by, args.max_tiles)


def with_notice(rule: CropRule, text: str, *, pages: bool = True) -> str:
    """`text` below the sentence that names the crop rule, unless it is the default or there are no `pages`."""
    return text if rule.notice is None or not pages else f"{rule.notice}\n{text}"


def selected_page(args: argparse.Namespace, known: PageFormat) -> VisionWorkload | None:
    """The page given by an option of `add_page`, cut by the crop rule; None if no image is given."""
    if args.no_image:
        return None
    if args.mode is not None:
        return known.mode(args.mode)
    if args.crop_grid is not None:
        grid = CropGrid.parse(args.crop_grid)
        selected_rule(args, known).require(grid)
        return known.gundam(grid)
    if args.image is not None:
        size = _size_of(args.image, dpi=args.dpi)
    elif args.image_size is not None:
        size = PAGE_SIZES.get(args.image_size) or parse_pair(
            "image size", args.image_size, example=f"1654x2339, or a name: {', '.join(PAGE_SIZES)}"
        )
    else:
        return None
    return known.of_size(*size, rule=selected_rule(args, known))


def positions_of(page: VisionWorkload | None, seq_len: int | None, *, prompt_tokens: int = PROMPT_TOKENS) -> int:
    """The positions of a prompt: `seq_len`, or those of the page's image, BOS and `prompt_tokens`."""
    return 1 + prompt_tokens + (0 if page is None else page.image_tokens) if seq_len is None else seq_len


def _size_of(path: Path, *, dpi: float) -> tuple[int, int]:
    """The size of the only page in `path`. Raises ValueError for several."""
    pages = page_files.of_file(path, dpi=dpi)
    if len(pages) > 1:
        raise ValueError(
            f"image: got {path}, with {len(pages)} pages, accepted: a file of one page; "
            f"`{shell.analytic('crops', path)}` takes several"
        )
    return pages[0].width_px, pages[0].height_px


def selected_lengths(args: argparse.Namespace, spec: ModelSpec) -> list[int]:
    """The lengths of `--seq-lens`, each once. Raises ValueError for one that passes the window with the decoded tokens."""
    whole("decode_steps", args.decode_steps, most=MOST_STEPS)
    for length in args.seq_lens:
        whole("seq_lens", length)
        spec.require_window("seq_lens", length, decoded=args.decode_steps)
    return list(dict.fromkeys(args.seq_lens))


def selected_pages(args: argparse.Namespace, known: PageFormat) -> list[VisionWorkload]:
    """The pages of `--crop-grids`, each once; by default those that are swept of the family and that the rule cuts."""
    rule = selected_rule(args, known)
    if args.crop_grids is None:
        swept = (known.parse("crop_grids", text) for text in known.swept)
        return [page for page in swept if page.grid is None or page.grid.tiles <= rule.max_tiles]
    return list(dict.fromkeys(known.parse("crop_grids", text, rule=rule) for text in args.crop_grids))


def joined(rows: list[list[str]]) -> str:
    """The rows as aligned lines of text."""
    return "\n".join(table.aligned(rows))
