"""The small DeepSeek-OCR-2 really run on the CPU: stages, `generate()` step by step, its parts alone, and checkpoints."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analytic.core.execution import Execution
from analytic.core.op import EXACT_KINDS
from analytic.models.deepseek_ocr.workload import TokenLayout
from analytic.models.registry import family_of, load_spec, model_of
from fixtures.adapter import FrameworkError, cache_of
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest, cache_bytes
from fixtures.model.inputs import page_inputs, token_ids
from fixtures.model.real import CheckpointError, build
from fixtures.model.shadow import shadow
from fixtures.model.timed_calls import Calls
from fixtures.op_counter.ledger import Ledger
from fixtures.validation.bench import Bench
from fixtures.validation.comparison import compare
from tests.test_real_run import vendor_key

SMALL = "ocr-2-tiny"
SPEC = load_spec(SMALL)
TILE = SPEC.pages.mode("tile")
CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")


@pytest.fixture
def subject(subject_on: Callable) -> ModelUnderTest:
    return subject_on("cpu", "sdpa", "grouped_mm", SMALL)


@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_stages_on_the_cpu_agree_in_every_module(subject_on: Callable, attention: str, experts: str) -> None:
    bench = Bench(subject_on("cpu", attention, experts, SMALL), batch_size=2, decode_steps=2)
    page = Point(label="tile", seq_len=None, page=TILE)
    length = Point(label="96", seq_len=96, page=None)
    for result in (bench.vision(page), bench.prefill(length), bench.decode(length)):
        assert result.comparison.differences() == ()


def test_an_image_to_300_tokens_is_what_ledger_shadow_and_cache_say_at_every_step(subject: ModelUnderTest) -> None:
    model, layers, new_tokens = subject.model, subject.spec.text.num_layers, 300
    ids = token_ids(TokenLayout.of(160, TILE), subject.spec, batch_size=1, run=subject.run)
    views = page_inputs(TILE, batch_size=1, run=subject.run).as_arguments(model)
    flops: list[int] = []
    caches: list[int] = []

    def note(module: object, args: object, output: object) -> None:
        flops.append(sum(entry.executed_flops for entry in ledger.entries.values()))
        caches.append(cache_bytes(cache_of(output)))

    with Ledger(model, outside="") as ledger, shadow(model) as stats:
        seen = model.register_forward_hook(note)
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **views,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        seen.remove()

    measured = [after - before for before, after in zip([0, *flops], flops, strict=False)]
    root, expected, expected_caches = model_of(subject.spec, run=subject.run), [], []
    for call in root.walk(TILE, seq_len=160, batch_size=1, decode_steps=new_tokens - 1):
        expected.append(int(root.forward_cost().executed_flops))
        expected_caches.append(0 if call.cache is None else call.cache.kv_bytes)
    vision, prefill, *decoded = expected
    assert measured == [vision + prefill, *decoded]
    assert caches == expected_caches[1:]

    steps = stats.decoder_steps()
    by_layer = [step for step in steps if step.layer is not None]
    heads = [step.flops for step in steps if step.layer is None]
    rows = [by_layer[start : start + layers] for start in range(0, len(by_layer), layers)]
    assert [sum(step.flops for step in row) + head for row, head in zip(rows, heads, strict=True)] == [prefill, *decoded]
    assert [sum(step.kv_bytes for step in row) for row in rows] == caches
    assert sum(step.flops for step in stats.vision_steps()) == vision
    # 4 layers, K and V of 64 float32 each, for 160 + 299 positions: the last token is not fed back
    assert caches[-1] == 4 * 2 * 64 * 4 * 459


def test_the_bytes_of_generated_pages_agree(subject: ModelUnderTest) -> None:
    result = Bench(subject, batch_size=2, decode_steps=3).end_to_end(Point(label="page", seq_len=200, page=TILE))
    assert result.comparison.differences() == ()
    assert result.as_json(0.0)["compared"]["new_tokens"] == {"closed_form": 4, "measured": 4}


@pytest.mark.parametrize("part", ["sam", "queries", "projector"])
def test_a_part_that_is_timed_alone_does_the_work_of_its_tree(subject: ModelUnderTest, part: str) -> None:
    call = Calls(subject, batch_size=1, context_len=lambda length: length).part(part, TILE)
    path = family_of(subject.spec).part(part).path
    with torch.no_grad(), Ledger(subject.model, outside="") as ledger:
        call.run()
    agreed = compare(*call.trees, ledger=ledger, run=subject.run).below(path)
    assert agreed.differences() == ()
    products = sum(entry.executed_flops for key, entry in ledger.entries.items() if key.kind in EXACT_KINDS)
    assert products == call.cost.executed_flops > 0


def test_a_skipped_layer_of_the_encoder_is_found() -> None:
    model = build(SPEC, CPU)
    broken = ModelUnderTest(spec=SPEC, run=CPU, model=model)
    model.model.vision_tower.vision_encoder.layers[1].mlp.forward = lambda hidden: hidden
    measured = stages.vision(broken, TILE, batch_size=1)
    root = model_of(SPEC, run=CPU)
    root.start_vision(workload=TILE)
    paths = {one.quantity.path for one in compare(root.tree(), ledger=measured.ledger, run=CPU).differences()}
    assert "model.vision_tower.vision_encoder.layers.1.mlp.gate_proj" in paths
    assert not any(path.startswith("model.vision_tower.vision_encoder.layers.0") for path in paths)


def test_a_release_of_transformers_without_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.models

    monkeypatch.delattr(transformers.models, "deepseek_ocr2", raising=False)
    monkeypatch.setitem(sys.modules, "transformers.models.deepseek_ocr2", None)
    with pytest.raises(FrameworkError, match=r"it has no DeepSeek-OCR-2, accepted: a release .*such as 5\.20\.2, .*5\.24"):
        build(SPEC, CPU)


# --- checkpoints


def own_key(key: str) -> str:
    """A key of the transformers model as the vendor's files of this model spell it."""
    encoder, queries = "model.vision_tower.vision_encoder.", "model.vision_tower.query_"
    if key.startswith(encoder):
        return "model.qwen2_model.model.model." + key.removeprefix(encoder)
    if key.startswith(queries):
        return "model.qwen2_model.query_" + key.removeprefix(queries).replace("_resolution", "")
    return vendor_key(key)


def vendor_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights as the vendor stores them: experts one by one."""
    state = {own_key(key): value.clone() for key, value in model.state_dict().items()}
    for key in [key for key in state if key.endswith("experts.gate_up_proj")]:
        for index, both in enumerate(state.pop(key)):
            for part, one in zip(("gate_proj", "up_proj"), both.chunk(2), strict=True):
                state[key.replace("gate_up_proj", f"{index}.{part}.weight")] = one.clone()
    for key in [key for key in state if key.endswith("experts.down_proj")]:
        for index, one in enumerate(state.pop(key)):
            state[key.replace("down_proj", f"{index}.down_proj.weight")] = one.clone()
    return {key: value.contiguous() for key, value in state.items()}


def write_checkpoint(model: torch.nn.Module, folder: Path, preset: str = SMALL) -> Path:
    """The model's weights in the vendor's layout, beside transformers' config of `preset`."""
    from importlib import import_module

    from safetensors.torch import save_file

    spec = load_spec(preset)
    folder.mkdir()
    save_file(vendor_state(model), folder / "model.safetensors", metadata={"format": "pt"})
    config = import_module(f"fixtures.model.{spec.family}").config_for(spec)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def test_a_checkpoint_in_the_vendors_layout_gives_the_same_logits(tmp_path: Path) -> None:
    model = build(SPEC, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    loaded = build(SPEC, CPU, checkpoint=write_checkpoint(model, tmp_path / "weights"))
    ids = token_ids(TokenLayout.of(160, TILE), SPEC, batch_size=1, run=CPU)
    views = page_inputs(TILE, batch_size=1, run=CPU).as_arguments(model)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, **views).logits, loaded(input_ids=ids, **views).logits)


@pytest.mark.parametrize(
    ("given", "preset", "said"),
    [
        (SMALL, "tiny", "is of DeepSeek-OCR-2, and --preset tiny is DeepSeek-OCR,"),
        ("tiny", SMALL, "is of DeepSeek-OCR, and --preset ocr-2-tiny is DeepSeek-OCR-2,"),
    ],
)
def test_a_checkpoint_of_another_variant_is_refused_and_both_are_named(
    tmp_path: Path, given: str, preset: str, said: str
) -> None:
    folder = write_checkpoint(build(SPEC, CPU), tmp_path / "weights", preset=given)
    with pytest.raises(CheckpointError, match=said):
        build(load_spec(preset), CPU, checkpoint=folder)
