"""Timing without trusting the machine's clock: stand-in clocks and devices, gates on what physics forbids."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.cost import Cost
from analytic.roofline import Ceilings
from fixtures import calibration
from fixtures.annotation import UNKNOWN, analytic_stage, current_stage
from fixtures.calibration import Calibration, CalibrationWarning
from fixtures.calls import Calls
from fixtures.clock import EventClock, clock_for
from fixtures.ledger import Ledger
from fixtures.physics import falling_decode, impossibilities
from fixtures.timing import DisturbedTimingError, TimedStage, refuse_disturbance

COST = Cost(
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
KNOWN = Ceilings(flops_per_s=10_000, bytes_per_s=1_000)
TIMED = TimedStage(
    stage="prefill",
    point="8",
    cost=COST,
    mfu_cost=COST,
    samples_s=(1.9, 2.0, 2.0, 2.0, 2.1),
    wall_samples_s=None,
    calls_per_round=1,
    datasheet=Ceilings(flops_per_s=None, bytes_per_s=None),
    measured=KNOWN,
)


class Device:
    """A stand-in for a GPU: work takes device time, the host runs ahead by its own."""

    def __init__(self) -> None:
        self.device_ms, self.host_s, self.waits = 0.0, 0.0, 0

    def event(self) -> Any:
        device = self

        class Event:
            at_ms = 0.0

            def record(self) -> None:
                self.at_ms = device.device_ms

            def synchronize(self) -> None:
                device.waits += 1
                device.host_s = max(device.host_s, device.device_ms / 1e3 + 0.001)

            def elapsed_time(self, other: Any) -> float:
                return other.at_ms - self.at_ms

        return Event()


def test_event_time_is_the_devices_and_wall_time_is_kept_beside_it() -> None:
    device = Device()
    clock = EventClock(device.event, now=lambda: device.host_s)
    begin = clock()
    device.device_ms += 25.0
    assert clock() - begin == 0.025
    assert device.waits == 1
    assert clock.wall_s == [pytest.approx(0.026)]  # a millisecond of launch gaps that event time hides


def test_a_timer_of_events_serves_pytest_benchmarks_arithmetic() -> None:
    device = Device()
    clock = EventClock(device.event, now=lambda: device.host_s)
    marks = [clock()]
    for _ in range(3):
        device.device_ms += 10.0
        marks.append(clock())
    assert [after - before for before, after in pairwise(marks)] == [0.01, 0.01, 0.01]
    assert isinstance(marks[1] - marks[0], float)


def test_a_cpu_is_timed_by_perf_counter() -> None:
    import time

    assert clock_for("cpu") is time.perf_counter


def test_mfu_from_a_record_by_hand() -> None:
    # 8000 FLOPs in 2 s at 10,000 FLOP/s; 600 bytes in 2 s at 1000 B/s; floor max(0.8, 0.6) s
    found = TIMED.as_json()
    assert found["time_s"] == 2.0
    assert found["mfu_executed"] == {"datasheet": None, "measured": 8_000 / (2.0 * 10_000)}
    assert found["mfu_useful"]["measured"] == 6_000 / (2.0 * 10_000)
    assert found["mbu"]["measured"] == 600 / (2.0 * 1_000)
    assert found["floor_s"]["measured"] == 0.8


def test_a_possible_timing_passes() -> None:
    assert impossibilities(TIMED) == []


def test_a_halved_time_is_impossible() -> None:
    fast = replace(TIMED, samples_s=tuple(sample / 4 for sample in TIMED.samples_s))
    found = "\n".join(impossibilities(fast))
    assert "prefill[8]: MFU of 1.60 against the measured ceiling" in found
    assert "under the floor of 800.000 ms" in found


def test_a_peak_too_low_is_impossible() -> None:
    low = replace(TIMED, measured=Ceilings(flops_per_s=3_000, bytes_per_s=1_000))
    assert any("the peak is not this device's" in sentence for sentence in impossibilities(low))
    slow = replace(TIMED, measured=Ceilings(flops_per_s=None, bytes_per_s=200))
    assert any("MBU of 1.50" in sentence for sentence in impossibilities(slow))


def test_a_longer_context_for_mfu_is_not_mistaken_for_impossible_work() -> None:
    """MFU may be reckoned at the model's window; what physics judges is the work that ran."""
    reckoned = replace(TIMED, mfu_cost=replace(COST, executed_flops=80_000))
    assert (reckoned.mfu(KNOWN) or 0) > 1
    assert impossibilities(reckoned) == []


def test_fewer_bytes_than_weights_is_impossible() -> None:
    wrong = replace(TIMED, cost=replace(COST, touched_weight_bytes=700))
    assert impossibilities(wrong) == [
        "prefill[8]: fewer bytes moved than weights touched: the cost is not that of what ran"
    ]


def test_a_decode_that_gets_faster_on_a_longer_context_is_impossible() -> None:
    short = replace(TIMED, stage="decode", point="256")
    longer = replace(short, point="4096", cost=replace(COST, kv_bytes=480))
    assert falling_decode([short, longer]) == []
    faster = replace(longer, samples_s=tuple(sample * 0.5 for sample in TIMED.samples_s))
    assert len(falling_decode([short, faster])) == 1
    assert "decode[4096]: 1000.000 ms a token, less than 2000.000 ms at 256" in falling_decode([faster, short])[0]
    noisy = replace(faster, samples_s=(0.5, 1.0, 1.0, 1.0, 3.0))
    assert falling_decode([short, noisy]) == []


def test_nothing_is_timed_under_a_mode_or_with_a_hook() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    refuse_disturbance(model)
    with pytest.raises(DisturbedTimingError, match="a dispatch mode is active: Ledger"), Ledger(model, outside=""):
        refuse_disturbance(model)
    handle = model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(DisturbedTimingError, match="module 0 has a forward hook"):
        refuse_disturbance(model)
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    with pytest.raises(DisturbedTimingError, match="a hook for all modules"):
        refuse_disturbance(model)
    handle.remove()
    refuse_disturbance(model)


def test_stages_nest_and_end_also_after_an_error() -> None:
    assert current_stage() == UNKNOWN
    seen = []
    with analytic_stage("page"):
        with suppress(KeyError), analytic_stage("prefill"):
            seen.append(current_stage())
            raise KeyError
        seen.append(current_stage())
    assert seen == ["prefill", "page"]
    assert current_stage() == UNKNOWN


def test_calls_do_the_work_of_their_cost(subject_on: Callable) -> None:
    from analytic.workload import MODES

    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    calls = Calls(subject, batch_size=2, context_len=lambda prefill: prefill + 4)
    page = MODES["tiny"]
    built = [calls.vision(page), *(calls.part(name, page) for name in ("sam", "clip", "projector"))]
    built += [calls.prefill(64), calls.decode(64, steps=3), calls.page(page, 96, steps=2), calls.first_token(page, 96)]
    for call in built:
        for _ in range(2):  # the second time on what `restore` left
            with torch.no_grad(), Ledger(subject.model, outside="model") as ledger:
                call.run()
            ran = sum(entry.executed_flops for entry in ledger.entries.values())
            assert ran == call.units * call.cost.executed_flops, call.stage
            if call.restore is not None:
                call.restore()
        assert call.cost.fused_bytes >= call.cost.touched_weight_bytes


def test_a_calibration_is_kept_and_a_damaged_one_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def measure(device: str, dtype: str) -> Calibration:
        made.append(1)
        return Calibration(
            device_name="a device",
            dtype=dtype,
            threads=2,
            gemm_flops_per_s=1e11,
            gemm_spread=0.1,
            copy_bytes_per_s=1e10,
            copy_spread=0.1,
            launch_s=1e-6,
        )

    monkeypatch.setattr(calibration, "measure", measure)
    first = calibration.calibrated("cpu", "float32", folder=tmp_path)
    assert calibration.calibrated("cpu", "float32", folder=tmp_path) == first
    assert len(made) == 1
    (path,) = tmp_path.iterdir()
    for damage in ("{", json.dumps({**json.loads(path.read_text()), "gemm_flops_per_s": -1})):
        path.write_text(damage)
        with pytest.warns(CalibrationWarning, match="measured again"):
            assert calibration.calibrated("cpu", "float32", folder=tmp_path) == first
    assert len(made) == 3


def test_calibration_measures_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "GEMM_SIDE", {"cpu": 64})
    monkeypatch.setattr(calibration, "COPY_BYTES", {"cpu": 1 << 16})
    found = calibration.measure("cpu", "float32")
    assert found.gemm_flops_per_s > 0
    assert found.copy_bytes_per_s > 0
    assert found.launch_s > 0


def test_calibrating_a_device_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert calibration.main(["tpu"]) == 2
    assert "calibrate: got 'tpu', accepted: cpu" in capsys.readouterr().err
