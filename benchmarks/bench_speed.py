"""Speed of the closed form against torch's FlopCounterMode on meta in the same run.

The grid is the default one: 5 prefills and 80 decode steps. The counter counts FLOPs only. The formulas are evaluated once
for every kind of call, as polynomials in its dimensions, before anything is timed: a line says how long that takes.

speed_of_the_formulas        the polynomials of a prefill and of a decode step
speed_of_the_stateful_root   FLOPs, bytes and memory of every point, one stage after the other
speed_of_one_call            the same, vectorised
speed_of_a_million_points    (length, batch) pairs, vectorised
speed_of_a_fitted_polynomial a quadratic through three counted prefills and a line through two counted steps
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTHS = (256, 512, 1024, 2048, 4096)
STEPS = 16
pytestmark = pytest.mark.speed


@pytest.fixture(scope="module")
def count() -> Callable[[int, int], list[int]]:
    """Counted FLOPs of a prefill and decode steps on the full-size model on meta, with experts that the counter counts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from analytic.core.execution import Execution
    from analytic.models.registry import load_spec
    from fixtures.adapter import cache_of, forward_arguments
    from fixtures.model.real import build

    run = Execution(device="meta", attention="sdpa", experts="batched_mm", dtype="bfloat16")
    model = build(load_spec("deepseek-ocr-v1-base"), run)

    def counted(length: int, cache: Any) -> tuple[int, Any]:
        ids = torch.empty((1, length), dtype=torch.long, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = model(**forward_arguments(model, ids, cache=cache))
        return counter.get_total_flops(), cache_of(output)

    def point(length: int, steps: int) -> list[int]:
        flops, cache = counted(length, None)
        found = [flops]
        for _ in range(steps):
            flops, cache = counted(1, cache)
            found.append(flops)
        return found

    point(8, 1)  # imports and first-call caches
    return point


@pytest.fixture(scope="module")
def counter_time_s(count: Callable[[int, int], list[int]]) -> float:
    """Seconds that the counter takes for the grid."""
    begin = time.perf_counter()
    for length in LENGTHS:
        count(length, STEPS)
    return time.perf_counter() - begin


def speed_of_the_formulas(benchmark: Any, counter_time_s: float, note: Callable[[str], None]) -> None:
    from analytic.core.execution import FULL_SIZE
    from analytic.models.deepseek_ocr.language_model import Decoder, prepared_cost
    from analytic.models.registry import load_spec

    text = load_spec("deepseek-ocr-v1-base").text
    decoders = [
        Decoder(
            spec=text,
            shape=text.call_shape(batch=1, new_tokens=new, past_tokens=past, prompt_tokens=1024),
            logits="last",
            run=FULL_SIZE,
        )
        for new, past in ((1024, 0), (1, 1024))
    ]

    def prepare() -> None:
        prepared_cost.cache_clear()
        for decoder in decoders:
            decoder.forward_cost()

    judge(benchmark, prepare, counter_time_s, "the formulas, once", 500, note)


def speed_of_the_stateful_root(benchmark: Any, counter_time_s: float, note: Callable[[str], None]) -> None:
    from analytic.models.registry import load_spec, model_of

    root = model_of(load_spec("deepseek-ocr-v1-base"))

    def walk() -> None:
        root._window = None  # keep nothing from the previous round
        for length in LENGTHS:
            root.start_prefill(length, 1)
            root.forward_cost()
            root.start_decode()
            for _ in range(STEPS):
                root.forward_cost()
                root.decode_one_token()

    judge(benchmark, walk, counter_time_s, "stateful root", 2_500, note)


def speed_of_one_call(benchmark: Any, counter_time_s: float, note: Callable[[str], None]) -> None:
    import numpy as np

    from analytic.core.execution import FULL_SIZE
    from analytic.models.registry import load_spec
    from analytic.planning.sweep import evaluate

    spec, lengths = load_spec("deepseek-ocr-v1-base"), np.array(LENGTHS)
    new = np.concatenate([lengths, np.ones(lengths.size * STEPS, dtype=np.int64)])
    past = np.concatenate([0 * lengths, (lengths[:, None] + np.arange(STEPS)).ravel()])

    def call() -> None:
        evaluate(spec, FULL_SIZE, batch_size=1, new_tokens=new, past_tokens=past)

    judge(benchmark, call, counter_time_s, "one vectorised call", 15_000, note)


def speed_of_a_million_points(benchmark: Any, note: Callable[[str], None]) -> None:
    import numpy as np

    from analytic.core.execution import FULL_SIZE
    from analytic.models.registry import load_spec
    from analytic.planning.sweep import evaluate

    spec, rng = load_spec("deepseek-ocr-v1-base"), np.random.default_rng(1)
    lengths, batches = rng.integers(1, 8192, 1_000_000), rng.integers(1, 64, 1_000_000)
    benchmark.pedantic(lambda: evaluate(spec, FULL_SIZE, batch_size=batches, new_tokens=lengths, past_tokens=0), rounds=3)
    if benchmark.stats is not None:
        taken = benchmark.stats.stats.median
        note(f"a million (length, batch) points in {taken:.2f} s")
        assert taken <= 1.0


def speed_of_a_fitted_polynomial(
    benchmark: Any, count: Callable[[int, int], list[int]], counter_time_s: float, note: Callable[[str], None]
) -> None:
    import numpy as np

    def fit() -> tuple[Any, Any]:
        (short, first), (middle,), (long, last) = count(256, 1), count(1024, 0), count(4096, 1)
        return np.polyfit((256, 1024, 4096), (short, middle, long), 2), np.polyfit((256, 4096), (first, last), 1)

    benchmark.pedantic(fit, rounds=1)
    if benchmark.stats is not None:
        taken = benchmark.stats.stats.median
        note(f"polynomial fitted to counter runs, FLOPs alone: {taken:.2f} s, {counter_time_s / taken:.1f} times faster")


def judge(
    benchmark: Any, call: Callable[[], None], counter_time_s: float, name: str, least: int, note: Callable[[str], None]
) -> None:
    """Time `call`, note its speedup over the counter, and require at least `least`."""
    call()
    benchmark.pedantic(call, rounds=30)
    if benchmark.stats is None:  # --benchmark-disable
        return
    taken = benchmark.stats.stats.median
    ratio = counter_time_s / taken
    benchmark.extra_info["times_faster_than_the_counter"] = ratio
    note(f"{name}: {taken * 1e3:.3f} ms against {counter_time_s:.2f} s of the counter, {ratio:,.0f} times faster")
    assert ratio >= least, f"{name}: {ratio:,.0f} times faster than the counter, expected at least {least:,}"
