"""The full-size model really run on the CPU in float32 (13.3 GB): opt in with `nox -s full_size` or `-m full_size`."""

from collections import defaultdict
from collections.abc import Callable

import pytest

from analytic.model import DeepseekOCRModel
from analytic.workload import CropGrid, TokenLayout, gundam
from fixtures import stages
from fixtures.compare import compare
from fixtures.ledger import Ledger

PAGE = gundam(CropGrid.parse("2x1"))
LAYOUT = TokenLayout.of(512, PAGE)
NEW_TOKENS = 4


def flops_by_module(*ledgers: Ledger) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for ledger in ledgers:
        for key, entry in ledger.entries.items():
            if entry.executed_flops:
                sums[key.path] += entry.executed_flops
    return dict(sums)


@pytest.mark.full_size
def test_a_page_of_the_full_size_model_is_what_meta_says(subject_on: Callable) -> None:
    real, meta = subject_on("cpu", "sdpa", "grouped_mm"), subject_on("meta", "sdpa", "grouped_mm")
    assert sum(one.numel() * one.element_size() for one in real.model.parameters()) == 4 * 3_335_504_128

    generated = stages.generate(real, PAGE, LAYOUT, batch_size=1, new_tokens=NEW_TOKENS)
    assert generated.new_ids.shape == (1, NEW_TOKENS)

    on_vision = stages.vision(meta, PAGE, batch_size=1)
    on_prefill, cache = stages.prefill(meta, LAYOUT, batch_size=1)
    on_decode = list(stages.decode(meta, cache, batch_size=1, steps=NEW_TOKENS - 1))
    ledgers = [stage.ledger for stage in (on_vision, on_prefill, *on_decode)]
    assert flops_by_module(generated.ledger) == flops_by_module(*ledgers)

    root = DeepseekOCRModel.from_spec(real.spec, run=real.run)
    root.start_vision(workload=PAGE)
    trees = [root.tree()]
    root.start_prefill(512, 1)
    trees.append(root.tree())
    kv = root.start_decode()
    for _ in range(NEW_TOKENS - 1):
        trees.append(root.tree())
        kv = root.decode_one_token()
    extra = {"kv_bytes": (kv.kv_bytes, generated.kv_bytes)}
    agreed = compare(*trees, ledger=generated.ledger, run=real.run, model=real.model, only_stages=True, extra=extra)
    assert agreed.differences() == ()
