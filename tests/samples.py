"""Values that several tests share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from analytic.core.cost import Cost, CostNode
from analytic.core.shape_class import ShapeClass
from analytic.framework import Framework
from analytic.models.spec import ModelSpec
from analytic.prediction.rates import ClassRates, RateCurve, Rates
from fixtures.config.job import Job
from fixtures.timing.comparable import Fingerprint

JOB = Job(
    preset="tiny",
    device="cpu",
    attention="sdpa",
    experts="grouped_mm",
    batch_size=1,
    decode_steps=2,
    extra_tokens=0,
    stages=("decode[16]",),
)
BY_HAND = Framework.of(transformers="5.23.0", torch="2.13.0")
"""The releases whose bytes and launches are worked out by hand, whatever is installed."""
PLACE = Fingerprint(
    device="cpu",
    device_name="a CPU",
    threads=2,
    model_variant="tiny",
    dtype="float32",
    attention="sdpa",
    experts="grouped_mm",
    batch_size=1,
    decode_steps=2,
    python="3.11",
    torch="2.13.0",
    transformers="5.23.0",
    driver=None,
)
COST = Cost(
    launches=100,
    executed_flops=8_000,
    useful_flops=6_000,
    counter_flops=8_000,
    cuda_core_flops=0,
    eager_bytes=900,
    fused_bytes=600,
    weight_bytes=500,
    touched_weight_bytes=400,
    activation_bytes=50,
    kv_bytes=30,
)
RECORD = Path(__file__).resolve().parent / "data" / "record.v5.json"
"""A record of the tiny preset on a CPU: vision, prefill, decode and a page of gundam-2x1, 1024 positions."""

_TINY = ModelSpec.from_preset("tiny")
_FLAT = ClassRates(start_s=0.0, curves={0: RateCurve((1.0,), (1e12,))})
RATES = Rates(
    device_name="NVIDIA H200",
    model_variant="tiny",
    dtype="float32",
    threads=1,
    flops_per_s=1e12,
    bytes_per_s=1e12,
    host_s=1e-6,
    overlapped=False,
    cache_bytes=None,
    classes=dict.fromkeys(ShapeClass, _FLAT),
)
"""One TFLOP/s and one TB/s in every class."""

MODEL_PARTS = ("sam", "clip", "projector")
"""The parts of vision of DeepSeek-OCR, whose times the tests vary."""


def flops_by_path(tree: CostNode) -> dict[str, int]:
    """Executed FLOPs of every module of a cost tree with all below it, each copy of a layer for itself."""
    return {path: int(replace(node, copies=()).total().executed_flops) for path, node in tree.walk()}


def measured_like(analytic: dict[str, Any], *, timed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A measured sweep that equals the closed form of one in every quantity."""
    dropped = ("useful_flops", "eager_bytes", "fused_bytes", "touched_weight_bytes")

    def kept(quantities: dict[str, int]) -> dict[str, int]:
        return {name: value for name, value in quantities.items() if not name.startswith(dropped)}

    points = [{**one, "prefill": kept(one["prefill"]), "decode": kept(one["decode"])} for one in analytic["points"]]
    return {
        "schema_version": "1.0",
        "run_id": "run",
        "created": "now",
        "environment": {
            "python": "3.11",
            "platform": "a system",
            "machine": "a machine",
            "cpu_count": 2,
            "libraries": {},
            "commit": None,
            "dirty": None,
            "device": None,
        },
        "model": {name: analytic["model"][name] for name in ("model_id", "model_variant")},
        "execution": dict(analytic["execution"]),
        "batch_size": analytic["batch_size"],
        "decode_steps": analytic["decode_steps"],
        "points": points,
        "crops": [{**one, "vision": kept(one["vision"])} for one in analytic["crops"]],
        "timed": timed,
    }


def timed_like(*stages: dict[str, Any]) -> dict[str, Any]:
    """The timed part of a measured sweep, on a device of 1e12 FLOP/s and 1e11 bytes/s without a datasheet.

    Each of `stages` says what is not as in a prefill of 8 positions in 20 ms, of 8e9 FLOPs and 1e9 bytes.
    """
    ordinary = {
        "stage": "prefill",
        "point": "8",
        "time_s": 0.02,
        "low_s": 0.019,
        "high_s": 0.022,
        "interval_confidence": 0.96,
        "first_s": 0.5,
        "samples_s": [0.02],
        "wall_samples_s": None,
        "calls_per_round": 1,
        "units": 1,
        "executed_flops": 8_000_000_000,
        "useful_flops": 6_000_000_000,
        "measured_flops": 8_000_000_000,
        "fused_bytes": 1_000_000_000,
        "weight_bytes": 500,
        "kv_bytes": 30,
        "peak_bytes": 50,
        "problems": [],
    }
    return {
        "model": {"model_id": "a/model", "model_variant": "tiny"},
        "execution": {"device": "cpu", "attention": "sdpa", "experts": "grouped_mm", "dtype": "float32"},
        "ceilings": {
            "datasheet": None,
            "datasheet_flops_per_s": None,
            "datasheet_bytes_per_s": None,
            "calibration": {
                "device_name": "a CPU",
                "dtype": "float32",
                "threads": 2,
                "gemm_flops_per_s": 1e12,
                "gemm_spread": 0.1,
                "copy_bytes_per_s": 1e11,
                "copy_spread": 0.1,
                "launch_s": 1e-6,
            },
        },
        "stages": [{**ordinary, **stage} for stage in stages],
        "out_of_memory": [],
        "disturbances": [],
    }
