"""The dimensions of a decoder whose attention slides; `sliding` has the work of its calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytic.core.checks import whole
from analytic.core.execution import Execution
from analytic.models.spec import TextSpec

if TYPE_CHECKING:
    from analytic.core.op import Count
    from analytic.models.deepseek_ocr.decoder_attention import DecoderShape


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingTextSpec(TextSpec):
    """The decoder of DeepSeek-OCR with a window of `window` decoded positions, that of the step among them."""

    window: int

    def __post_init__(self) -> None:
        TextSpec.__post_init__(self)
        whole("sliding_window", self.window, least=2)

    @property
    def sliding_window(self) -> int | None:
        return self.window

    def require_cache_of(self, option: str, run: Execution) -> None:
        if run.static_cache:
            raise ValueError(
                f"{option}: got {run.backend}, which needs a static cache, accepted: eager, as attention slides; "
                f"the ring of slots of its static cache is not modelled"
            )

    def call_shape(
        self, *, batch: Count, new_tokens: Count, past_tokens: Count, prompt_tokens: Count, capacity: int | None = None
    ) -> DecoderShape:
        """The shape of one call. Raises ValueError for a static cache, whose ring of slots is not modelled."""
        if capacity is not None:
            raise ValueError(
                f"capacity: got a static cache of {capacity} positions, accepted: a cache that grows; the static cache of "
                f"reference sliding attention is not modelled, use --backend eager"
            )
        from analytic.models.unlimited_ocr.sliding import SlidingShape

        return SlidingShape(
            batch=batch,
            new_tokens=new_tokens,
            past_tokens=past_tokens,
            prompt_tokens=prompt_tokens,
            window=self.window,
        )
