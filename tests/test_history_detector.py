"""Steps of a series: E-divisive is that of apache-otava, steps are found within nights, and noise is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.history.detector import FEWEST, Levels, steps
from fixtures.history.divisive import candidate

OTAVA = json.loads((Path(__file__).resolve().parent / "data" / "divisive.json").read_text())["candidates"]


def nights(count: int, *, spread: float = 0.01, seed: int = 1) -> Any:
    return 10 * np.exp(spread * np.random.default_rng(seed).standard_normal(count))


def places(times: Any, judged: Any = None) -> list[int]:
    return [step.at for step in steps(list(times), [True] * len(times) if judged is None else judged)]


@pytest.mark.parametrize("case", OTAVA, ids=lambda case: case["what"].replace(" ", "-"))
def test_a_candidate_is_that_of_apache_otava(case: dict[str, Any]) -> None:
    found = candidate(np.array(case["values"]))
    assert found is not None
    assert (found.at, found.q) == (case["at"], pytest.approx(case["q"], rel=1e-9))


def test_one_value_has_no_candidate() -> None:
    assert candidate(np.array([1.0])) is None


def test_a_step_is_found_within_five_nights_and_stays_where_it_is() -> None:
    times = nights(100)
    times[60:] *= 1.05
    found = {end: places(times[:end]) for end in range(61, 101)}
    assert found[62] == []  # two times do not make a step
    assert all(found[end] == [60] for end in range(65, 101))
    (step,) = steps(list(times), [True] * 100)
    assert step.ratio == pytest.approx(1.05, abs=0.01)
    assert step.low < 1.05 < step.high
    assert step.confidence > 0.9999


def test_steps_up_and_down_and_an_excursion_are_all_found() -> None:
    times = nights(200)
    times[50:] *= 1.10
    times[100:] *= 0.95
    times[150:158] *= 1.2
    assert places(times) == [50, 100, 150, 158]


def test_noise_is_no_step_and_neither_are_single_outliers() -> None:
    for seed in range(20):
        times = nights(60, seed=seed)
        times[[10, 30, 58, 59]] *= 1.5
        assert places(times) == []


def test_times_that_are_not_judged_make_no_step_and_hide_none() -> None:
    times = nights(80)
    judged = [place % 4 != 0 for place in range(80)]
    times[::4] *= 1.3
    assert places(times, judged) == []
    times[41:] *= 1.06
    assert places(times, judged) == [41]


def test_a_long_series_is_looked_at_in_windows() -> None:
    times = nights(1500)
    times[700:] *= 1.04
    times[1300:] *= 1.03
    assert places(times) == [700, 1300]


def test_a_change_below_what_matters_is_none() -> None:
    times = nights(80, spread=0.0001)
    times[40:] *= 1.003
    assert places(times) == []


def test_a_few_nights_are_not_judged() -> None:
    times = [10.0] * (FEWEST - 4) + [20.0] * 3
    assert places(times) == []
    assert Levels(times, [True] * len(times)).smallest_step() is None


def test_the_smallest_step_is_one_that_is_found() -> None:
    found = 0
    for seed in range(40):
        times = nights(65, spread=0.02, seed=seed)
        smallest = Levels(list(times[:60]), [True] * 60).smallest_step()
        assert smallest is not None
        times[60:] *= 1 + smallest
        found += any(abs(at - 60) <= 2 for at in places(times))
    assert found >= 34  # 95% of them on average
