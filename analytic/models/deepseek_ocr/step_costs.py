"""The costs of many decode steps in one evaluation, and costs scaled by a factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from analytic.core.cost import Cost
from analytic.core.kvcache import SyntheticKVCache
from analytic.models.deepseek_ocr.language_model import Decoder


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeWindow:
    """The costs of successive decode steps from the cache `before` the first on, a list of each quantity."""

    before: SyntheticKVCache
    columns: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, decoder: Decoder, cache: SyntheticKVCache, *, steps: int) -> DecodeWindow:
        """`steps` steps from `cache` on, in one evaluation. A static cache ends at its capacity."""
        import numpy as np

        past = np.arange(cache.length, cache.length + steps, dtype=np.int64)
        if cache.capacity is not None:
            past = past[past <= cache.capacity]
        shape = decoder.spec.call_shape(
            batch=cache.batch_size,
            new_tokens=1,
            past_tokens=past,
            prompt_tokens=prompt_of(cache),
            capacity=cache.capacity,
        )
        cost = replace(decoder, shape=shape).forward_cost()
        columns = {name: np.broadcast_to(value, past.shape).tolist() for name, value in cost.as_dict().items()}
        return cls(before=cache, columns=columns)

    def cost(self, cache: SyntheticKVCache) -> Cost | None:
        """The cost of the step on `cache`; None if it is none of these."""
        step = cache.length - self.before.length
        if not 0 <= step < len(self.columns["launches"]) or replace(cache, length=self.before.length) != self.before:
            return None
        return Cost(**{name: column[step] for name, column in self.columns.items()})


def prompt_of(cache: SyntheticKVCache) -> int:
    """Positions of the prompt; all of them in a cache that does not tell them apart."""
    return cache.length if cache.prompt_length is None else cache.prompt_length


def scaled(cost: Cost, factor: Fraction) -> Cost:
    """`cost` times `factor`, except launches and weights (resident, touched); rounded down to whole units."""
    if factor == 1:
        return cost
    kept = ("launches", "weight_bytes", "touched_weight_bytes")
    return replace(cost, **{name: int(int(value) * factor) for name, value in cost.as_dict().items() if name not in kept})
