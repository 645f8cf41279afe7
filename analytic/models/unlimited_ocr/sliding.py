"""Reference sliding attention: every step attends to the whole prompt and to the last decoded positions.

With a window W and d decoded positions in a sequence, a step attends to the P positions of the prompt, to min(d, W - 1)
decoded ones and to its own; the cache keeps the prompt and the last W - 1. So a decode step stops growing after W tokens.
Source: transformers' unlimited_ocr, `UnlimitedOcrDynamicReferenceSlidingWindowLayer` and its masks, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core.attention import causal_pairs
from analytic.core.checks import whole_numbers
from analytic.core.op import Count
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingShape(DecoderShape):
    """One call: `prompt_tokens` of the past and new positions are the prompt, which is complete before a token is decoded.

    So the new positions either all belong to the prompt or all come after it. `window`: W.
    """

    prompt_tokens: Count
    window: int

    def __post_init__(self) -> None:
        DecoderShape.__post_init__(self)
        whole_numbers("prompt_tokens", self.prompt_tokens, least=0)

    @property
    def dimensions(self) -> dict[str, Count]:
        return {**DecoderShape.dimensions.__get__(self), "prompt_tokens": self.prompt_tokens}

    @property
    def decodes(self) -> Count:
        """1 if the new positions come after the prompt, else 0."""
        return (self.past_tokens >= self.prompt_tokens) * 1

    @property
    def decoded(self) -> Count:
        """Decoded positions before the call."""
        return (self.past_tokens - self.prompt_tokens) * self.decodes

    @property
    def slid(self) -> Count:
        """Decoded positions attended to, the new ones among them; 0 in a prefill."""
        return (_lesser(self.decoded, self.window - 1) + self.new_tokens) * self.decodes

    @property
    def context(self) -> Count:
        kept = self.prompt_tokens * self.decodes + (self.past_tokens + self.new_tokens) * (1 - self.decodes)
        return kept + self.slid

    @property
    def stored(self) -> Count:
        after = _lesser(self.decoded + self.new_tokens, self.window - 1)
        return self.context - self.slid + after * self.decodes

    @property
    def pairs(self) -> Count:
        """Every position of the prompt up to the query's own in a prefill; else the prompt and the window of each query."""
        new, most = self.new_tokens, self.window - 1
        growing = _lesser((most - self.decoded) * (most > self.decoded), new)  # queries whose window is not yet full
        before = growing * self.decoded + growing * (growing - 1) // 2 + (new - growing) * most
        decoding = new * (self.prompt_tokens + 1) + before
        return decoding * self.decodes + causal_pairs(new, self.past_tokens) * (1 - self.decodes)

    @property
    def given_mask(self) -> Count:
        return 1

    @property
    def always_masked(self) -> bool:
        return True

    @property
    def joins(self) -> tuple[Count, Count]:
        """The window is extended, then joined to the prompt; the prompt alone is extended once."""
        return 1 + self.decodes, self.context + self.slid

    @property
    def copies_window(self) -> bool:
        return True

    @property
    def gathered(self) -> Count:
        """Prompt and window joined for attention, apart from the cache."""
        return self.context * self.decodes


def _lesser(first: Count, second: Count) -> Count:
    """The lesser of two counts, either of which may be an array."""
    return first * (first < second) + second * (first >= second)
