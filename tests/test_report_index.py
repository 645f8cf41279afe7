"""The index over runs: every run with its verdict, damaged ones too, and a pointer to the latest."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.report.index import LATEST, index_of, point_latest, row_of, runs_in, write_index
from fixtures.report.render import as_html

DATA = Path(__file__).resolve().parent / "data"


def record(version: str = "v3") -> dict[str, Any]:
    return json.loads((DATA / f"record.{version}.json").read_text())


def put(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    return folder


def test_runs_of_every_schema_are_listed_newest_first_and_the_latest_is_pointed_at(tmp_path: Path) -> None:
    for number, version in enumerate(("v1", "v2", "v3")):
        put(tmp_path / f"2026112{number}-000000-1", json.dumps(record(version)))
    page = write_index(tmp_path)
    text = page.read_text()
    places = [text.index(f'href="2026112{number}-000000-1/report.html"') for number in (2, 1, 0)]
    assert places == sorted(places)
    assert (tmp_path / LATEST).resolve().name == "20261122-000000-1"
    assert [folder.name for folder in runs_in(tmp_path)] == [f"2026112{number}-000000-1" for number in (2, 1, 0)]
    write_index(tmp_path)
    assert page.read_text() == text


@pytest.mark.parametrize("text", ["", "[]", '{"points": 1}', '{"points": [1]}', "null"])
def test_a_damaged_record_has_a_row_that_says_so(tmp_path: Path, text: str) -> None:
    put(tmp_path / "20261121-000000-1", text)
    put(tmp_path / "20261120-000000-1", json.dumps(record()))
    page = write_index(tmp_path).read_text()
    assert "20261120-000000-1/report.html" in page
    assert "20261121-000000-1/report.html" not in page
    assert "not a record" in page or "cannot be read" in page


def test_rows_say_passed_or_failed() -> None:
    assert row_of("a", record("v1")).passes
    failing = row_of("b", record())
    assert (failing.passes, failing.failing) == (False, 1)
    new = record()
    new["gate"]["judged"] = [one for one in new["gate"]["judged"] if one["outcome"] == "new"]
    assert row_of("c", new).passes
    new["gate"]["require_baseline"] = True
    assert not row_of("c", new).passes


def test_markup_in_a_record_or_a_folders_name_is_text() -> None:
    evil = record()
    evil["model"]["model_variant"] = "<script>alert(1)</script>"
    text = as_html(index_of([row_of('javascript:"<b>', evil)]))
    assert "<script" not in text
    assert 'href="javascript%3A%22%3Cb%3E/report.html"' in text


def test_times_over_three_runs_are_drawn() -> None:
    rows = [row_of(str(number), record()) for number in range(3)]
    assert [section.key for section in index_of(rows).sections] == ["trends", "runs"]
    assert [section.key for section in index_of(rows[:2]).sections] == ["runs"]


def test_what_stands_at_latest_and_is_no_link_is_left_alone(tmp_path: Path) -> None:
    run = put(tmp_path / "run", "{}")
    (tmp_path / LATEST).mkdir()
    point_latest(run)
    assert not (tmp_path / LATEST).is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"run", LATEST}
