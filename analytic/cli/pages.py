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
    """The pages of the files on a command line, and the names of the files in their folders that are no images."""

    pages: tuple[FilePage, ...]
    left_out: tuple[str, ...]

    @property
    def told(self) -> str:
        """`9 pages of 3 files`."""
        files = len({page.path for page in self.pages})
        return f"{len(self.pages):,} page{_plural(len(self.pages))} of {files:,} file{_plural(files)}"

    @property
    def details(self) -> list[str]:
        """How PDF pages were rendered, and the files of a folder that were left out; a line each."""
        resolutions = {page.dpi for page in self.pages if page.dpi is not None}
        rendered = [f"PDF pages are rendered at {dpi:g} dots per inch" for dpi in resolutions]
        return rendered + ([f"left out, no images by their names: {named(self.left_out)}"] if self.left_out else [])


def _plural(count: int) -> str:
    return "" if count == 1 else "s"


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
    given = {path.name for path in (*files, *args.pdf)}
    left_out = tuple(name for folder in folders for name in folder.left_out if name not in given)
    return FoundPages(pages=tuple(pages), left_out=left_out)
