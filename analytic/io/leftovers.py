"""Temporary files and folders that the next run can tell were left by a killed one, and removes.

A process holds a lock (flock) on each that it uses, and the lock ends with the process, however that ends. One that has a
name of ours and is not locked was left behind. Names: `dsocr-NAME-....tmp`, hidden beside results.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from analytic.io.ending import say
from analytic.io.signals import postponed

PREFIX: Final = "dsocr-"
SUFFIX: Final = ".tmp"
RUN: Final = re.compile(r"(?:[a-z_]+-)?\d{8}-\d{6}-(\d{1,9})")
"""The name of the folder of a run or study, which ends with the id of its process."""


@contextmanager
def temporary_folder(name: str, *, parent: Path | None = None) -> Iterator[Path]:
    """A folder in the system's folder for temporary files, or hidden in `parent`; removed at the end, unless renamed.

    What killed processes left there, of any name of ours, is removed first, which one line says.
    """
    hidden = "" if parent is None else "."
    if found := clean(Path(tempfile.gettempdir()) if parent is None else parent, f"{hidden}{PREFIX}"):
        say(removed_line(found))
    prefix = f"{hidden}{PREFIX}{name}-"
    made: list[tuple[Path, int]] = []
    try:
        with postponed():
            made.append(_locked_folder(prefix, parent))
        yield made[0][0]
    finally:
        with postponed():
            for folder, descriptor in made:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _locked_folder(prefix: str, parent: Path | None) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=SUFFIX))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if _held(descriptor, folder):
            return folder, descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


@contextmanager
def temporary_file(path: Path) -> Iterator[int]:
    """The descriptor of a file that replaces `path` at the end, or is removed if anything goes wrong before."""
    made: list[tuple[str, int]] = []
    replaced = False
    try:
        with postponed():
            made.append(_locked_file(path))
        yield made[0][1]
        with postponed():
            os.replace(made[0][0], path)  # while it is locked
            replaced = True
    finally:
        with postponed():  # whatever happened: leave no partial file behind
            for name, descriptor in made:
                os.close(descriptor)
                if not replaced:
                    Path(name).unlink(missing_ok=True)


def _locked_file(path: Path) -> tuple[str, int]:
    """A new file beside `path`, and the descriptor that holds its lock."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{PREFIX}{path.stem}-", suffix=SUFFIX)
        if _held(descriptor, Path(name)):
            return name, descriptor
        os.close(descriptor)


def clean(folder: Path, *prefixes: str) -> list[Path]:
    """Remove the temporary files and folders of ours in `folder` whose process is gone, and return them.

    Only names that begin with one of `prefixes` are looked at. What cannot be locked is left alone.
    """
    found = []
    for prefix in prefixes:
        for path in sorted(folder.glob(f"{prefix}*{SUFFIX}")):
            if not path.is_symlink() and _removed(path):
                found.append(path)
    return found


def clean_runs(output_dir: Path) -> list[Path]:
    """Remove what killed runs left in `output_dir` and in the folders of its runs, and folders that are empty then."""
    if not output_dir.is_dir():
        return []
    found = clean(output_dir, f".{PREFIX}")
    for folder in sorted(path for path in output_dir.iterdir() if path.is_dir() and not path.is_symlink()):
        partial = clean(folder, f".{PREFIX}")
        found += partial
        if partial or _process_is_gone(folder):
            with suppress(OSError):  # it holds more than that
                folder.rmdir()
                found += [] if partial else [folder]
    return found


def _process_is_gone(folder: Path) -> bool:
    """Whether `folder` is of a run whose process is gone, as if it was killed before it wrote its first file."""
    name = RUN.fullmatch(folder.name)
    if name is None:
        return False
    try:
        os.kill(int(name[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def removed_line(found: Sequence[Path | str]) -> str:
    """One line on leftovers that were removed."""
    return f"removed what a killed run left: {', '.join(map(str, found))}"


def _removed(path: Path) -> bool:
    """Remove `path` if no process holds it; return whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # another user's, or just gone
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:  # in use, or on a file system without locks
        return False
    finally:
        os.close(descriptor)
    return True


def _held(descriptor: int, path: Path) -> bool:
    """Lock the file at `path`, which has just been made; False if it was removed before that."""
    with suppress(OSError):  # a file system without locks, on which nothing is cleaned either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    return False
