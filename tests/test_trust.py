"""Times that contradict each other, and what disturbs them: made-up samples and counters, no clock of this machine."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from analytic.models.spec import ModelSpec
from analytic.prediction.roofline import Ceilings
from fixtures.config.stages import BenchmarkId
from fixtures.machine.cpu_watch import CpuTimes, CpuWatch, cpu_disturbances, cpu_times
from fixtures.model.timed_calls import Call
from fixtures.plugin.settled_times import settle_times
from fixtures.timing.coherence import Between, betweens, contradicting, groups
from fixtures.timing.intervals import median_error
from fixtures.timing.measurement import Measurement, Trust
from fixtures.timing.repeat import in_turns
from fixtures.timing.samples import Samples, TimedStage
from fixtures.timing.settle import MOST_REPEATS, Settled, disturbed_lines, settle, spread_lines
from tests.samples import COST, MODEL_PARTS

PAGE, LENGTH = "gundam-2x1", "1024"
BOTH = f"{PAGE}-{LENGTH}"
NAMES = {
    "sam": BenchmarkId("sam", PAGE),
    "clip": BenchmarkId("clip", PAGE),
    "projector": BenchmarkId("projector", PAGE),
    "vision": BenchmarkId("vision", PAGE),
    "prefill": BenchmarkId("prefill", LENGTH),
    "decode": BenchmarkId("decode", LENGTH),
    "first_token": BenchmarkId("first_token", BOTH),
    "end_to_end": BenchmarkId("end_to_end", BOTH),
}
QUIET_MS = {
    "sam": 150.0,
    "clip": 40.0,
    "projector": 2.0,
    "vision": 200.0,  # 8 ms between its parts
    "prefill": 100.0,
    "decode": 5.6,
    "first_token": 310.0,  # 10 ms between vision and prefill
    "end_to_end": 470.0,  # 10.0 ms a token inside, 5.6 alone: 4.4 between
}
TOKENS = 16
UNKNOWN = Ceilings(flops_per_s=None, bytes_per_s=None)


def timing(stage: str, *samples_ms: float, **other: object) -> TimedStage:
    return TimedStage(
        stage=stage,
        point=NAMES[stage].point,
        units=TOKENS if stage == "decode" else 1,
        cost=COST,
        mfu_cost=COST,
        samples=Samples(
            samples_s=tuple(sample / 1e3 for sample in samples_ms),
            wall_samples_s=None,
            first_s=1.0,
            calls_per_round=1,
            energy_j=None,
        ),
        counted=None,
        datasheet=UNKNOWN,
        measured=UNKNOWN,
        **other,
    )


def run_of(**ms: float) -> list[TimedStage]:
    """Every stage with five rounds within 2% of its time."""
    return [
        timing(stage, *(at * scale for scale in (0.98, 0.99, 1.0, 1.01, 1.02))) for stage, at in (QUIET_MS | ms).items()
    ]


def measured(timings: Sequence[TimedStage]) -> dict[BenchmarkId, Measurement]:
    return {timing.benchmark: timing.measurement for timing in timings}


class Machine:
    """Times again as told: the answers of each repeat, and which groups were asked for."""

    def __init__(self, *answers: Sequence[TimedStage]) -> None:
        self._answers, self.asked = list(answers), []

    def again(self, names: Sequence[BenchmarkId], until: float) -> Mapping[BenchmarkId, TimedStage]:
        self.asked.append([name.stage for name in names])
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        return {timing.benchmark: timing for timing in answer if timing.benchmark in names}


def settled(timings: Sequence[TimedStage], machine: Machine) -> Settled:
    return settle(timings, tokens=TOKENS, model_parts=MODEL_PARTS, again=machine.again)


def reasons(found: Settled) -> dict[str, tuple[str, ...]]:
    return {timing.stage: timing.reasons for timing in found.timed if timing.reasons}


# --- what is between


def test_what_is_between_is_the_whole_minus_its_parts() -> None:
    found = {
        between.whole.stage: between for between in betweens(measured(run_of()), tokens=TOKENS, model_parts=MODEL_PARTS)
    }
    assert {stage: round(between.measurement.value * 1e3, 6) for stage, between in found.items()} == {
        "vision": 8.0,  # 200 - 150 - 40 - 2
        "first_token": 10.0,  # 310 - 200 - 100
        "end_to_end": 4.4,  # (470 - 310 - 16 x 5.6) / 16
    }
    assert [found[stage].measurement.unit for stage in ("vision", "end_to_end")] == ["s/call", "s/token"]
    assert {between.measurement.source for between in found.values()} == {"difference"}
    assert contradicting(found.values()) == {}


def test_the_interval_of_a_median_by_hand() -> None:
    # quartiles of 1..5 by the exclusive method: 1.5 and 4.5, so a deviation of 3 / 1.349 = 2.2239; times 1.2533 / sqrt(5)
    # that is 1.2465, times Student's t of 4.6041 at 99% and four degrees of freedom
    assert median_error((1.0, 2.0, 3.0, 4.0, 5.0)) == pytest.approx(5.739, abs=1e-3)
    assert median_error((1.0, 2.0)) is None


def test_errors_of_parts_add_up_as_noise_does() -> None:
    times = {
        NAMES["end_to_end"]: Measurement(value=10.0, unit="s/call", source="timed", error=3.0),
        NAMES["first_token"]: Measurement(value=1.0, unit="s/call", source="timed", error=0.0),
        NAMES["decode"]: Measurement(value=1.0, unit="s/token", source="timed", error=2.0),
    }
    (between,) = (found for found in betweens(times, tokens=2, model_parts=MODEL_PARTS) if found.complete)
    assert between.measurement.error == 2.5  # sqrt(3 ** 2 + (2 x 2) ** 2) / 2 tokens


# --- contradictions


@pytest.mark.parametrize(
    ("ms", "marked", "sentence"),
    [
        # a busy machine: decode alone 98.5 ms a token, inside the page of the same run 9.4
        (
            {"decode": 98.5, "end_to_end": 460.4},
            {"decode", "first_token", "end_to_end"},
            "end_to_end[gundam-2x1-1024] takes 460.400 ms, its parts alone 1,886.000 ms (first_token[gundam-2x1-1024] "
            "310.000 ms, 16 x decode[1024] 98.500 ms); a token takes 98.500 ms alone, 9.400 ms inside",
        ),
        # the other way round: the page was disturbed, decode alone was not
        ({"end_to_end": 1886.0}, {"decode", "first_token", "end_to_end"}, "5.600 ms alone, 98.500 ms inside"),
        # SAM alone takes longer than all of vision
        (
            {"sam": 214.6, "vision": 202.0},
            {"sam", "clip", "projector", "vision"},
            "vision[gundam-2x1] takes 202.000 ms, its parts alone 256.600 ms (sam[gundam-2x1] 214.600 ms",
        ),
        ({"prefill": 300.0}, {"vision", "prefill", "first_token"}, "first_token[gundam-2x1-1024] takes 310.000 ms"),
    ],
)
def test_contradicting_times_are_repeated_then_marked(ms: dict[str, float], marked: set[str], sentence: str) -> None:
    machine = Machine(run_of(**ms))
    found = settled(run_of(**ms), machine)
    assert set(reasons(found)) == marked
    assert all(sentence in reason for reason in (found_reasons[0] for found_reasons in reasons(found).values()))
    assert len(machine.asked) == MOST_REPEATS
    assert all(set(asked) == marked for asked in machine.asked)  # whole and parts in one group
    assert {timing.repeats for timing in found.timed if timing.stage in marked} == {MOST_REPEATS}
    assert {timing.measurement.trust for timing in found.timed if timing.stage in marked} == {Trust.DISTURBED}
    assert len(disturbed_lines(found.timed)) == 1


def test_one_part_longer_than_its_whole_is_found_without_the_others() -> None:
    alone = [timing for timing in run_of(sam=240.0) if timing.stage in ("sam", "vision")]
    assert set(reasons(settled(alone, Machine(alone)))) == {"sam", "vision"}
    # but what is between is unknown then
    assert settled(alone, Machine(alone)).between == ()


def test_a_disturbance_that_passes_is_repeated_away() -> None:
    machine = Machine(run_of())
    found = settled(run_of(decode=98.5, end_to_end=460.4), machine)
    assert reasons(found) == {}
    assert len(machine.asked) == 1
    by_stage = {timing.stage: timing for timing in found.timed}
    assert by_stage["decode"].time_s == pytest.approx(5.6e-3)
    assert (by_stage["decode"].repeats, by_stage["sam"].repeats) == (1, 0)


def test_coherent_times_are_not_repeated() -> None:
    machine = Machine(run_of())
    found = settled(run_of(), machine)
    assert (machine.asked, reasons(found), found.lines(), found.failures) == ([], {}, [], ())
    assert [between.whole.stage for between in found.between] == ["vision", "first_token", "end_to_end"]


def test_what_other_processes_disturbed_is_marked_although_it_is_coherent() -> None:
    """Everything ten times slower contradicts nothing; the counters tell."""
    seen = ("other processes used 1.90 of 2 CPUs, 2 of which it needs",)
    slow = [replace(timing, seen=seen) for timing in run_of(**{stage: 10 * ms for stage, ms in QUIET_MS.items()})]
    found = settled(slow, Machine(slow))
    assert set(reasons(found)) == set(QUIET_MS)
    (line,) = found.lines()
    assert line.startswith("disturbed: sam[gundam-2x1], clip[gundam-2x1], projector[gundam-2x1]")
    assert line.endswith(f"and 2 more: {seen[0]}")
    assert all(between.measurement.trust is Trust.DISTURBED for between in found.between)


def test_a_repeat_that_was_not_disturbed_replaces_one_that_was() -> None:
    disturbed = [replace(timing, seen=("another process",)) for timing in run_of()]
    found = settled(disturbed, Machine(disturbed, run_of()))
    assert reasons(found) == {}
    assert {timing.repeats for timing in found.timed} == {2}


def test_what_cannot_be_repeated_stays_disturbed() -> None:
    disturbed = [replace(timing, seen=("another process",)) for timing in run_of()]
    found = settle(disturbed, tokens=TOKENS, model_parts=MODEL_PARTS, again=lambda names, until: {})
    assert set(reasons(found)) == set(QUIET_MS)

    def interrupted(names: Sequence[BenchmarkId], until: float) -> Mapping[BenchmarkId, TimedStage]:
        raise KeyboardInterrupt

    said: list[str] = []
    assert set(
        reasons(settle(disturbed, tokens=TOKENS, model_parts=MODEL_PARTS, again=interrupted, say=said.append))
    ) == set(QUIET_MS)
    assert said[-1] == "repeats stopped"


def test_a_decode_that_gets_faster_on_a_longer_context_is_repeated_before_it_fails() -> None:
    short = run_of()[5]
    longer = replace(timing("decode", 2.8, 2.8, 2.8, 2.8, 2.8), point="2048", cost=replace(COST, kv_bytes=480))
    steady = replace(longer, samples=timing("decode", 5.8, 5.8, 5.8, 5.8, 5.8).samples)
    machine = Machine([short, steady])
    assert settled([short, longer], machine).failures == ()
    assert machine.asked == [["decode", "decode"]]
    (failure,) = settled([short, longer], Machine([short, longer])).failures
    assert failure.startswith("decode[2048]: 2.800 ms per token, less than 5.600 ms at 1024")


def test_groups_hold_what_is_tied_together_once() -> None:
    links = [between.members for between in betweens(measured(run_of()), tokens=TOKENS, model_parts=MODEL_PARTS)]
    assert groups(links, [NAMES["sam"], NAMES["decode"]]) == [[NAMES["sam"]], [NAMES["decode"]]]
    assert len(groups(links, NAMES.values())) == 1
    vision = [NAMES[stage] for stage in ("vision", "sam", "clip")]
    assert groups(links, [NAMES["decode"], *vision]) == [[NAMES["decode"]], vision]


def test_a_whole_and_its_parts_are_timed_in_turns() -> None:
    ran: list[str] = []
    model = torch.nn.Linear(1, 1)
    calls = {
        NAMES[stage]: Call(
            stage=stage, run=partial(ran.append, stage), restore=lambda: None, cost=COST, mfu_cost=COST, trees=()
        )
        for stage in ("vision", "sam")
    }
    before = {name: timing(name.stage, 1.0, 1.0, 1.0).samples for name in calls}
    found = in_turns(calls, before=before, model=model, clock=None, until=math.inf)
    assert ran[4:] == ["vision", "sam"] * 40  # after a cold run and an estimate of each
    assert [len(found[name].samples_s) for name in calls] == [40, 40]
    assert {samples.first_s for samples in found.values()} == {1.0}
    assert in_turns(calls, before=before, model=model, clock=None, until=0.0) == {}


def test_times_are_settled_and_judged_once_and_what_was_noted_of_them_follows() -> None:
    judged: list[str] = []
    gates = SimpleNamespace(times=lambda timings, subject: judged.extend(str(one.benchmark) for one in timings) or [])
    spec = ModelSpec.from_preset("tiny")
    noted = {NAMES["decode"]: {"time_s": 98.5e-3}}
    timer = SimpleNamespace(
        timed=run_of(decode=98.5, end_to_end=460.4),
        between=(),
        warnings=[],
        noted=noted,
        subject=SimpleNamespace(spec=spec),
        say=lambda _: None,
        again=Machine(run_of()).again,
    )
    assert settle_times(timer, gates, tokens=TOKENS, repeat=True) == []
    assert noted[NAMES["decode"]] == {"time_s": pytest.approx(5.6e-3), "trust": "trusted"}
    assert len(judged) == len(timer.between) + 5 == 8
    assert settle_times(timer, gates, tokens=TOKENS, repeat=True) == []
    assert len(judged) == 8
    timer.timed.append(replace(timing("sam", 1.0, 1.0, 1.0, 1.0), point="base", seen=("another process",)))
    settle_times(timer, gates, tokens=TOKENS, repeat=False)
    assert judged[8:] == ["sam[base]"]
    assert timer.warnings == ["disturbed: sam[base]: another process"]


# --- noise


def noisy_run(rng: random.Random, *, rounds: float, stages: float, times_ms: Mapping[str, float]) -> list[TimedStage]:
    """A run whose rounds spread by `rounds` and whose stages each drift by `stages`, both log-normal, 5 to 40 rounds."""
    made = []
    for stage, at in times_ms.items():
        drifted = at * rng.lognormvariate(0.0, stages)
        made.append(timing(stage, *(drifted * rng.lognormvariate(0.0, rounds) for _ in range(rng.choice((5, 9, 20, 40))))))
    return made


def contradictions(timings: Sequence[TimedStage]) -> list[Between]:
    return [
        between
        for between in betweens(measured(timings), tokens=TOKENS, model_parts=MODEL_PARTS)
        if between.contradiction()
    ]


@pytest.mark.parametrize(("rounds", "stages"), [(0.01, 0.02), (0.05, 0.02), (0.20, 0.02), (0.05, 0.04)])
def test_ordinary_noise_rarely_contradicts_itself(rounds: float, stages: float) -> None:
    """At most 1% of runs, with nothing between the parts, which is the case closest to the bound."""
    rng, tight = random.Random(14), QUIET_MS | {"vision": 192.0, "first_token": 292.0, "end_to_end": 381.6}
    number = 500
    false = sum(bool(contradictions(noisy_run(rng, rounds=rounds, stages=stages, times_ms=tight))) for _ in range(number))
    assert false <= number // 100


@pytest.mark.parametrize(("rounds", "least"), [(0.01, 100), (0.05, 100), (0.20, 75)])
def test_a_tenfold_decode_is_found(rounds: float, least: int) -> None:
    """Always, but for some of the runs whose five rounds differ by 20%, which get the warning on a large spread."""
    rng = random.Random(14)
    for wrong in ({"decode": 98.5}, {"end_to_end": 1886.0}):
        found = [contradictions(noisy_run(rng, rounds=rounds, stages=0.02, times_ms=QUIET_MS | wrong)) for _ in range(100)]
        assert sum(map(bool, found)) >= least


def test_a_large_spread_is_said_with_what_it_means() -> None:
    wide = timing("sam", 100.0, 120.0, 150.0, 600.0, 950.0)
    (line,) = spread_lines([*run_of()[1:], wide])
    # quartiles 110 and 775 of a median of 150: half of 665 over 150
    assert line.startswith("large spread: sam[gundam-2x1] 221.7%: the middle half of the rounds lies that far around")
    assert spread_lines(run_of()) == []


# --- counters of the CPUs


def counters(**other: float) -> CpuTimes:
    base = {"cpus": 2, "wall_s": 0.0, "busy_s": 0.0, "steal_s": 0.0, "own_s": 0.0, "stopped_s": 0.0, "clock_mhz": None}
    return CpuTimes(**(base | other))


@pytest.mark.parametrize(
    ("after", "threads", "found"),
    [
        ({"busy_s": 2.0, "own_s": 1.95}, 2, None),  # the system's own work
        ({"busy_s": 2.0, "own_s": 1.0}, 2, "other processes used 1.00 of 2 CPUs, 2 of which it needs"),
        ({"busy_s": 2.0, "own_s": 1.0}, 1, None),  # one thread, and a CPU free for the other process
        ({"busy_s": 2.0, "own_s": 0.6}, 1, "other processes used 1.40 of 2 CPUs, 1 of which it needs"),
        ({"steal_s": 0.3}, 2, "the hypervisor gave 0.30 of 2 CPUs to other machines (steal)"),
        ({"stopped_s": 0.25}, 2, "the CPU limit of the container stopped it for 25% of the time"),
    ],
)
def test_what_else_ran_is_told_from_two_snapshots(after: dict[str, float], threads: int, found: str | None) -> None:
    assert cpu_disturbances(counters(), counters(wall_s=1.0, **after), threads=threads) == (
        [] if found is None else [found]
    )


def test_a_short_timing_is_not_disturbed_by_the_ticks_of_the_counters() -> None:
    # 50 ms on two CPUs: each counter may be off by one tick of 10 ms
    assert cpu_disturbances(counters(), counters(wall_s=0.05, busy_s=0.12, own_s=0.1), threads=2) == []
    assert cpu_disturbances(counters(), counters(wall_s=0.05, busy_s=0.10, own_s=0.05), threads=2) != []


def test_a_watch_compares_the_marks_around_a_timing_and_explains_by_the_clock() -> None:
    states = [counters(clock_mhz=3_000.0), counters(wall_s=1.0, busy_s=2.0, own_s=0.5, clock_mhz=2_000.0)]
    left = [states[1], *states]  # an earlier mark, whose timing failed, is not compared
    watch = CpuWatch(threads=2, read=lambda: left.pop(0))
    for _ in range(3):
        watch.mark()
    assert watch.found() == (
        "other processes used 1.50 of 2 CPUs, 2 of which it needs",
        "CPU clock 3,000 -> 2,000 MHz",
    )
    assert watch.found() == ()
    assert CpuWatch(threads=2, read=lambda: None).found() == ()


def test_the_counters_are_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(
        "cpu  100 0 0 0 0 0 0 0 0 0\ncpu0 100 20 30 400 50 6 7 8 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n", encoding="utf-8"
    )
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 1500000\n", encoding="utf-8")
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2000.000\ncpu MHz\t\t: 3000.000\n", encoding="utf-8")
    found = cpu_times(tmp_path, tmp_path, usable={0})
    assert found is not None
    assert (found.cpus, found.busy_s, found.steal_s) == (1, pytest.approx(1.63), pytest.approx(0.08))
    assert (found.stopped_s, found.clock_mhz) == (1.5, 2500.0)
    assert cpu_times(tmp_path / "nowhere") is None
