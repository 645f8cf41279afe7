"""The shape of a KV cache: how long it is, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analytic.core.checks import whole


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticKVCache:
    """The shape of a KV cache: `length` positions for each of `batch_size` sequences, keys and values in every layer.

    `capacity`: positions that a static cache holds room for, and is attended to over; None for one that grows.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype_bytes: int
    batch_size: int
    length: int
    capacity: int | None = None

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size)
        whole("length", self.length, least=0)
        if self.capacity is not None:
            whole("capacity", self.capacity, least=max(1, self.length))

    @property
    def bytes_per_token(self) -> int:
        """Bytes one position of one sequence takes: K and V in every layer."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of the whole cache; of a static one, filled or not."""
        positions = self.length if self.capacity is None else self.capacity
        return self.batch_size * positions * self.bytes_per_token

    def extended(self, tokens: int) -> SyntheticKVCache:
        """The cache after `tokens` more positions of every sequence. Raises ValueError beyond the capacity."""
        whole("tokens", tokens)
        return replace(self, length=self.length + tokens)
