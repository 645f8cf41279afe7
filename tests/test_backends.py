"""Ways to run the model agree: the same tokens, logits within rounding, FLOPs to the integer, in graphs as one by one."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.registry import load_spec, model_of
from analytic.models.spec import ModelSpec
from fixtures.adapter import forward_arguments
from fixtures.config.needs import cpp_compiler, require_compiler
from fixtures.evidence.card import Card
from fixtures.evidence.section import Standing
from fixtures.model.caches import rewind, static_cache
from fixtures.model.compiled import Compiler, Graph, entries_of, module_path
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.real import build, twin
from fixtures.model.timed_calls import Call, Calls
from fixtures.op_counter.formulas import UncountedOperatorError
from fixtures.op_counter.ledger import Ledger
from fixtures.profiling import backends, ranking
from fixtures.profiling.agreement import TOLERANCE, Decoded, agreement, decoded
from fixtures.timing.comparable import Fingerprint
from fixtures.validation.comparison import compare
from fixtures.validation.counted_call import counted
from tests.samples import PLACE

STEPS, LENGTH = 64, 32
EAGER = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
COMPILED = replace(EAGER, backend="compile")
needs_compiler = pytest.mark.skipif(
    shutil.which(cpp_compiler()) is None, reason=f"torch.compile on a CPU calls {cpp_compiler()}, which is not on PATH"
)


@pytest.fixture(scope="session")
def small(tiny_spec: ModelSpec) -> ModelSpec:
    """The tiny preset with one dense and one sparse layer: little to compile."""
    return replace(tiny_spec, text=replace(tiny_spec.text, num_layers=2))


@pytest.fixture(scope="session")
def model(small: ModelSpec) -> Any:
    return build(small, EAGER)


@pytest.fixture(scope="session")
def decode(small: ModelSpec, model: Any) -> Callable[[Execution], tuple[ModelUnderTest, Call]]:
    """A decode with the same weights, as a way to run it."""

    def made(run: Execution, steps: int = STEPS) -> tuple[ModelUnderTest, Call]:
        subject = ModelUnderTest(spec=small, run=run, model=twin(model, small, run))
        calls = Calls(subject, batch_size=1, context_len=lambda prefill: prefill)
        return subject, calls.decode(LENGTH, steps=steps)

    return made


@pytest.fixture(scope="session")
def reference(decode: Callable) -> Decoded:
    return decoded(decode(EAGER)[1], steps=STEPS)


@pytest.fixture(scope="session")
def compiled(decode: Callable) -> tuple[ModelUnderTest, Call]:
    """The one graph of these tests; compiled at its first run."""
    return decode(COMPILED)


def held(call: Call, reference: Decoded) -> None:
    found = decoded(call, steps=STEPS)
    assert found.tokens == reference.tokens
    assert agreement(reference, found, dtype="float32").holds


@pytest.mark.parametrize(
    "run",
    [replace(EAGER, experts="batched_mm"), replace(EAGER, experts="eager"), replace(EAGER, attention="eager")],
    ids=lambda run: f"{run.attention}-{run.experts}",
)
def test_kernels_give_the_same_tokens_logits_and_flops(decode: Callable, reference: Decoded, run: Execution) -> None:
    held(decode(run)[1], reference)
    subject, call = decode(run, steps=2)
    ran = counted(call, subject)
    assert ran.problems(call, "here") == []
    assert ran.executed_flops == counted(*reversed(decode(EAGER, steps=2))).executed_flops


def test_vision_runs_the_attention_that_was_asked_for(small: ModelSpec, model: Any) -> None:
    for run in (EAGER, replace(EAGER, attention="eager")):
        twins = twin(model, small, run)
        shared = zip(twins.parameters(), model.parameters(), strict=True)
        assert all(one.data_ptr() == other.data_ptr() for one, other in shared)
        subject = ModelUnderTest(spec=small, run=run, model=twins)
        call = Calls(subject, batch_size=1, context_len=lambda prefill: prefill).named("vision[tiny]", steps=1)
        assert counted(call, subject).problems(call, "here") == []


@needs_compiler
def test_a_compiled_graph_gives_the_same_tokens_and_logits(
    compiled: tuple[ModelUnderTest, Call], reference: Decoded
) -> None:
    held(compiled[1], reference)


@needs_compiler
def test_a_compiled_graph_does_the_flops_of_its_closed_form_in_every_module(
    compiled: tuple[ModelUnderTest, Call], decode: Callable
) -> None:
    subject, call = compiled
    with torch.no_grad():
        call.run()
    assert call.restore is not None
    call.restore()
    ran = counted(call, subject)
    assert ran.problems(call, "here") == []
    assert (ran.graphs, ran.breaks) == (STEPS, 0)
    assert ran.operator_calls is not None
    one_by_one = counted(*reversed(decode(EAGER, steps=2))).operator_calls
    assert 0 < ran.operator_calls / STEPS < one_by_one / 2  # fewer launches than operators
    short = replace(call, trees=call.trees[1:])
    assert "work was skipped or added" in ran_problem(short, subject)


def ran_problem(call: Call, subject: ModelUnderTest) -> str:
    (problem,) = counted(call, subject).problems(call, "here")
    return problem


def test_a_static_cache_is_attended_to_whole_and_useful_work_stays(small: ModelSpec) -> None:
    root = DeepseekOCRModel.from_spec(small, run=EAGER)
    static = DeepseekOCRModel.from_spec(small, run=COMPILED)
    root.start_decode(kv_cache=root.start_prefill(LENGTH, 1))
    static.start_decode(kv_cache=static.start_prefill(LENGTH, 1, capacity=100))
    mine, grown = static.forward_cost(), root.forward_cost()
    text = small.text
    # of 100 positions 33 are of tokens: Q K and A V over 67 more, in every layer
    more = text.num_layers * 2 * 2 * text.num_heads * text.head_dim * (100 - (LENGTH + 1))
    assert mine.executed_flops - grown.executed_flops == more
    assert mine.useful_flops == grown.useful_flops
    assert mine.kv_bytes == 100 * root.start_decode().bytes_per_token
    static.decode_one_token()
    assert static.forward_cost().executed_flops == mine.executed_flops


def test_a_static_cache_refuses_more_than_it_holds(small: ModelSpec) -> None:
    root = DeepseekOCRModel.from_spec(small, run=COMPILED)
    with pytest.raises(ValueError, match="capacity: got 16"):
        root.start_prefill(17, 1, capacity=16)
    root.start_prefill(16, 1, capacity=16)
    root.start_decode()
    with pytest.raises(ValueError, match="capacity: got 16"):
        root.decode_one_token()


def test_static_and_growing_caches_give_the_same_tokens_and_the_flops_of_their_closed_form(
    small: ModelSpec, model: Any, reference: Decoded, decode: Callable
) -> None:
    subject, call = decode(COMPILED)  # its step is not run, so nothing is compiled
    capacity = LENGTH + STEPS
    cache = static_cache(subject.model, subject.spec, subject.run, batch_size=1, capacity=capacity)
    calls = Calls(replace(subject, run=EAGER), batch_size=1, context_len=lambda prefill: prefill)
    with torch.no_grad():
        ids = calls._ids(_layout(LENGTH))
        model(**forward_arguments(subject.model, ids, cache=cache))

        def forward(ids: torch.Tensor) -> Any:
            return model(**forward_arguments(subject.model, ids, cache=cache))

        assert call.step is not None
        held(replace(call, step=replace(call.step, forward=forward), restore=lambda: rewind(cache, LENGTH)), reference)
        with Ledger(model, outside="") as ledger:
            forward(call.step.bos)
    found = compare(call.trees[0], ledger=ledger, run=COMPILED)
    assert found.differences() == ()
    assert found.total("measured", "executed_flops") == call.trees[0].total().executed_flops


def _layout(length: int) -> Any:
    from analytic.models.deepseek_ocr.workload import TokenLayout

    return TokenLayout.of(length, None)


def test_a_token_that_is_not_the_reference_is_found_unless_it_is_a_tie() -> None:
    logits = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0 - 1e-6, 0.0]])
    first = Decoded(tokens=(0, 0), logits=logits)
    off = Decoded(tokens=(1, 0), logits=logits)
    tie = Decoded(tokens=(0, 1), logits=logits)
    assert not agreement(first, off, dtype="float32").holds
    assert agreement(first, tie, dtype="float32").holds
    far = Decoded(tokens=(0, 0), logits=logits + 2 * TOLERANCE["float32"])
    assert not agreement(first, far, dtype="float32").holds


def test_cuda_graphs_are_asked_for_and_each_run_begins_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what torch is asked for, and how replays are counted."""
    from torch._inductor import compile_fx

    asked: list[Any] = []

    def fake(module: Any, inputs: Any, *, inner_compile: Any, config_patches: Any) -> Any:
        asked.append(config_patches)
        return module.forward

    monkeypatch.setattr(compile_fx, "compile_fx", fake)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: asked.append("step"))
    run = replace(EAGER, device="cuda", dtype="bfloat16", backend="cudagraph")
    compiler = Compiler(run, say=lambda _: None)
    rectified = compiler.compiled(torch.nn.ReLU())
    compiler.graphs.append(Graph(entries={}, kernels=7))
    with compiler.recording() as ran:
        rectified(torch.ones(2))
        rectified(torch.ones(2))
        compiler.graphs[0].calls += 3
    assert asked == ["step", {"triton.cudagraphs": True}, "step"]
    assert ran.launches == ran.graphs == 3  # a graph is one launch, whatever it holds


def test_an_operator_that_is_not_known_is_no_silent_zero_in_a_graph() -> None:
    def node(target: Any) -> Any:
        value = torch.empty(4, 4, device="meta")
        return SimpleNamespace(op="call_function", target=target, args=(), kwargs={}, meta={"val": value})

    def graph(*targets: Any) -> Any:
        return SimpleNamespace(graph=SimpleNamespace(nodes=[node(one) for one in targets]))

    assert entries_of(graph(torch.ops.aten.acosh.default), "") == {}  # torch says that it is pointwise
    with pytest.raises(UncountedOperatorError, match="linalg_cholesky"):
        entries_of(graph(torch.ops.aten.linalg_cholesky_ex.default), "")


@pytest.mark.parametrize(
    ("name", "path", "found"),
    [
        ("L['self'].model.language_model.layers.0.mlp", "", "model.language_model.layers.0.mlp"),
        ("L['self']._modules['lm_head']", "", "lm_head"),
        ("L['self'].layers[3].attn", "model.vision_tower.sam_encoder", "model.vision_tower.sam_encoder.layers.3.attn"),
        ("L['self']", "model.multi_modal_projector", "model.multi_modal_projector"),
    ],
)
def test_modules_of_a_graph_have_the_paths_of_the_model(name: str, path: str, found: str) -> None:
    assert module_path(name, path) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "cpu", "backend": "cudagraph"}, "--backend: got cudagraph on device cpu, .* use --backend compile"),
        (
            {"device": "meta", "backend": "cudagraph"},
            "--backend: got cudagraph on device meta, .* CUDA device; elsewhere use --backend compile --device cpu",
        ),
        ({"device": "meta", "backend": "compile"}, "--backend: got compile on device meta, .* add --device cpu"),
        ({"device": "meta", "experts": "eager"}, "--experts: got eager on device meta, .* grouped_mm or batched_mm"),
        ({"device": "cpu", "backend": "compile", "experts": "eager"}, "--experts: got eager with backend compile"),
        ({"device": "cpu", "backend": "jit"}, "--backend: got 'jit'"),
        (
            {"device": "meta", "torch_profile": True},
            "--torch-profile: requires --device cpu or cuda; meta .* add --device cpu",
        ),
        (
            {"device": "meta", "analytic_hooks": True},
            "--analytic-hooks: requires --device cpu or cuda; meta .* add --device cpu",
        ),
    ],
)
def test_ways_that_can_not_be_are_refused_by_name(options_of: Callable, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options_of(preset="tiny", **given)


@pytest.mark.parametrize("has_cuda", [True, False])
def test_files_of_what_is_timed_need_a_device_that_is(
    options_of: Callable, monkeypatch: pytest.MonkeyPatch, has_cuda: bool
) -> None:
    monkeypatch.setattr("fixtures.config.run_options._has_cuda", lambda: has_cuda)
    switches = {"torch_profile": True, "analytic_hooks": True}
    assert options_of(preset="tiny", device="cpu", **switches).torch_profile
    if has_cuda:
        assert options_of(preset="tiny", device="auto", **switches).analytic_hooks
    else:
        with pytest.raises(ValueError, match="--torch-profile: requires --device cpu or cuda"):
            options_of(preset="tiny", device="auto", **switches)


def test_looped_experts_are_timed_while_grouped_ones_are_compared(options_of: Callable) -> None:
    options = options_of(preset="tiny", device="cpu", experts="eager")
    assert (options.execution().experts, options.exact_execution().experts) == ("eager", "grouped_mm")


def test_without_a_compiler_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="the C\\+\\+ compiler no-such-compiler on a CPU, and it is not on PATH"):
        require_compiler()


def test_times_of_another_backend_are_not_comparable() -> None:
    assert list(map(str, PLACE.mismatches(replace(PLACE, backend="compile")))) == ["backend: eager against compile"]
    assert Fingerprint(**{name: getattr(PLACE, name) for name in Fingerprint.__slots__ if name != "backend"}) == PLACE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ways", "compile"], "--ways: got 'compile', accepted: BACKEND/ATTENTION/EXPERTS"),
        (["--device", "cpu", "--batch-size", "0"], "--batch-size: got 0, accepted: a whole number of at least 1"),
        (["--device", "cpu", "--ways", "cudagraph/sdpa/grouped_mm"], "--ways: cudagraph/sdpa/grouped_mm: backend: got"),
        (["--stages", "train[8]"], "--stages: got 'train'"),
        (["--stages", "decode[x]"], "--stages: decode\\[x\\]: seq_len"),
        (["--decode-steps", "0"], "--decode-steps: got 0"),
    ],
)
def test_the_command_refuses_what_can_not_be_asked(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backends.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_a_cpu_has_all_ways_but_cuda_graphs() -> None:
    names = [run.backend for run in backends.ways_of((), device="cpu", dtype="float32")]
    assert set(names) == {"eager", "compile"}
    assert len(backends.ways_of((), device="cuda", dtype="bfloat16")) == len(backends.WAYS)


def test_the_command_ranks_the_ways_and_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--output-dir", str(tmp_path), "--decode-steps", "4", "--stages", "decode[16]"]
    ways = ["eager/sdpa/grouped_mm", "eager/sdpa/batched_mm", "eager/sdpa/eager"]
    assert backends.main([*arguments, "--ways", *ways]) == 0
    folder = tmp_path / "latest-backends"
    kept = ranking.BACKENDS.read(folder / "backends.json")
    (stage,) = kept["stages"]
    times = [one["time_s"] for one in stage["ways"]]
    assert times == sorted(times)
    assert {one["way"] for one in stage["ways"]} == set(ways)
    assert all(one["times_floor"] >= 1 and one["measured_flops"] == 4 * one["executed_flops"] for one in stage["ways"])
    assert [one["holds"] for one in kept["agreement"]] == [True] * 3
    assert (folder / "backends.png").stat().st_size > 0
    assert "fastest" in capsys.readouterr().out
    card = Card.read(folder)
    assert card.standing is Standing.MEASURED
    assert card.headline.startswith(f"The fastest way of decode[16]: {stage['ways'][0]['way']}, ")
    assert [way.partition(", ")[0] for way in card.ways] == [one["way"] for one in stage["ways"]]
    page = (folder / "report.html").read_text()
    assert all(f">{one['time_s'] * 1e3:,.3f} ms, {one['times_floor']:,.1f}x</text>" in page for one in stage["ways"])


def test_a_batch_is_timed_and_counted_as_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--device",
        "cpu",
        "--output-dir",
        str(tmp_path),
        "--stages",
        "prefill[16]",
        "--ways",
        "eager/sdpa/grouped_mm",
    ]
    assert backends.main([*arguments, "--batch-size", "3"]) == 0
    (kept,) = (ranking.BACKENDS.read(path) for path in tmp_path.rglob("backends.json"))
    ((way,),) = (stage["ways"] for stage in kept["stages"])
    run = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
    root = model_of(load_spec("tiny"), run=run)
    root.start_prefill(16, 3)
    assert (kept["batch_size"], way["measured_flops"]) == (3, root.forward_tensor_core_flops())
    assert ", batch 3: " in capsys.readouterr().out


def test_a_stage_that_no_way_has_memory_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixtures.profiling.variants import VariantStudy

    def lost(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(VariantStudy, "_prepared", lost)
    arguments = [
        "--device",
        "cpu",
        "--ways",
        "eager/sdpa/grouped_mm",
        "--stages",
        "decode[64]",
        "--output-dir",
        str(tmp_path),
    ]
    assert backends.main(arguments) == 1
    said = capsys.readouterr().out
    assert "decode[64]: every variant ran out of memory\neager/sdpa/grouped_mm: out of memory" in said
    (kept,) = (tmp_path / "latest-backends").resolve().glob("backends.json")
    (stage,) = json.loads(kept.read_text())["stages"]
    assert (stage["ways"], stage["floor_s"], stage["out_of_memory"]) == ([], None, ["eager/sdpa/grouped_mm"])
    assert Card.read(kept.parent).headline == "decode[64]: every way ran out of memory."
    assert Card.read(kept.parent).standing is Standing.FAILED
