"""The runs of one commit in one night are one sample of a history: what the night was like is common to them all."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from fixtures.history.found_steps import FoundBy, found_steps
from fixtures.history.grouped import Grouped, grouped
from fixtures.history.samples import samples_of
from fixtures.history.simulated import NormalNoise, SimulatedHistory
from fixtures.history.simulated_records import records_of


def series(nights: Sequence[Sequence[float]], *, disturbed: Sequence[int] = ()) -> Grouped:
    """Some runs every night, each night of a commit of its own."""
    history = SimulatedHistory(
        noise=NormalNoise(name="none", spread=1e-9),
        nights=tuple(map(tuple, nights)),
        judged=tuple(night not in disturbed for night in range(len(nights))),
        change="none",
        at=None,
    )
    (found,) = grouped(records_of(history, number=0, chance=random.Random(1)))
    return found


def noisy(number: int, *, runs: int, level: float = 1.0, spread: float = 0.005) -> list[list[float]]:
    chance = random.Random(number)
    return [[level * math.exp(chance.gauss(0, spread)) for _ in range(runs)] for _ in range(number)]


def test_the_runs_of_a_night_and_commit_are_one_sample_at_the_first_that_counts() -> None:
    found = series([[1.0, 3.0, 2.0], [5.0], [4.0, 6.0]], disturbed=[1])  # three nights
    samples = samples_of(found.observations)
    assert samples.times_s == (2.0, 5.0, 5.0)
    assert samples.judged == (True, False, True)
    assert samples.places == (0, 3, 4)
    assert samples.of == (0, 0, 0, 1, 2, 2)


def test_a_disturbed_run_beside_others_of_its_night_does_not_count() -> None:
    observations = list(series([[9.0, 1.0, 2.0], [1.0], [1.0]]).observations)
    observations[0] = replace(observations[0], time=replace(observations[0].time, reasons=("busy",)))
    samples = samples_of(observations)
    assert (samples.times_s, samples.places) == ((1.5, 1.0, 1.0), (1, 3, 4))


def test_another_commit_in_the_same_night_is_another_sample() -> None:
    observations = list(series([[1.0, 1.0, 2.0, 2.0], [3.0], [3.0]]).observations)
    for place in (2, 3):
        record = observations[place].record
        other = replace(record, record=replace(record.record, commit="f" * 40))
        observations[place] = replace(observations[place], record=other)
    assert samples_of(observations).times_s == (1.0, 2.0, 3.0, 3.0)


def test_in_one_sitting_every_run_is_a_sample() -> None:
    assert samples_of(series([[1.0, 2.0], [3.0, 4.0]]).observations).times_s == (1.0, 2.0, 3.0, 4.0)
    (step,) = found_steps(series(noisy(1, runs=20) + noisy(1, runs=10, level=1.05)))
    assert step.at == 20


def test_ten_runs_of_one_slow_night_are_no_step() -> None:
    calm = noisy(20, runs=10)
    assert found_steps(series([*calm, *noisy(1, runs=10, level=1.05)])) == ()
    (step,) = found_steps(series([*calm, *noisy(5, runs=10, level=1.05)]))
    assert (step.at, step.by) == (200, FoundBy.TIMES)  # the first run of night 20, of ten runs a night


def test_more_runs_a_night_find_a_smaller_step() -> None:
    # a spread of 3% finds no step of 5% in five nights; the median of 16 spreads by 3% x 1.25 / 4 = 0.9%
    few = [*noisy(40, runs=1, spread=0.03), *noisy(5, runs=1, level=1.05, spread=0.03)]
    many = [*noisy(40, runs=16, spread=0.03), *noisy(5, runs=16, level=1.05, spread=0.03)]
    assert found_steps(series(few)) == ()
    (step,) = found_steps(series(many))
    assert step.at == 40 * 16
