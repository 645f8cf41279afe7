"""What physics forbids of a timing, exactly at each bound and just beyond it, and what the sentences say."""

from dataclasses import replace

import pytest

from analytic.prediction.roofline import Ceilings
from fixtures.timing.physics import falling_decode, falling_decodes, impossibilities, wrong_peaks
from fixtures.timing.samples import Samples, TimedStage
from tests.samples import COST

UNKNOWN = Ceilings(flops_per_s=None, bytes_per_s=None)
SKIPPED = "work was skipped, or the clock stopped before the device did"


def timed(
    *samples_s: float,
    stage: str = "prefill",
    point: str = "8",
    kv_bytes: int = 30,
    datasheet: Ceilings = UNKNOWN,
    measured: Ceilings = UNKNOWN,
) -> TimedStage:
    """8,000 FLOPs and 600 bytes, 400 of them weights, in the median of `samples_s`."""
    return TimedStage(
        stage=stage,
        point=point,
        units=1,
        cost=replace(COST, kv_bytes=kv_bytes),
        mfu_cost=COST,
        samples=Samples(samples_s=samples_s, wall_samples_s=None, first_s=3.0, calls_per_round=1, energy_j=None),
        counted=None,
        datasheet=datasheet,
        measured=measured,
    )


def ceilings(flops_per_s: float | None, bytes_per_s: float | None) -> Ceilings:
    return Ceilings(flops_per_s=flops_per_s, bytes_per_s=bytes_per_s)


# --- one timing


@pytest.mark.parametrize(
    "bound",
    [
        ceilings(4_000, None),  # 8,000 FLOPs in 2 s: MFU of exactly 1, and a floor of exactly 2 s
        ceilings(None, 300),  # 600 bytes in 2 s
        ceilings(4_000, 300),
        UNKNOWN,
    ],
)
def test_a_timing_at_its_bounds_is_possible(bound: Ceilings) -> None:
    assert impossibilities(timed(2.0, 2.0, measured=bound)) == []
    assert impossibilities(timed(2.0, 2.0, datasheet=bound)) == []


def test_products_faster_than_the_peak_are_impossible() -> None:
    # 8,000 / (2 x 3,200) = 1.25; 8,000 / 3,200 = 2.5 s
    assert impossibilities(timed(2.0, 2.0, measured=ceilings(3_200, None))) == [
        f"prefill[8]: MFU of 1.25 against the measured ceiling: the peak is not this device's, {SKIPPED}",
        f"prefill[8]: 2000.000 ms, below the floor of 2500.000 ms by the measured ceiling: {SKIPPED}",
    ]


def test_traffic_faster_than_the_memory_is_impossible() -> None:
    # 600 / (0.002 x 240,000) = 1.25; 600 / 240,000 = 2.5 ms
    assert impossibilities(timed(0.002, 0.002, datasheet=ceilings(None, 240_000))) == [
        f"prefill[8]: MBU of 1.25 against the datasheet: the peak is not this device's, {SKIPPED}",
        f"prefill[8]: 2.000 ms, below the floor of 2.500 ms by the datasheet: {SKIPPED}",
    ]


def test_each_bound_that_a_timing_breaks_is_named() -> None:
    both = ceilings(3_200, 150)  # MFU 1.25, MBU 600 / (2 x 150) = 2, floor 600 / 150 = 4 s
    found = impossibilities(timed(2.0, 2.0, datasheet=both, measured=both))
    assert [sentence.partition(": ")[2].partition(" against")[0].partition(",")[0] for sentence in found] == [
        *("MFU of 1.25", "MBU of 2.00", "2000.000 ms"),
        *("MFU of 1.25", "MBU of 2.00", "2000.000 ms"),
    ]
    assert ["datasheet" in sentence for sentence in found] == [True] * 3 + [False] * 3


def test_as_many_bytes_as_weights_are_possible_and_one_fewer_is_not() -> None:
    at = timed(2.0, 2.0)
    assert impossibilities(replace(at, cost=replace(COST, touched_weight_bytes=600))) == []
    assert impossibilities(replace(at, cost=replace(COST, touched_weight_bytes=601))) == [
        "prefill[8]: fewer bytes moved than weights touched: the cost does not describe what ran"
    ]


def test_a_wrong_peak_is_named_with_the_timing() -> None:
    found = impossibilities(timed(2.0, 2.0, datasheet=ceilings(10_000, None), measured=ceilings(20_000, None)))
    assert found == [
        "prefill[8]: calibration reached 2e+04 FLOP/s, the datasheet says 1e+04: the peak is not this device's"
    ]


# --- peaks


@pytest.mark.parametrize("reached", [4_500.0, 7_000.0, 10_000.0])  # 45% to 100% of 10,000
def test_calibration_between_its_bounds_is_possible(reached: float) -> None:
    assert wrong_peaks(ceilings(10_000.0, 10_000.0), ceilings(reached, reached)) == []


@pytest.mark.parametrize(
    ("reached", "sentence"),
    [
        (
            4_400.0,
            "calibration reached 4.4e+03 {}, 44% of the datasheet's 1e+04: the peak is a sparse or another device's, "
            "or the device was slowed down while it was calibrated",
        ),
        (10_100.0, "calibration reached 1.01e+04 {}, the datasheet says 1e+04: the peak is not this device's"),
    ],
)
def test_calibration_beyond_its_bounds_names_the_figure(reached: float, sentence: str) -> None:
    fine = 8_000.0
    assert wrong_peaks(ceilings(10_000.0, 10_000.0), ceilings(reached, fine)) == [sentence.format("FLOP/s")]
    assert wrong_peaks(ceilings(10_000.0, 10_000.0), ceilings(fine, reached)) == [sentence.format("bytes/s")]
    assert len(wrong_peaks(ceilings(10_000.0, 10_000.0), ceilings(reached, reached))) == 2


@pytest.mark.parametrize("unknown", [None, 8_000.0])
def test_a_peak_that_one_side_does_not_know_is_not_judged(unknown: float | None) -> None:
    known = None if unknown is not None else 1.0
    assert wrong_peaks(ceilings(unknown, 10_000.0), ceilings(known, 10_000.0)) == []
    # and the other figure is judged all the same
    assert len(wrong_peaks(ceilings(unknown, 10_000.0), ceilings(known, 20_000.0))) == 1


# --- decodes on a longer context


def decoding(context: int, *samples_s: float) -> TimedStage:
    """A decode whose cache is as large as its context, in bytes."""
    return timed(*samples_s, stage="decode", point=str(context), kv_bytes=context)


# the quartiles of five samples lie halfway between the first two and the last two: 1.75 and 2.25 s, half of which is 0.25 s
NOISY = (1.5, 2.0, 2.0, 2.0, 2.5)


def test_a_longer_context_may_be_faster_by_three_spreads_of_the_shorter() -> None:
    short = decoding(256, *NOISY)
    assert falling_decodes([short, decoding(4_096, 1.25, 1.25, 1.25, 1.25)]) == []  # 2 - 3 x 0.25
    faster = decoding(4_096, 1.24, 1.24, 1.24, 1.24)
    assert falling_decodes([short, faster]) == falling_decodes([faster, short]) == [(short, faster)]


def test_a_longer_context_may_be_faster_by_three_spreads_of_its_own() -> None:
    longer = decoding(4_096, *NOISY)
    assert falling_decodes([decoding(256, 2.75, 2.75, 2.75, 2.75), longer]) == []  # 2.75 - 3 x 0.25
    short = decoding(256, 2.76, 2.76, 2.76, 2.76)
    assert falling_decodes([short, longer]) == [(short, longer)]


def test_each_decode_is_compared_with_the_next_longer_one_alone() -> None:
    steady = {context: decoding(context, *[seconds] * 4) for context, seconds in ((1, 3.0), (2, 2.0), (3, 2.5), (4, 2.25))}
    assert falling_decodes([steady[3], steady[1], steady[4], steady[2]]) == [
        (steady[1], steady[2]),
        (steady[3], steady[4]),
    ]
    assert falling_decode([steady[1], steady[2]]) == [
        "decode[2]: 2000.000 ms per token, less than 3000.000 ms at 1: the cache was not read, or the machine changed "
        "speed in between"
    ]


def test_only_decodes_have_to_take_longer_on_a_longer_context() -> None:
    fast, slow = decoding(4_096, 1.0, 1.0), decoding(256, 2.0, 2.0)
    assert falling_decodes([replace(fast, stage="prefill"), slow]) == []
    assert falling_decodes([replace(slow, stage="prefill"), fast]) == []
    assert falling_decodes([fast]) == falling_decodes([]) == []
