"""`history.json`: what is written is read back, and a document whose parts contradict each other is named."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.history.stored import HISTORY, as_json, history_of, read_history
from tests.history_runs import history_example, small_history


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    HISTORY.write(path, as_json(small_history()))
    found = read_history(path)
    assert found == small_history()
    points = list(found.series[0].points(found.records))
    assert [point.place for point in points if not point.judged] == [7]
    assert points[14].record.created == "2026-11-15T02:18:00+00:00"


def damaged(series: Any) -> Any:
    value = history_example()
    value["series"][0] |= series
    return value


def of_record(changed: Any) -> Any:
    value = history_example()
    value["records"][0] |= changed
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (damaged({"times_ms": [1.0]}), "times_ms: got 1 values, accepted: 20"),
        (damaged({"runs": [99] * 20}), "runs: got 99, accepted: a number from 0 to 19"),
        (damaged({"runs": [0.5] * 20}), "runs: got 0.5, accepted: a number from 0 to 19"),
        (damaged({"times_ms": [0.0] * 20}), "times_ms: got 0.0, accepted: a number from 1e-12 to 1e[+]12"),
        (damaged({"times_ms": [None] * 20}), "times_ms: got None, accepted: a number"),
        (damaged({"reaches_ms": ["1"] * 20}), "reaches_ms: got '1', accepted: a number from 0"),
        (of_record({"created": "yesterday"}), "created: got 'yesterday', accepted: a date in UTC"),
        (of_record({"commit": "main"}), "commit: got 'main', accepted: a commit, or null"),
        (of_record({"dirty": 1}), "dirty: got 1, accepted: true, false or null"),
        (of_record({"path": ""}), "path: got '', accepted: text"),
        (of_record({"more": 1}), "records: got commit, created, dirty, more, path, run_id, accepted: commit"),
        (damaged({"disturbed": {"20": ["x"]}}), "disturbed: got place 20, accepted: 0 to 19"),
        (damaged({"segments": [{"first": 31, "environment": {}}]}), "segments: got place 31"),
        (history_example() | {"failed_by": [{"series": 0, "step": 1}]}, "failed_by: got step 1 of series 0"),
        (history_example() | {"failed_by": [{"series": 1, "step": 0}]}, "failed_by: got step 0 of series 1"),
    ],
)
def test_a_document_whose_parts_contradict_each_other_is_named(value: Any, said: str) -> None:
    HISTORY.check(value, where="history.json")
    with pytest.raises(ValueError, match="history.json: .*" + said):
        history_of(value)
