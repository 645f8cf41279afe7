"""The shape of a KV cache: its length and its bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analytic.core.checks import whole


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticKVCache:
    """The shape of a KV cache: `length` positions per sequence, `batch_size` sequences, keys and values in every layer.

    `capacity`: positions that a static cache allocates and attention covers; None for a cache that grows.
    `sliding_window`: of the positions after the first `prompt_length` a step attends to the last that many, its own among
    them, so that all but one are stored; None for a cache that keeps every position.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype_bytes: int
    batch_size: int
    length: int
    capacity: int | None = None
    sliding_window: int | None = None
    prompt_length: int | None = None

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size)
        whole("length", self.length, least=0)
        if self.capacity is not None:
            whole("capacity", self.capacity, least=max(1, self.length))
        if self.sliding_window is not None:
            whole("sliding_window", self.sliding_window)
            whole("prompt_length", self.prompt_length, least=0, most=self.length)

    @property
    def bytes_per_token(self) -> int:
        """Bytes per position and sequence: K and V in every layer."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def stored(self) -> int:
        """Positions per sequence that are stored: the whole capacity of a static cache, the prompt and the window's of one
        that slides."""
        if self.capacity is not None:
            return self.capacity
        if self.sliding_window is None or self.prompt_length is None:
            return self.length
        return self.prompt_length + min(self.length - self.prompt_length, self.sliding_window - 1)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the stored positions."""
        return self.batch_size * self.stored * self.bytes_per_token

    def extended(self, tokens: int) -> SyntheticKVCache:
        """The cache after `tokens` more positions per sequence. Raises ValueError beyond the capacity."""
        whole("tokens", tokens)
        return replace(self, length=self.length + tokens)
