"""A call measured for one benchmark is taken over by others only if it is the very same, and says so."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.models.registry import load_spec
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.validation.bench import Bench
from fixtures.validation.point_result import PointResult
from fixtures.validation.reuse import MeasuredCalls, Reused, reused_words
from tests.fresh_process import run

PRESETS = ("tiny", "unlimited-tiny", "ocr-2-tiny")
LENGTH, STEPS = 320, 3
STAGES = ("vision", "prefill", "decode", "end_to_end")
ORDERS = (
    STAGES,
    STAGES[::-1],
    ("decode", "end_to_end", "prefill", "vision"),
    ("prefill", "end_to_end", "vision", "decode"),
)


def points_of(preset: str) -> dict[str, Point]:
    """A point of each stage on one page, whose views and length are those of the whole page."""
    page = load_spec(preset).pages.gundam(None)
    alone = Point(label=str(LENGTH), seq_len=LENGTH, page=None)
    return {
        "vision": Point(label="base", seq_len=None, page=page),
        "prefill": alone,
        "decode": alone,
        "end_to_end": Point(label=f"base-{LENGTH}", seq_len=LENGTH, page=page),
    }


def bench_of(subject: ModelUnderTest, *, reuse: bool) -> Bench:
    return Bench(subject, batch_size=2, decode_steps=STEPS, reuse=reuse)


def measured_in(order: tuple[str, ...], bench: Bench, points: dict[str, Point]) -> dict[str, PointResult]:
    return {stage: getattr(bench, stage)(points[stage]) for stage in order}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The stages that ran on the model."""
    found: Counter[str] = Counter()

    def counted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return run(*args, **kwargs)

        return call

    for name in ("vision", "prefill", "decode"):
        monkeypatch.setattr(stages, name, counted(name, getattr(stages, name)))
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_a_session_that_reuses_measures_what_one_that_runs_everything_does(
    preset: str, subject_on: Callable[..., ModelUnderTest], calls: Counter[str]
) -> None:
    subject, points = subject_on("meta", "sdpa", "grouped_mm", preset), points_of(preset)
    whole = measured_in(STAGES, bench_of(subject, reuse=False), points)
    assert calls == {"vision": 2, "prefill": 3, "decode": 2}
    assert all(result.reused == () and result.passes(0.0) for result in whole.values())
    for order in ORDERS:
        calls.clear()
        found = measured_in(order, bench_of(subject, reuse=True), points)
        assert calls == {"vision": 1, "prefill": 1, "decode": 1}
        for stage, result in found.items():
            assert result.comparison == whole[stage].comparison
            assert (result.cost, result.steps, result.activations) == (
                whole[stage].cost,
                whole[stage].steps,
                whole[stage].activations,
            )
        assert {one for result in found.values() for one in result.reused}


def test_a_result_names_the_calls_that_ran_for_other_benchmarks(subject_on: Callable[..., ModelUnderTest]) -> None:
    subject, points = subject_on("meta", "sdpa", "grouped_mm", "tiny"), points_of("tiny")
    found = measured_in(("decode", "end_to_end", "prefill", "vision"), bench_of(subject, reuse=True), points)
    decode, page = f"decode[{LENGTH}]", f"end_to_end[base-{LENGTH}]"
    assert found["decode"].reused == ()
    assert found["end_to_end"].reused == (
        Reused(call="prefill", measured_for=decode),
        Reused(call="decode", measured_for=decode),
    )
    assert found["prefill"].reused == (Reused(call="prefill", measured_for=decode),)
    assert found["vision"].reused == (Reused(call="vision", measured_for=page),)


def test_a_repeated_benchmark_measures_again(subject_on: Callable[..., ModelUnderTest], calls: Counter[str]) -> None:
    bench, points = bench_of(subject_on("meta", "sdpa", "grouped_mm", "tiny"), reuse=True), points_of("tiny")
    for times in (1, 2, 3):
        bench.end_to_end(points["end_to_end"])
        assert calls == {"vision": times, "prefill": times, "decode": times}
    repeated = bench.results[-1]
    assert repeated.reused == ()
    assert repeated.passes(0.0)


def test_a_decode_on_a_cache_that_has_grown_runs_its_prefill_again(
    subject_on: Callable[..., ModelUnderTest], calls: Counter[str]
) -> None:
    bench, points = bench_of(subject_on("meta", "sdpa", "grouped_mm", "tiny"), reuse=True), points_of("tiny")
    bench.prefill(points["prefill"])
    first = bench.decode(points["decode"])
    bench.prefill(points["prefill"])
    again = bench.decode(points["decode"])
    assert calls["decode"] == 2
    assert again.comparison == first.comparison
    assert again.passes(0.0)


@pytest.mark.parametrize("changed", ["forward", "hook", "module", "kernel"])
def test_a_call_on_another_model_is_measured_again(
    changed: str, subject_on: Callable[..., ModelUnderTest], calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, points = subject_on("meta", "sdpa", "grouped_mm", "tiny"), points_of("tiny")
    bench = bench_of(subject, reuse=True)
    assert bench.prefill(points["prefill"]).passes(0.0)
    norm = subject.model.model.language_model.norm
    twice = type(norm).forward
    if changed == "forward":
        monkeypatch.setattr(norm, "forward", lambda x: twice(norm, twice(norm, x)))
    elif changed == "module":
        another = torch.nn.Sequential(norm, norm)
        monkeypatch.setitem(subject.model.model.language_model._modules, "norm", another)
    elif changed == "kernel":
        monkeypatch.setattr(subject.model.config.text_config, "_attn_implementation", "eager")
    hook = norm.register_forward_hook(lambda module, args, output: output + 1) if changed == "hook" else None
    try:
        assert not bench.end_to_end(points["end_to_end"]).passes(0.0)
    finally:
        if hook is not None:
            hook.remove()
    assert calls["prefill"] == 2


def test_nothing_is_reused_where_tensors_have_values(
    subject_on: Callable[..., ModelUnderTest], calls: Counter[str]
) -> None:
    bench, points = bench_of(subject_on("cpu", "sdpa", "grouped_mm", "tiny"), reuse=True), points_of("tiny")
    bench.prefill(points["prefill"])
    assert bench.decode(points["decode"]).reused == ()
    assert calls["prefill"] == 2


def test_the_record_says_what_a_run_reused_and_no_reuse_runs_it_all(tmp_path: Path) -> None:
    def record(*switches: str) -> tuple[dict[str, Any], str]:
        words = ("--preset", "tiny", "--device", "meta", "--seq-len", "512", "--decode-steps", "2", *switches)
        done = run("pytest", "benchmarks", "-p", "no:cacheprovider", *words, "--output-dir", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((tmp_path / "latest" / "record.json").read_text()), done.stdout

    reusing, said = record()
    taken = {f"{point['stage']}[{point['point']}]": point.pop("reused") for point in reusing["points"]}
    assert [one["call"] for one in taken["end_to_end[gundam-2x1-512]"]] == ["prefill", "decode"]
    assert taken["decode[512]"] is None
    assert "reused: 4 calls were run once for several benchmarks" in said
    whole, said = record("--no-reuse")
    assert [point.pop("reused") for point in whole["points"]] == [None] * 4
    assert "reused" not in said
    assert reusing["points"] == whole["points"]


def test_one_line_says_what_was_reused() -> None:
    one = Reused(call="prefill", measured_for="decode[16]")
    assert reused_words([("decode[16]", ()), ("vision[tiny]", ())]) is None
    assert reused_words([("decode[16]", ()), ("prefill[16]", (one,))]) == (
        "reused: 1 call was run once for several benchmarks, such as the prefill of prefill[16] for decode[16]; "
        "--no-reuse runs each anew"
    )


def test_calls_that_differ_in_stage_argument_or_model_are_not_taken_for_each_other() -> None:
    model = torch.nn.Linear(1, 1)
    measured = MeasuredCalls(model, reuse=True)
    assert measured.of("a").call("decode", 16, lambda: "short") == "short"
    other = measured.of("b")
    assert other.call("decode", 32, lambda: "long") == "long"
    assert other.call("prefill", 16, lambda: "prompt") == "prompt"
    assert other.call("decode", 16, lambda: "again") == "short"
    assert other.reused == [Reused(call="decode", measured_for="a")]
    model.eval()
    assert measured.of("c").call("decode", 16, lambda: "of another") == "of another"
