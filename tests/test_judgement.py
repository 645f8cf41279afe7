"""How a benchmark is judged, by hand: exact changes and their order, times exactly at each bound, what a key says."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fixtures.baseline.exact import (
    Block,
    Change,
    ExactPoint,
    block_changes,
    blocks,
    changes,
    operator_changes,
    point_as_json,
    point_from_json,
)
from fixtures.baseline.gate import judged_by_time, judged_exactly
from fixtures.baseline.judgement import Judgement, Outcome, decided, least_threshold, noise_reach, too_noisy
from fixtures.timing.comparable import Mismatch
from fixtures.timing.medians import StageNoise
from fixtures.validation.point_result import ModuleRow
from tests.test_gate import stage_of, timed_of

# --- exact quantities


def change(expected: int, got: int, *, where: str = "", quantity: str = "flops") -> Change:
    return Change(where=where, quantity=quantity, expected=expected, got=got)


def exact_point(totals: dict[str, int], **block: tuple[int, int, int]) -> ExactPoint:
    """A point with blocks of (modules, FLOPs, bytes)."""
    return ExactPoint(
        totals=totals,
        blocks={name: Block(modules=modules, flops=flops, bytes=moved) for name, (modules, flops, moved) in block.items()},
        operators={},
    )


@pytest.mark.parametrize(
    ("expected", "got", "relative"),
    [(4, 5, 0.25), (4, 3, -0.25), (4, 0, -1.0), (4, 4, 0.0), (0, 1, math.inf), (0, 0, 0.0), (1, 3, 2.0)],
)
def test_a_change_is_relative_to_what_was_expected(expected: int, got: int, relative: float) -> None:
    assert change(expected, got).relative == relative


def test_totals_that_differ_are_listed_by_their_relative_change_and_then_by_name() -> None:
    before = exact_point({"e": 0, "d": 100, "c": 10, "b": 10, "a": 10, "same": 1})
    after = exact_point({"e": 1, "d": 50, "c": 12, "b": 8, "a": 10, "same": 1})
    assert [(one.quantity, one.expected, one.got, one.where) for one in changes(before, after)] == [
        ("e", 0, 1, ""),  # from nothing
        ("d", 100, 50, ""),
        ("b", 10, 8, ""),  # -20% and +20%: by their names
        ("c", 10, 12, ""),
    ]


def test_a_total_is_compared_where_the_baseline_has_it() -> None:
    before, after = exact_point({"old": 3, "both": 1}), exact_point({"both": 1, "new": 7})
    assert changes(before, after) == [change(3, 0, quantity="old")]  # what a result lacks is none
    assert changes(after, before) == [change(7, 0, quantity="new")]
    assert changes(exact_point({"both": 1}), after) == []


def test_blocks_are_compared_only_where_no_total_differs() -> None:
    before = exact_point({"flops": 3}, a=(1, 1, 10), b=(1, 2, 10))
    moved = exact_point({"flops": 3}, a=(1, 2, 10), b=(1, 1, 10))
    assert changes(before, moved) == [change(1, 2, where="a"), change(2, 1, where="b")]
    assert changes(before, replace(moved, totals={"flops": 4})) == [change(3, 4)]


def test_changes_of_blocks_are_listed_flops_first_and_then_by_their_size() -> None:
    before = exact_point({}, a=(2, 10, 100), b=(1, 10, 100), c=(1, 10, 0), gone=(1, 5, 0))
    after = exact_point({}, a=(3, 10, 105), b=(1, 13, 90), c=(1, 7, 0), new=(0, 1, 0))
    assert block_changes(before, after) == [
        change(5, 0, where="gone"),
        change(10, 13, where="b"),  # 3 more and 3 fewer: by name
        change(10, 7, where="c"),
        change(0, 1, where="new"),
        change(100, 90, where="b", quantity="bytes"),
        change(100, 105, where="a", quantity="bytes"),
        change(2, 3, where="a", quantity="modules"),
        change(1, 0, where="gone", quantity="modules"),
    ]


def test_changes_of_operators_are_listed_by_their_size() -> None:
    before = ExactPoint(totals={}, blocks={}, operators={"a": 10, "b": 10, "c": 10, "d": 4})
    after = ExactPoint(totals={}, blocks={}, operators={"a": 12, "b": 5, "c": 10, "e": 4, "f": 1})
    assert operator_changes(before, after) == [
        change(10, 5, quantity="b"),
        change(4, 0, quantity="d"),
        change(0, 4, quantity="e"),
        change(10, 12, quantity="a"),
        change(0, 1, quantity="f"),
    ]


def row(module: str, *, modules: int, flops: int, moved: int) -> ModuleRow:
    """A row whose closed form says something else."""
    return ModuleRow(
        module=module,
        modules=modules,
        closed_form_flops=1_000,
        measured_flops=flops,
        closed_form_bytes=1_000,
        measured_bytes=moved,
    )


def test_a_leaf_counts_toward_its_parent_and_a_leaf_of_the_model_is_a_block() -> None:
    found = blocks(
        [
            row("layers.*.attn.q", modules=4, flops=1, moved=10),
            row("layers.*.attn.k", modules=5, flops=2, moved=20),
            row("layers.*.attn", modules=3, flops=4, moved=40),
            row("model.norm", modules=1, flops=8, moved=80),
            row("head", modules=1, flops=16, moved=160),
        ]
    )
    assert found == {
        "head": Block(modules=1, flops=16, bytes=160),
        "layers.*.attn": Block(modules=5, flops=7, bytes=70),
        "model.norm": Block(modules=1, flops=8, bytes=80),
    }
    assert list(found) == sorted(found)
    assert blocks([]) == {}


def test_the_architecture_of_a_point_leaves_out_what_a_release_adds() -> None:
    whole = ExactPoint(
        totals={"executed_flops": 1, "read_bytes": 2, "kv_bytes": 3, "parameter_bytes": 4},
        blocks={"attn": Block(modules=2, flops=5, bytes=6), "norm": Block(modules=2, flops=0, bytes=7)},
        operators={"matmul": 8, "attention": 9},
    )
    assert whole.architecture() == ExactPoint(
        totals={"executed_flops": 1, "kv_bytes": 3},
        blocks={"attn": Block(modules=0, flops=5, bytes=0)},
        operators={"tensor cores": 17},
    )
    assert whole.architecture().architecture() == whole.architecture()


def test_a_point_is_stored_with_the_modules_flops_and_bytes_of_a_block() -> None:
    point = replace(exact_point({"kv_bytes": 1}, attn=(2, 3, 4)), operators={"matmul": 3})
    stored = point_as_json(point)
    assert stored == {"totals": {"kv_bytes": 1}, "blocks": {"attn": [2, 3, 4]}, "operators": {"matmul": 3}}
    assert point_from_json(stored) == point


def test_exact_evidence_holds_totals_blocks_and_operators() -> None:
    before = replace(exact_point({"a": 1, "b": 1}, attn=(1, 2, 3)), operators={"matmul": 2})
    after = replace(exact_point({"a": 2, "b": 1}, attn=(1, 4, 3)), operators={"matmul": 4})
    one = judged_exactly("d", before, after)
    assert (one.benchmark, one.outcome, one.reason) == ("d", Outcome.CHANGED, "1 quantity changed")
    assert one.exact is not None
    assert one.exact.totals == (change(1, 2, quantity="a"),)
    assert one.exact.blocks == (change(2, 4, where="attn"),)
    assert one.exact.operators == (change(2, 4, quantity="matmul"),)
    assert judged_exactly("d", before, replace(after, totals={"a": 2, "b": 3})).reason == "2 quantities changed"
    equal = judged_exactly("d", before, before)
    assert (equal.outcome, equal.reason, equal.exact) == (Outcome.EQUAL, "equal to the baseline", None)


# --- times

LINE = math.log1p(0.05) / 2
"""Of a threshold of 5%: 0.0244."""


@pytest.mark.parametrize(
    ("log_ratio", "reach", "outcome"),
    [
        (LINE, 0.0, Outcome.SAME),  # at the line
        (-LINE, 0.0, Outcome.SAME),
        (LINE * 1.001, 0.0, Outcome.SLOWER),
        (-LINE * 1.001, 0.0, Outcome.FASTER),
        (LINE * 1.001, LINE, Outcome.SLOWER),  # noise up to the line
        (LINE * 1.001, LINE * 1.001, Outcome.INCONCLUSIVE),
        (0.0, LINE * 1.001, Outcome.INCONCLUSIVE),
        (4 * LINE, 2 * LINE, Outcome.INCONCLUSIVE),  # beyond the noise by twice the line, and no more
        (4.001 * LINE, 2 * LINE, Outcome.SLOWER),
        (-4.001 * LINE, 2 * LINE, Outcome.FASTER),
    ],
)
def test_a_time_at_a_bound_of_the_decision(log_ratio: float, reach: float, outcome: Outcome) -> None:
    assert decided(log_ratio, reach=reach, threshold=0.05) is outcome


def test_the_noise_of_two_processes_by_hand() -> None:
    # logarithms 0 and 0.02: a deviation of 0.02 / sqrt(2) = 0.014142, times sqrt(1 + 1/2) = 1.224745, times Student's t of
    # 31.8205 at 99% on one side and one degree of freedom
    assert noise_reach((1.0, math.exp(0.02))) == pytest.approx(0.55115, abs=1e-5)
    assert noise_reach((3.0, 3.0, 3.0)) == 0.0
    assert (noise_reach((1.0,)), noise_reach(())) == (math.inf, math.inf)


def test_the_least_threshold_is_that_whose_line_is_the_noise() -> None:
    reach = math.log(1.1)
    assert least_threshold(reach) == pytest.approx(0.21)  # 1.1^2 - 1
    assert decided(0.0, reach=reach, threshold=0.2101) is Outcome.SAME
    assert decided(0.0, reach=reach, threshold=0.2099) is Outcome.INCONCLUSIVE


def test_noise_that_is_too_large_is_said_with_what_would_do() -> None:
    # sqrt(1.21) is 1.1
    assert too_noisy(reach=math.log(1.25), threshold=0.21) == (
        "noise ±25.0%, too large for a threshold of 21.0%, which judges below ±10.0%"
    )


STEADY = stage_of(*[0.999, 1.001] * 4)
"""Eight processes, the fewest: a reach of 0.001 x sqrt(8 / 7) x sqrt(9 / 8) x 2.998, 0.34%."""


def ran(*, flops: int = 8_000, calls: int | None = 100, peak: int | None = 50) -> SimpleNamespace:
    return SimpleNamespace(executed_flops=flops, operator_calls=calls, peak_bytes=peak)


def by_time(stage: StageNoise, time_s: float, counted: SimpleNamespace | None = None, threshold: float = 0.05) -> Judgement:
    timed = replace(timed_of(time_s), counted=counted)  # type: ignore[arg-type]
    return judged_by_time("decode[64]", stage, timed, threshold=threshold)


def test_a_time_is_judged_with_its_evidence() -> None:
    found = by_time(STEADY, 1.1025)
    assert (found.benchmark, found.outcome) == ("decode[64]", Outcome.SLOWER)
    assert found.reason == "+10.3% against the baseline, noise ±0.3%"  # 1.05^2
    assert found.timed is not None
    assert (found.timed.expected_s, found.timed.got_s, found.timed.threshold) == (1.0, 1.1025, 0.05)
    assert found.timed.log_ratio == pytest.approx(2 * math.log(1.05), abs=1e-6)
    assert found.timed.reach == noise_reach(STEADY.medians_s) == pytest.approx(0.0034, abs=1e-5)
    assert by_time(STEADY, 1.01).reason == "+1.0% against the baseline, noise ±0.3%"
    assert by_time(STEADY, 1.01).outcome is Outcome.SAME


def test_a_time_without_counted_work_is_taken_to_have_done_the_same_work() -> None:
    evidence = by_time(STEADY, 1.0).timed
    assert evidence is not None
    assert (evidence.flops_log_ratio, evidence.calls, evidence.peak_bytes) == (0.0, (100, 100), (50, 50))


@pytest.mark.parametrize(
    ("stored", "now", "log_ratio"),
    [(8_000, 8_400, math.log(1.05)), (8_000, 4_000, -math.log(2)), (0, 8_000, 0.0), (8_000, 0, 0.0), (1, 1, 0.0)],
)
def test_more_work_is_a_ratio_where_both_sides_have_any(stored: int, now: int, log_ratio: float) -> None:
    evidence = by_time(replace(STEADY, executed_flops=stored), 1.0, ran(flops=now)).timed
    assert evidence is not None
    assert evidence.flops_log_ratio == pytest.approx(log_ratio)


def test_what_one_of_the_two_does_not_report_is_not_compared() -> None:
    silent = replace(STEADY, operator_calls=None, peak_bytes=None)
    for stage, counted in ((silent, ran()), (STEADY, ran(calls=None, peak=None)), (silent, None)):
        evidence = by_time(stage, 1.0, counted).timed
        assert evidence is not None
        assert (evidence.calls, evidence.peak_bytes) == (None, None)
    both = by_time(STEADY, 1.0, ran(calls=105, peak=51)).timed
    assert both is not None
    assert (both.calls, both.peak_bytes) == ((100, 105), (50, 51))


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (64, 80, None),  # 25% more, as accepted
        (64, 81, "peak activations +26.6%, accepted 25.0%"),
        (64, 10, None),
        (0, 0, None),
        (0, 1_000, "peak activations 0 -> 1,000 bytes, accepted 25.0%"),
    ],
)
def test_peak_activations_may_grow_by_the_threshold(before: int, now: int, reason: str | None) -> None:
    found = by_time(replace(STEADY, peak_bytes=before), 1.0, ran(peak=now), threshold=0.25)
    if reason is None:
        assert found.outcome is Outcome.SAME
    else:
        assert (found.outcome, found.reason) == (Outcome.CHANGED, reason)
        assert found.timed is not None
        assert found.timed.peak_bytes == (before, now)


@pytest.mark.parametrize("number", [1, 7])
def test_seven_processes_are_too_few(number: int) -> None:
    found = by_time(stage_of(*[1.0] * number), 2.0)
    assert (found.outcome, found.timed is not None) == (Outcome.INCONCLUSIVE, True)
    assert found.reason == f"the baseline holds {number} process{'es' * (number > 1)}, accepted: at least 8"
    assert by_time(stage_of(*[1.0] * 8), 2.0).outcome is Outcome.SLOWER


def test_an_inconclusive_time_keeps_its_evidence() -> None:
    found = by_time(stage_of(*[0.5, 2.0] * 4), 1.1)
    assert (found.benchmark, found.outcome) == ("decode[64]", Outcome.INCONCLUSIVE)
    assert found.reason.startswith("noise ±")
    assert found.timed is not None
    assert found.timed.log_ratio == pytest.approx(math.log(1.1))  # the mean of the logarithms is 0
    assert found.timed.expected_s == 1.25  # the median of the processes


# --- judgements


def test_what_is_incomparable_names_every_field() -> None:
    found = [Mismatch.of("threads", 2, 8), Mismatch.of("driver", None, "550.1")]
    one = Judgement.incomparable("decode[64]", found, more=": stale")
    assert one.reason == "threads: 2 against 8; driver: None against 550.1: stale"
    assert (one.benchmark, one.outcome, one.mismatches) == ("decode[64]", Outcome.INCOMPARABLE, tuple(found))
    assert Judgement.incomparable("decode[64]", found[:1]).reason == "threads: 2 against 8"


@pytest.mark.parametrize("outcome", Outcome)
def test_which_outcomes_fail_a_run(outcome: Outcome) -> None:
    one = Judgement(benchmark="d", outcome=outcome, reason="")
    fails = outcome in (Outcome.CHANGED, Outcome.SLOWER, Outcome.MISSING)
    passes = outcome in (Outcome.EQUAL, Outcome.SAME, Outcome.FASTER)
    assert one.fails(require_baseline=False) is fails
    assert one.fails(require_baseline=True) is not passes
