"""Intervals of medians and quantiles, by hand from binomial coefficients and from tables of Student's t."""

import math

import pytest

from fixtures.timing.intervals import Interval, median_error, median_interval, quantile_interval, ratio_reach


def ranks(number: int) -> tuple[float, ...]:
    """1 to `number`, so that an end of an interval says which of the samples it is; the largest first."""
    return tuple(float(rank) for rank in range(number, 0, -1))


# --- medians


@pytest.mark.parametrize(
    ("number", "confidence", "low", "high", "held"),
    [
        (1, 0.95, 1, 1, 0.0),  # 1 - 2 / 2: one sample holds the median with no confidence
        (2, 0.95, 1, 2, 0.5),  # 1 - 2 / 4
        (3, 0.95, 1, 3, 0.75),  # 1 - 2 / 8
        (5, 0.95, 1, 5, 0.9375),  # 1 - 2 / 32, less than asked for, and all there is
        (6, 0.95, 1, 6, 0.96875),  # 1 - 2 / 64; the next pair misses 14 of 64
        (10, 0.95, 2, 9, 1 - 22 / 1_024),  # 2 (1 + 10) of 1,024; the next pair misses 112
        (20, 0.95, 6, 15, 1 - 43_400 / 1_048_576),  # 2 (1 + 20 + 190 + 1,140 + 4,845 + 15,504)
        (6, 50 / 64, 2, 5, 50 / 64),  # exactly what is asked for: 2 (1 + 6) of 64 are missed
        (6, 51 / 64, 1, 6, 62 / 64),
        (6, 0.0, 3, 4, 20 / 64),  # the innermost pair, which misses 2 (1 + 6 + 15)
        (5, 0.0, 2, 4, 20 / 32),  # a pair never meets in the middle: 2 (1 + 5) are missed
    ],
)
def test_the_interval_of_a_median_is_a_pair_of_samples(
    number: int, confidence: float, low: int, high: int, held: float
) -> None:
    found = median_interval(ranks(number), confidence)
    assert found == Interval(low_s=low, high_s=high, confidence=pytest.approx(held, abs=1e-12))


def test_medians_and_quantiles_are_held_at_95_percent_unless_asked_otherwise() -> None:
    assert median_interval(ranks(10)) == median_interval(ranks(10), 0.95)
    assert median_interval(ranks(6)) != median_interval(ranks(6), 0.75)
    assert quantile_interval(ranks(10), 0.5) == quantile_interval(ranks(10), 0.5, 0.95)


# --- quantiles


@pytest.mark.parametrize(
    ("number", "quantile", "confidence", "low", "high", "held"),
    [
        # of 1,024: 1 + 10 = 11 with at most one sample below the median, 56 with two; 968 with seven, 1,013 with eight.
        # The first that reach 25.6 and 998.4 are 2 and 8, and 1,013 - 11 of 1,024 lie between
        (10, 0.5, 0.95, 2, 9, 1_002 / 1_024),
        (6, 0.5, 0.95, 1, 6, 62 / 64),  # of 64: 1, 7, ... 57, 63; the first that reach 1.6 and 62.4 are 1 and 5
        (4, 0.5, 0.5, 1, 4, 14 / 16),  # of 16: 1, 5, 11, 15; the first that reach 4 and 12 are 1 and 3
        # (3/4)^8 = 0.1001, then 0.3671, 0.6785, 0.8862; the first that reach 0.25 and 0.75 are 1 and 3
        (8, 0.25, 0.5, 1, 4, 0.8862 - 0.1001),
        (8, 0.75, 0.5, 5, 8, 0.8862 - 0.1001),  # the same from the other end
    ],
)
def test_the_interval_of_a_quantile_is_a_pair_of_samples(
    number: int, quantile: float, confidence: float, low: int, high: int, held: float
) -> None:
    found = quantile_interval(ranks(number), quantile, confidence)
    assert found == Interval(low_s=low, high_s=high, confidence=pytest.approx(held, abs=1e-4))


@pytest.mark.parametrize(
    ("number", "quantile"),
    [
        (0, 0.5),
        (1, 0.5),
        (5, 0.5),  # 1 of 32 has no sample below the median, more than the 2.5% that a side may miss
        (100, 0.99),
        (367, 0.99),  # 0.99^367 = 2.501% of such sets have no sample above
        (367, 0.01),
    ],
)
def test_too_few_samples_have_no_interval_of_a_quantile(number: int, quantile: float) -> None:
    assert quantile_interval(ranks(number), quantile) is None


@pytest.mark.parametrize(("quantile", "end"), [(0.99, "high_s"), (0.01, "low_s")])
def test_just_enough_samples_have_one_that_ends_at_the_outermost(quantile: float, end: str) -> None:
    found = quantile_interval(ranks(368), quantile)  # 0.99^368 = 2.476%
    assert found is not None
    assert getattr(found, end) == (368.0 if end == "high_s" else 1.0)
    assert found.confidence >= 0.95


# --- errors of medians


def test_the_error_of_a_median_by_hand() -> None:
    # the quartiles of three are the outer two: (4 - 1) / 1.349 = 2.2239, times 1.2533 / sqrt(3) = 1.6092, times Student's
    # t of 9.9248 at 99% on both sides and two degrees of freedom
    assert median_error((1.0, 2.0, 4.0)) == pytest.approx(15.971, abs=1e-3)
    assert median_error((1.0, 1.0, 1.0)) == 0.0
    assert [median_error(ranks(number)) for number in (0, 1, 2)] == [None] * 3


def test_the_reach_of_a_ratio_by_hand() -> None:
    five, three = (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 4.0)
    # of five: 1.2465 / 3 = 0.41549, squared 0.17263. Twice: degrees of freedom (2 s)^2 / (2 s^2 / 4) = 8, Student's t at
    # 99% on one side 2.8965, times sqrt(0.34527) = 0.58759
    assert ratio_reach(five, five) == pytest.approx(1.7020, abs=1e-4)
    # of three: 1.6092 / 2 = 0.80461, squared 0.64739. Together 0.82002: 0.67244 / (0.17263^2 / 4 + 0.64739^2 / 2) = 3.1
    # degrees of freedom, rounded down; t = 4.5407, times sqrt(0.82002) = 0.90555
    assert ratio_reach(five, three) == pytest.approx(4.1119, abs=1e-3)
    assert ratio_reach(three, five) == ratio_reach(five, three)
    assert ratio_reach([7 * sample for sample in five], three) == pytest.approx(ratio_reach(five, three))


def test_rounds_that_do_not_spread_add_nothing_to_the_reach() -> None:
    five, steady = (1.0, 2.0, 3.0, 4.0, 5.0), (2.0,) * 9
    # the degrees of freedom are those of the other: t = 3.7469 at four, times 0.41549
    assert ratio_reach(five, steady) == ratio_reach(steady, five) == pytest.approx(1.5568, abs=1e-4)
    assert ratio_reach(steady, steady) == 0.0


@pytest.mark.parametrize(("first", "second"), [(2, 9), (9, 2), (0, 0)])
def test_too_few_rounds_may_be_anything(first: int, second: int) -> None:
    assert ratio_reach(ranks(first), ranks(second)) == math.inf
    assert ratio_reach(ranks(3), ranks(3)) < math.inf
