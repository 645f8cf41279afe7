"""A made history for pages: what a document of `nox -s history` holds, without records."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
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

CHANCE = random.Random(7)
H100, L40S = "NVIDIA H100 80GB HBM3", "NVIDIA L40S"
WAY = Way(
    model_variant="deepseek-ocr-v1-base",
    device="cuda",
    device_name=H100,
    threads=8,
    backend="eager",
    attention="sdpa",
    experts="grouped_mm",
    dtype="bfloat16",
    weights="seeded_random",
    batch_size=1,
    decode_steps=16,
    context="prefill",
)


def records(number: int) -> tuple[HistoryRecord, ...]:
    """One run a night from 2026-07-01 on."""
    return tuple(
        HistoryRecord(
            path=f"run-{night}/record.json",
            run_id=f"run-{night}",
            created=f"2026-{7 + night // 30 % 6:02d}-{night % 30 + 1:02d}T02:17:00+00:00",
            commit=f"{CHANCE.getrandbits(160):040x}",
            dirty=False,
        )
        for night in range(number)
    )


def step(at: int, label: Label, ratio: float | None, **changes: Any) -> HistoryStep:
    """A step that is worse if it is slower."""
    made = HistoryStep(
        at=at,
        label=label,
        worse=ratio is not None and ratio > 1,
        certain=label is Label.WORK,
        ratio=ratio,
        low=None if ratio is None else ratio - 0.01,
        high=None if ratio is None else ratio + 0.01,
        confidence=None if ratio is None else 0.999999,
        before_ms=12.0,
        after_ms=None if ratio is None else 12.0 * ratio,
        left_over=0.001 if label is Label.WORK else None,
        cause="5.0% more FLOPs" if label is Label.WORK else f"{label}: nothing else we record changed",
        movers=(Mover(name="model.language_model.layers.*.mlp", before="1,200 MFLOP", after="1,260 MFLOP"),)
        if label is Label.WORK
        else (),
        commits=("0" * 40, "1" * 40),
        command="nox -s compare -- 000000000000 --stage 'decode[1024]'",
    )
    return replace(made, **changes)


def series(
    benchmark: str,
    verdict: SeriesVerdict,
    *,
    steps: Sequence[HistoryStep] = (),
    nights: int = 60,
    disturbed: Sequence[int] = (),
    device: str = H100,
) -> Series:
    """Times that step where `steps` say, with noise of 1%; a disturbed one takes a half more."""
    times, time_ms = [], 12.0
    for night in range(nights):
        time_ms *= next((one.ratio or 1.0 for one in steps if one.at == night), 1.0)
        times.append(time_ms * (1 + 0.01 * CHANCE.uniform(-1, 1)) * (1.5 if night in disturbed else 1))
    ends = [0, *(one.at for one in steps), nights]
    return Series(
        name=benchmark,
        benchmark=benchmark,
        way=replace(WAY, device_name=device),
        verdict=verdict,
        change=steps[-1].ratio if steps else None,
        judged=f"{nights - len(disturbed)} of {nights} runs are judged",
        smallest_step=0.023,
        runs=tuple(range(nights)),
        times_ms=tuple(times),
        reaches_ms=(None,) * nights,
        disturbed=dict.fromkeys(disturbed, ("other processes used 40% of the CPU",)),
        segments=(
            Segment(first=0, environment={"torch": "2.12.0", "transformers": "5.24.0"}),
            *(
                Segment(first=one.at, environment={"torch": "2.13.0", "transformers": "5.24.0"})
                for one in steps
                if one.label is Label.ENVIRONMENT
            ),
        ),
        levels=tuple(
            Level(first=first, last=end - 1, time_ms=sorted(times[first:end])[(end - first) // 2])
            for first, end in pairwise(ends)
        ),
        work=(WorkSpan(first=0, counted=True, flops=1.2e9, bytes=2.2e9, launches=450, tokens=None),),
        steps=tuple(steps),
    )


SLOWER = series(
    "decode[1024]",
    SeriesVerdict.SLOWER,
    steps=(
        step(20, Label.ENVIRONMENT, None, movers=(Mover(name="torch", before="2.12.0", after="2.13.0"),)),
        step(40, Label.WORK, 1.05),
        step(41, Label.EFFICIENCY, 1.08),
    ),
    disturbed=(7, 50),
)
FASTER = series("vision[gundam-2x1]", SeriesVerdict.FASTER, steps=(step(50, Label.EFFICIENCY, 0.8),))
STEADY = series("prefill[1024]", SeriesVerdict.STEADY)


def history(*found: Series, nights: int = 60, **changes: Any) -> History:
    """A history of `found`, which is sorted."""
    made = History(
        created="2026-11-26T11:00:00+00:00",
        command=("nox", "-s", "history", "--", "results"),
        folders=("results",),
        fail_on=(),
        within=7,
        standing=Standing.MEASURED,
        verdict=("1 of 3 benchmarks is slower.",),
        records=records(nights),
        left_out=(LeftOutRecord(path="old/record.json", kind="damaged", reason="it is no JSON"),),
        series=found or (SLOWER, FASTER, STEADY),
        failed_by=(),
    )
    return replace(made, **changes)
