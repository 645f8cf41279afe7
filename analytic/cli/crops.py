"""`python -m analytic crops`: grid, views and tokens of image sizes, of images and of PDF pages, and their mix."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from analytic.cli.arguments import add_crop_rule, add_dpi, add_preset, joined, selected_rule, with_notice
from analytic.cli.pages import FoundPages, add_page_files, found_pages
from analytic.io.argument_types import file_path, integer
from analytic.models.deepseek_ocr.crop_rule import CropRule, parse_pair
from analytic.models.deepseek_ocr.workload import PageFormat, VisionWorkload
from analytic.models.registry import load_spec
from analytic.planning.page_counts import CountedSize, as_options, counted, mix_of, write_mix

MOST_ROWS: Final = 30


def add_crops(subparsers: Any) -> None:
    """Declare the command."""
    command = subparsers.add_parser("crops", help="crop grid, views and tokens of image sizes, images and PDF pages")
    shown = "size in pixels, such as 1654x2339, or an image or PDF file"
    command.add_argument("sizes", nargs="*", metavar="PAGE", help=shown)
    add_page_files(command)
    add_dpi(command)
    command.add_argument(
        "--images-per-request", type=integer, default=1, metavar="N", help="images in each request (default: 1)"
    )
    command.add_argument("--write-mix", type=file_path, metavar="FILE", help="write the mix of the pages, for --mix FILE")
    command.add_argument("--json", action="store_true", help="one JSON object per page")
    add_crop_rule(command)
    add_preset(command)
    command.set_defaults(command=crops_command)


def crops_command(args: argparse.Namespace) -> str:
    """Grid, views and tokens of each page; of files also the mix by share."""
    known, images = load_spec(args.preset).pages, args.images_per_request
    rule = selected_rule(args, known)
    paths = [Path(text) for text in args.sizes if _is_file(text)]
    files = found_pages(args, files=paths)
    pages: list[tuple[int, int, str | None]] = [(*_size(text), None) for text in args.sizes if not _is_file(text)]
    pages += [(page.width_px, page.height_px, page.name) for page in files.pages]
    if not pages:
        raise ValueError(
            "size: got none, accepted: WxH in pixels, such as 1654x2339, image or PDF files, --images or --pdf"
        )
    sizes = counted(pages)
    rows = {size.label: _row(size, size.cut_by(rule, known, images)) for size in sizes}
    wrote = []
    if args.write_mix is not None:
        try:
            write_mix(args.write_mix, sizes, told=files.told if files.pages else f"{len(pages):,} sizes")
        except OSError as error:
            raise ValueError(f"write_mix: got {args.write_mix}, accepted: a writable file ({error})") from error
        wrote = [f"wrote {args.write_mix}"]
    if args.json:
        served = {"served_by": rule.name, "max_tiles": rule.max_tiles}
        listed = [{"page": name, **rows[f"{width}x{height}"], **served} for width, height, name in pages]
        return json.dumps(listed, indent=1)
    if all(name is None for *_, name in pages):
        table = [list(rows[sizes[0].label]), *([_plain(value) for value in row.values()] for row in rows.values())]
        return with_notice(rule, "\n".join([joined(table), *wrote]))
    return with_notice(
        rule, "\n".join([*_counted_lines(sizes, rows, files), _mix_line(sizes, rule, known, images), *wrote])
    )


def _is_file(text: str) -> bool:
    """Whether the argument is a file rather than a size."""
    return "/" in text or "." in text or Path(text).is_file()


def _size(text: str) -> tuple[int, int]:
    try:
        return parse_pair("size", text, example="1654x2339")
    except ValueError as error:
        raise ValueError(f"{error}, or an image or PDF file") from error


def _row(size: CountedSize, page: VisionWorkload) -> dict[str, Any]:
    return {
        "size": size.label,
        "grid": None if page.grid is None else str(page.grid),
        "views": page.num_views,
        "global_tokens": page.global_tokens,
        "local_tokens": page.local_tokens,
        "image_tokens": page.image_tokens,
    }


def _counted_lines(sizes: tuple[CountedSize, ...], rows: dict[str, dict[str, Any]], files: FoundPages) -> list[str]:
    """The pages by size, the most frequent first, and what was left out."""
    total = sum(size.count for size in sizes)
    tokens = sum(size.count * rows[size.label]["image_tokens"] for size in sizes)
    table = [["size", "pages", "share", "grid", "views", "image tokens", "such as"]]
    for size in sizes[:MOST_ROWS]:
        row = rows[size.label]
        shown = [_plain(row[key]) for key in ("grid", "views", "image_tokens")]
        table.append([size.label, f"{size.count:,}", f"{size.count / total:.1%}", *shown, size.example or "-"])
    more = [f"and {len(sizes) - MOST_ROWS:,} more sizes"] if len(sizes) > MOST_ROWS else []
    heading = f"{files.told}: {tokens / total:,.1f} image tokens in the mean"
    return [heading, *files.details, joined(table), *more]


def _mix_line(sizes: tuple[CountedSize, ...], rule: CropRule, known: PageFormat, images: int) -> str:
    """The mix by views, as the words of `--mix`."""
    mix = mix_of(sizes, seq_len=None, prompt_tokens=0, new_tokens=1, crop_rule=rule, known=known, images=images)
    return f"by views: --mix {as_options(mix)}"


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
