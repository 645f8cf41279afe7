"""Timing without trusting the machine's clock: stand-in clocks and devices, gates on what physics forbids."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from analytic.io.ending import lacks_memory
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES
from analytic.prediction.roofline import Ceilings
from fixtures.machine.clock import EventClock, clock_for
from fixtures.model.annotation import UNKNOWN, analytic_stage, current_stage
from fixtures.model.timed_calls import Call, Calls
from fixtures.op_counter.ledger import Ledger
from fixtures.timing.pages import page_times
from fixtures.timing.physics import falling_decode, impossibilities
from fixtures.timing.samples import DisturbedTimingError, Samples, TimedStage, measure, refuse_disturbance
from tests.samples import COST

KNOWN = Ceilings(flops_per_s=10_000, bytes_per_s=1_000)
TIMED = TimedStage(
    stage="prefill",
    point="8",
    cost=COST,
    units=1,
    mfu_cost=COST,
    samples=Samples(
        samples_s=(1.9, 2.0, 2.0, 2.0, 2.1), wall_samples_s=None, first_s=3.0, calls_per_round=1, energy_j=None
    ),
    counted=None,
    datasheet=Ceilings(flops_per_s=None, bytes_per_s=None),
    measured=KNOWN,
)


def taking(timed: TimedStage, *samples_s: float) -> TimedStage:
    """The same stage with other samples."""
    return replace(timed, samples=replace(timed.samples, samples_s=samples_s))


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
    # 8000 FLOPs at 6000 FLOP/s take 1.333 s at least: 2 s can be, 1 s can not
    possible = replace(TIMED, measured=Ceilings(flops_per_s=6_000, bytes_per_s=1_000))
    assert impossibilities(possible) == []
    found = "\n".join(impossibilities(taking(possible, *(sample / 2 for sample in TIMED.samples.samples_s))))
    assert "prefill[8]: MFU of 1.33 against the measured ceiling" in found
    assert "below the floor of 1333.333 ms" in found


def test_a_peak_too_low_is_impossible() -> None:
    low = replace(TIMED, measured=Ceilings(flops_per_s=3_000, bytes_per_s=1_000))
    assert any("the peak is not this device's" in sentence for sentence in impossibilities(low))
    slow = replace(TIMED, measured=Ceilings(flops_per_s=None, bytes_per_s=200))
    assert any("MBU of 1.50" in sentence for sentence in impossibilities(slow))


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1.25, None),  # calibration reaches 80% of the datasheet
        (
            2.5,
            "40% of the datasheet's 2.5e+04: the peak is a sparse or another device's",
        ),  # a sparse figure, twice the dense
        (0.8, "the datasheet says 8e+03: the peak is not this device's"),
    ],
)
def test_a_doubled_peak_and_one_that_was_exceeded_are_impossible(factor: float, message: str | None) -> None:
    sheet = Ceilings(flops_per_s=10_000 * factor, bytes_per_s=1_250)
    found = impossibilities(replace(TIMED, datasheet=sheet))
    assert (found == []) if message is None else any(message in sentence for sentence in found)


def test_a_longer_context_for_mfu_is_not_mistaken_for_impossible_work() -> None:
    """MFU may be reckoned at the model's window; what physics judges is the work that ran."""
    reckoned = replace(TIMED, mfu_cost=replace(COST, executed_flops=80_000))
    assert (reckoned.mfu(KNOWN) or 0) > 1
    assert impossibilities(reckoned) == []


def test_fewer_bytes_than_weights_is_impossible() -> None:
    wrong = replace(TIMED, cost=replace(COST, touched_weight_bytes=700))
    assert impossibilities(wrong) == [
        "prefill[8]: fewer bytes moved than weights touched: the cost does not describe what ran"
    ]


def test_a_decode_that_gets_faster_on_a_longer_context_is_impossible() -> None:
    short = replace(TIMED, stage="decode", point="256")
    longer = replace(short, point="4096", cost=replace(COST, kv_bytes=480))
    assert falling_decode([short, longer]) == []
    faster = taking(longer, *(sample * 0.5 for sample in TIMED.samples.samples_s))
    assert len(falling_decode([short, faster])) == 1
    assert "decode[4096]: 1000.000 ms per token, less than 2000.000 ms at 256" in falling_decode([faster, short])[0]
    noisy = taking(faster, 0.5, 1.0, 1.0, 1.0, 3.0)
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


class Pedantic:
    """A stand-in for pytest-benchmark's fixture: runs the rounds with a clock of fixed ticks."""

    def __init__(self) -> None:
        self.rounds = self.warmup_rounds = 0
        self.stats = self

    @property
    def data(self) -> list[float]:
        return [0.5] * self.rounds

    def pedantic(
        self, call: Callable[[], None], *, setup: Callable[[], None], rounds: int, warmup_rounds: int, iterations: int
    ) -> None:
        self.rounds, self.warmup_rounds = rounds, warmup_rounds
        for _ in range(rounds + warmup_rounds):
            setup()
            call()
        self.stats = self


def counting(stage: str, ran: list[str], units: int = 2) -> Call:
    def restore() -> None:
        ran.append(f"{stage} restored")

    return Call(
        stage=stage, run=lambda: ran.append(stage), restore=restore, units=units, cost=COST, mfu_cost=COST, trees=()
    )


def test_warm_up_runs_on_inputs_of_its_own_or_on_those_that_are_timed() -> None:
    model, ran, energy = torch.nn.Linear(1, 1), [], iter([10.0, 70.0])
    benchmark = Pedantic()
    found = measure(
        benchmark,
        counting("timed", ran),
        model=model,
        clock=None,
        warmup_rounds=3,
        warmup=counting("warm", ran),
        energy_j=lambda: next(energy),
    )
    # the first run and the estimate, then the warm-up, then the rounds
    assert ran[:10] == ["timed", "timed restored"] * 2 + ["warm", "warm restored"] * 3
    assert ran.count("timed") == 2 + benchmark.rounds
    assert benchmark.warmup_rounds == 0
    assert found.samples_s == (0.25,) * benchmark.rounds  # two units a round
    assert found.energy_j == 60.0 / (2 * benchmark.rounds)
    assert found.first_s > 0

    ran.clear()
    measure(benchmark, counting("timed", ran), model=model, clock=None, warmup_rounds=3, warmup=None, energy_j=lambda: None)
    assert benchmark.warmup_rounds == 3
    assert "warm" not in ran


@pytest.mark.parametrize(("mode", "context"), [("auto", 64 + 2), ("fixed", 500), ("max", 16_384)])
def test_mfu_by_hand_from_a_record_in_each_context_mode(
    subject_on: Callable, options_of: Callable, mode: str, context: int
) -> None:
    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    fixed = {"context_len_fixed": "500"} if mode == "fixed" else {}
    options = options_of(preset="tiny", device="cpu", context_len_mode=mode, decode_steps="4", **fixed)
    calls = Calls(subject, batch_size=1, context_len=options.context_len)
    text = subject.spec.text
    # of one token: the products that a longer context does not change, taken at no context, and Q K and A V over the rest
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_decode(kv_cache=root.start_prefill(1, 1))
    at_one = int(root.forward_cost().executed_flops)
    per_position = text.num_layers * 2 * 2 * text.num_heads * text.head_dim
    decode_flops = at_one + (context - 1) * per_position
    for call, flops in (
        (calls.prefill(64), None),
        (calls.vision(MODES["tiny"]), None),
        (calls.decode(64, steps=4), decode_flops),
    ):
        record = replace(TIMED, stage=call.stage, cost=call.cost, mfu_cost=call.mfu_cost).as_json()
        expected = flops or record["executed_flops"]  # only a decoded token is reckoned at another context
        assert record["mfu_executed_flops"] == expected
        assert record["mfu_executed"]["measured"] == expected / (record["time_s"] * 10_000)
        assert record["mfu_useful"]["measured"] == record["mfu_useful_flops"] / (record["time_s"] * 10_000)


def test_mfu_of_a_whole_page_weighs_its_stages_by_their_flops() -> None:
    vision, prefill = replace(TIMED, stage="vision", point="p"), replace(TIMED, stage="prefill", point="8")
    token = replace(TIMED, stage="decode", point="8", mfu_cost=replace(COST, executed_flops=1_000))
    page = taking(replace(TIMED, stage="end_to_end", point="p-8"), 9.0, 9.0)
    first = taking(replace(TIMED, stage="first_token", point="p-8"), 4.0, 4.0)
    (found,) = page_times([vision, prefill, token, page, first], batch_size=2, decode_steps=5)
    # two stages of 8000 FLOPs and five tokens of 1000, 2 s each, at 10,000 FLOP/s
    assert found.whole_mfu("executed") == 21_000 / (14.0 * 10_000)
    assert (found.ttft_s, found.tpot_s) == (4.0, (9.0 - 4.0) / 5)
    assert (found.tokens_per_s, found.pages_per_s) == (2 * 6 / 9.0, 2 / 9.0)
    (alone,) = page_times([page, first], batch_size=1, decode_steps=5)
    assert alone.whole_mfu("executed") is None


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: Exception, memory: bool) -> None:
    assert lacks_memory(error) is memory
