"""Nights of recorded runs made from one real record, and a history as it is stored, with every kind of entry."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fixtures.evidence.section import Standing
from fixtures.history.build import HistoryRequest, history_from
from fixtures.history.document import (
    History,
    HistoryRecord,
    HistoryStep,
    Label,
    LeftOutRecord,
    Level,
    Mover,
    Segment,
    Series,
    SeriesVerdict,
    Way,
    WorkSpan,
)
from fixtures.history.gathered import gathered
from fixtures.history.index import RecordIndex
from fixtures.history.stored import as_json
from tests.mixed_runs import measurement

WAY = Way(
    model_variant="tiny",
    device="cpu",
    device_name="a processor",
    threads=2,
    backend="eager",
    attention="sdpa",
    experts="grouped_mm",
    dtype="float32",
    weights="seeded_random",
    batch_size=1,
    decode_steps=16,
    context="auto",
)
ENVIRONMENT = {"python": "3.11", "torch": "2.13.0", "transformers": "5.24.0"}


def small_history() -> History:
    """Twenty nights of one benchmark: one disturbed, a step of efficiency, and a file that is no record."""
    records = tuple(
        HistoryRecord(
            path=f"results/202611{day:02}-021700-1/record.json",
            run_id=f"202611{day:02}-021700-1",
            created=f"2026-11-{day:02}T02:18:00+00:00",
            commit=f"{day:02}" * 20,
            dirty=False,
        )
        for day in range(1, 21)
    )
    step = HistoryStep(
        at=14,
        label=Label.EFFICIENCY,
        worse=True,
        certain=False,
        ratio=1.1,
        low=1.09,
        high=1.11,
        confidence=0.99999,
        before_ms=2.0,
        after_ms=2.2,
        left_over=0.095,
        cause="efficiency: nothing we record changed",
        movers=(Mover(name="peak memory", before="1.0 GB", after="1.2 GB"),),
        commits=("14" * 20, "15" * 20),
        command=None,
    )
    series = Series(
        name="decode[1024]",
        benchmark="decode[1024]",
        way=WAY,
        verdict=SeriesVerdict.SLOWER,
        change=1.1,
        judged="19 of 20 nights are judged",
        smallest_step=0.02,
        runs=tuple(range(20)),
        times_ms=tuple(2.0 if place < 14 else 2.2 for place in range(20)),
        reaches_ms=(None, *(0.02,) * 19),
        disturbed={7: ("other processes used 1.90 of 2 CPUs",)},
        segments=(Segment(first=0, environment=ENVIRONMENT),),
        levels=(Level(first=0, last=13, time_ms=2.0), Level(first=14, last=19, time_ms=2.2)),
        work=(WorkSpan(first=0, counted=True, flops=1e6, bytes=2e6, launches=980.0, tokens=None),),
        steps=(step,),
    )
    return History(
        created="2026-11-20T03:00:00+00:00",
        command=("nox", "-s", "history", "--", "results"),
        folders=("results",),
        fail_on=(Label.WORK, Label.EFFICIENCY),
        within=7,
        standing=Standing.FAILED,
        verdict=("1 of 1 benchmarks got slower within the last 7 nights.",),
        records=records,
        left_out=(LeftOutRecord(path="results/odd/record.json", kind="damaged", reason="not valid JSON"),),
        series=(series,),
        failed_by=((0, 0),),
    )


def history_example() -> dict[str, Any]:
    """The same as its document."""
    return as_json(small_history())


DATA: Final = Path(__file__).resolve().parent / "data"
BEGIN: Final = datetime(2026, 9, 1, 2, 17, tzinfo=UTC)
Change = Callable[[dict[str, Any]], None]


def base_record() -> dict[str, Any]:
    """A run of two benchmarks, judged by no baseline, of a measurement that says its version."""
    record = json.loads((DATA / "record.v5.json").read_text(encoding="utf-8"))
    record["gate"] = None
    record["timings"] = [timing for timing in record["timings"] if timing["stage"] in ("decode", "prefill")]
    for timing in record["timings"]:
        timing["measurement_version"] = "1a2b3c4d"
        timing["measurement"] = measurement(timing["time_s"], [])
    record["environment"]["dirty"] = False
    return record


def night(record: dict[str, Any], number: int, *, times: float = 1.0) -> dict[str, Any]:
    """The record of night `number`, with times that differ by 0.4% or less from night to night; `times` scales them."""
    record = copy.deepcopy(record)
    date = BEGIN + timedelta(days=number)
    record["created"] = (date + timedelta(minutes=2)).isoformat(timespec="seconds")
    record["run_id"] = f"{date:%Y%m%d-%H%M%S}-{1000 + number}"
    record["environment"]["commit"] = f"{number + 1:08x}" * 5
    for place, timing in enumerate(record["timings"]):
        scale = times * (1 + 0.001 * ((number * 37 + place * 5) % 9 - 4) + 1e-6 * number)
        timing["time_s"] *= scale
        timing["samples_s"] = [sample * scale for sample in timing["samples_s"]]
    return record


def put(folder: Path, record: dict[str, Any]) -> Path:
    """Write a record into a folder of its own; return its path."""
    path = folder / record["run_id"] / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def nights(folder: Path, count: int, *, since: int | None = None, times: float = 1.0, change: Change | None = None) -> None:
    """Write `count` nights; from night `since` on, times are `times` as long and records are changed."""
    base = base_record()
    for number in range(count):
        later = since is not None and number >= since
        record = night(base, number, times=times if later else 1.0)
        if later and change is not None:
            change(record)
        put(folder, record)


def history_of_folder(folder: Path, output_dir: Path, *fail_on: Label, within: int = 7, **known: datetime) -> History:
    """The history of a folder, with its index in `output_dir`; `known`: dates of commits."""
    now = BEGIN + timedelta(days=400)
    found = gathered([folder], RecordIndex(output_dir / "index"), now=now, commit_dates=known)
    asked = HistoryRequest(command=("nox",), folders=(str(folder),), fail_on=fail_on, within=within)
    return history_from(found, asked, now=now)
