"""Forty recorded runs in one folder, made from one real record: what a folder of results holds after some weeks."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

RECORD: Final = Path(__file__).resolve().parent / "data" / "record.v5.json"
BEGIN: Final = datetime(2026, 10, 1, 9, 30, tzinfo=UTC)
COMPILED_TIMES: Final = 8.9
"""How much slower the compiled runs are than the eager ones: as one line, they would be a regression."""


def mixed_runs(folder: Path) -> None:
    """Write 40 runs: 14 eager, 8 compiled, 8 on a second device, 4 as an earlier version measured, 3 disturbed, 1 merged of
    two eager ones, 1 that fails and 1 of the oldest format, without a device."""
    number = 0

    def put(record: dict[str, Any], *, factor: float, change: Any = None, name: str | None = None) -> dict[str, Any]:
        nonlocal number
        number += 1
        now = BEGIN + timedelta(days=number, minutes=7 * number)
        record = copy.deepcopy(record)
        record["created"] = now.isoformat(timespec="seconds")
        record["run_id"] = name or f"{now:%Y%m%d-%H%M%S}-{1000 + number}"
        record["environment"]["commit"] = f"{number * 7919:08x}" * 5
        for timing in record["timings"]:
            scale = factor * (1 + 0.004 * ((number * 37) % 11 - 5) + 1e-5 * number)  # no two runs measure the same
            timing["time_s"] *= scale
            timing["samples_s"] = [sample * scale for sample in timing["samples_s"]]
        if change is not None:
            change(record)
        target = folder / record["run_id"]
        target.mkdir(parents=True)
        (target / "record.json").write_text(json.dumps(record))
        return record

    def compiled(record: dict[str, Any]) -> None:
        record["timed"]["execution"]["backend"] = "compile"

    def second_device(record: dict[str, Any]) -> None:
        name = "AMD EPYC 9654 96-Core Processor of a shared continuous-integration runner"
        record["environment"]["device"] |= {"name": name, "threads": 96}

    def earlier(record: dict[str, Any]) -> None:
        for timing in record["timings"]:
            timing["measurement_version"] = "0badcafe"

    def failing(record: dict[str, Any]) -> None:
        record["points"][0]["verdict"] = "fail"

    def disturbed(record: dict[str, Any]) -> None:
        for timing in record["timings"]:
            timing["measurement"] = measurement(timing["time_s"], ["other processes used 1.90 of 2 CPUs"])

    base = json.loads(RECORD.read_text())
    base["gate"] = None
    for point in base["points"]:
        point["verdict"] = "pass"
        point["failures"], point["failure_count"] = [], 0
    for timing in base["timings"]:
        timing["measurement_version"] = "1a2b3c4d"
        timing["measurement"] = measurement(timing["time_s"], [])
    old = json.loads(RECORD.with_name("record.v1.json").read_text())
    eager = []
    for place in range(8):
        eager.append(put(base, factor=1.0))
        put(base, factor=COMPILED_TIMES, change=compiled)
        put(base, factor=0.4, change=second_device)
        if place < 4:
            put(base, factor=1.5, change=earlier)
        if place < 3:
            put(base, factor=3.0, change=disturbed)
    put(old, factor=1.0)
    put(base, factor=1.0, change=failing)
    for _ in range(5):
        eager.append(put(base, factor=1.05))
    merged = put(base, factor=1.0)
    path = folder / merged["run_id"] / "record.json"
    merged["timings"] = copy.deepcopy(eager[-1]["timings"][:4] + eager[-2]["timings"][4:])
    path.write_text(json.dumps(merged))
    (path.parent / "merged.json").write_text("{}")
    put(base, factor=1.06)


def measurement(time_s: float, reasons: list[str]) -> dict[str, Any]:
    """The measurement of a timing, trusted unless there are `reasons`."""
    return {
        "value": time_s,
        "unit": "s/call",
        "source": "timed",
        "error": time_s * 0.01,
        "trust": "disturbed" if reasons else "trusted",
        "reasons": reasons,
        "repeats": 0,
    }
