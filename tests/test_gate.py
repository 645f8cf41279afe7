"""The gate: every kind of extra work is caught with its module named; times are judged only like with like."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.core.execution import Execution
from analytic.framework import Framework
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.spec import ModelSpec
from analytic.prediction.roofline import Ceilings
from fixtures.adapter import cache_argument
from fixtures.baseline.exact import Block, ExactPoint, blocks, changes
from fixtures.baseline.failure_report import explain, summary
from fixtures.baseline.gate import ExactGate, TimedGate, judged_by_time
from fixtures.baseline.judgement import Judgement, Outcome
from fixtures.baseline.sets import Baseline, ExactSet, Provenance, TimedSet
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.real import build
from fixtures.timing.comparable import Fingerprint
from fixtures.timing.medians import StageNoise
from fixtures.timing.samples import Samples, TimedStage
from fixtures.validation.bench import Bench
from fixtures.validation.point_result import ModuleRow, PointResult
from tests.samples import COST, PLACE

META = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
LENGTH = Point(label="64", seq_len=64, page=None)
PAGE = Point(label="tiny", seq_len=None, page=MODES["tiny"])
MADE = Provenance(created="2025-11-21T09:30:11+00:00", commit=None, command=("nox",), python="3.11", libraries={})


def results_of(spec: ModelSpec, run: Execution = META, model: Any = None) -> dict[str, PointResult]:
    bench = Bench(ModelUnderTest(spec=spec, run=run, model=model or build(spec, run)), batch_size=1, decode_steps=2)
    found = [bench.vision(PAGE), bench.prefill(LENGTH), bench.decode(LENGTH)]
    return {f"{one.stage}[{one.point.label}]": one for one in found}


def baseline_of(run: Execution, points: dict[str, ExactPoint]) -> Baseline:
    exact = ExactSet(provenance=MADE, execution=run, batch_size=1, decode_steps=2, points=points)
    return Baseline.empty("meta", "tiny").with_exact(exact, full=True)


@pytest.fixture(scope="module")
def accepted(tiny_spec: ModelSpec) -> Baseline:
    points = {name: ExactPoint.of(result) for name, result in results_of(tiny_spec).items()}
    return baseline_of(META, points)


def gate_of(baseline: Baseline | None, run: Execution = META, decode_steps: int = 2) -> ExactGate:
    return ExactGate(
        baseline=baseline,
        path=Path("baselines/meta/tiny.json"),
        execution=run,
        batch_size=1,
        decode_steps=decode_steps,
    )


def judged(baseline: Baseline, results: dict[str, PointResult]) -> dict[str, Judgement]:
    gate = gate_of(baseline)
    return {name: gate.judge(result) for name, result in results.items()}


def test_the_same_model_is_equal(accepted: Baseline, tiny_spec: ModelSpec) -> None:
    assert {one.outcome for one in judged(accepted, results_of(tiny_spec)).values()} == {Outcome.EQUAL}


@contextmanager
def attention_twice(model: Any) -> Iterator[None]:
    attention = model.model.language_model.layers[1].self_attn
    once = attention.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        once(*args, **{**kwargs, cache_argument(model.__class__): None})
        return once(*args, **kwargs)

    attention.forward = twice
    yield


@contextmanager
def every_logit(model: Any) -> Iterator[None]:
    whole = model.forward
    model.forward = lambda *args, **kwargs: whole(*args, **{**kwargs, "logits_to_keep": 0})
    yield


@contextmanager
def second_global_view(model: Any) -> Iterator[None]:
    tower = model.model.vision_tower
    once = tower.forward

    def twice(pixels: Any, *args: Any, **kwargs: Any) -> Any:
        once(pixels[:1], *args, **kwargs)
        return once(pixels, *args, **kwargs)

    tower.forward = twice
    yield


@contextmanager
def wide_cache(model: Any) -> Iterator[None]:
    from transformers.cache_utils import DynamicLayer

    update = DynamicLayer.update

    def doubled(self: Any, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, *args, **kwargs)
        self.keys, self.values = torch.cat([keys, keys], dim=-1), torch.cat([values, values], dim=-1)
        return keys, values

    DynamicLayer.update = doubled
    try:
        yield
    finally:
        DynamicLayer.update = update


@pytest.mark.parametrize(
    ("mutation", "name", "quantity", "module"),
    [
        (attention_twice, "prefill[64]", "executed_flops", "model.language_model.layers.*.self_attn"),
        (every_logit, "prefill[64]", "executed_flops", "lm_head"),
        (second_global_view, "vision[tiny]", "executed_flops", "model.vision_tower.sam_encoder"),
        (wide_cache, "prefill[64]", "kv_bytes", "model.language_model.layers.*.self_attn"),
    ],
)
def test_a_model_that_does_more_than_it_should_is_caught_with_its_module(
    accepted: Baseline, tiny_spec: ModelSpec, mutation: Callable, name: str, quantity: str, module: str
) -> None:
    model = build(tiny_spec, META)
    subject = ModelUnderTest(spec=tiny_spec, run=META, model=model)
    bench = Bench(subject, batch_size=1, decode_steps=2)
    with mutation(model):
        result = bench.vision(PAGE) if name.startswith("vision") else bench.prefill(LENGTH)
    verdict = gate_of(accepted).judge(result)
    assert verdict.outcome is Outcome.CHANGED
    assert quantity in {change.quantity for change in verdict.exact.totals}
    assert verdict.exact.blocks[0].where.startswith(module)
    assert module in explain(verdict)


def wider(spec: ModelSpec, **text: Any) -> ModelSpec:
    return replace(spec, text=replace(spec.text, **text))


@pytest.mark.parametrize(
    ("mutated", "quantity", "modules"),
    [
        ({"num_layers": 5}, "executed_flops", "(5 modules where 4 were)"),
        ({"num_experts_per_tok": 3}, "executed_flops", "model.language_model.layers.*.mlp.experts"),
    ],
)
def test_a_model_that_agrees_with_its_closed_form_and_not_with_its_baseline_is_caught(
    accepted: Baseline, tiny_spec: ModelSpec, mutated: dict[str, int], quantity: str, modules: str
) -> None:
    """One more layer, one more expert a token: both sides move together, so only the baseline sees it."""
    for name, result in results_of(wider(tiny_spec, **mutated)).items():
        assert result.passes(0.0)
        verdict = gate_of(accepted).judge(result)
        if name.startswith("vision"):
            assert verdict.outcome is Outcome.EQUAL
        else:
            assert verdict.outcome is Outcome.CHANGED
            assert verdict.exact.totals[0].relative > 0
            assert quantity in {change.quantity for change in verdict.exact.totals}
            assert modules in explain(verdict)


def test_float32_weights_are_memory_and_not_work(tiny_spec: ModelSpec) -> None:
    half = replace(META, experts="batched_mm")  # grouped products are bfloat16 alone on meta
    single = replace(half, dtype="float32")
    points = {name: ExactPoint.of(result) for name, result in results_of(tiny_spec, half).items()}
    accepted = baseline_of(half, points)
    result = results_of(tiny_spec, single)["prefill[64]"]
    # a run that says it is in float32 is incomparable; one that does not say so is caught
    assert gate_of(accepted, single).judge(result).reason == "dtype: bfloat16 against float32"
    verdict = gate_of(accepted, half).judge(result)
    totals = {change.quantity: change for change in verdict.exact.totals}
    assert "executed_flops" not in totals
    # all but the routers' weights, which some releases of transformers keep in float32, are twice as large
    assert totals["weight_bytes"].relative == totals["parameter_bytes"].relative
    assert 0.99 < totals["weight_bytes"].relative <= 1.0
    assert "more memory" in explain(verdict)


def test_glue_of_another_framework_is_incomparable_and_its_architecture_is_held(tiny_spec: ModelSpec) -> None:
    before, after = (replace(META, framework=Framework.of(release, "2.13.0")) for release in ("5.23.0", "5.99.0"))
    results = results_of(tiny_spec)
    points = {name: ExactPoint.of(result) for name, result in results.items()}

    def judged_against(points: dict[str, ExactPoint]) -> Judgement:
        return gate_of(baseline_of(before, points), after).judge(results["prefill[64]"])

    found = judged_against(points)
    assert found.outcome is Outcome.INCOMPARABLE
    assert found.reason == "transformers 5.23.0 against 5.99.0; the architecture is equal"
    accepted = points["prefill[64]"]
    # other bytes are glue; other FLOPs, parameters or cache are not
    assert judged_against({"prefill[64]": with_totals(accepted, read_bytes=1, parameter_bytes=2)}) == found
    for name in ("executed_flops", "useful_flops", "parameters", "kv_bytes", "image_tokens"):
        changed = judged_against({"prefill[64]": with_totals(accepted, **{name: accepted.totals[name] + 1})})
        assert (changed.outcome, [one.quantity for one in changed.exact.totals]) == (Outcome.CHANGED, [name])
    block = "model.language_model.layers.*.mlp.experts"
    moved = {**accepted.blocks, block: replace(accepted.blocks[block], flops=1)}
    assert judged_against({"prefill[64]": replace(accepted, blocks=moved)}).outcome is Outcome.CHANGED


def with_totals(point: ExactPoint, **totals: int) -> ExactPoint:
    return replace(point, totals={**point.totals, **totals})


def test_what_can_not_be_judged_says_why(accepted: Baseline, tiny_spec: ModelSpec) -> None:
    results = results_of(tiny_spec)
    unknown = gate_of(None).judge(results["decode[64]"])
    assert (unknown.outcome, unknown.reason) == (Outcome.NEW, "no baseline: baselines/meta/tiny.json does not exist")
    steps = gate_of(accepted, decode_steps=3)
    assert steps.judge(results["decode[64]"]).reason == "decode_steps: 2 against 3"
    assert steps.judge(results["prefill[64]"]).outcome is Outcome.EQUAL  # no token is decoded there
    (stored,) = accepted.exact
    two = replace(accepted, exact=(replace(stored, batch_size=2),))
    assert gate_of(two).judge(results["prefill[64]"]).outcome is not Outcome.EQUAL
    other = replace(results["prefill[64]"], point=Point(label="65", seq_len=65, page=None))
    assert gate_of(accepted).judge(other).reason == "not in tiny.json"
    assert not unknown.fails(require_baseline=False)
    assert unknown.fails(require_baseline=True)


def test_a_benchmark_that_is_gone_is_missed(accepted: Baseline) -> None:
    (gone,) = gate_of(accepted).missing(["vision[tiny]", "prefill[64]", "decode[65]"])
    assert (gone.benchmark, gone.outcome) == ("decode[64]", Outcome.MISSING)
    assert gone.fails(require_baseline=False)
    assert gate_of(None).missing([]) == []


def test_blocks_hold_their_leaves() -> None:
    def row(module: str, flops: int) -> ModuleRow:
        sides = {"closed_form_flops": flops, "measured_flops": flops, "closed_form_bytes": 1, "measured_bytes": 1}
        return ModuleRow(module=module, modules=2, **sides)

    found = blocks([row("a.layers.*.attn.q", 3), row("a.layers.*.attn", 4), row("model.projector", 5), row("head", 6)])
    assert found["a.layers.*.attn"] == Block(modules=2, flops=7, bytes=2)
    assert found["model.projector"].flops == 5
    assert found["head"].flops == 6


def test_work_that_moves_between_modules_is_seen_though_the_totals_are_equal() -> None:
    before = ExactPoint(
        totals={"executed_flops": 3},
        blocks={"a": Block(modules=1, flops=1, bytes=0), "b": Block(modules=1, flops=2, bytes=0)},
        operators={},
    )
    after = replace(before, blocks={"a": Block(modules=1, flops=2, bytes=0), "b": Block(modules=1, flops=1, bytes=0)})
    assert changes(before, before) == []
    assert [(one.where, one.got) for one in changes(before, after)] == [("a", 2), ("b", 1)]


# --- times


def stage_of(*medians_s: float) -> StageNoise:
    return StageNoise(
        measurement_version="0" * 8,
        executed_flops=8_000,
        operator_calls=100,
        peak_bytes=50,
        first_s=(1.0,) * len(medians_s),
        medians_s=medians_s,
    )


def timed_of(time_s: float) -> TimedStage:
    nothing = Ceilings(flops_per_s=None, bytes_per_s=None)
    return TimedStage(
        stage="decode",
        point="64",
        units=2,
        cost=COST,
        mfu_cost=COST,
        samples=Samples(samples_s=(time_s, time_s), wall_samples_s=None, first_s=time_s, calls_per_round=1, energy_j=None),
        counted=None,
        datasheet=nothing,
        measured=nothing,
    )


STEADY = stage_of(*[0.999, 1.001] * 5)


@pytest.mark.parametrize(
    ("time_s", "outcome"),
    [(1.0, Outcome.SAME), (1.02, Outcome.SAME), (1.05, Outcome.SLOWER), (0.95, Outcome.FASTER)],
)
def test_a_time_is_judged_by_half_the_threshold(time_s: float, outcome: Outcome) -> None:
    assert judged_by_time("decode[64]", STEADY, timed_of(time_s), threshold=0.05).outcome is outcome


def test_stored_noise_that_is_too_large_is_said_and_far_off_is_still_found() -> None:
    noisy = stage_of(*[0.95, 1.05] * 5)
    # standard deviation of the logarithms 0.0528, times sqrt(1.1) and t(99%, 9) = 2.821: 16.9%
    verdict = judged_by_time("decode[64]", noisy, timed_of(1.06), threshold=0.05)
    # half of log(1.05) is 0.0244: 2.5%
    reason = "noise ±16.9%, too large for a threshold of 5.0%, which judges below ±2.5%"
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, reason)
    assert judged_by_time("decode[64]", noisy, timed_of(1.5), threshold=0.05).outcome is Outcome.SLOWER
    few = judged_by_time("decode[64]", stage_of(1.0, 1.0, 1.0), timed_of(2.0), threshold=0.05)
    assert few.reason == "the baseline holds 3 processes, accepted: at least 8"


def test_a_slowdown_is_split_into_work_and_efficiency() -> None:
    from types import SimpleNamespace

    ran = SimpleNamespace(executed_flops=8_400, operator_calls=105, peak_bytes=51)
    verdict = judged_by_time("decode[64]", STEADY, replace(timed_of(1.1025), counted=ran), threshold=0.05)
    text = explain(verdict)
    assert "(+10.3%, 99% within" in text
    assert "+5.0% from more work, +5.0% from lower efficiency (time per FLOP); 105 operators where 100 were (+5.0%)" in text
    larger = SimpleNamespace(executed_flops=8_000, operator_calls=100, peak_bytes=60)
    memory = judged_by_time("decode[64]", STEADY, replace(timed_of(1.0), counted=larger), threshold=0.05)
    assert (memory.outcome, memory.reason) == (Outcome.CHANGED, "peak activations +20.0%, accepted 5.0%")


def timed_gate(place: Fingerprint, version: str = "0" * 8) -> TimedGate:
    baseline = Baseline.empty("cpu", "tiny").with_times(
        TimedSet(provenance=MADE, fingerprint=PLACE, stages={"decode[64]": STEADY})
    )
    path = Path("baselines/cpu/tiny.json")
    return TimedGate(baseline=baseline, path=path, place=place, threshold=0.05, version=lambda stage: version)


def test_times_are_compared_only_with_those_of_the_same_place_and_the_same_body() -> None:
    assert timed_gate(PLACE).judge(timed_of(1.0)).outcome is Outcome.SAME
    elsewhere = timed_gate(replace(PLACE, threads=8)).judge(timed_of(9.0))
    assert (elsewhere.outcome, elsewhere.reason) == (Outcome.INCOMPARABLE, "threads: 2 against 8")
    stale = timed_gate(PLACE, "1" * 8).judge(timed_of(9.0))
    assert stale.reason == "measurement_version: 00000000 against 11111111: its times are stale"
    unknown = timed_gate(PLACE).judge(replace(timed_of(1.0), point="65"))
    assert unknown.outcome is Outcome.NEW


def test_a_disturbed_time_is_judged_by_nobody_and_never_passes() -> None:
    gate = timed_gate(PLACE)
    reasons = ("other processes used 1.90 of 2 CPUs, 2 of which it needs",)
    tenfold = replace(timed_of(10.0), reasons=reasons)
    found = [gate.judge(tenfold), timed_gate(replace(PLACE, threads=8)).judge(tenfold), gate.judge(timed_of(1.0))]
    assert [judgement.outcome for judgement in found] == [Outcome.DISTURBED, Outcome.DISTURBED, Outcome.SAME]
    assert found[0].reason == reasons[0]
    assert summary(found, require_baseline=False) == "baseline: disturbed: 2 disturbed, 1 same"
    assert summary(found, require_baseline=True) == "baseline: FAILED: 2 disturbed, 1 same"
    assert [judgement.fails(require_baseline=True) for judgement in found] == [True, True, False]
    assert not any(judgement.fails(require_baseline=False) for judgement in found)


def test_times_at_the_line_by_hand() -> None:
    # the line for 5% is sqrt(1.05) = 1.0247
    line = math.sqrt(1.05)
    assert judged_by_time("d", STEADY, timed_of(line * 0.999), threshold=0.05).outcome is Outcome.SAME
    assert judged_by_time("d", STEADY, timed_of(line * 1.001), threshold=0.05).outcome is Outcome.SLOWER


def test_the_logits_of_all_positions_are_asked_for_by_name(tiny_spec: ModelSpec) -> None:
    """The mutation above does what the stage's own switch does."""
    from analytic.models.deepseek_ocr.workload import TokenLayout

    subject = ModelUnderTest(spec=tiny_spec, run=META, model=build(tiny_spec, META))
    last, _ = stages.prefill(subject, TokenLayout.of(64, None), batch_size=1)
    every, _ = stages.prefill(subject, TokenLayout.of(64, None), batch_size=1, logits="all")
    head = [
        sum(entry.executed_flops for key, entry in one.ledger.entries.items() if key.path == "lm_head")
        for one in (last, every)
    ]
    assert head[1] == 64 * head[0]
