"""The shadow of a real run: equal to the ledger and the stateful model, and gone afterwards whatever happened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES, TokenLayout, gundam
from analytic.models.registry import parts
from fixtures.adapter import FrameworkError, cache_of, forward_arguments
from fixtures.model.annotation import analytic_stage
from fixtures.model.caches import cache_bytes
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.inputs import page_inputs, token_ids
from fixtures.model.shadow import (
    LAYERS,
    ShadowError,
    execution_of,
    get_analytic_run_stats,
    reset_analytic_run_stats,
    shadow,
    write_analytic_run_stats,
)
from fixtures.model.shadow_stats import AnalyticRunStats
from fixtures.op_counter.ledger import Ledger

PAGE = gundam(CropGrid.parse("2x1"))


@pytest.fixture
def subject(subject_on: Callable) -> ModelUnderTest:
    return subject_on("cpu", "sdpa", "grouped_mm", "tiny")


def hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def page_arguments(subject: ModelUnderTest, seq_len: int, batch_size: int = 1) -> dict[str, Any]:
    ids = token_ids(TokenLayout.of(seq_len, PAGE), subject.spec, batch_size=batch_size, run=subject.run)
    inputs = page_inputs(PAGE, batch_size=batch_size, run=subject.run).as_arguments()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}


def under(path: str) -> bool:
    return (
        path == "lm_head"
        or path.startswith((f"{LAYERS}.", *(f"{part.path}." for part in parts())))
        or (path in {part.path for part in parts()})
    )


def test_an_image_to_64_tokens_is_what_the_ledger_and_the_stateful_model_say(subject: ModelUnderTest) -> None:
    model, arguments = subject.model, page_arguments(subject, 512)
    with Ledger(model, outside="") as ledger, shadow(model) as stats:
        model.generate(**arguments, do_sample=False, min_new_tokens=64, max_new_tokens=64)
    report = stats.report()
    ran = sum(entry.executed_flops for entry in ledger.entries.values())
    moved = sum(entry.read_bytes + entry.written_bytes for key, entry in ledger.entries.items() if under(key.path))
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_vision(workload=PAGE)
    vision = int(root.forward_cost().executed_flops)
    root.start_prefill(512, 1)
    prefill = int(root.forward_cost().executed_flops)
    cache, decode = root.start_decode(), 0
    for _ in range(63):
        decode += int(root.forward_cost().executed_flops)
        cache = root.decode_one_token()
    assert report.flops_by_stage == {"vision": vision, "prefill": prefill, "decode": decode}
    assert report.flops == ran == vision + prefill + decode
    assert report.kv_bytes == cache.kv_bytes
    assert report.decoded_tokens == 63
    assert report.flops_per_decoded_token == decode / 63
    # bytes of the hooked modules; the closed form leaves out experts that no token is expected to reach
    touched = sum(report.bytes_by_stage.values())
    assert touched < moved


def test_the_cache_is_as_large_as_its_tensors_at_every_step(subject: ModelUnderTest) -> None:
    model, layers = subject.model, subject.spec.text.num_layers
    ids = token_ids(TokenLayout.of(24, None), subject.spec, batch_size=2, run=subject.run)
    with torch.inference_mode(), shadow(model) as stats:
        output, sizes = model(input_ids=ids, use_cache=True), []
        for _ in range(5):
            sizes.append(cache_bytes(cache_of(output)))
            output = model(**forward_arguments(model, ids[:, :1], cache=cache_of(output), logits_to_keep=0))
        sizes.append(cache_bytes(cache_of(output)))
    steps = [step for step in stats.decoder_steps() if step.layer is not None]
    assert [sum(one.kv_bytes for one in steps[start : start + layers]) for start in range(0, len(steps), layers)] == sizes
    assert [one.context_len for one in steps[::layers]] == [24, 25, 26, 27, 28, 29]
    assert {one.tokens for one in steps[layers:]} == {2}


def test_generate_is_booked_as_one_prefill_and_decodes_with_the_cache_of_each_step(subject: ModelUnderTest) -> None:
    model, layers, sizes = subject.model, subject.spec.text.num_layers, []
    with shadow(model) as stats:
        seen = model.register_forward_hook(lambda _, args, output: sizes.append(cache_bytes(cache_of(output))))
        model.generate(**page_arguments(subject, 512), do_sample=False, min_new_tokens=9, max_new_tokens=9)
        seen.remove()
    steps = [step for step in stats.decoder_steps() if step.layer is not None]
    assert [step.stage for step in steps[::layers]] == ["prefill", *["decode"] * 8]
    assert [step.context_len for step in steps[::layers]] == list(range(512, 521))
    assert [sum(one.kv_bytes for one in steps[start : start + layers]) for start in range(0, len(steps), layers)] == sizes


def test_a_layer_that_is_called_without_the_keyword_of_its_cache_is_refused(subject: ModelUnderTest) -> None:
    layer = subject.model.get_submodule(f"{LAYERS}.0")
    hidden = torch.zeros(1, 4, subject.spec.text.hidden_size)
    with (
        shadow(subject.model),
        pytest.raises(FrameworkError, match="got a decoder layer called with position_ids, accepted"),
    ):
        layer(hidden, position_ids=None)
    assert not hasattr(subject.model, "_dsocr_shadow")


def test_the_full_size_on_meta_has_the_flops_of_the_stateful_model(subject_on: Callable) -> None:
    subject = subject_on("meta", "sdpa", "grouped_mm")
    model = subject.model
    inputs = page_inputs(PAGE, batch_size=1, run=subject.run)
    ids = token_ids(TokenLayout.of(1024, None), subject.spec, batch_size=1, run=subject.run)
    with torch.no_grad(), shadow(model) as stats:
        model.get_image_features(**inputs.as_arguments())
        cache = cache_of(model(**forward_arguments(model, ids)))
        for _ in range(3):
            model(**forward_arguments(model, ids[:, :1], cache=cache))
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_vision(workload=PAGE)
    expected = {"vision": int(root.forward_cost().executed_flops)}
    root.start_prefill(1024, 1)
    expected["prefill"] = int(root.forward_cost().executed_flops)
    expected["decode"] = 0
    root.start_decode()
    for _ in range(3):
        expected["decode"] += int(root.forward_cost().executed_flops)
        root.decode_one_token()
    assert stats.report().flops_by_stage == expected
    vision = stats.vision_steps()
    assert [(one.module, one.views) for one in vision] == [
        ("sam", 1), ("clip", 1), ("projector", 1), ("sam", 2), ("clip", 2), ("projector", 2)
    ]  # fmt: skip
    assert vision[0].weight_bytes == 2 * 95_569_152


def test_bytes_are_those_of_the_modules_trees(subject: ModelUnderTest) -> None:
    """On lengths where every expert is reached, expected and measured traffic are the same."""
    model = subject.model
    ids = token_ids(TokenLayout.of(256, None), subject.spec, batch_size=1, run=subject.run)
    with torch.no_grad(), Ledger(model, outside="") as ledger, shadow(model) as stats:
        model(input_ids=ids, use_cache=True, logits_to_keep=1)
    moved = sum(entry.read_bytes + entry.written_bytes for key, entry in ledger.entries.items() if under(key.path))
    assert sum(stats.report().bytes_by_stage.values()) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "top_k": 5},
        {"do_sample": False, "eos_token_id": list(range(3, 5000))},  # almost any token ends it
    ],
    ids=["beams", "sampling", "early stop"],
)
def test_beams_sampling_batches_and_early_stops_are_what_ran(subject: ModelUnderTest, how: dict[str, Any]) -> None:
    model, arguments = subject.model, page_arguments(subject, 512, batch_size=2)
    torch.manual_seed(3)
    with Ledger(model, outside="") as ledger, shadow(model) as stats:
        model.generate(**arguments, max_new_tokens=6, **how)
    assert stats.report().flops == sum(entry.executed_flops for entry in ledger.entries.values())


def test_a_stage_that_is_named_is_kept(subject: ModelUnderTest) -> None:
    ids = token_ids(TokenLayout.of(8, None), subject.spec, batch_size=1, run=subject.run)
    with torch.no_grad(), shadow(subject.model) as stats, analytic_stage("warm-up"):
        subject.model(input_ids=ids)
    assert set(stats.report().flops_by_stage) == {"warm-up"}


def forward(subject: ModelUnderTest) -> None:
    with torch.no_grad():
        subject.model(input_ids=token_ids(TokenLayout.of(8, None), subject.spec, batch_size=1, run=subject.run))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_come_off_and_the_statistics_stay_after_an_error(subject: ModelUnderTest, error: type[BaseException]) -> None:
    last = subject.model.get_submodule(f"{LAYERS}.{subject.spec.text.num_layers - 1}")

    def fail(*_: Any) -> None:
        raise error

    handle, before = last.mlp.register_forward_pre_hook(fail), hooks(subject.model)
    kept: list[AnalyticRunStats] = []

    def run() -> None:
        with shadow(subject.model) as stats:
            kept.append(stats)
            forward(subject)

    try:
        with pytest.raises(error):
            run()
        assert hooks(subject.model) == before
    finally:
        handle.remove()
    assert [len(one.layers) for one in kept[0].forwards] == [subject.spec.text.num_layers]
    assert kept[0].head_calls == []
    with shadow(subject.model):  # and it can be done again
        forward(subject)
    assert hooks(subject.model) == 0


def test_an_error_in_a_hook_leaves_no_hooks(subject: ModelUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.model import shadow as module

    def broken(cache: Any, new_tokens: int) -> int:
        raise ShadowError("KV cache: got StaticLayer")

    monkeypatch.setattr(module, "_cached", broken)
    with pytest.raises(ShadowError), shadow(subject.model) as stats:
        forward(subject)
    assert hooks(subject.model) == 0
    assert stats.report().flops == 0


def test_a_second_shadow_is_refused_and_the_first_goes_on(subject: ModelUnderTest) -> None:
    with shadow(subject.model) as stats:
        second = shadow(subject.model)
        with pytest.raises(ShadowError, match="has a shadow already"):
            second.__enter__()
        forward(subject)
    assert [one.layers for one in stats.forwards] == [list(range(subject.spec.text.num_layers))]
    assert hooks(subject.model) == 0


def test_a_static_cache_is_refused_by_name(subject: ModelUnderTest) -> None:
    from transformers import StaticCache

    cache = StaticCache(config=subject.model.config.text_config, max_cache_len=16)
    ids = token_ids(TokenLayout.of(8, None), subject.spec, batch_size=1, run=subject.run)
    refused = pytest.raises(ShadowError, match=r"KV cache: got Static\w+, accepted: transformers' dynamic")
    with torch.no_grad(), refused, shadow(subject.model):
        subject.model(**forward_arguments(subject.model, ids, cache=cache))
    assert hooks(subject.model) == 0


def test_statistics_are_written_reset_and_fit_their_schema(subject: ModelUnderTest, tmp_path: Path) -> None:
    with shadow(subject.model) as stats:
        forward(subject)
        with torch.no_grad():
            subject.model.get_image_features(**page_inputs(MODES["tiny"], batch_size=1, run=subject.run).as_arguments())
    decoder, vision = (json.loads(path.read_text()) for path in stats.write(tmp_path / "run"))
    assert len(decoder["steps"]) == subject.spec.text.num_layers + 1
    assert [step["module"] for step in vision["steps"]] == ["sam", "clip", "projector"]
    assert vision["execution"]["device"] == "cpu"
    stats.reset()
    assert stats.report().flops == 0
    assert stats.report().flops_per_decoded_token is None


def test_the_execution_is_read_from_the_model(subject_on: Callable) -> None:
    for device, attention, experts in (("cpu", "eager", "batched_mm"), ("meta", "sdpa", "grouped_mm")):
        subject = subject_on(device, attention, experts, "tiny")
        assert execution_of(subject.model) == subject.run


def test_the_stats_of_the_last_shadow_are_at_hand_without_its_variable(subject: ModelUnderTest, tmp_path: Path) -> None:
    with shadow(subject.model) as stats:
        forward(subject)
        assert get_analytic_run_stats() is stats
    assert get_analytic_run_stats() is stats
    decoder, _ = write_analytic_run_stats(tmp_path)
    assert len(json.loads(decoder.read_text())["steps"]) == subject.spec.text.num_layers + 1
    reset_analytic_run_stats()
    assert stats.report().flops == 0


def test_without_a_shadow_so_far_there_are_no_stats(monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.model import shadow as module

    monkeypatch.setattr(module, "_latest", [])
    reset_analytic_run_stats()
    with pytest.raises(ShadowError, match="no shadow so far"):
        get_analytic_run_stats()
