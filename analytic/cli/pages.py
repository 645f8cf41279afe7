"""`--images` and `--pdf`: pages of files on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analytic.io import page_files
from analytic.io.argument_types import file_path, folder_path
from analytic.io.ending import named
from analytic.io.page_files import FilePage


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPages:
    """The pages of the files on a command line, and how they were read, as a phrase for the reader."""

    pages: tuple[FilePage, ...]
    left_out: tuple[str, ...]

    @property
    def told(self) -> str:
        """` of 3 files; PDF pages at 144 dpi; left out: notes.txt`."""
        files = {page.path for page in self.pages}
        if not files:
            return ""
        words = f" of {len(files):,} file{'' if len(files) == 1 else 's'}"
        dpi = {page.dpi for page in self.pages} - {None}
        rendered = f"; PDF pages at {dpi.pop():g} dpi" if dpi else ""
        left_out = f"; left out, no images by their names: {named(self.left_out)}" if self.left_out else ""
        return f"{words}{rendered}{left_out}"


def add_page_files(command: argparse.ArgumentParser) -> None:
    """`--images` and `--pdf`."""
    images = "pages of the sizes of the images in these folders"
    command.add_argument("--images", type=folder_path, nargs="+", default=[], metavar="DIR", help=images)
    command.add_argument("--pdf", type=file_path, nargs="+", default=[], metavar="FILE", help="pages of these PDF files")


def found_pages(args: argparse.Namespace, *, files: Sequence[Path] = ()) -> FoundPages:
    """The pages of `files`, `--images` and `--pdf`. Raises ValueError naming a file or folder that has none."""
    pages = [page for path in files for page in page_files.of_file(path, dpi=args.dpi)]
    folders = [page_files.in_folder(folder) for folder in dict.fromkeys(args.images)]
    pages += [page for folder in folders for page in folder.pages]
    pages += [page for path in dict.fromkeys(args.pdf) for page in page_files.of_pdf(path, dpi=args.dpi)]
    return FoundPages(pages=tuple(pages), left_out=tuple(name for folder in folders for name in folder.left_out))
