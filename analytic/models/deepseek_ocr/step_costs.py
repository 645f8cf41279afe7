"""The costs of many decode steps in one evaluation, and costs scaled by a factor."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from analytic.core.cost import Cost
from analytic.core.kvcache import SyntheticKVCache
from analytic.models.deepseek_ocr.language_model import Decoder


def decode_window(decoder: Decoder, cache: SyntheticKVCache, *, steps: int) -> dict[SyntheticKVCache, Cost]:
    """The costs of `steps` decode steps from `cache` on, by the cache before each, in one evaluation.

    A static cache ends at its capacity: steps beyond it have no cache and are left out.
    """
    import numpy as np

    past = np.arange(cache.length, cache.length + steps, dtype=np.int64)
    shape = decoder.spec.call_shape(
        batch=cache.batch_size,
        new_tokens=1,
        past_tokens=past,
        prompt_tokens=prompt_of(cache),
        capacity=cache.capacity,
    )
    cost = replace(decoder, shape=shape).tree("").total()
    columns = {name: np.broadcast_to(value, past.shape).tolist() for name, value in cost.as_dict().items()}
    rows = zip(*columns.values(), strict=True)
    lengths = past.tolist() if cache.capacity is None else [length for length in past.tolist() if length <= cache.capacity]
    return {
        replace(cache, length=length): Cost(**dict(zip(columns, row, strict=True)))
        for length, row in zip(lengths, rows, strict=False)
    }


def prompt_of(cache: SyntheticKVCache) -> int:
    """Positions of the prompt; all of them in a cache that does not tell them apart."""
    return cache.length if cache.prompt_length is None else cache.prompt_length


def scaled(cost: Cost, factor: Fraction) -> Cost:
    """`cost` times `factor`, except launches and weights (resident, touched); rounded down to whole units."""
    if factor == 1:
        return cost
    kept = ("launches", "weight_bytes", "touched_weight_bytes")
    return replace(cost, **{name: int(int(value) * factor) for name, value in cost.as_dict().items() if name not in kept})
