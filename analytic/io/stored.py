"""Presets and profiles stored as JSON, validated against their schema on reading."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from analytic.io.leftovers import temporary_file
from analytic.io.schemas import SCHEMAS as SCHEMAS
from analytic.io.schemas import violations as violations

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


def load(folder: str, name: str, *, field: str, schema: str) -> dict[str, Any]:
    """The stored object `name` of `folder`, validated against `schemas/<schema>`.

    Raises ValueError naming `field` and the known names if it is missing, and the file and the offending key if it is
    damaged.
    """
    return read(path_of(folder, name, field=field), schema=schema)


def read(path: Path, *, schema: str) -> dict[str, Any]:
    """The JSON object in `path`, validated against `schemas/<schema>`. Raises ValueError naming the file and the key."""
    try:
        loaded = parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {_way_back(path)}") from error
    problems = violations(loaded, schema)
    if problems:
        raise ValueError(f"{path}: does not fit schemas/{schema}: " + "; ".join(problems))
    return dict(loaded)


def _way_back(path: Path) -> str:
    """How to restore a damaged file: git tracks only those of the project."""
    if path.resolve().is_relative_to(ROOT):
        return f"restore it with `git checkout -- {path}` if git tracks it, or create it again"
    return "create it again"


def parsed(text: str) -> Any:
    """The value of JSON `text`. Raises ValueError if it is not valid JSON, also for NaN and infinities."""
    return json.loads(text, parse_constant=_refuse_constant)


def require_writable(folder: Path, *files: Path) -> None:
    """Raise OSError unless `folder` is writable and `files` can be replaced; folders created by the check are removed."""
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


def write_at_once(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, through a temporary file beside it. The folder has to exist."""
    with temporary_file(path) as descriptor, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
        os.fchmod(descriptor, 0o666 & ~_umask())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"got {name}, accepted: a finite number or null")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
