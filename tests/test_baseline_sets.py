"""What stands in a baseline and under which key, in hand-made sets: ways, the nearest of them, the newest, their labels."""

from dataclasses import replace
from pathlib import Path

import pytest

from analytic.core.execution import Execution
from analytic.framework import Framework
from fixtures.baseline.exact import Block, ExactPoint
from fixtures.baseline.gate import ExactGate, TimedGate
from fixtures.baseline.judgement import Outcome
from fixtures.baseline.key import Key
from fixtures.baseline.sets import Baseline, ExactSet, Provenance, TimedSet, nearest
from fixtures.machine.environment import releases, this_commit
from fixtures.timing.comparable import Fingerprint, Mismatch
from fixtures.timing.medians import StageNoise
from tests.samples import PLACE
from tests.test_gate import stage_of, timed_of

META = Execution(
    device="meta",
    attention="sdpa",
    experts="grouped_mm",
    dtype="bfloat16",
    framework=Framework.of(transformers="5.23.0", torch="2.13.0"),
)
PREFILL, DECODE = "prefill[64]", "decode[64]"
STEADY = stage_of(*[0.999, 1.001] * 5)


def made(second: int, commit: str | None = None) -> Provenance:
    return Provenance(
        created=f"2025-11-21T09:30:{second:02d}+00:00", commit=commit, command=("nox",), python="3.11", libraries={}
    )


def exact_point(flops: int) -> ExactPoint:
    return ExactPoint(
        totals={"executed_flops": flops},
        blocks={"lm_head": Block(modules=1, flops=flops, bytes=2)},
        operators={"matmul": flops},
    )


def exact_set(second: int, run: Execution = META, batch_size: int = 1, **flops: int) -> ExactSet:
    """A set of points at a length of 64: `prefill=5` has five FLOPs."""
    points = {f"{stage}[64]": exact_point(number) for stage, number in flops.items()}
    return ExactSet(provenance=made(second), execution=run, batch_size=batch_size, decode_steps=16, points=points)


def timed_set(second: int, place: Fingerprint = PLACE, **stages: StageNoise) -> TimedSet:
    named = {f"{stage}[64]": noise for stage, noise in stages.items()}
    return TimedSet(provenance=made(second), fingerprint=place, stages=named)


def baseline(*sets: ExactSet, full_run: tuple[str, ...] = ()) -> Baseline:
    return replace(Baseline.empty("meta", "tiny"), exact=sets, full_run=full_run)


# --- keys


def test_a_key_of_exact_quantities_is_the_same_on_every_machine() -> None:
    key = Key.exact(DECODE, META, model_variant="tiny", batch_size=2, decode_steps=16)
    assert key == Key(
        benchmark=DECODE,
        model_variant="tiny",
        device="meta",
        device_name=None,
        threads=None,
        backend="eager",
        attention="sdpa",
        experts="grouped_mm",
        dtype="bfloat16",
        weights=None,
        batch_size=2,
        decode_steps=16,
    )
    assert Key.exact(PREFILL, META, model_variant="tiny", batch_size=2, decode_steps=16).decode_steps is None


def test_a_key_of_a_time_is_of_its_place() -> None:
    key = Key.timed(DECODE, replace(PLACE, backend="compile", weights="checkpoint"))
    assert key == Key(
        benchmark=DECODE,
        model_variant="tiny",
        device="cpu",
        device_name="a CPU",
        threads=2,
        backend="compile",
        attention="sdpa",
        experts="grouped_mm",
        dtype="float32",
        weights="checkpoint",
        batch_size=1,
        decode_steps=2,
    )
    assert Key.timed("end_to_end[base-64]", PLACE).decode_steps == 2
    assert Key.timed("first_token[base-64]", PLACE).decode_steps is None


def test_a_label_says_what_is_unusual_about_the_way() -> None:
    usual = Key.exact(DECODE, META, model_variant="tiny", batch_size=1, decode_steps=16)
    assert usual.label == DECODE
    odd = Key.timed(DECODE, replace(PLACE, backend="compile", attention="eager", weights="checkpoint", batch_size=2))
    assert odd.label == (f"{DECODE} (backend compile, attention eager, weights checkpoint, batch_size 2, decode_steps 2)")
    assert Key.timed(PREFILL, PLACE).label == PREFILL  # the number of tokens is no part of its way


def test_mismatches_of_keys_are_those_of_every_field() -> None:
    one = Key.timed(DECODE, PLACE)
    assert one.mismatches(one) == []
    other = replace(one, benchmark=PREFILL, threads=8, decode_steps=None)
    assert [str(found) for found in one.mismatches(other)] == [
        "benchmark: decode[64] against prefill[64]",
        "threads: 2 against 8",
        "decode_steps: 2 against None",
    ]


# --- sets


def test_a_provenance_is_of_here_and_names_its_commit() -> None:
    here = Provenance.here(created="now", command=("nox", "-s", "baseline"))
    assert (here.created, here.command, here.commit, here.libraries) == (
        *("now", ("nox", "-s", "baseline"), this_commit()),
        releases(),
    )
    assert here.python.startswith("3.")
    assert str(made(5, commit="0123456789abcdef")) == "of commit 0123456789ab, 2025-11-21T09:30:05+00:00"
    assert str(made(5)) == "of commit unknown, 2025-11-21T09:30:05+00:00"


def test_a_set_says_how_it_ran_as_text() -> None:
    assert exact_set(0, batch_size=2).way() == {
        "backend": "eager",
        "attention": "sdpa",
        "experts": "grouped_mm",
        "dtype": "bfloat16",
        "batch_size": "2",
        "decode_steps": "16",
    }
    assert timed_set(0).way() == {
        "device_name": "a CPU",
        "threads": "2",
        "backend": "eager",
        "attention": "sdpa",
        "experts": "grouped_mm",
        "dtype": "float32",
        "weights": "seeded_random",
        "batch_size": "1",
        "decode_steps": "2",
    }


def test_the_newest_set_is_found_among_exact_ones_and_times() -> None:
    both = replace(baseline(exact_set(2), exact_set(1)), timed=(timed_set(3), timed_set(0)))
    assert both.newest == made(3)
    assert replace(both, timed=()).newest == made(2)
    assert replace(both, exact=()).newest == made(3)
    with pytest.raises(ValueError, match="empty"):
        _ = Baseline.empty("meta", "tiny").newest


def test_the_nearest_set_has_the_fewest_mismatches_and_is_the_newest_of_several() -> None:
    one = Mismatch.of("threads", 2, 8)
    old, new, far = exact_set(1), exact_set(2), exact_set(3)

    def mismatches(found: ExactSet) -> list[Mismatch]:
        return [one, one] if found == far else [one]

    for order in ((old, new, far), (far, new, old), (new, far, old)):
        assert nearest(order, mismatches) == (new, [one])
    assert nearest([far], mismatches) == (far, [one, one])
    assert nearest([], lambda found: []) is None


def test_only_sets_with_the_benchmark_are_near() -> None:
    stored = baseline(exact_set(2, prefill=1), exact_set(1, batch_size=2, decode=1))
    key = exact_set(0).key("tiny", DECODE)
    found = stored.nearest_exact(key)
    assert found == (stored.exact[1], [Mismatch.of("batch_size", 2, 1)])
    assert stored.nearest_exact(exact_set(0).key("tiny", "decode[65]")) is None
    times = replace(stored, timed=(timed_set(2, prefill=STEADY), timed_set(1, replace(PLACE, threads=8), decode=STEADY)))
    assert times.nearest_times(Key.timed(DECODE, PLACE)) == (times.timed[1], [Mismatch.of("threads", 8, 2)])
    assert times.nearest_times(Key.timed("decode[65]", PLACE)) is None


# --- refreshes


def test_a_refresh_of_exact_points_takes_what_moved_out_of_the_older_set() -> None:
    before = Baseline.empty("meta", "tiny").with_exact(exact_set(0, prefill=1, decode=2), full=True)
    assert before.full_run == (DECODE, PREFILL)
    moved = before.with_exact(exact_set(1, prefill=1, decode=3), full=False)
    assert [(one.provenance, dict(one.points)) for one in moved.exact] == [
        (made(0), {PREFILL: exact_point(1)}),
        (made(1), {DECODE: exact_point(3)}),
    ]
    assert moved.full_run == before.full_run
    assert moved.with_exact(exact_set(2, prefill=1), full=True).full_run == (PREFILL,)
    # nothing is left of a set of which everything moved
    assert [one.provenance for one in moved.with_exact(exact_set(2, prefill=7), full=False).exact] == [made(1), made(2)]


def test_equal_points_of_another_release_or_way_are_stored() -> None:
    before = baseline(exact_set(0, prefill=1))
    later = replace(META, framework=Framework.of(transformers="5.24.0", torch="2.13.0"))
    assert before.with_exact(exact_set(1, prefill=1), full=False) == before
    assert before.with_exact(exact_set(1, later, prefill=1), full=False).exact == (exact_set(1, later, prefill=1),)
    eager = exact_set(1, replace(META, attention="eager"), prefill=1)
    assert before.with_exact(eager, full=False).exact == (*before.exact, eager)


def test_a_refresh_of_times_replaces_those_of_the_same_way() -> None:
    slower = replace(STEADY, executed_flops=9)
    stored = Baseline.empty("cpu", "tiny").with_times(timed_set(0, prefill=STEADY, decode=STEADY))
    one = stored.with_times(timed_set(1, decode=slower))
    assert one.timed == (timed_set(0, prefill=STEADY), timed_set(1, decode=slower))
    elsewhere = timed_set(2, replace(PLACE, threads=8), prefill=slower)
    assert one.with_times(elsewhere).timed == (*one.timed, elsewhere)
    newer = timed_set(3, replace(PLACE, torch="2.14.0"), prefill=slower)  # a release is no part of the way
    assert one.with_times(newer).timed == (one.timed[1], newer)


# --- gates on hand-made sets


def exact_gate(stored: Baseline | None, run: Execution = META, batch_size: int = 1) -> ExactGate:
    path = Path("baselines/meta/tiny.json")
    return ExactGate(baseline=stored, path=path, execution=run, batch_size=batch_size, decode_steps=16)


def test_a_benchmark_is_missed_only_of_the_way_of_the_run_and_of_a_full_run() -> None:
    stored = baseline(
        exact_set(0, prefill=1, vision=1),
        exact_set(0, replace(META, attention="eager"), decode=1),
        full_run=(DECODE, PREFILL),
    )
    assert [one.benchmark for one in exact_gate(stored).missing([])] == [PREFILL]  # vision is not of a full run
    assert exact_gate(stored).missing([PREFILL]) == []
    eager = exact_gate(stored, replace(META, attention="eager")).missing([PREFILL])
    assert [(one.benchmark, one.outcome) for one in eager] == [(DECODE, Outcome.MISSING)]
    assert eager[0].reason == ("in tiny.json, but no longer measured: renamed, removed, or its point left the grid")
    assert exact_gate(stored, batch_size=2).missing([]) == []
    assert exact_gate(None).missing([]) == []


def timed_gate(stored: Baseline | None, place: Fingerprint = PLACE, version: str = "0" * 8) -> TimedGate:
    path = Path("baselines/cpu/tiny.json")
    return TimedGate(baseline=stored, path=path, place=place, threshold=0.05, version=lambda stage: version)


def test_a_gate_keeps_every_judgement_in_order() -> None:
    gate = timed_gate(replace(Baseline.empty("cpu", "tiny"), timed=(timed_set(0, decode=STEADY),)))
    made_here = [gate.judge(timed_of(seconds)) for seconds in (1.0, 2.0)]
    assert gate.judged == made_here
    assert [one.outcome for one in made_here] == [Outcome.SAME, Outcome.SLOWER]


def test_a_time_without_a_stored_one_says_where_it_was_looked_for() -> None:
    assert timed_gate(None).judge(timed_of(1.0)).reason == "no baseline: baselines/cpu/tiny.json does not exist"
    nothing = timed_gate(Baseline.empty("cpu", "tiny")).judge(timed_of(1.0))
    assert (nothing.outcome, nothing.reason, nothing.benchmark) == (Outcome.NEW, "not in tiny.json", DECODE)


def test_every_way_in_which_a_stored_time_is_another_is_named() -> None:
    stored = replace(Baseline.empty("cpu", "tiny"), timed=(timed_set(0, decode=STEADY),))
    place = replace(PLACE, threads=8, torch="2.14.0", driver="550.1")
    found = timed_gate(stored, place, "1" * 8).judge(timed_of(1.0))
    assert (found.outcome, found.reason) == (
        Outcome.INCOMPARABLE,
        "threads: 2 against 8; torch: 2.13.0 against 2.14.0; driver: None against 550.1; "
        "measurement_version: 00000000 against 11111111: its times are stale",
    )
    assert [mismatch.field for mismatch in found.mismatches] == ["threads", "torch", "driver", "measurement_version"]
    newer = timed_gate(stored, replace(PLACE, torch="2.14.0")).judge(timed_of(1.0))
    assert newer.reason == "torch: 2.13.0 against 2.14.0"  # and is not stale


def test_several_reasons_of_a_disturbance_are_one_sentence() -> None:
    gate = timed_gate(None)
    found = gate.judge(replace(timed_of(1.0), reasons=("steal", "swap")))
    assert (found.outcome, found.reason) == (Outcome.DISTURBED, "steal; swap")
