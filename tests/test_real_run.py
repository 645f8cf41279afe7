"""The tiny preset really run on the CPU: stages and `generate()`, and weights from a checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES, TokenLayout, VisionWorkload, gundam
from analytic.models.spec import ModelSpec
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.deepseek_ocr import config_for
from fixtures.model.real import CheckpointError, build
from fixtures.validation.bench import Bench
from fixtures.validation.comparison import compare
from tests.configs import transformers_of

CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
PAGES = {"gundam-2x1": gundam(CropGrid.parse("2x1")), "tiny": MODES["tiny"]}


@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stages_on_the_cpu_agree_in_every_module(subject_on: Callable, dtype: str, attention: str, experts: str) -> None:
    bench = Bench(subject_on("cpu", attention, experts, "tiny", dtype), batch_size=2, decode_steps=2)
    page = Point(label="gundam-2x1", seq_len=None, page=PAGES["gundam-2x1"])
    length = Point(label="96", seq_len=96, page=None)
    for result in (bench.vision(page), bench.prefill(length), bench.decode(length)):
        assert result.comparison.differences() == ()


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_generate_from_image_to_tokens_agrees(subject_on: Callable, page: VisionWorkload) -> None:
    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    bench = Bench(subject, batch_size=1, decode_steps=7)
    result = bench.end_to_end(Point(label="page", seq_len=512, page=page))
    assert result.comparison.differences() == ()
    compared = result.as_json(0.0)["compared"]
    assert compared["new_tokens"] == {"closed_form": 8, "measured": 8}
    # 4 layers, K and V of 64 float32 each, for 512 + 7 positions: the last token is not fed back
    assert compared["kv_bytes"] == {"closed_form": 4 * 2 * 64 * 4 * 519, "measured": 4 * 2 * 64 * 4 * 519}
    assert compared["executed_flops"]["measured"] == result.cost.executed_flops > 0


def test_the_real_model_merges_as_many_tokens_as_the_layout_says(subject_on: Callable) -> None:
    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    for page in PAGES.values():
        measured = stages.vision(subject, page, batch_size=1)
        assert measured.image_tokens == page.image_tokens
        # `generate` raises when placeholders and features differ in number
        layout = TokenLayout.of(page.image_tokens + 2, page)
        stages.generate(subject, page, layout, batch_size=1, new_tokens=1)


def test_a_skipped_layer_is_found(tiny_spec: ModelSpec) -> None:
    model = build(tiny_spec, CPU)
    subject = ModelUnderTest(spec=tiny_spec, run=CPU, model=model)
    model.model.language_model.layers[2].mlp.forward = lambda hidden: hidden
    measured, _ = stages.prefill(subject, TokenLayout.of(16, None), batch_size=1)
    root = DeepseekOCRModel.from_spec(tiny_spec, run=CPU)
    root.start_prefill(16, 1)
    paths = {one.quantity.path for one in compare(root.tree(), ledger=measured.ledger, run=CPU).differences()}
    assert "model.language_model.layers.2.mlp.experts" in paths
    assert not any(path.startswith("model.language_model.layers.1") for path in paths)


# --- checkpoints


def vendor_key(key: str) -> str:
    """A key of the transformers model as the vendor's files spell it."""
    for ours, theirs in (
        ("model.vision_tower.sam_encoder.layers.", "model.sam_model.blocks."),
        ("model.vision_tower.sam_encoder.patch_embed.projection.", "model.sam_model.patch_embed.proj."),
        ("model.vision_tower.sam_encoder.neck.conv1.", "model.sam_model.neck.0."),
        ("model.vision_tower.sam_encoder.neck.layer_norm1.", "model.sam_model.neck.1."),
        ("model.vision_tower.sam_encoder.neck.conv2.", "model.sam_model.neck.2."),
        ("model.vision_tower.sam_encoder.neck.layer_norm2.", "model.sam_model.neck.3."),
        ("model.vision_tower.sam_encoder.proj.conv1.", "model.sam_model.net_2."),
        ("model.vision_tower.sam_encoder.proj.conv2.", "model.sam_model.net_3."),
        ("model.vision_tower.sam_encoder.", "model.sam_model."),
        ("model.vision_tower.vision_encoder.encoder.", "model.vision_model.transformer."),
        ("model.vision_tower.vision_encoder.", "model.vision_model."),
        ("model.multi_modal_projector.", "model.projector.layers."),
        ("model.view_separator", "model.view_seperator"),
        ("model.language_model.", "model."),
    ):
        if key.startswith(ours):
            key = theirs + key.removeprefix(ours)
            break
    if key.startswith("model.sam_model.blocks."):
        key = key.replace(".layer_norm1.", ".norm1.").replace(".layer_norm2.", ".norm2.")
    return key


def vendor_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights as the vendor stores them: CLIP's q, k and v in one, experts one by one, and an unused embedding."""
    state = {vendor_key(key): value.clone() for key, value in model.state_dict().items()}
    for key in [key for key in state if ".self_attn.q_proj." in key and "vision_model" in key]:
        parts = [state.pop(key.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        state[key.replace("q_proj", "qkv_proj")] = torch.cat(parts)
    for key in [key for key in state if key.endswith("experts.gate_up_proj")]:
        for index, both in enumerate(state.pop(key)):
            gate, up = both.chunk(2)
            state[key.replace("gate_up_proj", f"{index}.gate_proj.weight")] = gate.clone()
            state[key.replace("gate_up_proj", f"{index}.up_proj.weight")] = up.clone()
    for key in [key for key in state if key.endswith("experts.down_proj")]:
        for index, one in enumerate(state.pop(key)):
            state[key.replace("down_proj", f"{index}.down_proj.weight")] = one.clone()
    state["model.vision_model.embeddings.patch_embedding.weight"] = torch.zeros(48, 3, 14, 14)
    return {key: value.contiguous() for key, value in state.items()}


def write_checkpoint(model: torch.nn.Module, folder: Path) -> Path:
    """The model's weights in the vendor's layout, beside the config of the tiny preset."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(vendor_state(model), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(transformers_of("tiny")))
    return folder


def test_a_checkpoint_in_the_vendors_layout_gives_the_same_logits(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    model = build(tiny_spec, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # no two modules share a value
    loaded = build(tiny_spec, CPU, checkpoint=write_checkpoint(model, tmp_path / "checkpoint"))
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (one.get_image_features(pixels).pooler_output[0] for one in (loaded, model))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_checkpoints_that_do_not_fit_are_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        build(tiny_spec, CPU, checkpoint=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"it has no .*safetensors"):
        build(tiny_spec, CPU, checkpoint=tmp_path)
    from dataclasses import replace

    other = build(replace(tiny_spec, text=replace(tiny_spec.text, num_layers=3)), CPU)
    with pytest.raises(CheckpointError, match=r"holds another model than tiny: .* missing keys such as model"):
        build(tiny_spec, CPU, checkpoint=write_checkpoint(other, tmp_path / "other"))
    narrow = build(replace(tiny_spec, text=replace(tiny_spec.text, intermediate_size=80)), CPU)
    with pytest.raises(CheckpointError, match=r"tiny"):
        build(tiny_spec, CPU, checkpoint=write_checkpoint(narrow, tmp_path / "narrow"))
    torn = write_checkpoint(build(tiny_spec, CPU), tmp_path / "torn") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-8])  # the header is whole
    with pytest.raises(CheckpointError, match="cannot be read as tiny"):
        build(tiny_spec, CPU, checkpoint=tmp_path / "torn")


def test_random_weights_are_the_same_twice(tiny_spec: ModelSpec) -> None:
    state = torch.random.get_rng_state()
    first, second = build(tiny_spec, CPU), build(tiny_spec, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_spec_survives_the_way_through_a_config(tiny_spec: ModelSpec, full_spec: ModelSpec) -> None:
    for spec in (tiny_spec, full_spec):
        again = ModelSpec.from_hf_config(config_for(spec), model_id=spec.model_id, model_variant=spec.model_variant)
        assert again == spec
