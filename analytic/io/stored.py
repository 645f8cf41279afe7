"""Presets and profiles stored as JSON, checked against their schema when they are read."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
SCHEMAS: Final = ROOT / "schemas"
DATA: Final = ROOT / "analytic" / "data"


def names(folder: str) -> tuple[str, ...]:
    """The names stored in `presets` or `profiles`, sorted."""
    return tuple(sorted(path.stem for path in (DATA / folder).glob("*.json")))


def load(folder: str, name: str, *, field: str, schema: str) -> dict[str, Any]:
    """The stored object `name` of `folder`, validated against `schemas/<schema>`.

    Raises ValueError that names `field` and the known names when there is none, and the file and the offending key when
    it is damaged.
    """
    known = names(folder)
    if name not in known:
        raise ValueError(f"{field}: got {name!r}, accepted: {', '.join(known)}")
    return read(DATA / folder / f"{name}.json", schema=schema)


def read(path: Path, *, schema: str) -> dict[str, Any]:
    """The JSON object in `path`, validated against `schemas/<schema>`; ValueError naming file and key otherwise."""
    try:
        loaded = parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {_way_back(path)}") from error
    problems = violations(loaded, schema)
    if problems:
        raise ValueError(f"{path}: does not fit schemas/{schema}: " + "; ".join(problems))
    return dict(loaded)


def _way_back(path: Path) -> str:
    """How a damaged file is had again: git knows those of the project alone."""
    if path.resolve().is_relative_to(ROOT):
        return f"restore it with `git checkout -- {path}` if git knows it, or make it again"
    return "make it again"


def parsed(text: str) -> Any:
    """What JSON `text` holds. Raises ValueError when it is none, also for NaN and infinities."""
    return json.loads(text, parse_constant=_refuse_constant)


def require_writable(folder: Path, *files: Path) -> None:
    """Raise OSError unless files can be made in `folder`, and `files` replaced; folders made for the trial are removed."""
    missing = [parent for parent in (folder, *folder.parents) if not os.path.exists(parent)]  # also of a name too long
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
    """Write `text` to `path` by way of a temporary file beside it: whole or not at all. The folder has to exist."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:  # whatever interrupts the write, no half file stays behind
        Path(name).unlink(missing_ok=True)
        raise


def _refuse_constant(name: str) -> float:
    raise ValueError(f"got {name}, accepted: a finite number or null")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def violations(loaded: object, schema: str) -> list[str]:
    """What in `loaded` does not fit `schemas/<schema>`: `key: got value, reason`, at most five; empty when it fits."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry

    validator = Draft202012Validator(
        json.loads((SCHEMAS / schema).read_text(encoding="utf-8")),
        registry=Registry(retrieve=_schema),  # type: ignore[call-arg]  # a field that attrs names, as its docs use it
    )
    found = sorted(validator.iter_errors(loaded), key=lambda error: error.json_path)
    # of several accepted forms, such as an object or null, say what is wrong with the nearest
    nearest = [best_match([error]) for error in found[:5]]
    return [f"{error.json_path}: {_short(error.message)}" for error in nearest]


def _schema(uri: str) -> Any:
    """The schema that another refers to: `urn:dsocr-bench:record:4.0` is record.v4.schema.json."""
    from referencing import Resource

    *_, name, version = uri.split(":")
    path = SCHEMAS / f"{name}.v{version.partition('.')[0]}.schema.json"
    return Resource.from_contents(json.loads(path.read_text(encoding="utf-8")))


def _short(message: str, limit: int = 200) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"
