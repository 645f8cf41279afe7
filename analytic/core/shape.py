"""Operator dimensions that rates depend on; `AttentionShape` is in `attention.py`.

Each is a `Shape` (see `op.py`): its work, and the sizes at which the rate curves of its class are read. They are tuples for
speed, since a closed form creates hundreds of them.
"""

from __future__ import annotations

from typing import NamedTuple

from analytic.core.op import Count


class Product(NamedTuple):
    """`groups` products of (rows, sum_length) and (sum_length, columns): 2 groups rows sum_length columns FLOPs.

    `rows` counts the rows of one group; in a grouped product of experts, the rows of all experts, as one group.
    """

    rows: Count
    sum_length: Count
    columns: Count
    groups: Count = 1

    @property
    def work(self) -> Count:
        """FLOPs."""
        return self.rows * self.sum_length * self.columns * self.groups * 2

    @property
    def size(self) -> Count:
        """Length of the sum behind each element of the result."""
        return self.sum_length

    @property
    def second_size(self) -> Count:
        """Rows."""
        return self.rows


class Convolution(Product):
    """A convolution as a product: a row is an output position, its sum runs over a window of all input channels."""

    __slots__ = ()

    @property
    def second_size(self) -> Count:
        """0: its rate depends on the length of its sums alone."""
        return 0


class Broadcast(NamedTuple):
    """A sum of (outer, side, 1) and (outer, 1, side), `b` bytes per element: each operand is broadcast over one axis."""

    outer: Count
    side: int
    b: int

    @property
    def work(self) -> Count:
        """Bytes written."""
        return self.outer * (self.side * self.side * self.b)

    @property
    def size(self) -> Count:
        """Bytes written."""
        return self.work

    @property
    def second_size(self) -> int:
        """The length of the innermost axis."""
        return self.side
