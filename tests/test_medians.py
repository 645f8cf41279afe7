"""The times of one build over processes: medians and spreads by hand, and the file that holds them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.io.ending import Incomplete
from fixtures.timing.medians import FEWEST_PROCESSES, Noise, log_spread, spread_words
from tests.test_baseline import TIMES

ONE = TIMES.stages["decode[64]"]


def with_processes(*numbers: int, incomplete: Incomplete | None = None) -> Noise:
    """A study whose stages have so many processes each."""
    stages = {
        f"decode[{64 + place}]": replace(ONE, first_s=(2.0,) * number, medians_s=(1.0,) * number)
        for place, number in enumerate(numbers)
    }
    return replace(TIMES, stages=stages, incomplete=incomplete)


def test_the_median_of_processes_is_that_of_their_medians() -> None:
    assert replace(ONE, medians_s=(1.0, 9.0, 2.0)).median_s == 2.0
    assert replace(ONE, medians_s=(1.0, 9.0, 2.0, 4.0)).median_s == 3.0


def test_a_study_has_as_many_processes_as_the_stage_with_the_fewest() -> None:
    assert with_processes(9, 8, 10).processes == 8


def test_the_spread_of_logarithms_by_hand() -> None:
    # logarithms -0.02, 0, 0.02: a deviation of sqrt(2 x 0.02^2 / 2)
    assert log_spread((math.exp(-0.02), 1.0, math.exp(0.02))) == pytest.approx(0.02)
    assert log_spread((7.0, 7.0)) == 0.0
    assert [spread_words(times_s) for times_s in ((math.exp(-0.02), 1.0, math.exp(0.02)), (7.0,))] == ["2.00%", "-"]


@pytest.mark.parametrize("incomplete", [None, Incomplete(reason="interrupted", missing=("process 9",))])
def test_a_study_survives_the_way_through_its_file(incomplete: Incomplete | None, tmp_path: Path) -> None:
    made = replace(with_processes(8, 8, incomplete=incomplete), disturbed={"decode[64]": ("steal", "swap")})
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(made.as_json()), encoding="utf-8")
    assert Noise.read(path) == made
    assert ("incomplete" in made.as_json()) is (incomplete is not None)


@pytest.mark.parametrize(("processes", "refused"), [(1, True), (2, False), (FEWEST_PROCESSES, False)])
def test_a_complete_study_has_two_processes_at_least(processes: int, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(with_processes(processes).as_json()), encoding="utf-8")
    if refused:
        with pytest.raises(ValueError, match=r"noise\.json: processes: got 1, accepted: at least 2 in a complete study"):
            Noise.read(path)
    else:
        assert Noise.read(path).processes == processes


def test_a_study_that_was_interrupted_may_have_one_process(tmp_path: Path) -> None:
    ended = with_processes(1, incomplete=Incomplete(reason="interrupted", missing=("process 2",)))
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(ended.as_json()), encoding="utf-8")
    assert Noise.read(path) == ended


def test_eight_processes_are_enough_to_judge_by() -> None:
    assert FEWEST_PROCESSES == 8
