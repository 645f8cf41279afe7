"""Stored JSON: what no program can compute with is refused by name, and what is written can be read again."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from analytic.io import documents, json_text
from analytic.io.documents import Document
from analytic.io.json_text import MOST_BYTES, MOST_DEPTH, escaped, parsed, read_text
from analytic.io.run_record import RECORD, RecordError
from analytic.io.schemas import versions

DATA = Path(__file__).resolve().parent / "data"
MERGED = Document(name="merged")
CALIBRATION = Document(name="calibration")
GOOD: dict[str, Any] = {
    "schema_version": "1.0",
    "device_name": "a device",
    "dtype": "float32",
    "threads": 2,
    "gemm_flops_per_s": 1e11,
    "gemm_spread": 0.1,
    "copy_bytes_per_s": 1e10,
    "copy_spread": 0.1,
    "launch_s": 1e-6,
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"timings": [{"time_s": 1e999}]}', r"\$\.timings\[0\]\.time_s: got 1e999, accepted: a number of at most 1e\+30"),
        ('{"a": -1e999}', r"\$\.a: got -1e999"),
        ('{"a": 1e308}', r"\$\.a: got 1e308"),
        ('{"a": NaN}', r"\$\.a: got NaN"),
        ('{"a": [1, -Infinity]}', r"\$\.a\[1\]: got -Infinity"),
        ("9" * 5000, r"\$: got 9{30}\.\.\.9{30}, accepted: a number"),
        ("2" + "0" * 30, r"\$: got 20{30}, accepted"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "got the key 'c' twice in an object"),
        ('"\\ud800"', r"\$: got '\\ud800', accepted: valid Unicode"),
        ('{"\\udfff": 1}', r"\$: got the key '\\udfff', accepted: valid Unicode"),
        ('"a\\u001b[2Jb"', r"\$: got 'a\\x1b\[2Jb', accepted: valid Unicode without control characters"),
        ('{"a": ["\\u0000"]}', r"\$\.a\[0\]: got '\\x00', accepted: valid Unicode without control characters"),
        ('{"\\u009b": 1}', r"\$: got the key '\\x9b', accepted: valid Unicode without control characters"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested deeper than 100 levels"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "nested deeper than 100 levels"),
        ("\ufeff{}", "line 1 column 1"),
        ("", "line 1 column 1"),
        ("{} {}", "Extra data"),
    ],
    ids=lambda given: given[:24],
)
def test_what_no_program_can_compute_with_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(text)


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(ValueError, match="byte order mark"):
        read_text(tmp_path / "record.json")


def test_control_characters_are_written_escaped_and_read_from_a_process() -> None:
    assert escaped({"a": ["\x1b[2J", "line\n\tend", 3]}) == {"a": ["\\x1b[2J", "line\n\tend", 3]}
    assert parsed('"\\u001b"', control_characters=True) == "\x1b"
    with pytest.raises(ValueError, match="valid Unicode"):
        parsed('"\\ud800"', control_characters=True)


def test_what_is_ordinary_json_is_read_as_ever() -> None:
    text = json.dumps({"a": [1, -2.5, None, True, "ü", 10**20, 1e-12, 1e30], "deep": {"b": {}}})
    assert parsed(text) == json.loads(text)
    nested = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parsed(nested) == json.loads(nested)
    assert parsed('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"  # a pair of escapes is one character


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{}", "not valid JSON (not UTF-8 at byte 0)"),
        (b'{"a": 1e999}', "$.a: got 1e999"),
        (b"[" * 5000, "nested deeper"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not valid JSON") as error:
        CALIBRATION.read(path)
    assert message in str(error.value)
    assert str(error.value).endswith("; create it again")


def test_a_file_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "MOST_BYTES", 1 << 10)
    with pytest.raises(ValueError, match="larger than 1,024 bytes"):
        read_text(Path("/dev/zero"))
    assert MOST_BYTES == 1 << 26


def test_what_is_written_is_read_again_in_a_folder_that_did_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "calibration.json"
    CALIBRATION.write(path, GOOD)
    assert CALIBRATION.read(path) == GOOD
    assert path.read_text() == json.dumps(GOOD, indent=1) + "\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200, -1.0, 0.0, "fast", None, [1.0]])
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "new" / "calibration.json"
    with pytest.raises(ValueError, match=r"calibration\.json: .*gemm_flops_per_s"):
        CALIBRATION.write(path, {**GOOD, "gemm_flops_per_s": value})
    assert not path.parent.exists()
    with pytest.raises(ValueError, match=r"^these ceilings: .*gemm_flops_per_s"):
        CALIBRATION.check({**GOOD, "gemm_flops_per_s": value}, where="these ceilings")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "got an array, accepted: an object"),
        (None, "got null, accepted: an object"),
        (True, "got true, accepted: an object"),
        (1, "got a number, accepted: an object"),
        ("{}", "got a string, accepted: an object"),
        ({}, "schema_version: got None, accepted: 1.0; a newer calibration needs a newer dsocr-bench, this one writes 1.0"),
        ({**GOOD, "schema_version": "7.0"}, "schema_version: got '7.0'"),
        ({**GOOD, "schema_version": ["1.0"]}, "schema_version: got ['1.0']"),
        ({**GOOD, "threads": 0}, "does not fit schemas/calibration.v1.schema.json: $.threads"),
        ({**GOOD, "more": 1}, "'more' was unexpected"),
        ({**GOOD, "threads": None}, "$.threads: null is not of type 'integer'"),
        ({**GOOD, "threads": True}, "$.threads: true is not of type 'integer'"),
    ],
)
def test_what_is_another_document_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"^given: ") as error:
        CALIBRATION.current(value, where="given")
    assert message in str(error.value)


def test_a_property_added_to_a_kind_of_document_is_filled_in_for_files_that_lack_it() -> None:
    record = json.loads((DATA / "record.v5.json").read_text())
    entry = {"benchmark": "decode[64]", "source": 0, "run_id": "20261121-100000-1", "attempt": 1, "also": []}
    source = {
        "run_id": "20261121-100000-1",
        "file": "sources/1/record.json",
        "from": "runs/1/record.json",
        "created": record["created"],
        "command": ["pytest"],
        **{name: record["environment"][name] for name in ("python", "platform", "libraries", "commit", "dirty")},
        "device": None,
        "gpu_uuid": None,
    }
    older = {
        "schema_version": "1.0",
        "run_id": "20261121-100000-2",
        "created": record["created"],
        "command": ["nox"],
        "times_in_record": False,
        "sources": [source],
        "points": [entry],
        "timings": [],
        "losses": [],
    }
    assert MERGED.current(older, where="merged.json") == {**older, "left_out": []}


def test_the_versions_of_a_document_are_the_schemas_of_its_name() -> None:
    assert list(RECORD.versions) == ["1.0", "2.0", "3.0", "4.0", "5.0"]
    assert RECORD.version == "5.0"
    assert dict(versions("analytic_scaling")) == dict.fromkeys(("1.0", "1.1"), "analytic_scaling.v1.schema.json")
    with pytest.raises(ValueError, match="name: got 'nothing'"):
        versions("nothing")


@pytest.mark.parametrize("version", range(1, 6))
def test_a_record_of_any_version_becomes_one_of_the_last(version: int) -> None:
    old = json.loads((DATA / f"record.v{version}.json").read_text())
    before = json.dumps(old)
    new = RECORD.current(old, where="an old record")
    assert json.dumps(old) == before
    RECORD.check(new, where="the new record")
    assert new["schema_version"] == RECORD.version
    assert RECORD.current(new, where="the new record") == new


def test_an_old_record_whose_parts_contradict_each_other_is_refused_by_name() -> None:
    old = json.loads((DATA / "record.v1.json").read_text()) | {"weights": "none"}
    assert old["ceilings"] is not None
    with pytest.raises(
        RecordError, match=r"^an old record: as version 5\.0 it does not fit .*: \$\.timed\.weights: 'none'"
    ):
        RECORD.current(old, where="an old record")


def test_a_damaged_file_of_the_project_can_be_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("{")
    monkeypatch.setattr(documents.stored, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"restore it with `git checkout -- .*calibration\.json`"):
        CALIBRATION.read(path)
    with pytest.raises(RecordError, match=r"calibration\.json: not valid JSON \(.*\)$"):
        RECORD.read(path)
