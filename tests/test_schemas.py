"""Schemas: what violates one, and the defaults that a reader fills in, so that a new field needs no migration."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from analytic.io.run_record import RECORD
from analytic.io.schemas import SCHEMAS, filled, violations

CURRENT = RECORD.versions[RECORD.version]
DATA = Path(__file__).resolve().parent / "data"
PAIR = {"type": "object", "required": ["a"], "additionalProperties": False}
SHAPE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:dsocr-bench:shape:1.0",
    "type": "object",
    "required": ["list", "form"],
    "properties": {
        "plain": {"type": ["integer", "null"], "default": None},
        "named": {"$ref": "#/$defs/named"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/open", "unevaluatedProperties": False}},
        "form": {
            "anyOf": [
                {**PAIR, "properties": {"a": {"const": 1}, "b": {"default": "of one"}}},
                {**PAIR, "properties": {"a": {"const": 2}, "c": {"default": "of two"}}},
                {"type": "null"},
            ]
        },
        "map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/open"}, "default": {}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"$ref": "#/$defs/open"}]},
    },
    "$defs": {
        "named": {"type": "array", "default": []},
        "open": {"type": "object", "properties": {"x": {"type": "integer", "default": 7}}},
    },
}


@pytest.fixture
def shape(tmp_path: Path) -> str:
    path = tmp_path / "shape.v1.schema.json"
    path.write_text(json.dumps(SHAPE))
    return str(path)


def test_a_default_is_filled_in_wherever_a_property_may_stand(shape: str) -> None:
    given = {"list": [{}, {"x": 1}], "form": {"a": 2}, "map": {"k": {}}, "pair": ["s", {}, {}]}
    before = copy.deepcopy(given)
    assert violations(given, shape) == []
    assert filled(given, shape) == {
        "list": [{"x": 7}, {"x": 1}],
        "form": {"a": 2, "c": "of two"},
        "map": {"k": {"x": 7}},
        "pair": ["s", {"x": 7}, {}],
        "plain": None,
        "named": [],
    }
    assert given == before
    assert filled({"list": [], "form": None}, shape) == {"list": [], "form": None, "plain": None, "named": [], "map": {}}


def test_a_property_that_is_present_keeps_its_value(shape: str) -> None:
    given = {"list": [], "form": None, "plain": 3, "named": [1], "map": {}}
    assert filled(given, shape) == given


def test_defaults_are_not_shared_between_two_readings(shape: str) -> None:
    first, second = (filled({"list": [], "form": None}, shape) for _ in range(2))
    first["named"].append(1)
    assert second["named"] == []


ADDED = {"type": ["string", "null"], "default": None}
PLACES = {
    "a run": ("properties",),
    "a point": ("$defs", "point", "properties"),
    "a row of a module": ("$defs", "module", "properties"),
    "a decode step": ("$defs", "step", "properties"),
    "a timing": ("$defs", "timing", "properties"),
    "a page": ("$defs", "page_times", "properties"),
    "the calibration": ("$defs", "calibration", "properties"),
    "the timed model": ("$defs", "timed", "properties"),
    "the device": ("$defs", "device", "properties"),
    "a judgement": ("$defs", "judgement", "properties"),
    "the evidence of a time": ("$defs", "timed_evidence", "properties"),
    "a cost": ("$defs", "cost", "properties"),
}


def holders(value: Any, name: str) -> int:
    """The objects in `value` that have a property `name`."""
    if isinstance(value, dict):
        return (name in value) + sum(holders(item, name) for item in value.values())
    return sum(holders(item, name) for item in value) if isinstance(value, list) else 0


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_new_field_of_a_record_is_one_optional_property_of_the_schema(place: tuple[str, ...], tmp_path: Path) -> None:
    schema = json.loads((SCHEMAS / CURRENT).read_text())
    where = schema
    for step in place:
        where = where[step]
    where["new_field"] = ADDED
    path = tmp_path / "record.schema.json"
    path.write_text(json.dumps(schema))
    old = RECORD.read(DATA / "record.v5.json")
    assert violations(old, str(path)) == []
    new = filled(old, str(path))
    assert violations(new, str(path)) == []
    assert holders(new, "new_field") > 0
    assert "new_field" in violations(new, CURRENT)[0]  # which the schema without it refuses


def test_an_optional_field_of_a_record_has_a_default() -> None:
    """Only the quantities that a point compares depend on its stage: a point has them or has them not."""

    def without(schema: Any) -> list[str]:
        if isinstance(schema, list):
            return [name for part in schema for name in without(part)]
        if not isinstance(schema, dict):
            return []
        own = schema.get("properties", {})
        required = schema.get("required", ())
        return [name for name, part in own.items() if name not in required and "default" not in part] + [
            name for part in schema.values() for name in without(part)
        ]

    schema = json.loads((SCHEMAS / CURRENT).read_text())
    compared = schema["$defs"]["point"]["properties"].pop("compared")
    assert without(schema) == []
    assert without(compared) != []


def test_a_record_of_an_earlier_schema_gets_the_fields_added_since() -> None:
    for version in RECORD.versions.values():
        read = RECORD.read(DATA / f"{version.partition('.schema')[0]}.json")
        assert violations(read, CURRENT) == []
        assert filled(read, CURRENT) == read


def unbounded(schema: Any, name: str = "") -> list[str]:
    """The times, rates and amounts of work in `schema` that may be as large as they like."""
    if isinstance(schema, list):
        return [found for part in schema for found in unbounded(part, name)]
    if not isinstance(schema, dict):
        return []
    kinds = {"number", "integer"} & set([schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", ()))
    own = [name] if kinds and "minimum" in str(schema.keys()).lower() and "maximum" not in schema else []
    keywords = ("anyOf", "items", "prefixItems", "additionalProperties", "properties", "$defs")
    return own + [found for key, part in schema.items() for found in unbounded(part, name if key in keywords else key)]


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.schema.json")), ids=lambda path: path.name.partition(".schema")[0])
def test_no_time_rate_or_amount_of_work_is_without_a_maximum(path: Path) -> None:
    """So that sums, ratios and logarithms are finite: a `maximum` of 1e9 for seconds, 1e24 for rates, FLOPs and bytes."""
    found = unbounded(json.loads(path.read_text()))
    assert [name for name in found if name.endswith(("_s", "_flops", "_bytes"))] == []


def test_a_record_is_created_at_a_date() -> None:
    whole = json.loads((Path(__file__).resolve().parent / "data" / "record.v5.json").read_text())
    assert violations(whole, "record.v5.schema.json") == []
    assert "yesterday" in violations(whole | {"created": "yesterday"}, "record.v5.schema.json")[0]
