"""The steps of a history and their labels: work, efficiency, environment and noise, and what goes with each."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.section import Standing
from fixtures.history.document import HistoryStep, Label, Series, SeriesVerdict
from tests.explained_runs import BEFORE, HEAD, MLP, operator, profile, profiled
from tests.history_runs import base_record, history_of_folder, night, nights, put
from tests.mixed_runs import measurement

COUNT, SINCE = 30, 20


def series_of(folder: Path, name: str = "decode[1024] (decode_steps 4)") -> Series:
    history = history_of_folder(folder, folder.parent / "out")
    (found,) = [one for one in history.series if one.name == name]
    return found


def the_step(folder: Path) -> HistoryStep:
    (step,) = series_of(folder).steps
    return step


def timing_of(record: dict[str, Any], stage: str = "decode") -> Any:
    (found,) = [timing for timing in record["timings"] if timing["stage"] == stage]
    return found


def more_work(record: dict[str, Any]) -> None:
    timing = timing_of(record)
    timing["measured_flops"] = round(timing["measured_flops"] * 1.05)
    timing["operator_calls"] += 20
    (point,) = [point for point in record["points"] if point["stage"] == "decode"]
    row = point["modules"][0]
    row["measured_flops"] = row["closed_form_flops"] = 2 * row["measured_flops"]


def other_torch(record: dict[str, Any]) -> None:
    record["environment"]["libraries"]["torch"] = "2.14.0+cpu"


def slower_device(record: dict[str, Any]) -> None:
    record["ceilings"]["calibration"]["gemm_flops_per_s"] *= 0.8
    record["ceilings"]["calibration"]["copy_bytes_per_s"] *= 0.8


def disturbed(record: dict[str, Any]) -> None:
    for timing in record["timings"]:
        timing["measurement"] = measurement(timing["time_s"], ["other processes used 1.90 of 2 CPUs"])


def test_more_work_is_named_with_its_modules_commits_and_command(tmp_path: Path) -> None:
    nights(tmp_path / "results", COUNT, since=SINCE, times=1.06, change=more_work)
    step = the_step(tmp_path / "results")
    assert (step.at, step.label, step.worse, step.certain) == (SINCE, Label.WORK, True, True)
    assert step.ratio == pytest.approx(1.06, abs=0.005)
    assert step.cause == "work: FLOPs +5.0%, launches +2.0%"
    assert step.movers[0].name.startswith("FLOPs of model.")
    assert len(step.movers) == 3
    assert step.commits == (f"{SINCE:08x}" * 5, f"{SINCE + 1:08x}" * 5)
    assert step.command == "nox -s compare -- 000000140000 --stage 'decode[1024]'"
    assert step.left_over is not None
    assert step.left_over < 0.06


def test_the_same_work_that_takes_longer_is_efficiency(tmp_path: Path) -> None:
    nights(tmp_path / "results", COUNT, since=SINCE, times=1.05)
    step = the_step(tmp_path / "results")
    assert (step.at, step.label, step.worse, step.certain) == (SINCE, Label.EFFICIENCY, True, False)
    assert step.cause == "efficiency: nothing we record changed"
    assert step.movers == ()
    assert step.confidence is not None
    assert step.confidence > 0.999
    assert series_of(tmp_path / "results").verdict is SeriesVerdict.SLOWER


def test_the_same_commit_that_takes_longer_points_at_the_machine(tmp_path: Path) -> None:
    def same_commit(record: dict[str, Any]) -> None:
        record["environment"]["commit"] = f"{SINCE:08x}" * 5

    nights(tmp_path / "results", COUNT, since=SINCE, times=1.05, change=same_commit)
    step = the_step(tmp_path / "results")
    assert step.cause == "efficiency: nothing we record changed, not even the commit: look at the machine"
    assert step.command is None


@pytest.mark.parametrize("times", [1.05, 1.0, 0.9])
def test_another_release_is_environment_whatever_the_times_say(tmp_path: Path, times: float) -> None:
    nights(tmp_path / "results", COUNT, since=SINCE, times=times, change=other_torch)
    found = series_of(tmp_path / "results")
    (step,) = found.steps
    assert (step.at, step.label, step.certain, step.worse) == (SINCE, Label.ENVIRONMENT, True, times > 1)
    assert step.cause == "environment: torch 2.13.0+cpu to 2.14.0+cpu"
    assert [(segment.first, segment.environment["torch"]) for segment in found.segments] == [
        (0, "2.13.0+cpu"),
        (SINCE, "2.14.0+cpu"),
    ]


def test_a_new_version_of_the_measurement_is_environment(tmp_path: Path) -> None:
    def remeasured(record: dict[str, Any]) -> None:
        timing_of(record)["measurement_version"] = "0badcafe"

    nights(tmp_path / "results", COUNT, since=SINCE, times=3.0, change=remeasured)
    step = the_step(tmp_path / "results")
    assert (step.label, step.cause) == (Label.ENVIRONMENT, "environment: measurement 1a2b3c4d to 0badcafe")


def test_an_upgrade_that_brings_more_work_says_both(tmp_path: Path) -> None:
    def both(record: dict[str, Any]) -> None:
        other_torch(record)
        more_work(record)

    nights(tmp_path / "results", COUNT, since=SINCE, times=1.05, change=both)
    assert the_step(tmp_path / "results").cause == (
        "environment: torch 2.13.0+cpu to 2.14.0+cpu; the work is another too: FLOPs +5.0%, launches +2.0%"
    )


def test_a_device_that_calibrates_slower_is_environment_and_one_that_does_not_is_none(tmp_path: Path) -> None:
    nights(tmp_path / "slower", COUNT, since=SINCE, times=1.2, change=slower_device)
    step = the_step(tmp_path / "slower")
    assert step.label is Label.ENVIRONMENT
    assert [mover.name for mover in step.movers] == ["calibrated FLOP/s", "calibrated bytes/s"]
    nights(tmp_path / "faster", COUNT, since=SINCE, times=0.8, change=slower_device)
    assert the_step(tmp_path / "faster").label is Label.EFFICIENCY  # a slower device makes nothing faster


@pytest.mark.parametrize(
    ("field", "before", "after", "label"),
    [
        ("power_limit_w", 700.0, 400.0, Label.ENVIRONMENT),
        ("sm_clock_mhz", 1980, 1500, Label.ENVIRONMENT),
        ("sm_clock_mhz", 1980, 1975, Label.EFFICIENCY),
        ("sm_clock_mhz", 1500, 1980, Label.EFFICIENCY),  # higher clocks make nothing slower
    ],
)
def test_limits_and_clocks_are_environment(tmp_path: Path, field: str, before: float, after: float, label: Label) -> None:
    base = base_record()
    gpu = {
        "name": "a GPU",
        "uuid": "1",
        "driver": "580.1",
        "sm_clock_mhz": 1,
        "memory_clock_mhz": 1,
        "power_limit_w": 1.0,
        "throttle_reasons": [],
        "compute_processes": 1,
    }
    for number in range(COUNT):
        record = night(base, number, times=1.2 if number >= SINCE else 1.0)
        record["environment"]["device"]["gpu"] = gpu | {field: after if number >= SINCE else before}
        put(tmp_path / "results", record)
    step = the_step(tmp_path / "results")
    assert step.label is label
    if label is Label.ENVIRONMENT:
        assert step.movers[0].name == field.replace("_", " ")


def test_another_driver_is_environment(tmp_path: Path) -> None:
    base = base_record()
    gpu = {
        "name": "a GPU",
        "uuid": "1",
        "sm_clock_mhz": 1,
        "memory_clock_mhz": 1,
        "power_limit_w": 1.0,
        "throttle_reasons": [],
        "compute_processes": 1,
    }
    for number in range(COUNT):
        record = night(base, number)
        record["environment"]["device"]["gpu"] = gpu | {"driver": "590.2" if number >= SINCE else "580.1"}
        put(tmp_path / "results", record)
    assert the_step(tmp_path / "results").cause == "environment: driver 580.1 to 590.2"


def test_disturbed_runs_are_drawn_and_their_step_is_noise(tmp_path: Path) -> None:
    nights(tmp_path / "results", COUNT, since=SINCE, times=1.3, change=disturbed)
    found = series_of(tmp_path / "results")
    (step,) = found.steps
    assert (step.at, step.label) == (SINCE, Label.NOISE)
    assert step.cause == "noise: 5 of the 10 runs around it were disturbed: other processes used 1.90 of 2 CPUs"
    assert len(found.times_ms) == COUNT
    assert sorted(found.disturbed) == list(range(SINCE, COUNT))
    assert [level.last for level in found.levels] == [COUNT - 1]  # noise cuts no level


def test_a_step_among_disturbed_runs_is_noise(tmp_path: Path) -> None:
    base = base_record()
    for number in range(COUNT):
        record = night(base, number, times=1.1 if number >= SINCE else 1.0)
        if SINCE <= number < SINCE + 6 and number % 2:
            disturbed(record)
        if SINCE - 5 <= number < SINCE and number % 2:
            disturbed(record)
        put(tmp_path / "results", record)
    step = the_step(tmp_path / "results")
    assert step.label is Label.NOISE


def test_a_step_of_work_counts_although_the_times_hide_it(tmp_path: Path) -> None:
    nights(tmp_path / "results", COUNT, since=COUNT - 1, change=more_work)
    history = history_of_folder(tmp_path / "results", tmp_path / "out", Label.WORK)
    assert history.standing is Standing.FAILED  # more work the night before: no test of times is needed
    ((number, step),) = history.failed_by
    found = history.series[number].steps[step]
    assert (found.at, found.label, found.worse, found.confidence) == (COUNT - 1, Label.WORK, True, None)


def test_less_work_is_a_step_that_fails_nothing(tmp_path: Path) -> None:
    def less_work(record: dict[str, Any]) -> None:
        timing = timing_of(record)
        timing["measured_flops"] = round(timing["measured_flops"] * 0.9)

    nights(tmp_path / "results", COUNT, since=COUNT - 4, times=0.93, change=less_work)
    history = history_of_folder(tmp_path / "results", tmp_path / "out", Label.WORK, Label.EFFICIENCY)
    assert history.standing is Standing.PASSED
    (step,) = [step for one in history.series for step in one.steps if step.label is Label.WORK]
    assert (step.worse, step.cause) == (False, "work: FLOPs -10.0%")


def test_a_little_more_work_does_not_explain_a_large_slowdown(tmp_path: Path) -> None:
    def little(record: dict[str, Any]) -> None:
        timing_of(record)["measured_flops"] += round(timing_of(record)["measured_flops"] * 0.007)

    nights(tmp_path / "results", COUNT, since=SINCE, times=1.3, change=little)
    step = the_step(tmp_path / "results")
    assert step.label is Label.EFFICIENCY
    assert step.cause == "efficiency: the work changed (FLOPs +0.7%), which explains less than 25% of it"


def test_work_that_varies_from_night_to_night_is_not_exact(tmp_path: Path) -> None:
    base = base_record()
    for number in range(COUNT):
        record = night(base, number)
        timing_of(record)["operator_calls"] += 50 * (number % 2)
        put(tmp_path / "results", record)
    assert series_of(tmp_path / "results").steps == ()


def test_two_releases_by_turns_are_two_series(tmp_path: Path) -> None:
    base = base_record()
    for number in range(2 * COUNT):
        record = night(base, number)
        if number % 2:
            other_torch(record)
        put(tmp_path / "results", record)
    history = history_of_folder(tmp_path / "results", tmp_path / "out")
    assert sorted(one.name for one in history.series if one.benchmark == "prefill[1024]") == [
        "prefill[1024] (torch 2.13.0+cpu)",
        "prefill[1024] (torch 2.14.0+cpu)",
    ]
    assert all(one.steps == () for one in history.series)


def test_an_upgrade_that_is_taken_back_is_two_steps(tmp_path: Path) -> None:
    base = base_record()
    for number in range(COUNT):
        record = night(base, number)
        if 10 <= number < 14:
            other_torch(record)
        put(tmp_path / "results", record)
    assert [(step.at, step.label) for step in series_of(tmp_path / "results").steps] == [
        (10, Label.ENVIRONMENT),
        (14, Label.ENVIRONMENT),
    ]


def test_operator_profiles_say_what_moved(tmp_path: Path) -> None:
    after = profile(operator(MLP, "aten::mm", 3e-3), operator(HEAD, "aten::mm", 1e-3), operator(MLP, "aten::silu", 1e-4))
    base = base_record()
    for number in range(COUNT):
        record = night(base, number, times=1.1 if number >= SINCE else 1.0)
        folder = put(tmp_path / "results", record).parent
        put(tmp_path / "results", profiled(record, folder, after if number >= SINCE else BEFORE))
    step = the_step(tmp_path / "results")
    assert (step.label, step.cause) == (Label.EFFICIENCY, "efficiency: the same work takes longer")
    assert (step.movers[0].name, step.movers[0].after) == (f"time of aten::mm in {MLP}", "2.700 ms")


def test_what_is_near_a_step_is_a_number_of_nights_however_often_each_is_measured(tmp_path: Path) -> None:
    base = base_record()
    for number in range(COUNT):
        for run in range(3):
            record = night(base, number, times=1.06 if number >= SINCE else 1.0)
            record["run_id"] += f"{run}"
            record["created"] = record["created"].replace(":00+", f":{run:02}+")
            for timing in record["timings"]:
                timing["time_s"] *= 1 + 1e-5 * run
            if number == SINCE - 1:
                disturbed(record)
            put(tmp_path / "results", record)
    step = the_step(tmp_path / "results")
    assert step.label is Label.EFFICIENCY
    assert step.at in (3 * (SINCE - 1), 3 * SINCE)
