"""Stored JSON: one `Document` for each kind of file, which validates, migrates, reads and writes it.

A kind is declared next to the code that uses it: `NOISE = Document(name="noise")` is every `noise.vN.schema.json` in
`schemas/`, of which the highest is written and all are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analytic.io import shell, stored
from analytic.io.json_text import escaped, parsed, read_text
from analytic.io.schemas import filled, versions, violations


@contextmanager
def naming(where: object) -> Iterator[None]:
    """Let what arises in the block name `where`, which fits its schema, and whose parts may contradict each other."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(where)):
            raise
        raise ValueError(f"{where}: {error}") from error
    except (ArithmeticError, LookupError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where}: its parts contradict each other ({why})") from error


def way_back(where: str) -> str:
    """How to restore a damaged file: git tracks only those of the project."""
    if Path(where).resolve().is_relative_to(stored.ROOT):
        return f"restore it with `{shell.restored(where)}` if git tracks it, or create it again"
    return "create it again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A kind of stored JSON.

    name      of its schemas: `schemas/<name>.vN.schema.json`
    steps     from the version a file declares to the next; a version without a step is read as it is
    indent    of the written text; None for one line
    way_back  what to do about a damaged file, given its name; None if there is nothing to say
    error     raised for a document that does not fit
    """

    name: str
    steps: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    indent: int | None = 1
    way_back: Callable[[str], str] | None = way_back
    error: type[ValueError] = ValueError

    @property
    def versions(self) -> Mapping[str, str]:
        """The schema of every version, oldest first."""
        return versions(self.name)

    @property
    def version(self) -> str:
        """The version that is written."""
        return list(self.versions)[-1]

    def check(self, value: object, *, where: str) -> None:
        """Raise `error`, naming `where` and the key, unless `value` can be written: it is JSON that fits its schema."""
        self.text(value, where=where)

    def current(self, value: object, *, where: str) -> dict[str, Any]:
        """`value`, checked, migrated to the last version, with the schema's default for every property that it lacks.

        Does not modify its argument. Raises `error`.
        """
        document, version = self._checked(value, where)
        found: dict[str, Any] = filled(document, self.versions[version])
        while version in self.steps:
            found = self.steps[version](found)
            version = found["schema_version"]
            found = filled(found, self.versions[version])
        if version != document["schema_version"]:
            self._require_fit(found, version, f"{where}: as version {version} it")
        return found

    def parse(self, text: str, *, where: str) -> dict[str, Any]:
        """The document in `text`, as `current`; `where` is the file that the text comes from. Raises `error`."""
        try:
            value = self._from_text(text, where)
            return self.current(value, where=where)
        except self.error as error:
            raise self._with_way_back(error, where) from error

    def read(self, path: Path) -> dict[str, Any]:
        """The document in `path`, as `current`. Raises `error` naming the file and the key, OSError if there is none."""
        try:
            text = read_text(path)
        except ValueError as error:
            raise self._with_way_back(self.error(f"{path}: not valid JSON ({error})"), str(path)) from error
        return self.parse(text, where=str(path))

    def text(self, value: object, *, where: str) -> str:
        """The text of the file, control characters escaped. Raises `error`, naming `where` and the key."""
        text = json.dumps(escaped(value), indent=self.indent) + "\n"
        self._checked(self._from_text(text, where), where)
        return text

    def write(self, path: Path, value: object, *, where: str | None = None) -> None:
        """Write `value` to `path` atomically, creating the folder. Raises `error` and writes nothing if it does not fit."""
        text = self.text(value, where=where or str(path))
        with stored.folder_for(path.parent):
            stored.write_at_once(path, text)

    def _checked(self, value: object, where: str) -> tuple[dict[str, Any], str]:
        """`value` and the version that it declares."""
        if not isinstance(value, dict):
            raise self.error(f"{where}: got {_kind(value)}, accepted: an object")
        version, known = value.get("schema_version"), self.versions
        if not isinstance(version, str) or version not in known:
            raise self.error(
                f"{where}: schema_version: got {_short(version)}, accepted: {', '.join(known)}; a newer {self.name} needs "
                f"a newer dsocr-bench, this one writes {self.version}"
            )
        self._require_fit(value, version, f"{where}:")
        return value, version

    def _require_fit(self, value: dict[str, Any], version: str, what: str) -> None:
        problems = violations(value, self.versions[version])
        if problems:
            raise self.error(f"{what} does not fit schemas/{self.versions[version]}: {'; '.join(problems)}")

    def _from_text(self, text: str, where: str) -> object:
        try:
            return parsed(text)
        except ValueError as error:
            raise self.error(f"{where}: not valid JSON ({error})") from error

    def _with_way_back(self, error: ValueError, where: str) -> ValueError:
        return error if self.way_back is None else self.error(f"{error}; {self.way_back(where)}")


def _short(value: object, limit: int = 60) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def _kind(value: object) -> str:
    """What JSON calls it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number"
