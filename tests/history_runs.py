"""A history as it is stored, with every kind of entry."""

from __future__ import annotations

from typing import Any

from fixtures.evidence.section import Standing
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
from fixtures.history.stored import as_json

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
