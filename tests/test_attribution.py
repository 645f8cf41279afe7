"""The change of a time, split into causes: the parts add up to the change, and each is what it is called."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.explain.attribution import PARTS, Amounts, Split, UnitCosts, log_mean, split
from fixtures.report.reported import ReportedCeilings

seconds = st.floats(1e-9, 1e3)
amount = st.none() | st.just(0.0) | st.floats(1, 1e15)
amounts = st.builds(Amounts, flops=amount, bytes=amount, launches=amount)
cost = st.floats(1e-15, 1e-3)
costs = st.builds(UnitCosts, flops=cost, bytes=cost, launches=cost)
unhurried = settings(max_examples=100)
"""On a busy machine too."""
ONE = UnitCosts(flops=1.0, bytes=1.0, launches=1.0)
"""A second for each unit of work."""


def work(flops: float, moved: float, launches: float | None = 0.0) -> Amounts:
    return Amounts(flops=flops, bytes=moved, launches=launches)


def parts(found: Split) -> dict[str, float]:
    return {name: getattr(found, name) for name in PARTS if abs(getattr(found, name)) > 1e-12}


@unhurried
@given(st.tuples(seconds, seconds), st.tuples(amounts, amounts), st.tuples(costs, costs))
def test_the_parts_add_up_to_the_change(
    times_s: tuple[float, float], done: tuple[Amounts, Amounts], unit: tuple[UnitCosts, UnitCosts]
) -> None:
    first_s, second_s = times_s
    found = split(times_s, done, unit)
    assert all(math.isfinite(getattr(found, name)) for name in PARTS)
    largest = max(1.0, *(abs(getattr(found, name)) for name in PARTS))
    assert found.total == pytest.approx(math.log(second_s / first_s), abs=1e-12 * largest)
    in_seconds = math.fsum(found.seconds(getattr(found, name)) for name in PARTS)
    assert in_seconds == pytest.approx(second_s - first_s, rel=1e-9, abs=1e-11 * largest * max(times_s))


@unhurried
@given(st.tuples(seconds, seconds), st.tuples(amounts, amounts), st.tuples(costs, costs))
def test_exchanging_the_runs_changes_the_signs_alone(
    times_s: tuple[float, float], done: tuple[Amounts, Amounts], unit: tuple[UnitCosts, UnitCosts]
) -> None:
    there, back = split(times_s, done, unit), split(times_s[::-1], done[::-1], unit[::-1])
    for name in PARTS:
        largest = max(1.0, *(abs(getattr(there, one)) for one in PARTS))
        assert getattr(there, name) == pytest.approx(-getattr(back, name), rel=1e-6, abs=1e-9 * largest)


@unhurried
@given(st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_the_logarithmic_mean_lies_between_the_two(one: float, other: float) -> None:
    assert min(one, other) * (1 - 1e-9) <= log_mean(one, other) <= max(one, other) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("second_s", "done", "unit", "expected"),
    [
        # the same work takes twice as long
        (2.0, work(1, 1), ONE, {"efficiency": math.log(2)}),
        # M from 1 + 1 to 2 + 1 s, T with it: all of it is FLOPs
        (1.5, work(2, 1), ONE, {"flops": math.log(1.5)}),
        (1.5, work(1, 2), ONE, {"bytes": math.log(1.5)}),
        # as much more work, and the time stays: better efficiency makes up for it
        (1.0, work(2, 1), ONE, {"flops": math.log(1.5), "efficiency": -math.log(1.5)}),
        # launches from none to 1 s of them
        (1.5, work(1, 1, 1), ONE, {"launches": math.log(1.5)}),
        # every unit of work takes twice as long by calibration
        (2.0, work(1, 1), UnitCosts(flops=2.0, bytes=2.0, launches=2.0), {"ceiling": math.log(2)}),
    ],
)
def test_each_part_is_what_it_is_called(
    second_s: float, done: Amounts, unit: UnitCosts, expected: dict[str, float]
) -> None:
    found = split((1.0, second_s), (work(1, 1), done), (ONE, unit))
    assert parts(found) == pytest.approx(expected)


def test_twice_the_work_in_twice_the_time_is_all_work() -> None:
    # weights of the components by hand: flops 1 of 4 s, bytes 2 of 4, launches 1 of 4; each doubles
    found = split((3.0, 6.0), (work(1, 2, 1), work(2, 4, 2)), (ONE, ONE))
    assert parts(found) == pytest.approx({"flops": math.log(2) / 4, "bytes": math.log(2) / 2, "launches": math.log(2) / 4})
    assert found.work == pytest.approx(0.75 * math.log(2))


def ceilings(rate: float, spread: float) -> ReportedCeilings:
    return ReportedCeilings(
        device_name="a CPU",
        flops_per_s=rate,
        bytes_per_s=rate,
        launch_s=1 / rate,
        datasheet=None,
        datasheet_flops_per_s=None,
        datasheet_bytes_per_s=None,
        flops_spread=spread,
        bytes_spread=spread,
    )


def test_calibrations_within_their_spread_are_one_ceiling() -> None:
    # a spread of 10% reaches 5% to either side: rates of 100 and 109 overlap, those of 100 and 112 do not
    before, after = UnitCosts.of_both(ceilings(100, 0.1), ceilings(109, 0.1))
    assert before == after
    assert before.flops == pytest.approx(1 / math.sqrt(100 * 109))
    assert UnitCosts.of_both(ceilings(100, 0.1), ceilings(112, 0.1)) == (
        UnitCosts.of(ceilings(100, 0.1)),
        UnitCosts.of(ceilings(112, 0.1)),
    )


def test_a_calibration_that_spreads_widely_tells_no_change_of_the_device() -> None:
    before, after = UnitCosts.of_both(ceilings(100, 0.1), ceilings(300, 0.3))
    assert before == after


def test_an_amount_that_one_run_does_not_hold_is_left_out_of_both() -> None:
    known = split((1.0, 2.0), (work(1, 1), work(2, 2)), (ONE, ONE))
    unknown = split((1.0, 2.0), (work(1, 1, None), work(2, 2, 500)), (ONE, ONE))
    assert parts(unknown) == pytest.approx(parts(known))


def test_without_any_work_the_change_is_efficiency() -> None:
    assert parts(split((1.0, 2.0), (work(0, 0), work(0, 0)), (ONE, ONE))) == pytest.approx({"efficiency": math.log(2)})
