"""Unlimited-OCR: the window of its decoder by hand and by brute force, its configs, its pages, its commands."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analytic.__main__ import main
from analytic.core.execution import FULL_SIZE
from analytic.models import registry
from analytic.models.deepseek_ocr.crop_rule import CropGrid, crop_grid_for, grids_of
from analytic.models.spec import ModelSpec
from analytic.models.unlimited_ocr.sliding import SlidingShape
from analytic.models.unlimited_ocr.spec import UNLIMITED_PAGES, UnlimitedOCRSpec
from analytic.models.unlimited_ocr.text_spec import SlidingTextSpec
from analytic.planning.sweep import evaluate, scaling
from fixtures.ab_testing.job_options import checked
from fixtures.config.checkpoint import CheckpointError, check_checkpoint
from fixtures.model.real import adapter_of
from fixtures.profiling import backends
from fixtures.serving.held import explanation
from fixtures.serving.options import parsed
from tests.configs import changed, spec_of, vendors, without

FULL = registry.load_spec("unlimited-ocr-base")
DEEPSEEK = registry.load_spec("deepseek-ocr-v1-base")
TRANSFORMERS: dict[str, Any] = adapter_of(FULL).config_for(FULL).to_dict()


def visible(*, prompt: int, past: int, new: int, window: int) -> list[int]:
    """The positions that each new token attends to, one by one."""
    counts = []
    for own in range(past, past + new):
        kept = [at for at in range(own + 1) if at < prompt or at > own - window]
        counts.append(len(kept))
    return counts


# --- the window, by hand


def test_the_cache_stops_growing_after_a_window_of_tokens() -> None:
    """K and V of 12 layers, 10 heads of 128, bfloat16: 2 x 12 x 1280 x 2 = 61,440 bytes a position."""
    root = registry.model_of(FULL)
    root.start_prefill(300, 2)
    root.start_decode()
    sizes = []
    for _ in range(131):
        sizes.append(root.decode_one_token().kv_bytes // (2 * 61_440))
    assert sizes[:3] == [301, 302, 303]
    assert sizes[125:] == [426, 427, 427, 427, 427, 427]  # 300 + 127: the 128th attends to its own position too


def test_a_decoded_token_costs_the_same_after_a_window_of_tokens() -> None:
    """Each further position costs 4 x 1280 FLOPs in each of 12 layers, until 300 + 128 are attended to."""
    root = registry.model_of(FULL)
    costs = [int(root.forward_cost().executed_flops) for _ in root.walk(None, seq_len=300, batch_size=1, decode_steps=132)]
    steps = costs[1:]
    assert {later - earlier for earlier, later in itertools.pairwise(steps[:128])} == {12 * 4 * 1280}
    assert len(set(steps[127:])) == 1
    full = registry.model_of(DEEPSEEK)
    grown = [int(full.forward_cost().executed_flops) for _ in full.walk(None, seq_len=300, batch_size=1, decode_steps=132)]
    assert grown[:129] == costs[:129]  # until then as in DeepSeek-OCR
    assert grown[132] - costs[132] == 4 * 12 * 4 * 1280


@pytest.mark.parametrize("window", [2, 3, 7])
@pytest.mark.parametrize("new", [1, 2, 5, 9])
@pytest.mark.parametrize("decoded", [0, 1, 2, 6, 20])
def test_pairs_context_and_stored_positions_are_those_of_the_mask(window: int, new: int, decoded: int) -> None:
    prompt = 4
    shape = SlidingShape(batch=1, new_tokens=new, past_tokens=prompt + decoded, prompt_tokens=prompt, window=window)
    seen = visible(prompt=prompt, past=prompt + decoded, new=new, window=window)
    assert shape.pairs == sum(seen)
    assert shape.context == prompt + min(decoded, window - 1) + new
    assert shape.stored == prompt + min(decoded + new, window - 1)


@pytest.mark.parametrize(("past", "new"), [(0, 1), (0, 6), (3, 5)])
def test_a_prefill_is_causal_and_keeps_every_position_also_in_chunks(past: int, new: int) -> None:
    shape = SlidingShape(batch=1, new_tokens=new, past_tokens=past, prompt_tokens=past + new, window=3)
    assert shape.pairs == sum(range(past + 1, past + new + 1))
    assert (shape.context, shape.stored) == (past + new, past + new)


def test_a_decode_extends_the_window_and_joins_it_to_the_prompt() -> None:
    # a window of 4 keeps 3: with 2 decoded before it, a step has 2 + 1 = 3 of them, and 5 + 3 = 8 with the prompt
    decode = SlidingShape(batch=1, new_tokens=1, past_tokens=7, prompt_tokens=5, window=4)
    assert (decode.slid, decode.context, decode.joins) == (3, 8, (2, 3 + 8))
    prefill = SlidingShape(batch=1, new_tokens=7, past_tokens=0, prompt_tokens=7, window=4)
    assert (prefill.slid, prefill.context, prefill.joins) == (0, 7, (1, 7))


def test_arrays_of_calls_are_those_of_single_calls() -> None:
    """Prefills of 5 and 300, and steps on both sides of the window's edge, in one evaluation."""
    new, past, prompt = np.array([5, 300, 1, 1, 1]), np.array([0, 0, 300, 427, 500]), np.array([5, 300, 300, 300, 300])
    cost = evaluate(FULL, FULL_SIZE, batch_size=2, new_tokens=new, past_tokens=past, prompt_tokens=prompt)
    root = registry.model_of(FULL)
    for index, (tokens, before, kept) in enumerate(zip(new.tolist(), past.tolist(), prompt.tolist(), strict=True)):
        if before:
            root.start_decode(root.cache_after(kept, decoded=before - kept, batch_size=2))
        else:
            root.start_prefill(tokens, 2)
        for name, value in root.tree().total().as_dict().items():
            assert int(np.broadcast_to(getattr(cost, name), new.shape)[index]) == int(value), name


def test_a_scaling_table_stops_growing_too() -> None:
    point = scaling(FULL, FULL_SIZE, seq_lens=[256], decode_steps=200)["points"][0]
    assert point["decode"]["kv_bytes_final"] == (256 + 127) * 61_440


def test_the_mean_step_of_a_page_counts_no_more_than_the_window() -> None:
    """Steps attend to 0, 1, 2, 2, 2 decoded positions with a window of 3, to 0, 1, 2, 3, 4 without one."""
    assert isinstance(FULL.text, SlidingTextSpec)
    assert replace(FULL.text, window=3).mean_decoded(5) == 7 / 5
    assert replace(FULL.text, window=3).mean_decoded(2) == 1 / 2
    assert FULL.text.mean_decoded(0) == 0
    assert DEEPSEEK.text.mean_decoded(5) == 2


def test_a_static_cache_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"capacity: got a static cache of 64 positions, .*use --backend eager"):
        registry.model_of(FULL).start_prefill(8, 1, capacity=64)


def test_a_backend_that_needs_a_static_cache_is_refused_before_anything_is_built(options_of: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"--backend: got compile, which needs a static cache, accepted: eager"):
        options_of(preset="unlimited-tiny", device="cpu", backend="compile")
    given = {"preset": "unlimited-tiny", "device": "cpu", "attention": "sdpa", "experts": "grouped_mm", "extra_tokens": 0}
    with pytest.raises(ValueError, match="--backend: got compile, which needs a static cache"):
        checked({**given, "backend": "compile", "batch_size": 1, "decode_steps": 4, "stages": ("decode[64]",)})
    with pytest.raises(ValueError, match="--ways: got compile, which needs a static cache"):
        backends.parsed(["--preset", "unlimited-tiny", "--device", "cpu"])


# --- pages


def test_pages_have_up_to_32_tiles_and_the_tokens_of_deepseek_ocr() -> None:
    grids = UNLIMITED_PAGES.rule.grids
    assert len(grids) == len(grids_of(32)) == sum(1 for w in range(1, 33) for h in range(1, 33) if 2 <= w * h <= 32)
    page = UNLIMITED_PAGES.of_label("gundam-4x8")
    assert page.image_tokens == 273 + (10 * 4 + 1) * 10 * 8  # the global view, 80 rows of 40 tokens and a newline
    assert UNLIMITED_PAGES.of_label("gundam-2x3") == DEEPSEEK.pages.of_label("gundam-2x3")
    with pytest.raises(ValueError, match=r"got 3x11 \(33 tiles\), accepted: WxH with 2 to 32 tiles"):
        UNLIMITED_PAGES.gundam(CropGrid(columns=3, rows=11))
    with pytest.raises(ValueError, match=r"got 4x8 \(32 tiles\), accepted: WxH with 2 to 9 tiles"):
        DEEPSEEK.pages.of_label("gundam-4x8")


@pytest.mark.parametrize(
    "size", [(1654, 2339), (640, 640), (641, 100), (9000, 300), (2500, 3900), (1500, 6000), (4096, 4096)]
)
def test_pages_are_cut_as_transformers_cuts_them(size: tuple[int, int], real_rule: Callable[..., tuple[int, int]]) -> None:
    width, height = size
    expected = real_rule((height, width), (640, 640), 2, 32) if max(size) > 640 else None
    grid = crop_grid_for(width, height, rule=UNLIMITED_PAGES.rule)
    assert (None if grid is None else (grid.columns, grid.rows)) == expected


def test_vllm_cuts_into_as_many_tiles_and_not_in_a_request_with_several_images() -> None:
    rule = UNLIMITED_PAGES.rule_of("vllm", None)
    assert rule.max_tiles == 32
    assert UNLIMITED_PAGES.of_size(4000, 4000, rule=rule).grid == UNLIMITED_PAGES.of_size(4000, 4000).grid
    assert UNLIMITED_PAGES.of_size(4000, 4000, rule=rule, images=2).grid is None


def test_served_pages_are_cut_and_explained_as_its_engines_cut_them() -> None:
    options = parsed(["--url", "http://127.0.0.1:9/v1", "--preset", "unlimited-ocr-base", "--image-size", "4000x4000"])
    size, page = options.sets[0].shapes[0].size, options.sets[0].shapes[0].page
    assert str(page.grid) == "5x5"
    few = UNLIMITED_PAGES.of_size(4000, 4000, rule=UNLIMITED_PAGES.rule_of(None, 20))
    said = explanation(size, few.image_tokens, shift=None, around_image=0, known=UNLIMITED_PAGES)
    assert "--max-tiles 16" in said  # 4x4 from 16 to 24 tiles


# --- configs


def vendors_unlimited() -> dict[str, Any]:
    """The vendor's config.json as published: DeepSeek-OCR's, with another class, a window and a longer context."""
    config = vendors() | {
        "architectures": ["UnlimitedOCRForCausalLM"],
        "model_type": "unlimited-ocr",
        "sliding_window": 128,
        "sliding_window_size": 128,
        "max_position_embeddings": 32768,
    }
    return changed(config, ("language_config", "max_position_embeddings"), 32768)


@pytest.mark.parametrize("config", [TRANSFORMERS, vendors_unlimited(), SimpleNamespace(**TRANSFORMERS)])
def test_a_config_gives_the_preset(config: Any) -> None:
    assert spec_of(config) == replace(FULL, model_id="m", model_variant="v")


def test_a_config_of_transformers_that_states_no_layers_slides_in_all() -> None:
    config = without(TRANSFORMERS, ("text_config", "layer_types"))
    assert spec_of(config) == spec_of(TRANSFORMERS)
    assert isinstance(spec_of(without(config, ("text_config", "sliding_window"))).text, SlidingTextSpec)
    full = changed(TRANSFORMERS, ("text_config", "layer_types"), ["full_attention"] * 12)
    assert registry.recognised(full)[0].title == "DeepSeek-OCR"


@pytest.mark.parametrize("window", [2, 3, 4_096])
def test_a_window_is_taken_from_two_positions_on(window: int) -> None:
    text = spec_of(changed(TRANSFORMERS, ("text_config", "sliding_window"), window)).text
    assert isinstance(text, SlidingTextSpec)
    assert text.sliding_window == window


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed(TRANSFORMERS, ("text_config", "layer_types"), ["reference_sliding_attention"] * 11),
            r"text_config.layer_types: got .*, accepted: reference_sliding_attention in each of the 12 .*Unlimited-OCR",
        ),
        (changed(TRANSFORMERS, ("text_config", "sliding_window"), 1), r"text_config.sliding_window: got 1, accepted"),
        (changed(TRANSFORMERS, ("text_config", "sliding_window"), None), r"text_config.sliding_window: got None, accepted"),
        (
            vendors_unlimited() | {"sliding_window_size": 64},
            r"language_config.sliding_window_size: got 64, accepted: 128, as sliding_window \(Unlimited-OCR\)",
        ),
        (vendors_unlimited() | {"use_mla": True}, r"use_mla: got True, accepted: False \(Unlimited-OCR\)"),
        (vendors_unlimited() | {"windows": 3}, r"windows: got 3, accepted: only the fields of Unlimited-OCR's config"),
    ],
)
def test_a_config_that_is_none_of_its_is_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(config)


@pytest.mark.parametrize(
    ("config", "spec", "both"),
    [
        (vendors_unlimited(), DEEPSEEK, ("of Unlimited-OCR", "--preset deepseek-ocr-v1-base is DeepSeek-OCR")),
        (TRANSFORMERS, DEEPSEEK, ("of Unlimited-OCR", "--preset deepseek-ocr-v1-base is DeepSeek-OCR")),
        (vendors(), FULL, ("of DeepSeek-OCR", "--preset unlimited-ocr-base is Unlimited-OCR")),
    ],
)
def test_a_checkpoint_of_one_model_beside_the_preset_of_another_is_refused_with_both_names(
    tmp_path: Path, config: dict[str, Any], spec: ModelSpec, both: tuple[str, str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError) as refused:
        check_checkpoint(tmp_path, spec)
    assert all(part in str(refused.value) for part in both)


# --- commands


def test_the_commands_take_its_presets(capsys: pytest.CaptureFixture[str]) -> None:
    preset = ["--preset", "unlimited-ocr-base"]
    assert main(["crops", "9000x9000", "--json", *preset]) == 0
    assert json.loads(capsys.readouterr().out)[0]["grid"] == "5x5"
    cost = ["cost", "--crop-grid", "4x8", "--seq-len", "4096", "--decode-steps", "200", "--json", *preset]
    assert main(cost) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["image_tokens"] == 3553
    assert found["stages"]["decode"]["steps"][-1]["kv_bytes"] == (4096 + 127) * 61_440
    assert main(["capacity", "--on", "h200", "--mode", "base", "--new-tokens", "4096", "--json", *preset]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["cost", "--crop-grid", "4x8", "--seq-len", "4096"]) == 2
    assert "accepted: WxH with 2 to 9 tiles" in capsys.readouterr().err


def test_a_long_answer_takes_less_memory_than_with_a_cache_that_grows() -> None:
    own, full = (registry.model_of(spec).cache_after(300, decoded=4000, batch_size=1).kv_bytes for spec in (FULL, DEEPSEEK))
    assert (own, full) == ((300 + 127) * 61_440, 4300 * 61_440)


def test_the_presets_are_of_its_family() -> None:
    family = registry.family_of(FULL)
    assert registry.presets_of(family) == (family.full_size, family.small)
    assert all(isinstance(registry.load_spec(name), UnlimitedOCRSpec) for name in registry.presets_of(family))
