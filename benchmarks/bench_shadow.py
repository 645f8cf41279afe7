"""Overhead of the shadow model's hooks: decode steps with and without them, alternating in one run.

speed_of_a_decode_step_with_a_shadow[12-layers]  full depth, wide enough for 10 ms per step on a CPU
speed_of_a_decode_step_with_a_shadow[tiny]       the tiny preset, whose steps are shorter than those of any served model
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytic.models.spec import ModelSpec

BUDGET = 0.10
PAIRS, FEWEST, WARMUPS = 200, 10, 5
WITHIN_S = 30.0
pytestmark = pytest.mark.speed


def spec_of(name: str) -> ModelSpec:
    from analytic.models.registry import load_spec

    tiny = load_spec("tiny")
    if name == "tiny":
        return tiny
    text = replace(
        tiny.text, num_layers=12, hidden_size=1280, num_heads=10, num_kv_heads=10, intermediate_size=3424,
        moe_intermediate_size=448,
    )  # fmt: skip
    return replace(tiny, model_variant=name, text=text)


@pytest.mark.parametrize("name", ["12-layers", "tiny"])
def speed_of_a_decode_step_with_a_shadow(benchmark: Any, note: Callable[[str], None], name: str) -> None:
    import torch

    from analytic.core.execution import Execution
    from fixtures.adapter import cache_of, forward_arguments
    from fixtures.model.real import build
    from fixtures.model.shadow import shadow

    run = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
    model = build(spec_of(name), run)
    ids = torch.full((1, 256), 3)
    with torch.no_grad():
        cache = cache_of(model(**forward_arguments(model, ids)))

    def step() -> float:
        begin = time.perf_counter()
        model(**forward_arguments(model, ids[:, :1], cache=cache))
        taken = time.perf_counter() - begin
        cache.crop(256 - cache.get_seq_length())
        return taken

    def pairs() -> tuple[list[float], list[float]]:
        plain: list[float] = []
        shadowed: list[float] = []
        with torch.no_grad():
            until = time.perf_counter() + WITHIN_S / 2
            for number in range(PAIRS + WARMUPS):
                if number > FEWEST + WARMUPS and time.perf_counter() > until:
                    break
                order = ((plain, nullcontext()), (shadowed, shadow(model)))
                for times, context in order if number % 2 else reversed(order):
                    with context:
                        step()  # the first step after a switch is slow in either case: idle threads, cold caches
                        times.append(step())
        return plain[WARMUPS:], shadowed[WARMUPS:]

    plain, shadowed = benchmark.pedantic(pairs, rounds=1)
    overhead = statistics.median(after / before for before, after in zip(plain, shadowed, strict=True)) - 1
    note(f"shadow, {name}: {overhead:+.2%} on a decode step of {statistics.median(plain) * 1e3:.2f} ms, {len(plain)} pairs")
    assert overhead <= BUDGET
    assert sum(shadowed) - sum(plain) <= WITHIN_S
