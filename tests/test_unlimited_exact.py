"""Unlimited-OCR on transformers' own class: closed form and operators agree, integer for integer, in every module.

The full size on meta, with a window that a few steps pass; the whole grid is behind the marker `full_size`. `generate()` on
the CPU, from an image to 300 tokens, past the window of the preset.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.crop_rule import grids_of
from analytic.models.deepseek_ocr.workload import TokenLayout
from analytic.models.registry import load_spec, model_of
from analytic.models.unlimited_ocr.spec import UNLIMITED_PAGES, UnlimitedOCRSpec
from analytic.models.unlimited_ocr.text_spec import SlidingTextSpec
from fixtures.adapter import cache_of, forward_arguments
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.caches import cache_bytes, rewind
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.inputs import page_inputs, token_ids
from fixtures.model.real import build
from fixtures.model.shadow import shadow
from fixtures.model.timed_calls import Calls
from fixtures.op_counter.ledger import Ledger
from fixtures.validation.bench import Bench
from fixtures.validation.comparison import compare

KERNELS = list(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm")))
WINDOW = 3
"""Of the models that a few steps bring past their window."""
LENGTHS = (1, 255, 256, 257, 1024, 4096, 8192)
FEW = {"4x8", "1x32", "32x1", "5x6", "2x1"}


def windowed(preset: str, window: int, layers: int | None = None) -> UnlimitedOCRSpec:
    """A preset with another window, and with its first decoder layers alone."""
    spec = load_spec(preset)
    assert isinstance(spec, UnlimitedOCRSpec)
    assert isinstance(spec.text, SlidingTextSpec)
    return replace(spec, text=replace(spec.text, window=window, num_layers=layers or spec.text.num_layers))


@cache
def subject_with(
    device: str, attention: str, experts: str, preset: str, window: int, layers: int | None = None, *, dtype: str = ""
) -> ModelUnderTest:
    spec = windowed(preset, window, layers)
    dtype = dtype or ("bfloat16" if device == "meta" else "float32")
    run = Execution(device=device, attention=attention, experts=experts, dtype=dtype)  # type: ignore[arg-type]
    return ModelUnderTest(spec=spec, run=run, model=build(spec, run))


def agree(subject: ModelUnderTest, seq_len: int, batch_size: int, *, steps: int) -> None:
    """Prefill and every step agree in every module, in FLOPs, bytes, launches and parameters, and in the cache."""
    bench, point = Bench(subject, batch_size=batch_size, decode_steps=steps), Point(label="", seq_len=seq_len, page=None)
    for result in (bench.prefill(point), bench.decode(point)):
        assert result.comparison.differences() == ()
        assert result.total("measured", "executed_flops") > 0


def tested(full: list[tuple[object, ...]], few: set[tuple[object, ...]]) -> list[object]:
    """Every combination, those outside of `few` only in the run of the whole grid."""
    return [pytest.param(*one, marks=() if one in few else pytest.mark.full_size) for one in full]


@pytest.mark.parametrize(
    ("attention", "experts", "batch_size", "seq_len"),
    tested(
        [(*kernels, batch, length) for kernels in KERNELS for batch in (1, 2, 4) for length in LENGTHS],
        {(*kernels, 2, 257) for kernels in KERNELS}
        | {("sdpa", "grouped_mm", 1, length) for length in (1, 8192)}
        | {("eager", "batched_mm", 4, 1024)},
    ),
)
def test_the_full_size_agrees_in_prefill_and_over_the_edge_of_the_window(
    attention: str, experts: str, batch_size: int, seq_len: int
) -> None:
    agree(subject_with("meta", attention, experts, "unlimited-ocr-base", WINDOW), seq_len, batch_size, steps=WINDOW + 2)


@pytest.mark.full_size
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
def test_the_full_size_agrees_past_the_window_of_the_preset(attention: str, experts: str) -> None:
    agree(subject_with("meta", attention, experts, "unlimited-ocr-base", 128), 257, 1, steps=131)


@pytest.mark.parametrize(
    ("grid", "attention"),
    tested(
        [(str(grid), attention) for grid in grids_of(32) for attention in ("sdpa", "eager")],
        {(grid, "sdpa") for grid in FEW} | {("4x8", "eager")},
    ),
)
def test_every_grid_agrees_in_vision(grid: str, attention: str) -> None:
    subject = subject_with("meta", attention, "grouped_mm", "unlimited-ocr-base", WINDOW)
    page = UNLIMITED_PAGES.parse("grid", grid)
    result = Bench(subject, batch_size=1, decode_steps=1).vision(Point(label=grid, seq_len=None, page=page))
    assert result.comparison.differences() == ()
    assert result.total("measured", "image_tokens") == page.image_tokens


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(("attention", "experts"), KERNELS)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_tiny_model_agrees_on_every_device(device: str, attention: str, experts: str, batch_size: int) -> None:
    agree(subject_with(device, attention, experts, "unlimited-tiny", WINDOW), 20, batch_size, steps=WINDOW + 2)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_prompt_in_two_parts_and_several_tokens_after_it_agree(device: str, attention: str) -> None:
    """The prompt's length is declared, as `generate()` declares it; then two tokens at once, twice, past a window of 3."""
    subject = subject_with(device, attention, "grouped_mm", "unlimited-tiny", WINDOW)
    model, spec, run = subject.model, subject.spec, subject.run
    from transformers import DynamicCache

    kept = DynamicCache(config=model.config.text_config)
    for layer in kept.layers:
        layer.set_prefill_length(12)
    root, held = model_of(spec, run=run), None
    for new in (7, 5):
        ids = token_ids(TokenLayout.of(new, None), spec, batch_size=2, run=run)
        with torch.no_grad(), Ledger(model, outside="") as ledger:
            model(**forward_arguments(model, ids, cache=kept))
        held = root.start_prefill(new, 2, kv_cache=held)
        assert compare(root.tree(), ledger=ledger, run=run, model=model).differences() == ()
        assert held.kv_bytes == cache_bytes(kept)
    assert held.length == held.prompt_length == 12
    with torch.no_grad(), shadow(model) as stats:
        for _ in range(3):
            ids = token_ids(TokenLayout.of(2, None), spec, batch_size=2, run=run)
            with Ledger(model, outside="") as ledger:
                model(**forward_arguments(model, ids, cache=kept))
    shapes = [spec.text.call_shape(batch=2, new_tokens=2, past_tokens=past, prompt_tokens=12) for past in (12, 14, 16)]
    assert [shape.context for shape in shapes] == [14, 16, 16]  # 12 + 2, then 12, a full window of 2 and 2
    assert [shape.stored for shape in shapes] == [14, 14, 14]
    steps = stats.decoder_steps()
    assert [step.kv_bytes for step in steps if step.layer == 0] == [cache_bytes(kept) // spec.text.num_layers] * 3


def test_generate_reads_an_image_and_writes_300_tokens_as_the_closed_form_says() -> None:
    """The tiny preset with its window of 128, two decoder layers: ledger, shadow and the cache's tensors, at every step."""
    subject = subject_with("cpu", "sdpa", "grouped_mm", "unlimited-tiny", 128, 2)
    model, spec, sizes = subject.model, subject.spec, []
    page, layers = UNLIMITED_PAGES.mode("tiny"), spec.text.num_layers
    layout = TokenLayout.of(page.image_tokens + 9, page)
    seen = model.register_forward_hook(lambda _, args, output: sizes.append(cache_bytes(cache_of(output))))
    with shadow(model) as stats:
        generated = stages.generate(subject, page, layout, batch_size=1, new_tokens=300)
    seen.remove()
    root = model_of(spec, run=subject.run)
    trees, flops, held = [], [], []
    for call in root.walk(page, seq_len=layout.seq_len, batch_size=1, decode_steps=299):
        trees.append(root.tree())
        flops.append(int(root.forward_cost().executed_flops))
        held += [] if call.cache is None else [call.cache.kv_bytes]
    assert generated.new_ids.shape == (1, 300)
    assert compare(*trees, ledger=generated.ledger, run=subject.run, model=model, only_stages=True).differences() == ()
    assert sizes == held
    assert held[-1] == (layout.seq_len + 127) * held[0] // layout.seq_len
    report = stats.report()
    assert report.flops_by_stage == {"vision": flops[0], "prefill": flops[1], "decode": sum(flops[2:])}
    assert report.kv_bytes == held[-1]
    steps = [step for step in stats.decoder_steps() if step.layer is not None]
    by_call = [steps[start : start + layers] for start in range(0, len(steps), layers)]
    assert [sum(step.kv_bytes for step in call) for call in by_call] == held
    heads = [step.flops for step in stats.decoder_steps() if step.layer is None]
    assert [sum(step.flops for step in call) + head for call, head in zip(by_call, heads, strict=True)] == flops[1:]


def test_a_window_of_tokens_is_timed_from_the_prompt_every_time() -> None:
    """Five tokens pass a window of 3; the cache is cut back to its prompt, and the next round costs the same."""
    subject = subject_with("cpu", "sdpa", "grouped_mm", "unlimited-tiny", WINDOW)
    call = Calls(subject, batch_size=1, context_len=lambda prefill: prefill).decode(16, steps=5)
    assert call.restore is not None
    for _ in range(2):
        with torch.no_grad(), Ledger(subject.model, outside="") as ledger:
            call.run()
        assert compare(*call.trees, ledger=ledger, run=subject.run, model=subject.model).differences() == ()
        call.restore()


def test_a_cache_that_slid_is_not_cut_back_into_its_window() -> None:
    subject = subject_with("cpu", "sdpa", "grouped_mm", "unlimited-tiny", WINDOW)
    _, kept = stages.prefill(subject, TokenLayout.of(8, None), batch_size=1)
    for _ in stages.decode(subject, kept, batch_size=1, steps=5):
        pass
    with pytest.raises(RuntimeError, match="rewind: got 10 positions of a cache that slid"):
        rewind(kept, 10)
    rewind(kept, 8)
    assert kept.get_seq_length() == 8


def test_activations_are_those_of_the_real_model() -> None:
    subject = subject_with("meta", "sdpa", "grouped_mm", "unlimited-ocr-base", WINDOW)
    bench, point = Bench(subject, batch_size=1, decode_steps=5), Point(label="", seq_len=1024, page=None)
    for result in (bench.prefill(point), bench.decode(point)):
        assert result.activations is not None
        assert result.activations.closed_form_bytes == pytest.approx(result.activations.measured_bytes, rel=0.05)


@pytest.mark.parametrize("batch_size", [2])
def test_a_batch_of_pages_generates_as_the_closed_form_says(batch_size: int, subject_on: Callable) -> None:
    subject = subject_on("cpu", "eager", "batched_mm", "unlimited-tiny")
    page = UNLIMITED_PAGES.mode("tiny")
    bench = Bench(subject, batch_size=batch_size, decode_steps=6)
    point = Point(label="", seq_len=page.image_tokens + 4, page=page)
    assert bench.end_to_end(point).comparison.differences() == ()
    assert page_inputs(page, batch_size=batch_size, run=subject.run).num_local_patches == [0] * batch_size
