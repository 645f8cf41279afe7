"""The index of a history: only what is new is read, and whatever happens to the index, the history is the same."""

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from analytic.io.stored import ROOT
from fixtures.history import index as index_module
from fixtures.history.gathered import Gathering, gathered
from fixtures.history.index import HISTORY_INDEX, RecordIndex
from tests.history_runs import BEGIN, base_record, night, nights, put

OLD_NS = 10**18
"""A time of modification long ago."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Six nights whose files were not just written, one of them damaged."""
    folder = tmp_path / "results"
    nights(folder, 6)
    put(folder, base_record() | {"run_id": "damaged"}).write_text("{}")
    for path in folder.rglob("record.json"):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return folder


def read(results: Path) -> Gathering:
    return gathered([results], RecordIndex(results.parent / "index"), now=BEGIN + timedelta(days=99), commit_dates={})


def index_files(results: Path) -> list[Path]:
    return sorted((results.parent / "index").iterdir())


def without_count(found: Gathering) -> tuple[object, ...]:
    return found.records, found.left_out


def test_a_second_call_reads_no_record_and_finds_the_same(results: Path) -> None:
    first, second = read(results), read(results)
    assert (first.read, second.read) == (7, 0)
    assert without_count(first) == without_count(second)
    assert [one.kind for one in second.left_out] == ["damaged"]


def test_new_changed_and_removed_records_are_noticed(results: Path) -> None:
    read(results)
    paths = sorted(results.rglob("record.json"))
    put(results, night(base_record(), 8))
    paths[0].unlink()
    changed = json.loads(paths[1].read_text())
    changed["environment"]["commit"] = "ab" * 20
    paths[1].write_text(json.dumps(changed))
    found = read(results)
    assert found.read == 2
    assert len(found.records) == 6
    assert "ab" * 20 in {one.record.commit for one in found.records}
    stored = HISTORY_INDEX.read(index_files(results)[0])["records"]
    assert str(paths[0]) not in stored


def test_a_file_that_was_just_written_is_read_again(results: Path) -> None:
    path = put(results, night(base_record(), 8))
    before = path.stat()
    assert read(results).read == 8
    text = path.read_text()
    path.write_text(text.replace('"prefill"', '"queries"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # changed within one tick of the clock
    found = read(results)
    assert found.read == 1
    assert "queries" in {time.stage for one in found.records for time in one.times}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "9.0"}', "\x00"])
def test_a_damaged_or_later_index_is_made_again(results: Path, text: str) -> None:
    first = read(results)
    (path,) = index_files(results)
    path.write_text(text)
    second, third = read(results), read(results)
    assert (second.read, third.read) == (7, 0)
    assert without_count(first) == without_count(second)


def another_fields(stored: dict[str, str]) -> dict[str, str]:
    return stored | {"fields": "others"}


def odd_texts(stored: dict[str, str]) -> dict[str, str]:
    entries = [[*entry.split("\n")[:2], "odd"] for entry in stored["records"].split("\n\n")]
    return stored | {"records": "\n\n".join(map("\n".join, entries))}


def odd_stamps(stored: dict[str, str]) -> dict[str, str]:
    return stored | {"records": stored["records"].replace("\n", " ")}


@pytest.mark.parametrize("damage", [another_fields, odd_texts, odd_stamps])
def test_an_index_of_another_form_is_made_again(results: Path, damage: Callable[[dict[str, str]], dict[str, str]]) -> None:
    first = read(results)
    (path,) = index_files(results)
    damaged = damage(json.loads(path.read_text()))
    path.write_text(json.dumps(damaged | {"checksum": zlib.crc32(damaged["records"].encode())}))
    second, third = read(results), read(results)
    assert (second.read, third.read) == (7, 0)
    assert without_count(first) == without_count(second)


def test_an_index_with_another_number_is_made_again(results: Path) -> None:
    first = read(results)
    (path,) = index_files(results)
    path.write_text(path.read_text().replace("decode", "decoda", 1))
    second, third = read(results), read(results)
    assert (second.read, third.read) == (7, 0)
    assert without_count(first) == without_count(second)


def test_an_index_can_be_deleted(results: Path) -> None:
    first = read(results)
    for path in index_files(results):
        path.unlink()
    assert without_count(read(results)) == without_count(first)


def test_an_index_that_cannot_be_written_costs_nothing_else(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results.parent / "index").write_text("a file")
    assert len(read(results).records) == 6
    assert "history: the index was not written, so the next call reads all records again" in capsys.readouterr().err


def test_a_new_record_rewrites_one_file_of_the_index(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PER_FILE", 3)
    read(results)
    assert [path.name for path in index_files(results)] == ["000.json", "001.json", "002.json"]
    before = [path.stat().st_mtime_ns for path in index_files(results)]
    put(results, night(base_record(), 8))
    time.sleep(0.02)
    assert read(results).read == 1
    after = [path.stat().st_mtime_ns for path in index_files(results)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False]
    assert len(read(results).records) == 7


def test_calls_at_the_same_time_leave_an_index_that_can_be_read(results: Path) -> None:
    command = (sys.executable, "-m", "fixtures.history", str(results), "--output-dir", str(results.parent / "out"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 3
    assert not [said for said, _ in ended if b"not written" in said]  # a slow machine shows progress
    for path in (results.parent / "out" / "index").iterdir():
        HISTORY_INDEX.read(path)
    assert not [path for path in (results.parent / "out").rglob("*") if path.name.startswith((".", "tmp"))]
