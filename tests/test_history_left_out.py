"""What a history leaves out is named with its reason, and nothing else is lost."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.history.document import History
from fixtures.history.extracted import ExtractedRecord, LeftOutError, extracted
from fixtures.history.packed import packed, unpacked
from fixtures.proof.damage import ODD, REMOVED, changed, places
from tests.history_runs import BEGIN, DATA, base_record, history_of_folder, night, nights, put
from tests.test_readers import RECORDS, example


def reasons(history: History) -> dict[str, tuple[str, str]]:
    """Kind and reason by the name of the folder."""
    return {Path(one.path).parent.name: (one.kind, one.reason) for one in history.left_out}


def points(history: History) -> int:
    return sum(len(one.runs) for one in history.series)


@pytest.mark.parametrize("version", range(2, 6))
def test_a_record_of_every_version_that_names_its_device_is_read(tmp_path: Path, version: int) -> None:
    stored = json.loads((DATA / f"record.v{version}.json").read_text())
    put(tmp_path / "results", stored)
    history = history_of_folder(tmp_path / "results", tmp_path / "out")
    assert history.left_out == ()
    assert points(history) == len(stored["timings"])


def test_a_record_without_a_device_or_without_times_is_named(tmp_path: Path) -> None:
    put(tmp_path / "results", json.loads((DATA / "record.v1.json").read_text()) | {"run_id": "20261121-115013-1"})
    put(tmp_path / "results", base_record() | {"run_id": "20261121-115013-2", "timed": None, "timings": []})
    assert reasons(history_of_folder(tmp_path / "results", tmp_path / "out")) == {
        "20261121-115013-1": ("no device", "it does not say on which device its times were measured"),
        "20261121-115013-2": ("no times", "it holds no times: only exact quantities were measured"),
    }


def without(record: Any, *path: str) -> Any:
    return changed(record, path, REMOVED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read: Expecting value"),
        ('{"schema_version": "5.0"', "cannot be read: "),
        (json.dumps(base_record() | {"schema_version": "99.0"}), "not a record: schema_version: got '99.0', accepted: "),
        (json.dumps(without(base_record(), "environment", "libraries")), "not a record: .*libraries"),
        (json.dumps(changed(base_record(), ("timings", 0, "time_s"), -1.0)), "not a record: .*time_s"),
        (json.dumps(changed(base_record(), ("timings", 0, "time_s"), 1e999)), "cannot be read: .*time_s.*Infinity"),
        ("[]", "not a record: got an array"),
    ],
)
def test_a_damaged_record_is_named_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    nights(tmp_path / "results", 2)
    put(tmp_path / "results", base_record() | {"run_id": "damaged"}).write_text(text)
    history = history_of_folder(tmp_path / "results", tmp_path / "out")
    (one,) = history.left_out
    assert one.kind == "damaged"
    assert re.match(said, one.reason), one.reason
    assert points(history) == 4


def test_a_folder_in_the_place_of_a_record_and_a_file_nobody_may_read_are_no_loss(tmp_path: Path) -> None:
    nights(tmp_path / "results", 2)
    (tmp_path / "results" / "odd" / "record.json").mkdir(parents=True)
    assert points(history_of_folder(tmp_path / "results", tmp_path / "out")) == 4


def test_copies_and_merged_runs_count_once(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    nights(folder, 3)
    first, second = (night(base_record(), number) for number in (0, 1))
    shutil.copytree(folder / first["run_id"], folder / "artifact" / "copy")
    merged = night(base_record(), 5) | {"timings": [first["timings"][0], second["timings"][1]]}
    put(folder, merged)
    partly = night(base_record(), 6)
    partly["timings"][0] = first["timings"][0]
    put(folder, partly)
    history = history_of_folder(folder, tmp_path / "out")
    at = f"{folder}/{first['run_id']}/record.json"
    assert reasons(history) == {
        "copy": ("repeated", f"all of its times are those of {at}"),
        merged["run_id"]: ("repeated", f"all of its times are those of {at} and 1 more"),
        partly["run_id"]: ("repeated", f"1 of its 2 times are those of {at}"),
    }
    assert points(history) == 3 * 2 + 1


def test_a_folder_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    nights(tmp_path / "results", 3)
    (tmp_path / "link").symlink_to(tmp_path / "results")
    from fixtures.history.gathered import gathered
    from fixtures.history.index import RecordIndex

    folders = [tmp_path / "results", tmp_path / "link", tmp_path / "results" / night(base_record(), 0)["run_id"]]
    found = gathered(folders, RecordIndex(tmp_path / "index"), now=BEGIN + timedelta(days=9), commit_dates={})
    assert (len(found.records), found.left_out) == (3, ())


def test_a_clock_that_was_wrong_is_named_and_one_that_goes_back_between_runs_is_put_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    nights(folder, 3)
    ahead = night(base_record(), 3) | {"created": "2031-01-01T00:00:00+00:00"}
    back = night(base_record(), 4) | {"created": (BEGIN + timedelta(days=1)).isoformat()}
    behind = night(base_record(), 5)
    behind |= {"created": "2020-01-01T00:00:00+00:00", "run_id": "20200101-000000-1"}
    none = night(base_record(), 6) | {"created": "yesterday"}
    for record in (ahead, back, behind, none):
        put(folder, record)
    commits = {behind["environment"]["commit"]: datetime(2026, 9, 5, tzinfo=UTC)}
    history = history_of_folder(folder, tmp_path / "out", **commits)
    assert reasons(history) == {
        ahead["run_id"]: ("clock", "its date, 2031-01-01 00:00 UTC, is in the future"),
        back["run_id"]: (
            "clock",
            "the clock went back while it ran: begun 2026-09-05 02:17 UTC, written 2026-09-02 02:17 UTC",
        ),
        "20200101-000000-1": (
            "clock",
            "its date, 2020-01-01 00:00 UTC, is before that of its commit, 2026-09-05 00:00 UTC: the clock was behind",
        ),
        none["run_id"]: ("clock", "created: got 'yesterday', accepted: a date and a time"),
    }
    assert points(history) == 6
    dates = [record.created for record in history.records]
    assert dates == sorted(dates)


def test_dates_of_several_zones_are_put_in_order(tmp_path: Path) -> None:
    for number, zone in enumerate(("+00:00", "+09:00", "-07:00")):
        record = night(base_record(), number)
        record["run_id"] = f"run-{number}"
        record["created"] = f"2026-09-02T12:00:00{zone}"
        put(tmp_path / "results", record)
    history = history_of_folder(tmp_path / "results", tmp_path / "out")
    assert [one.run_id for one in history.records] == ["run-1", "run-0", "run-2"]


def test_two_machines_are_two_series(tmp_path: Path) -> None:
    for number in range(10):
        record = night(base_record(), number, times=3.0 if number % 2 else 1.0)
        if number % 2:
            record["environment"]["device"] |= {"name": "another processor", "threads": 96}
        put(tmp_path / "results", record)
    history = history_of_folder(tmp_path / "results", tmp_path / "out")
    assert sorted((one.benchmark, one.way.device_name, len(one.runs)) for one in history.series) == [
        ("decode[1024]", "Intel(R) Xeon(R) Processor", 5),
        ("decode[1024]", "another processor", 5),
        ("prefill[1024]", "Intel(R) Xeon(R) Processor", 5),
        ("prefill[1024]", "another processor", 5),
    ]
    assert history.left_out == ()


@settings(max_examples=300)
@given(data=st.data())
def test_a_record_that_is_damaged_anywhere_is_extracted_or_named(data: st.DataObject) -> None:
    value = example(data.draw(st.sampled_from(RECORDS)))
    at = data.draw(st.sampled_from(places(value)))
    value = changed(value, at, data.draw(st.sampled_from((*ODD, REMOVED))))
    try:
        found: Any = extracted(value)
    except LeftOutError as error:
        found = error
    again = unpacked(packed(found))
    if isinstance(found, ExtractedRecord):
        assert again == found
    else:
        assert isinstance(again, LeftOutError)
        assert (again.kind, str(again)) == (found.kind, " ".join(str(found).split()))
