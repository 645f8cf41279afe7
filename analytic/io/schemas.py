"""The JSON Schemas in `schemas/`: what in a value violates one, and the defaults of the properties that it lacks.

A schema refers to another by URN: `urn:dsocr-bench:record:4.0` is record.v4.schema.json. Schemas are read once.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

SCHEMAS: Final = Path(__file__).resolve().parents[2] / "schemas"
MOST_VIOLATIONS: Final = 5


def violations(loaded: object, schema: str) -> list[str]:
    """Violations of `schemas/<schema>` in `loaded`: `key: got value, reason`, at most five; empty if it is valid."""
    from jsonschema.exceptions import best_match

    found = sorted(_validator(schema).iter_errors(loaded), key=lambda error: error.json_path)
    # if several forms are accepted, such as an object or null, report the errors of the nearest one
    nearest = [best_match([error]) for error in found[:MOST_VIOLATIONS]]
    return [f"{error.json_path}: {_short(_in_json(error))}" for error in nearest]


def filled(loaded: Any, schema: str) -> Any:
    """`loaded`, which fits `schemas/<schema>`, with the schema's `default` for every optional property that it lacks.

    Also in nested objects, in arrays, through `$ref`, and in the form of an `anyOf` that fits. A property that is present
    keeps its value, also if that is null. Does not modify its argument.
    """
    return _filled(loaded, [_root(schema)])


class Applied(NamedTuple):
    """A schema, and the resolver (of `referencing`) that finds what it refers to."""

    schema: Mapping[str, Any]
    resolver: Any


def kind_of(loaded: object) -> str | None:
    """The kind of document whose properties `loaded` has, such as `baseline`; None if it is none of the stored ones."""
    if not isinstance(loaded, Mapping):
        return None
    for path in sorted(SCHEMAS.glob("*.schema.json")):
        schema = _contents(path.name)
        required, known = schema.get("required", ()), schema.get("properties", {})
        if required and set(required) <= set(loaded) <= set(known):
            return path.name.partition(".")[0]
    return None


@cache
def versions(name: str) -> Mapping[str, str]:
    """The schema of every version of a kind of document, by the version that it declares, oldest first."""
    paths = sorted(SCHEMAS.glob(f"{name}.v*.schema.json"), key=lambda path: int(path.name.split(".")[1][1:]))
    stated = {path.name: _contents(path.name)["properties"]["schema_version"] for path in paths}
    found = {version: file for file, one in stated.items() for version in one.get("enum", (one.get("const"),))}
    if not found:
        raise ValueError(f"name: got {name!r}, accepted: the name of a schema in {SCHEMAS}")
    return MappingProxyType(found)


def _filled(value: Any, schemas: Sequence[Applied]) -> Any:
    if isinstance(value, dict):
        applied = [found for schema in schemas for found in _in_place(value, schema)]
        value = value | {name: item for name, item in _defaults(applied) if name not in value}
        return {name: _filled(item, _of_property(name, applied)) for name, item in value.items()}
    if isinstance(value, list):
        applied = [found for schema in schemas for found in _in_place(value, schema)]
        return [_filled(item, _of_item(place, applied)) for place, item in enumerate(value)]
    return value


def _in_place(value: dict[str, Any] | list[Any], applied: Applied) -> Iterator[Applied]:
    """Every schema that applies to `value` itself: `applied`, what it refers to, and the first of its forms that fits."""
    for found in _referred(applied):
        yield found
        for keyword in ("anyOf", "oneOf"):
            forms = (Applied(form, found.resolver) for form in found.schema.get(keyword, ()))
            fitting = next((form for form in forms if _fits(value, form)), None)
            if fitting is not None:
                yield from _in_place(value, fitting)


def _referred(applied: Applied) -> Iterator[Applied]:
    """`applied`, and every schema that it names by `$ref` or `allOf`."""
    yield applied
    if "$ref" in applied.schema:
        target = applied.resolver.lookup(applied.schema["$ref"])
        yield from _referred(Applied(target.contents, target.resolver))
    for part in applied.schema.get("allOf", ()):
        yield from _referred(Applied(part, applied.resolver))


def _fits(value: dict[str, Any] | list[Any], form: Applied) -> bool:
    """Whether a valid `value` has this form, from its type and its own keys alone."""
    kind = "object" if isinstance(value, dict) else "array"
    for schema, _ in _referred(form):
        if kind not in _types(schema):
            return False
        if isinstance(value, dict):
            known = schema.get("properties", {})
            if not value.keys() >= set(schema.get("required", ())):
                return False
            if schema.get("additionalProperties") is False and not value.keys() <= known.keys():
                return False
            if any("const" in known[name] and known[name]["const"] != value[name] for name in known.keys() & value.keys()):
                return False
    return True


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    stated = schema.get("type", ("object", "array"))
    return (stated,) if isinstance(stated, str) else stated


def _defaults(applied: Sequence[Applied]) -> Iterator[tuple[str, Any]]:
    """Every property of `applied` that has a default, stated at the property or at what it refers to."""
    for schema, resolver in applied:
        for name, part in schema.get("properties", {}).items():
            stated = (found.schema for found in _referred(Applied(part, resolver)))
            holder = next((found for found in stated if "default" in found), None)
            if holder is not None:
                yield name, copy.deepcopy(holder["default"])


def _of_property(name: str, applied: Sequence[Applied]) -> Sequence[Applied]:
    found: list[Applied] = []
    for schema, resolver in applied:
        if name in schema.get("properties", {}):
            found.append(Applied(schema["properties"][name], resolver))
        elif isinstance(schema.get("additionalProperties"), dict):
            found.append(Applied(schema["additionalProperties"], resolver))
    return found


def _of_item(place: int, applied: Sequence[Applied]) -> Sequence[Applied]:
    found: list[Applied] = []
    for schema, resolver in applied:
        first = schema.get("prefixItems", ())
        if place < len(first):
            found.append(Applied(first[place], resolver))
        elif isinstance(schema.get("items"), dict):
            found.append(Applied(schema["items"], resolver))
    return found


@cache
def _strict() -> type[Draft202012Validator]:
    """JSON Schema where 1.0 is no integer: nothing here writes one, and it counts or indexes nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]  # jsonschema declares no types for it
        Draft202012Validator, type_checker=types
    )
    return strict


@cache
def _validator(schema: str) -> Draft202012Validator:
    return _strict()(_contents(schema), registry=_registry(schema))


@cache
def _root(schema: str) -> Applied:
    """The whole of a schema, with a resolver for it."""
    from referencing import Resource

    contents = _contents(schema)
    return Applied(contents, _registry(schema).resolver_with_root(Resource.from_contents(contents)))


@cache
def _registry(schema: str) -> Any:
    """The schemas that `schema` refers to, by URN."""
    from referencing import Registry, Resource

    found = {file: _contents(file) for file in _referred_files(schema)}
    return Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in found.values()).crawl()


@cache
def _referred_files(schema: str) -> frozenset[str]:
    """The files that `schema` refers to, and those that they refer to."""
    names = re.findall(r'"\$ref": "urn:dsocr-bench:(\w+):(\d+)', (SCHEMAS / schema).read_text(encoding="utf-8"))
    direct = {f"{name}.v{version}.schema.json" for name, version in names}
    return frozenset(direct.union(*(_referred_files(file) for file in direct)))


@cache
def _contents(schema: str) -> Any:
    return json.loads((SCHEMAS / schema).read_text(encoding="utf-8"))


def _in_json(error: ValidationError) -> str:
    """The message, with null, true and false as the file has them."""
    shown = repr(error.instance)
    if error.instance is not None and not isinstance(error.instance, bool):
        return error.message
    return error.message.replace(shown, json.dumps(error.instance), 1)


def _short(message: str, limit: int = 200) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"
