"""The statistics of pairs: when they are enough, what they say, and how often they are wrong on seeded noise."""

import math
import random
from collections.abc import Callable, Iterator

import pytest

from fixtures.ab_testing import gate_study
from fixtures.ab_testing.gate_study import Rate, compare_live, median_over_stored, rates, simulated
from fixtures.ab_testing.pairs import Pair
from fixtures.ab_testing.pairwise import FEWEST_PAIRS, MOST_PAIRS, Pairs, PairwiseVerdict, confirmed, pair_sample, percent

FIVE = math.log(1.05)


def pairs(*samples: float) -> Pairs:
    return Pairs(log_ratios=samples)


def test_a_pair_is_the_median_of_its_neighbours_ratios() -> None:
    # ratios 1.1, 1.0, 1.2: a slow moment that both builds share cancels
    assert pair_sample((1.0, 10.0, 2.0), (1.1, 10.0, 2.4)) == pytest.approx(math.log(1.1))
    with pytest.raises(ValueError, match="zip"):
        pair_sample((1.0,), (1.0, 2.0))


def test_mean_error_and_interval_by_hand() -> None:
    found = pairs(0.01, 0.03)
    # mean 0.02, standard deviation 0.01 sqrt(2), of the mean 0.01; t of one degree of freedom at 97.5% is 12.706
    assert found.mean == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(0.01)
    assert found.interval() == pytest.approx((0.02 - 0.12706, 0.02 + 0.12706), abs=1e-4)
    assert pairs(0.1).interval() == (-math.inf, math.inf)


def test_pairs_are_enough_when_steady_or_many() -> None:
    assert not pairs(*[0.0] * (FEWEST_PAIRS - 1)).enough(0.05)
    assert pairs(*[0.0] * FEWEST_PAIRS).enough(0.05)
    noisy = [0.2, -0.2] * (MOST_PAIRS // 2)
    assert not pairs(*noisy[:-1]).enough(0.05)
    assert pairs(*noisy).enough(0.05)


@pytest.mark.parametrize(
    ("samples", "decided"),
    [
        # standard error 0.025/sqrt(7) = 0.94% is above 0.85%, and t of 7 degrees at 99.5% is 3.499: an interval of ±3.3%
        ([0.025, -0.025] * 4, True),
        ([0.10 + 0.025, 0.10 - 0.025] * 4, True),  # 6.7% to 13.3%: above the line of 2.4%
        ([-0.10 + 0.025, -0.10 - 0.025] * 4, True),
        ([0.02 + 0.025, 0.02 - 0.025] * 4, False),  # to 5.3%: a slowdown of 5% is not excluded
        ([-0.02 + 0.025, -0.02 - 0.025] * 4, False),
        ([0.05 + 0.025, 0.05 - 0.025] * 4, False),  # from 1.7%: not surely above the line
        ([0.05, -0.05] * 4, False),  # ±6.6%
    ],
)
def test_clear_pairs_are_decided_before_their_error_is_small(samples: list[float], decided: bool) -> None:
    found = pairs(*samples)
    assert found.decided(0.05) is found.enough(0.05) is decided
    wanted = PairwiseVerdict.SAME if abs(found.mean) < 0.01 else None
    wanted = PairwiseVerdict.SLOWER if found.mean > 0.05 else PairwiseVerdict.FASTER if found.mean < -0.05 else wanted
    assert found.verdict(0.05) is (wanted if decided else PairwiseVerdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([0.001, -0.001] * 4, PairwiseVerdict.SAME),
        ([FIVE + 0.001, FIVE - 0.001] * 4, PairwiseVerdict.SLOWER),
        ([-FIVE + 0.001, -FIVE - 0.001] * 4, PairwiseVerdict.FASTER),
        ([0.3, -0.3] * 24, PairwiseVerdict.INCONCLUSIVE),
        ([1.0, 1.5] * 24, PairwiseVerdict.SLOWER),  # too noisy for 5%, but far beyond it
        ([FIVE] * (FEWEST_PAIRS - 1), PairwiseVerdict.INCONCLUSIVE),
    ],
)
def test_verdicts(samples: list[float], verdict: PairwiseVerdict) -> None:
    assert pairs(*samples).verdict(0.05) is verdict


@pytest.mark.parametrize(
    ("first", "fresh", "verdict"),
    [
        (PairwiseVerdict.SLOWER, PairwiseVerdict.SLOWER, PairwiseVerdict.SLOWER),
        (PairwiseVerdict.SLOWER, PairwiseVerdict.SAME, PairwiseVerdict.SAME),
        (PairwiseVerdict.SLOWER, PairwiseVerdict.INCONCLUSIVE, PairwiseVerdict.INCONCLUSIVE),
        (PairwiseVerdict.FASTER, PairwiseVerdict.SLOWER, PairwiseVerdict.FASTER),
    ],
)
def test_slower_stands_when_fresh_pairs_agree(
    first: PairwiseVerdict, fresh: PairwiseVerdict, verdict: PairwiseVerdict
) -> None:
    assert confirmed(first, fresh) is verdict


def test_on_seeded_noise_of_two_percent_the_gate_keeps_its_promise() -> None:
    """Process pairs that differ by 2% of noise: no false alarm in 400, and at least 95% of true 5% found."""
    draw = random.Random(1)
    same = [draw.gauss(0.0, 0.02) for _ in range(400)]
    slower = [draw.gauss(FIVE, 0.02) for _ in range(400)]
    assert sum(simulated(same, draw) for _ in range(400)) <= 2
    assert sum(simulated(slower, draw) for _ in range(400)) >= 380


def noisy_pairs(draw: random.Random, shift: float) -> list[Pair]:
    """Processes that each have a speed of their own, 5% apart, but shared by the pair to 1%; rounds within 1%."""
    found = []
    for _ in range(30):
        moment, gap = draw.gauss(0.0, 0.05), draw.gauss(shift, 0.01)
        base = tuple(math.exp(moment + draw.gauss(0.0, 0.01)) for _ in range(24))
        head = tuple(math.exp(moment + gap + draw.gauss(0.0, 0.01)) for _ in range(24))
        found.append(Pair(base_s=base, head_s=head, dropped=0))
    return found


def test_the_study_shows_where_the_usual_gates_fail() -> None:
    draw = random.Random(2)
    found = rates({"same": noisy_pairs(draw, 0.0), "slower": noisy_pairs(draw, FIVE)}, comparisons=300)
    share = {(rate.method, rate.kind): rate.slower / rate.comparisons for rate in found}
    assert share["pairs, interleaved", "same"] == 0
    assert share["pairs, interleaved", "slower"] > 0.95
    assert share["median > 5% over stored", "same"] > 0.1
    assert share["median > 5% over stored", "slower"] < 0.8
    assert share["Mann-Whitney, factor 1.05", "same"] > 0.1


def test_rates_carry_their_exact_interval() -> None:
    rate = Rate.of("any", "same", [False] * 40)
    # no event in 40: the upper 97.5% limit is 1 - 0.025^(1/40)
    assert (rate.slower, rate.low) == (0, 0.0)
    assert rate.high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert median_over_stored([1.0, 1.0, 1.0], [1.06, 1.06, 1.0])
    assert not median_over_stored([1.0, 1.0, 1.0], [1.04, 1.04, 1.1])


def test_a_live_comparison_tries_slower_again_on_fresh_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    phases = iter([[FIVE] * 8, [0.0] * 8])

    def until_enough(
        base: object, head: object, stages: list[str], *, seen: Callable, threshold: float
    ) -> Iterator[dict[str, list[Pair]]]:
        found = {gate_study.STAGE: [Pair(base_s=(1.0,), head_s=(math.exp(x),), dropped=0) for x in next(phases)]}
        seen(8, found)
        yield found

    monkeypatch.setattr(gate_study, "until_enough", until_enough)
    live, taken = compare_live(None, None, "same", progress=said.append)
    assert (live.verdict, live.pairs, len(taken)) == (PairwiseVerdict.SAME, 8, 16)
    assert live.mean_log_ratio == pytest.approx(FIVE)
    assert "same, confirmed: pair 8: +0.0%" in said[-1]


def test_a_study_without_a_folder_to_write_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate_study.main(["--output-dir", "/proc/nowhere"]) == 2
    assert "--output-dir: got /proc/nowhere, accepted: a writable folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("minutes", "message"),
    [
        ("-1", "--minutes: got -1, accepted: above 0 and at most 10,080, a week"),
        ("0", "--minutes: got 0, accepted: above 0"),
        ("1e9", "--minutes: got 1e+09, accepted: above 0"),
        ("nan", "--minutes: got 'nan', accepted: a finite number"),
        ("inf", "--minutes: got 'inf', accepted: a finite number"),
    ],
)
def test_a_study_without_an_end_is_refused(minutes: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = gate_study.main(["--minutes", minutes, "--output-dir", "/proc/nowhere"])
    except SystemExit as stopped:  # argparse's own end
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_rounds_that_were_all_throttled_say_nothing() -> None:
    with pytest.raises(ValueError, match="all 24 rounds were throttled"):
        _ = Pair(base_s=(), head_s=(), dropped=24).sample


def test_ratios_are_shown_in_percent() -> None:
    assert (percent(FIVE), percent(-FIVE), percent(math.inf)) == ("+5.0%", "-4.8%", "unknown")
