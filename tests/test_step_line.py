"""Decode steps that lie on a line: what follows from three of them is what running all of them measures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fixtures.config.points import Point
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.validation.bench import Bench
from fixtures.validation.point_result import PointResult
from fixtures.validation.reuse import Reused, reused_words

STEPS = 7
RUN = {"tiny": 3, "ocr-2-tiny": 3, "unlimited-tiny": STEPS}
"""Steps that are run of each model: a cache that slides is not lengthened."""
KERNELS = (("sdpa", "grouped_mm"), ("eager", "batched_mm"))


def decoded(subject: ModelUnderTest, *, reuse: bool, seq_len: int = 320, batch_size: int = 2) -> PointResult:
    bench = Bench(subject, batch_size=batch_size, decode_steps=STEPS, reuse=reuse)
    return bench.decode(Point(label=str(seq_len), seq_len=seq_len, page=None))


def assert_same(found: PointResult, whole: PointResult) -> None:
    assert found.comparison == whole.comparison
    assert (found.cost, found.steps, found.activations) == (whole.cost, whole.steps, whole.activations)


@pytest.mark.parametrize("preset", RUN)
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
@pytest.mark.parametrize("seq_len", [1, 127, 320])
def test_steps_between_are_what_running_them_measures(
    preset: str, attention: str, experts: str, seq_len: int, subject_on: Callable[..., ModelUnderTest]
) -> None:
    subject = subject_on("meta", attention, experts, preset)
    found, whole = (decoded(subject, reuse=reuse, seq_len=seq_len) for reuse in (True, False))
    assert_same(found, whole)
    assert whole.passes(0.0)
    assert bool(found.reused) is (RUN[preset] < STEPS)


@pytest.mark.full_size
@pytest.mark.parametrize("seq_len", [1, 256, 1024, 8192])
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_steps_of_the_full_size_lie_on_the_line(
    attention: str, experts: str, seq_len: int, subject_on: Callable[..., ModelUnderTest]
) -> None:
    subject = subject_on("meta", attention, experts, "deepseek-ocr-v1-base")
    found, whole = (decoded(subject, reuse=reuse, seq_len=seq_len, batch_size=1) for reuse in (True, False))
    assert_same(found, whole)
    assert found.reused


def decoder_of(model: Any) -> Any:
    return model.get_submodule("model.language_model.layers.1.mlp")


@pytest.mark.parametrize("step", [1, 2, STEPS])
def test_every_step_is_run_where_one_of_three_leaves_the_line(step: int, subject_on: Callable[..., ModelUnderTest]) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm", "tiny")
    whole, found = (with_more_work(subject, step=step, reuse=reuse) for reuse in (False, True))
    assert not whole.passes(0.0)
    assert [one.measured_flops for one in found.steps] == [one.measured_flops for one in whole.steps]
    assert found.comparison == whole.comparison
    assert found.reused == ()


def with_more_work(subject: ModelUnderTest, *, step: int, reuse: bool) -> PointResult:
    """A decode whose MLP multiplies once more where the cache holds what it holds before `step`, whenever it is run."""
    seq_len = 320

    def more(module: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if given[0].shape[1] == 1 and held["positions"] == seq_len + step - 1:
            torch.mm(output[0], output[0].T)
        return output

    def watch(module: Any, given: Any, named: dict[str, Any]) -> None:
        cache = named.get("past_key_values") or named.get("cache")
        held["positions"] = 0 if cache is None else cache.get_seq_length()

    held = {"positions": 0}
    hooks = [
        subject.model.register_forward_pre_hook(watch, with_kwargs=True),
        decoder_of(subject.model).register_forward_hook(more),
    ]
    try:
        return decoded(subject, reuse=reuse, seq_len=seq_len)
    finally:
        for hook in hooks:
            hook.remove()


def test_a_result_says_which_steps_were_not_run(subject_on: Callable[..., ModelUnderTest]) -> None:
    found = decoded(subject_on("meta", "sdpa", "grouped_mm", "tiny"), reuse=True)
    assert found.reused == (Reused(call="steps 3 to 6", measured_for="steps 1, 2 and 7"),)
    assert reused_words([("decode[320]", found.reused)]) == (
        "reused: decode steps 3 to 6 lie on the line through steps 1, 2 and 7; --no-reuse runs each anew"
    )


def test_few_steps_are_all_run(subject_on: Callable[..., ModelUnderTest]) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm", "tiny")
    bench = Bench(subject, batch_size=1, decode_steps=4, reuse=True)
    assert bench.decode(Point(label="64", seq_len=64, page=None)).reused == ()
