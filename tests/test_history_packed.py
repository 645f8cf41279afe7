"""A record is read from the index as it was read the first time, whatever its texts are; a line of the index is checked."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytic.io.stored import ROOT
from fixtures.history.extracted import ExtractedRecord, LeftOutError, extracted
from fixtures.history.gathered import gathered
from fixtures.history.grouped import grouped
from fixtures.history.index import RecordIndex
from fixtures.history.movers import work_by_module
from fixtures.history.packed import packed, unpacked
from fixtures.history.stored import HISTORY, as_json
from fixtures.proof.damage import changed, places, value_at
from fixtures.proof.schema_values import Place
from tests.history_runs import BEGIN, base_record, history_of_folder, nights, put
from tests.mixed_runs import measurement

TEXTS = (
    "a\nb",
    "a\tb\r\n\n\nc",
    "\u2028",
    "-",
    " -",
    "a | b",
    "a  |  b",
    "|",
    "left out",
    "left out\tx\ty",
    "\t",
    " ",
    "nan",
)


def full_record() -> dict[str, Any]:
    """A record with a text in every place that one is taken from."""
    record = base_record()
    record["environment"]["device"]["gpu"] = {"driver": "570.1", "throttle_reasons": ["sw_power_cap"]}
    record["environment"]["device"]["cuda"] = "12.8"
    record["timed"] |= {"context_len_mode": "fixed", "context_len_fixed": 4096}
    record["timings"][0] |= {"profile": "operators.json", "measurement": measurement(1e-3, ["disturbed", "too few"])}
    return record


@pytest.mark.parametrize("text", TEXTS)
def test_a_record_of_the_index_is_the_one_that_was_put_there(text: str) -> None:
    record, taken, differing = full_record(), 0, []
    for at in places(record):
        if isinstance(value_at(record, at), str):
            try:
                found = extracted(changed(record, at, text))
            except LeftOutError:
                continue
            taken += found != extracted(record)
            if unpacked(packed(found)) != found:
                differing.append(at)
    assert differing == []
    assert taken > 8


@pytest.mark.parametrize("reasons", [[], ["|"], ["|", "|"], ["a |", "| b", "|"], ["-"]])
def test_reasons_stay_apart(reasons: list[str]) -> None:
    record = changed(full_record(), ("timings", 0, "measurement", "reasons"), reasons)
    again = unpacked(packed(extracted(record)))
    assert isinstance(again, ExtractedRecord)
    assert again.times[0].reasons == tuple(reasons)


def test_why_a_record_is_left_out_is_the_same_from_the_index() -> None:
    why = LeftOutError("damaged", "not a\n record:\tleft out")
    again = unpacked(packed(why))
    assert isinstance(again, LeftOutError)
    assert (again.kind, str(again)) == (why.kind, str(why)) == ("damaged", "not a record: left out")


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf", "-1.0", "1e999", "x", ""])
def test_a_line_with_a_number_that_is_none_is_refused(odd: str) -> None:
    text = packed(extracted(full_record()))
    *before, line = text.split("\n")
    values = line.split("\t")
    numbers = [place for place, value in enumerate(values) if place > 4 and value not in (" -", values[-1])]
    assert len(numbers) > 5
    for place in numbers:
        with pytest.raises(ValueError, match=r"time_s: got|a number: got|to float"):
            unpacked("\n".join((*before, "\t".join((*values[:place], odd, *values[place + 1 :])))))


@pytest.mark.parametrize("date", ["2026-09-01", "0001-01-01T00:00:00+14:00", "2026-09-01T00:00:00"])
def test_a_line_with_a_date_that_is_not_in_utc_is_refused(date: str) -> None:
    record = extracted(full_record())
    with pytest.raises(ValueError, match="in UTC"):
        unpacked(packed(record).replace(record.created.isoformat(), date))


def test_a_text_of_a_record_breaks_no_other_record_and_is_read_once(tmp_path: Path) -> None:
    folder, now = tmp_path / "results", BEGIN + timedelta(days=99)
    nights(folder, 2)
    for number, text in enumerate(TEXTS):
        odd = base_record() | {"run_id": f"odd-{number}", "created": BEGIN.isoformat()}
        odd["environment"]["device"]["name"] = odd["environment"]["libraries"]["torch"] = text
        odd["timed"]["execution"]["backend"] = f"x{text}"
        for timing in odd["timings"]:
            timing["samples_s"] = [timing["time_s"] * (1 + number)]
        put(folder, odd)
    for path in folder.rglob("record.json"):
        os.utime(path, ns=(10**18, 10**18))
    first, second = (gathered([folder], RecordIndex(tmp_path / "index"), now=now, commit_dates={}) for _ in range(2))
    assert (first.read, second.read) == (len(TEXTS) + 2, 0)
    assert (first.records, first.left_out) == (second.records, second.left_out)
    assert len(first.records) == len(TEXTS) + 2
    assert history_of_folder(folder, tmp_path / "out").records


ODD_VALUES = {
    ("environment", "device", "threads"): -1,
    ("points", 0, "decoded_tokens"): 10**24,
    ("timed", "model", "model_variant"): " \n",
    ("timed", "execution", "device"): "",
    ("timed", "weights"): "",
    ("timed", "batch_size"): 0,
    ("timings", 0, "stage"): "x",
    ("timings", 0, "units"): 1e-300,
    ("timings", 1, "units"): 0,
    ("timings", 0, "measurement", "reasons"): "text",
    ("timings", 1, "measurement", "reasons"): [""],
}


@pytest.mark.parametrize("at", ODD_VALUES, ids=lambda at: ".".join(map(str, at)))
def test_a_record_that_no_history_can_hold_is_left_out_and_the_others_stay(at: Place, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    nights(folder, 2)
    put(folder, changed(base_record() | {"run_id": "20260901-000000-7"}, at, ODD_VALUES[at]))
    history = history_of_folder(folder, tmp_path / "out")
    HISTORY.text(as_json(history), where="the history")
    assert len(history.records) == 2
    assert [(Path(one.path).parent.name, one.kind) for one in history.left_out] == [("20260901-000000-7", "damaged")]
    assert str(at[-1]) in history.left_out[0].reason


@pytest.mark.parametrize("odd", [None, "many", [1], {}])
def test_a_record_that_was_changed_since_names_the_modules_that_it_still_has(odd: object, tmp_path: Path) -> None:
    nights(tmp_path / "results", 2)
    index = RecordIndex(tmp_path / "index")
    found = gathered([tmp_path / "results"], index, now=BEGIN + timedelta(days=99), commit_dates={})
    before, after = next(one for one in grouped(found.records) if one.benchmark.startswith("prefill")).observations
    record = json.loads(after.record.path.read_text())
    place = next(number for number, point in enumerate(record["points"]) if point["stage"] == "prefill")
    first, second, *_ = record["points"][place]["modules"]
    first["measured_flops"] = first["measured_bytes"] = odd
    second["measured_flops"] += 10**15
    after.record.path.write_text(json.dumps(record))
    moved = [mover.name for mover in work_by_module(before, after, ())]
    assert moved[0] == f"FLOPs of {second['module']}"


def test_stages_are_put_in_order_by_name_alone() -> None:
    """`order_of` says which stage of a record is not known; an index of a tuple says nothing."""
    for path in (ROOT / "fixtures").rglob("*.py"):
        if path.name != "stages.py":
            assert "STAGES.index(" not in path.read_text(encoding="utf-8"), path
