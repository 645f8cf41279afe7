"""What is timed does the work that its time is reckoned with; a skipped layer is found."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest

from analytic.core.execution import Backend, Execution
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.spec import ModelSpec
from fixtures.model.compiled import Compiler
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.real import build
from fixtures.model.timed_calls import Call, Calls
from fixtures.validation.counted_call import counted


@pytest.fixture
def built(subject_on: Callable) -> tuple[ModelUnderTest, list[Call]]:
    """Every kind of call on the tiny preset, two sequences each."""
    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    calls = Calls(subject, batch_size=2, context_len=lambda prefill: prefill + 4)
    page = MODES["tiny"]
    found = [calls.vision(page), *(calls.part(name, page) for name in ("sam", "clip", "projector"))]
    found += [calls.prefill(64), calls.decode(64, steps=3), calls.page(page, 96, steps=2), calls.first_token(page, 96)]
    return subject, found


def test_calls_do_the_work_of_their_cost_in_every_module(built: tuple[ModelUnderTest, list[Call]]) -> None:
    subject, calls = built
    for call in calls:
        for _ in range(2):  # the second time on what `restore` left
            ran = counted(call, subject)
            assert ran.problems(call, "here") == []
            assert ran.executed_flops == call.units * call.cost.executed_flops, call.stage
            assert ran.peak_bytes > 0
        assert call.cost.fused_bytes >= call.cost.touched_weight_bytes


@pytest.mark.parametrize(("backend", "peak"), [("compile", 300), ("cudagraph", None)])
def test_cuda_graphs_have_no_peak_since_they_keep_their_memory_between_calls(
    built: tuple[ModelUnderTest, list[Call]], backend: Backend, peak: int | None
) -> None:
    subject, (call, *_) = built
    on_gpu = replace(subject, run=replace(subject.run, device="cuda", dtype="bfloat16", backend=backend))
    compiler = Compiler(on_gpu.run, say=lambda _: None)
    allocator = Mock(**{"memory_allocated.return_value": 1_000, "max_memory_allocated.return_value": 1_300})
    assert counted(replace(call, compiler=compiler, run=Mock()), on_gpu, allocator=allocator).peak_bytes == peak


def test_a_skipped_layer_is_called_skipped_work(tiny_spec: ModelSpec) -> None:
    run = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
    model = build(tiny_spec, run)
    subject = ModelUnderTest(spec=tiny_spec, run=run, model=model)
    layers = model.model.language_model.layers
    call = Calls(subject, batch_size=1, context_len=lambda prefill: prefill).prefill(64)
    assert counted(call, subject).problems(call, "64") == []
    model.model.language_model.config.num_hidden_layers = len(layers) - 1
    del layers[-1]
    (problem,) = counted(call, subject).problems(call, "64")
    assert problem.startswith("prefill[64]: work was skipped or added")
    assert f"model.language_model.layers.{tiny_spec.text.num_layers - 1}" in problem
