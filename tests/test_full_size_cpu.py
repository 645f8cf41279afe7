"""The full-size model really run on the CPU in float32 (13.3 GB): opt in with `nox -s full_size` or `-m full_size`."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import TokenLayout, gundam
from fixtures.config.points import Point
from fixtures.model import counted_stages as stages
from fixtures.model.counted_stages import Measured, ModelUnderTest
from fixtures.op_counter.ledger import Ledger
from fixtures.validation.bench import Bench
from fixtures.validation.comparison import compare, group_of

PAGE = gundam(CropGrid.parse("2x1"))
LAYOUT = TokenLayout.of(512, PAGE)
NEW_TOKENS = 4
pytestmark = pytest.mark.full_size


def run_stages(subject: ModelUnderTest) -> Iterator[Measured]:
    """Vision, prefill and the decode steps of a page, one after the other."""
    yield stages.vision(subject, PAGE, batch_size=1)
    prefill, cache = stages.prefill(subject, LAYOUT, batch_size=1)
    yield prefill
    yield from stages.decode(subject, cache, batch_size=1, steps=NEW_TOKENS - 1)


def entries(ledger: Ledger) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """FLOPs of every module; and calls of every class of operator but attention's, which is one kernel here, two there."""
    flops: Counter[str] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for key, entry in ledger.entries.items():
        flops[key.path] += entry.executed_flops
        if group_of(key.kind) != "other" and not key.path.endswith("attn"):
            calls[key.path, key.kind] += entry.launches
    return +flops, calls


def test_every_stage_of_the_full_size_model_is_what_meta_and_the_closed_form_say(subject_on: Callable) -> None:
    real, meta = subject_on("cpu", "sdpa", "grouped_mm"), subject_on("meta", "sdpa", "grouped_mm")
    assert sum(one.numel() * one.element_size() for one in real.model.parameters()) == 4 * 3_335_504_128
    root = DeepseekOCRModel.from_spec(real.spec, run=real.run)
    for number, (here, there) in enumerate(zip(run_stages(real), run_stages(meta), strict=True)):
        assert entries(here.ledger) == entries(there.ledger)
        if number == 0:
            root.start_vision(PAGE)
        elif number == 1:
            root.start_prefill(512, 1)
        else:
            root.start_decode()
        # bytes of every class of operator too, in float32
        assert compare(root.tree(), ledger=here.ledger, run=real.run, model=real.model).differences() == ()
        if number > 1:
            assert root.decode_one_token().kv_bytes == here.kv_bytes == 2 * there.kv_bytes


def test_a_page_through_generate_is_what_the_closed_form_says(subject_on: Callable) -> None:
    bench = Bench(subject_on("cpu", "sdpa", "grouped_mm"), batch_size=1, decode_steps=NEW_TOKENS - 1)
    result = bench.end_to_end(Point(label="gundam-2x1-512", seq_len=512, page=PAGE))
    assert result.comparison.differences() == ()
    assert result.as_json(0.0)["compared"]["new_tokens"] == {"closed_form": NEW_TOKENS, "measured": NEW_TOKENS}
