"""Where files of the project are, and how files are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from analytic.io.ending import say
from analytic.io.leftovers import clean_runs, removed_line, temporary_file

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT / "analytic" / "data"
MODELS: Final = ROOT / "analytic" / "models"


def names(folder: str) -> tuple[str, ...]:
    """The sorted names stored in `presets` (in the package of their model) or `profiles`."""
    return tuple(sorted(_files(folder)))


def path_of(folder: str, name: str, *, field: str) -> Path:
    """The file of the stored object `name` of `folder`. Raises ValueError naming `field` and the known names."""
    known = _files(folder)
    if name not in known:
        raise ValueError(f"{field}: got {name!r}, accepted: {', '.join(sorted(known))}")
    return known[name]


def _files(folder: str) -> dict[str, Path]:
    """Name -> file of everything stored in `folder`."""
    return {path.stem: path for path in (*DATA.glob(f"{folder}/*.json"), *MODELS.glob(f"*/{folder}/*.json"))}


def require_writable(folder: Path, *files: Path) -> None:
    """Raise OSError unless `folder` is writable and `files` can be replaced; folders created by the check are removed.

    Removes what killed runs left in it, and says so in one line.
    """
    missing = [parent for parent in (folder, *folder.parents) if not os.path.exists(parent)]  # any name length
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in files:
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
    finally:
        for parent in missing:
            if os.path.exists(parent):
                parent.rmdir()
    if found := clean_runs(folder):
        say(removed_line(found))


@contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Create `folder` for what the block writes. If that fails, empty folders that were created are removed."""
    missing = [parent for parent in (folder, *folder.parents) if not os.path.exists(parent)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:  # whatever ends it, also a signal: nothing was written
        with suppress(OSError):  # it holds more than that
            for parent in missing:
                parent.rmdir()
        raise


def no_folder(path: Path) -> str:
    """Why `path`, which is no folder, is none: the end of a message that refuses it."""
    return "it is a file" if os.path.exists(path) else "it does not exist"


def no_file(path: Path) -> str:
    """Why `path`, which is no regular file, is none: the end of a message that refuses it."""
    if path.is_dir():
        return "it is a folder"
    return "it is a pipe, or a device" if os.path.exists(path) else "it does not exist"


def write_at_once(path: Path, content: str | bytes) -> None:
    """Write `content`, text as UTF-8, to `path` atomically, through a temporary file beside it. The folder has to exist."""
    with temporary_file(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fchmod(descriptor, 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
