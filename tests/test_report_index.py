"""The index over runs: every run with its verdict, damaged ones too, and a pointer to the latest."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io.leftovers import clean_runs
from fixtures.evidence.card import LATEST, point_latest
from fixtures.evidence.index import index_of, runs_in, write_index
from fixtures.evidence.listed import Listed, listed_record
from fixtures.evidence.render import as_html
from fixtures.evidence.section import Standing

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


def at_another_time(number: int) -> dict[str, Any]:
    """A record of another run: the same times twice would be one measurement."""
    found = record()
    for timing in found["timings"]:
        timing["samples_s"] = [sample + number * 1e-6 for sample in timing["samples_s"]]
    return found


def with_time(text: str) -> str:
    """A record with `text` in the place of every time of a stage."""
    return re.sub(r'"time_s": [\d.e-]+', f'"time_s": {text}', json.dumps(record()))


DAMAGED = {
    "empty": "",
    "list": "[]",
    "number": '{"points": 1}',
    "numbers": '{"points": [1]}',
    "null": "null",
    "nested arrays": "[" * 100_000,
    "nested objects": '{"points":' * 100_000,
    "infinite time": with_time("1e999"),
    "absurd time": with_time("1e308"),
    "no time": with_time("0"),
    "negative time": with_time("-1"),
    "not a number": with_time("NaN"),
    "time in words": with_time('"fast"'),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_named_and_the_others_are_listed(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "20261121-000000-1", text)
    for number in range(3):
        put(tmp_path / f"2026112{number}-000000-2", json.dumps(at_another_time(number)))
    page = write_index(tmp_path).read_text()
    assert "20261120-000000-2/report.html" in page
    assert "20261121-000000-1/report.html" not in page
    assert "not a record" in page or "cannot be read" in page
    assert "Times over the runs" in page
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if not line.endswith(" records")]  # progress, on a slow machine
    assert re.match(r"index: 20261121-000000-1/record\.json: (cannot be read|not a record): ", line)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("null", "got null, accepted: an object"),
        ("[]", "got an array, accepted: an object"),
        ('"run"', "got a string, accepted: an object"),
        ('{"points": 1}', "schema_version: got None, accepted: 1.0"),
    ],
)
def test_a_row_says_what_is_wrong_with_a_record_in_terms_of_the_record(text: str, problem: str) -> None:
    said = listed_record("run", json.loads(text)).result
    assert said.startswith(f"not a record: {problem}")
    assert "Error" not in said


def test_the_headline_is_of_the_latest_of_runs_and_studies() -> None:
    run = Listed(folder="20261126-000000-1", result="passed", standing=Standing.PASSED, created="2026-11-26T00:00:00")
    study = Listed(folder="serve-1", result="failed", standing=Standing.FAILED, created="2026-11-26T00:00:01")
    assert index_of([run], [study]).verdict[0] == "The latest, serve-1: failed."
    assert index_of([run], [study]).standing is Standing.FAILED
    assert index_of([replace(run, created="2026-11-26T00:00:02")], [study]).standing is Standing.PASSED


@pytest.mark.parametrize("place", [("created",), ("execution", "attention"), ("model", "model_variant")])
def test_a_row_shows_no_null_where_a_record_has_text(place: tuple[str, ...]) -> None:
    record = json.loads((DATA / "record.v1.json").read_text())
    *outer, name = place
    holder = record
    for key in outer:
        holder = holder[key]
    holder[name] = None
    said = listed_record("run", record).result
    assert said.startswith("not a record: does not fit schemas/record.v1.schema.json: $." + ".".join(place))


def test_latest_is_the_newest_run_that_can_be_read(tmp_path: Path) -> None:
    put(tmp_path / "20261121-000000-1", "null")
    write_index(tmp_path)
    assert not (tmp_path / LATEST).exists()
    put(tmp_path / "20261120-000000-1", json.dumps(record()))
    write_index(tmp_path)
    assert (tmp_path / LATEST).resolve().name == "20261120-000000-1"


def test_what_is_no_file_or_no_text_stands_in_nobodys_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "20261120-000000-1", json.dumps(record()))
    (put(tmp_path / "20261121-000000-1", "") / "record.json").write_bytes(b'{"created": "\xff"}')
    (tmp_path / "20261122-000000-1" / "record.json").mkdir(parents=True)
    (tmp_path / "20261123-000000-1").mkdir()
    os.mkfifo(tmp_path / "20261123-000000-1" / "record.json")  # which nobody writes: reading it would wait for ever
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/20261124-\xff")), "{")
    page = write_index(tmp_path).read_text()
    assert "20261120-000000-1/report.html" in page
    said = capsys.readouterr().err
    assert "20261121-000000-1/record.json: cannot be read: not UTF-8 at byte 13" in said
    assert "20261124-\N{REPLACEMENT CHARACTER}/record.json: cannot be read" in said


def test_of_many_damaged_records_a_few_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        put(tmp_path / f"2026112{number}-000000-1", "{")
    write_index(tmp_path)
    assert len(said := capsys.readouterr().err.splitlines()) == 6
    assert said[-1] == "index: 3 further folders cannot be read"


def test_rows_say_passed_or_failed() -> None:
    assert listed_record("a", record("v1")).result == "passed"
    failing = listed_record("b", record())
    assert failing.standing is Standing.FAILED
    assert failing.result == "FAILED: 1 benchmark against the baseline"
    new = record()
    new["gate"]["judged"] = [one for one in new["gate"]["judged"] if one["outcome"] == "new"]
    assert listed_record("c", new).standing is Standing.PASSED
    new["gate"]["require_baseline"] = True
    assert listed_record("c", new).standing is Standing.FAILED


def test_markup_in_a_record_or_a_folders_name_is_text() -> None:
    evil = record()
    evil["model"]["model_variant"] = "<script>alert(1)</script>"
    text = as_html(index_of([listed_record('javascript:"<b>', evil)]))
    assert "<script" not in text
    assert 'href="javascript%3A%22%3Cb%3E/report.html"' in text


def test_times_over_three_runs_are_drawn() -> None:
    rows = [listed_record(str(number), at_another_time(number)) for number in range(3)]
    assert [section.key for section in index_of(rows).sections] == ["trends", "runs"]
    assert [section.key for section in index_of(rows[:2]).sections] == ["runs"]


def test_what_stands_at_latest_and_is_no_link_is_left_alone(tmp_path: Path) -> None:
    run = put(tmp_path / "run", "{}")
    (tmp_path / LATEST).mkdir()
    point_latest(run)
    assert not (tmp_path / LATEST).is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"run", LATEST}


def test_a_link_that_a_killed_run_was_making_is_removed_by_the_next(tmp_path: Path) -> None:
    run = put(tmp_path / "run", "{}")
    script = (
        "import os, signal, sys; from pathlib import Path; from fixtures.evidence.card import point_latest\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "point_latest(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, run], cwd=DATA.parent.parent, check=False)
    assert (done.returncode, len(list(tmp_path.iterdir()))) == (-signal.SIGKILL, 2)
    assert len(clean_runs(tmp_path)) == 1
    point_latest(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LATEST, "run"]
    assert (tmp_path / LATEST).resolve() == run
