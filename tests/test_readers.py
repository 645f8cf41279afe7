"""Every kind of stored JSON, damaged: reading gives a value or a ValueError that names the file, and nothing else."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytic.core.execution import Execution
from analytic.io import stored
from analytic.io.documents import Document
from analytic.io.run_record import RECORD
from analytic.io.schemas import SCHEMAS
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import gundam
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix
from analytic.planning.plan import plan
from analytic.planning.plan_request import PlanRequest
from analytic.planning.recorded_times import recorded_times
from fixtures.evidence.index import index_of, write_index
from fixtures.evidence.listed import listed_record
from fixtures.evidence.render import as_html
from fixtures.proof.damage import ODD, REMOVED, changed, places, value_at
from fixtures.proof.document_kinds import DOCUMENT_KINDS as KINDS
from fixtures.report.run import run_of
from fixtures.report.sections import page_of

ROOT = stored.ROOT
DAMAGES = True
TINY_CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
RECORDS = [f"record.v{number}" for number in range(1, 6)]


@cache
def example(name: str) -> Any:
    return KINDS[name].value()


def put_beside(name: str, folder: Path) -> None:
    beside = KINDS[name].beside
    if beside is not None:
        beside(folder)


@pytest.mark.parametrize("name", KINDS)
def test_an_example_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / KINDS[name].place
    put_beside(name, tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(example(name)))
    for reader in KINDS[name].readers.values():
        reader(path)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_file_is_read_or_named(name: str, tmp_path: Path, data: st.DataObject) -> None:
    kind, value = KINDS[name], example(name)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(places(value)))
        value = changed(value, at, data.draw(st.sampled_from((*ODD, REMOVED))))
    path = tmp_path / kind.place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    for reader in kind.readers.values():
        try:
            reader(path)
        except ValueError as error:
            said = str(error)
        else:
            continue
        assert any(name in said for name in (str(path), *kind.names))


@settings(max_examples=200)
@given(data=st.data())
def test_the_index_has_a_row_for_every_damaged_record(data: st.DataObject) -> None:
    value = example(data.draw(st.sampled_from(RECORDS)))
    at = data.draw(st.sampled_from(places(value)))
    value = changed(value, at, data.draw(st.sampled_from((*ODD, REMOVED))))
    index_of([listed_record("a run", value)])


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"a":' * 100_000, "\xff", "null", '{"schema_version": 1e999}'])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_document_is_named(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / KINDS[name].place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="latin-1")
    for reader in KINDS[name].readers.values():
        with pytest.raises(ValueError, match=str(path)):
            reader(path)


def test_every_kind_of_document_is_declared_once_and_has_a_schema() -> None:
    """What a schema describes is read and written by one Document, and by nothing else."""
    declared: list[str] = []
    for folder in ("analytic", "fixtures"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            declared += re.findall(r'Final = Document\(\s*name="(\w+)"', text)
            if path.name not in ("json_text.py", "schemas.py"):
                assert not re.search(r"\bjson\.loads?\(", text), f"{path}: JSON is read by analytic.io.json_text"
    kinds = {path.name.partition(".")[0] for path in SCHEMAS.glob("*.schema.json")}
    assert sorted(declared) == sorted(kinds)
    assert all(Document(name=name).version for name in kinds)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e308", "NaN", "9" * 400])
@pytest.mark.parametrize("name", sorted(set(KINDS) - {"card"}))  # a card holds no number
def test_a_number_beyond_any_measure_is_refused_by_key(name: str, number: str, tmp_path: Path) -> None:
    kind, value = KINDS[name], example(name)
    at = next(at for at in places(value) if type(value_at(value, at)) in (int, float))
    path = tmp_path / kind.place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(changed(value, at, "HERE")).replace('"HERE"', number))
    for reader in kind.readers.values():
        with pytest.raises(ValueError, match=rf"{path}: .*{re.escape(str(at[-1]))}.*: got {number[:6]}"):
            reader(path)


EXTREMES = {"time": (1.1e-15, 1e9), "flops": (1, 10**23), "bytes": (1, 10**23), "rate": (1.1e-15, 1e24)}


def stretched(value: Any, place: int, name: str = "") -> Any:
    """`value` with every time, rate and amount of work at the least or the most that a schema accepts."""
    if isinstance(value, dict):
        return {
            key: stretched(item, place, name if key in ("datasheet", "measured") else key) for key, item in value.items()
        }
    if isinstance(value, list):
        return [stretched(item, place, name) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    kind = "rate" if name.endswith("_per_s") else "time" if name.endswith("_s") else name.rpartition("_")[2]
    return EXTREMES[kind][place] if kind in EXTREMES else value


@pytest.mark.parametrize("place", [0, 1], ids=["least", "most"])
def test_the_most_absurd_numbers_that_are_accepted_end_in_a_page_and_an_index(tmp_path: Path, place: int) -> None:
    value = stretched(example("record.v5"), place)
    for number in range(3):
        RECORD.write(tmp_path / f"2026112{number}-000000-1" / "record.json", value)
    text = as_html(page_of(run_of(RECORD.current(value, where="a record"))))
    assert "<html" in text
    assert "20261121-000000-1" in write_index(tmp_path).read_text()


@pytest.mark.parametrize("place", [0, 1], ids=["least", "most"])
def test_the_most_absurd_times_that_are_accepted_end_in_a_plan(tmp_path: Path, place: int) -> None:
    path = tmp_path / "record.json"
    RECORD.write(path, stretched(example("record.v5"), place))
    spec, mix = ModelSpec.from_preset("tiny"), Mix.of_one(gundam(CropGrid.parse("2x1")), seq_len=1024, new_tokens=17)
    times = recorded_times(path, mix, spec, TINY_CPU, device=None)
    found = plan(spec, TINY_CPU, mix, device=None, memory_bytes=10**11, times=times, asked=PlanRequest(price_per_hour=3.0))
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))
