"""The study of histories: what it draws, what counts as found and as false; nothing sees a night before it comes."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fixtures.evidence.section import Standing
from fixtures.evidence.study import keep
from fixtures.history import history_study
from fixtures.history.history_study import (
    HISTORY_STUDY,
    HistoryStudy,
    HistoryStudyOptions,
    as_json,
    histories_of,
    lines,
    parsed,
    study,
)
from fixtures.history.history_study_evidence import STUDY, page_of, subject_of
from fixtures.history.simulated import STEP, NoiseSource, NormalNoise, SimulatedHistory, simulated, sources_of
from fixtures.history.simulated_nights import (
    NEAR,
    Report,
    against_a_week,
    against_the_last,
    by_history,
    result_of,
)
from fixtures.history.simulated_records import records_of
from fixtures.history.study_labels import label_at, label_rates
from fixtures.history.study_rates import Share, YearlyRate
from fixtures.timing.medians import Noise, StageNoise
from tests.samples import PLACE

QUIET = NormalNoise(name="next to none", spread=1e-6)


def noise(*medians_s: float, disturbed: bool = False, stage: str = "decode[64]", commit: str = "0" * 40) -> Noise:
    timed = StageNoise(
        measurement_version="0" * 8,
        executed_flops=1,
        operator_calls=1,
        peak_bytes=1,
        first_s=(1.0,) * len(medians_s),
        medians_s=medians_s,
    )
    return Noise(
        created="2026-11-26T10:00:00+00:00",
        commit=commit,
        dirty=False,
        fingerprint=PLACE,
        stages={stage: timed},
        disturbed={stage: ("the machine was busy",)} if disturbed else {},
    )


def history(times: Sequence[float], *, at: int | None = None, disturbed: Sequence[int] = ()) -> SimulatedHistory:
    """One run a night."""
    return SimulatedHistory(
        noise=QUIET,
        nights=tuple((time,) for time in times),
        judged=tuple(night not in disturbed for night in range(len(times))),
        change="none" if at is None else "efficiency",
        at=at,
    )


def test_comparable_documents_are_nights_of_one_source_and_disturbed_stages_are_left_out() -> None:
    first, second = noise(math.exp(1.0), math.exp(1.2)), noise(math.exp(1.4), math.exp(1.6))
    (source,) = sources_of([first, second, noise(9.0, 9.0, disturbed=True)])
    # the nights' means are 1.1 and 1.5, and 1.3 that of both
    assert [list(map(pytest.approx, night)) for night in ([-0.3, -0.1], [0.1, 0.3])] == [list(one) for one in source.nights]
    assert source.between_nights == pytest.approx(math.sqrt(2) * 0.2)  # of two values 0.2 to either side
    assert len(sources_of([first, noise(1.0, 2.0, commit="1" * 40)])) == 2
    assert sources_of([noise(1.0, 2.0, disturbed=True)]) == ()


def test_the_runs_of_a_night_are_drawn_from_one_recorded_night() -> None:
    source = NoiseSource(name="two nights far apart", nights=((-0.101, -0.1, -0.099), (0.099, 0.1, 0.101)))
    drawn = simulated(source, "none", random.Random(1), runs=4)
    signs = {tuple(time > 1 for time in night) for night, judged in zip(drawn.nights, drawn.judged, strict=True) if judged}
    assert signs == {(True,) * 4, (False,) * 4}


def test_a_simulated_change_is_one_step_from_its_night_on() -> None:
    chance = random.Random(3)
    for _ in range(20):
        drawn = simulated(QUIET, "work", chance, runs=1)
        assert drawn.at is not None
        for night, ((time_s,), judged) in enumerate(zip(drawn.nights, drawn.judged, strict=True)):
            if judged:
                assert time_s == pytest.approx(1 + STEP if night >= drawn.at else 1.0, rel=1e-4)
            else:
                assert time_s > 1.02
    assert simulated(QUIET, "none", chance, runs=1).at is None


def test_the_same_seed_draws_the_same_histories_and_every_kind_of_change_as_often() -> None:
    numbers = {"changed": 6, "quiet": 2, "runs": 1}
    drawn = histories_of([QUIET], **numbers)
    assert drawn == histories_of([QUIET], **numbers)
    assert [one.change for one in drawn] == 2 * ["work", "efficiency", "environment"] + 2 * ["none"]


def test_the_common_gates_compare_with_the_nights_before() -> None:
    times = [1.0] * 8 + [1.06] * 5
    last, week = partial(against_the_last, threshold=0.05), partial(against_a_week, threshold=0.05)
    assert [report.on for report in last(history(times))] == [8]
    assert [report.on for report in week(history(times))] == [8, 9, 10, 11]  # then four of the seven are 1.06
    # night 8 is disturbed: nobody judges it, and nobody compares with it
    assert [report.on for report in last(history(times, disturbed=[8]))] == [9]
    assert week(history([1.0] * 6 + [2.0])) == []  # six nights are no week


def test_the_detector_sees_the_nights_up_to_today_and_nothing_else() -> None:
    drawn = simulated(NormalNoise(name="1%", spread=0.01), "efficiency", random.Random(5), runs=2)
    assert drawn.at is not None
    short = replace(drawn, nights=drawn.nights[: drawn.at + 6], judged=drawn.judged[: drawn.at + 6])
    reports = by_history(drawn)
    assert by_history(short) == [report for report in reports if report.on < drawn.at + 6]
    assert any(report.at == drawn.at for report in reports)  # in nights, although there are two runs a night


def test_a_report_near_the_change_finds_it_and_every_other_is_false() -> None:
    changed = history([1.0] * 60, at=30, disturbed=[30, 32])
    found = [Report(on=34, at=31, slower=True), Report(on=35, at=31, slower=True)]
    result = result_of(changed, found)
    # night 30 is disturbed, so that the first night after the change is 31; 31, 33 and 34 are judged
    assert (result.first, result.after, result.off, result.false) == (34, 3, 0, 0)
    assert result.in_time
    early, far, faster = (
        Report(on=29, at=28, slower=True),
        Report(on=50, at=45, slower=True),
        Report(on=40, at=30, slower=False),
    )
    assert result_of(changed, [early]).first is None
    assert result_of(changed, [*found, early, far]).false == 2
    assert result_of(changed, [faster]).first is None
    # the same false step on several nights, placed a little differently, is one
    again = [Report(on=50 + number, at=45 + number % 3, slower=True) for number in range(9)]
    assert result_of(history([1.0] * 60), again).false == 1
    assert result_of(history([1.0] * 60), [*again, Report(on=59, at=47 + NEAR + 1, slower=True)]).false == 2


def test_shares_and_rates_have_exact_intervals() -> None:
    # nothing in ten: 1 - 0.025^(1/10); nothing in a year: -log(0.025)
    assert Share.out_of(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert (Share.out_of(10, 10).low, Share.out_of(10, 10).high) == (pytest.approx(0.025**0.1), 1)
    none = YearlyRate.over(0, 365)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(-math.log(0.025)))
    assert YearlyRate.over(6, 3 * 365).value == 2
    for wrong in (Share.out_of, YearlyRate.over):
        with pytest.raises(ValueError, match="got 0, accepted: at least 1"):
            wrong(0, 0)
    with pytest.raises(ValueError, match="share: got 3 out of 2, accepted: at most 2"):
        Share(number=3, of=2, low=0, high=1)


@pytest.mark.parametrize("change", ["work", "efficiency", "environment"])
def test_what_a_change_shows_in_the_records_is_labelled_by_the_functions_of_a_history(change: str) -> None:
    for number in range(6):
        chance, calm = random.Random(number), NormalNoise(name="0.5%", spread=0.005)
        times = [math.exp(calm.draw(chance)[0]) * (1.05 if night >= 40 else 1) for night in range(60)]
        drawn = replace(history(times, at=40), change=change, noise=calm)  # type: ignore[arg-type]
        records = records_of(drawn, number=number, chance=chance)
        assert [record.times[0].time_s for record in records] == times
        assert label_at(records, 40, near=NEAR) == change
        assert label_at(records[:40], 40, near=NEAR) == "none"


def test_a_missed_step_has_no_label() -> None:
    drawn = simulated(QUIET, "work", random.Random(1), runs=1)
    found = result_of(drawn, by_history(drawn))
    (rate,) = label_rates([drawn, drawn], [found, replace(found, first=None, after=None, off=None)])
    assert (rate.change, rate.right.number, rate.right.of) == ("work", 1, 1)


def options(tmp_path: Path, **changes: int) -> HistoryStudyOptions:
    chance = random.Random(1)
    nights = [noise(*(math.exp(chance.gauss(0, 0.004)) for _ in range(8))) for _ in range(3)]
    given = HistoryStudyOptions(
        noises=tuple(nights), changed=3, quiet=1, runs=1, output_dir=tmp_path, arguments=("--changed", "3")
    )
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[HistoryStudyOptions, HistoryStudy]:
    given = options(tmp_path_factory.mktemp("study"))
    return given, study(given)


def test_a_small_study_is_printed_kept_and_read_back(
    small: tuple[HistoryStudyOptions, HistoryStudy], tmp_path: Path
) -> None:
    given, found = small
    ours = found.recorded[0]
    assert (ours.found.number, ours.found.of, ours.false.number) == (3, 3, 0)
    assert [rate.gate for rate in found.recorded] == list(history_study.GATES)
    assert [rate.spread for rate in found.by_spread] == list(history_study.SPREADS)
    printed = "\n".join(lines(found, given))
    assert "3 histories of 120 nights with a step of 5%, 1 without, drawn from 24 recorded times of 1 benchmarks" in printed
    document = as_json(found, given)
    kept = keep(STUDY, document, subject_of(document), output_dir=tmp_path, arguments=given.arguments)
    page = page_of(HISTORY_STUDY.read(kept.document))
    assert page.standing is Standing.PASSED
    assert page.verdict[0].startswith("100.0% of steps of 5% are found within 5 nights, 0.00% false steps a year, ")


def test_a_study_that_misses_a_goal_fails_and_names_it(small: tuple[HistoryStudyOptions, HistoryStudy]) -> None:
    given, found = small
    document = json.loads(json.dumps(as_json(found, given)))
    document["recorded"][0]["found"] |= {"number": 2}  # of 3
    document["recorded"][0]["false"] |= {"number": 1}  # in 4 x 120 nights, 1.3 years
    page = page_of(HISTORY_STUDY.parse(json.dumps(document), where="history_study.json"))
    assert page.standing is Standing.FAILED
    assert page.verdict[1] == "Missed: steps found, at least 95%; false steps a year, at most 1%."


def test_a_study_without_a_usable_document_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="NOISE: got no stage of two undisturbed processes"):
        study(replace(options(tmp_path), noises=(noise(1.0, 1.1, disturbed=True),)))
    assert history_study.main([str(tmp_path / "nothing.json"), "--output-dir", str(tmp_path)]) == 2
    assert "history_study: " in capsys.readouterr().err
    for wrong in (["--runs", "0"], ["--changed", "2"], ["--quiet", "-1"]):
        with pytest.raises(ValueError, match=f"{wrong[0]}: got {wrong[1]}"):
            parsed(wrong)


def test_the_project_keeps_recorded_noise_that_the_study_draws_from() -> None:
    assert history_study.RECORDED
    sources = sources_of([Noise.read(path) for path in history_study.RECORDED])
    assert any(source.between_nights is not None for source in sources)
