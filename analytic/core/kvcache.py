"""The shape of a KV cache: its length and its bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analytic.core.checks import whole


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticKVCache:
    """The shape of a KV cache: `length` positions per sequence, `batch_size` sequences, keys and values in every layer.

    `capacity`: positions that a static cache allocates and attention covers; None for a cache that grows.
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
        """Bytes per position and sequence: K and V in every layer."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache; a static cache counts its whole capacity."""
        positions = self.length if self.capacity is None else self.capacity
        return self.batch_size * positions * self.bytes_per_token

    def extended(self, tokens: int) -> SyntheticKVCache:
        """The cache after `tokens` more positions per sequence. Raises ValueError beyond the capacity."""
        whole("tokens", tokens)
        return replace(self, length=self.length + tokens)
