"""A qualification of a device that nobody has, as stored: every part of it, and a step in every state."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from analytic.io import stored
from fixtures.qualify.qualification import QUALIFY
from fixtures.qualify.state import PieceRan, QualifyState, StepState

RECORD = json.loads((stored.ROOT / "tests" / "data" / "record.v5.json").read_text(encoding="utf-8"))
GPU = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-0",
    "driver": "580.1",
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "power_limit_w": 700.0,
    "throttle_reasons": [],
    "compute_processes": 1,
}
ENVIRONMENT = RECORD["environment"] | {
    "device": {
        "name": "NVIDIA H100 80GB HBM3",
        "threads": 16,
        "memory_bytes": 85_000_000_000,
        "cuda": "13.0",
        "gpu": GPU,
    }
}
STEP = {
    "gives": "a number",
    "seconds": 20.0,
    "commit": "1" * 40,
    "exit_code": 0,
    "reason": None,
    "output": [],
    "found": "a number",
    "documents": ["a.json"],
}


def state(path: Path) -> QualifyState:
    """A state with a step that is done, one that failed, and one that was stopped."""
    done = StepState(
        status="done", seconds=12.0, parts=1, start_s=12.0, commit="1" * 40, exit_code=0, documents=("a.json",)
    )
    return QualifyState(
        path=path,
        device="cuda",
        preset="deepseek-ocr-v1-base",
        environment=ENVIRONMENT,
        steps={
            "calibration": done,
            "exact": replace(done, status="failed", exit_code=-9, reason="signal 9: no output", output=("a line",)),
            "baseline": replace(done, status="stopped", parts=3, part_s=50.0, reason="the time of the piece is used up"),
        },
        pieces=[PieceRan(began="2026-11-26T10:00:00+00:00", seconds=520.0, steps=("calibration", "exact"))],
    )


def stage(benchmark: str, floor_s: float, times: float, **more: Any) -> dict[str, Any]:
    """A stage that takes `times` its floor, and was predicted to take a tenth less."""
    measured = floor_s * times
    made = {"floor_s": floor_s, "predicted_s": 0.9 * measured, "studied_s": measured, "measured_s": measured}
    return {"benchmark": benchmark, **made, "mfu": 0.4, "mbu": 0.2, "disturbed": False, "baseline_s": None} | more


def spread(source: str, benchmark: str, least: float) -> dict[str, Any]:
    """The noise of a stage that the gate judges from a threshold of `least`."""
    times = {"processes": 8, "median_s": 0.02, "spread": 0.01, "cold_s": 0.5, "reach": 0.02}
    return {"source": source, "benchmark": benchmark, **times, "least_threshold": least}


def example() -> dict[str, Any]:
    """The document of a complete qualification of a GPU, in which nothing is wrong."""
    lacking = STEP | {"seconds": 0.0, "exit_code": None, "reason": "needs nsys", "found": None, "documents": []}
    way = {"times_floor": 2.0, "launches": 1.0, "first_s": 9.0, "wrong": False}
    kernel = {"name": "gemm", "calls": 12, "time_s": 1e-3, "dram_bytes": 1_000_000, "bound": "memory"}
    made = {
        "schema_version": QUALIFY.version,
        "created": "2026-11-26T11:00:00+00:00",
        "command": ["nox", "-s", "qualify", "--", "--device", "cuda"],
        "name": "nvidia-h100-80gb-hbm3",
        "device": "cuda",
        "model_variant": "deepseek-ocr-v1-base",
        "environment": {name: value for name, value in ENVIRONMENT.items() if name != "platform"},
        "datasheet": "h100-sxm",
        "seconds": 1020.0,
        "pieces": 2,
        "incomplete": None,
        "steps": [
            {"name": "calibration", "status": "done", **STEP},
            {"name": "nsys", "status": "unmeasured", **lacking},
        ],
        "ceilings": [
            {
                "dtype": "bfloat16",
                "gemm_flops_per_s": 800e12,
                "gemm_spread": 0.02,
                "copy_bytes_per_s": 3.0e12,
                "copy_spread": 0.01,
                "launch_s": 4e-6,
                "datasheet_flops_per_s": 989e12,
                "datasheet_bytes_per_s": 3.35e12,
            }
        ],
        "exact": {
            "benchmarks": 4,
            "equal": 4,
            "modules": 1200,
            "executed_flops": 10**12,
            "timed": 2,
            "counted_on_device": 2,
        },
        "stages": [
            stage("vision[gundam-2x1]", 0.004, 3.0, baseline_s=0.0125),
            stage("prefill[1024]", 0.003, 4.0),
            stage("decode[1024]", 0.0005, 20.0),
        ],
        "prediction_error": {"stages": 3, "median": 0.1, "worst": -0.1},
        "pages": [
            {
                "point": "gundam-2x1-1024",
                "output_tokens": 1000,
                "page_s": 10.0245,
                "floor_s": 0.507,
                "first_token_s": 0.0245,
                "token_s": 0.01,
            }
        ],
        "backends": [
            {
                "benchmark": "decode[1024]",
                "ways": [
                    {"way": "cudagraph/sdpa/batched_mm", "time_s": 0.001, **way},
                    {"way": "eager/sdpa/grouped_mm", "time_s": 0.01, **way},
                ],
                "wrong": [],
            }
        ],
        "noise": [
            spread("baseline", "decode[1024]", 0.04),
            spread("baseline", "prefill[1024]", 0.08),
            spread("noise", "decode[1024]", 0.1),
        ],
        "kernels": [
            {
                "tool": "ncu",
                "launches": 900,
                "time_s": 0.004,
                "wall_s": 0.01,
                "dram_bytes": 10**9,
                "fused_bytes": 9 * 10**8,
                "eager_bytes": 2 * 10**9,
                "longest": [kernel],
            }
        ],
        "served": None,
    }
    parsed: dict[str, Any] = json.loads(json.dumps(made))
    return parsed
