"""Dimensions of an operator that its rate depends on, beside `AttentionShape` in `attention.py`.

Each is a `Shape` (see `op.py`): the work that a rate is of, and the sizes at which the curves of its class are read.
Tuples, since a closed form makes hundreds of them.
"""

from __future__ import annotations

from typing import NamedTuple

from analytic.core.op import Count


class Product(NamedTuple):
    """`groups` products of (rows, sum_length) and (sum_length, columns): 2 groups rows sum_length columns FLOPs.

    `rows` are those of one group; where every row has an expert, the rows of all experts, in one group.
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
        """How many products each element of the result sums up."""
        return self.sum_length

    @property
    def beside(self) -> Count:
        """Rows."""
        return self.rows


class Convolution(Product):
    """A convolution as a product: a row is a position of the result, its sum a window over all channels in."""

    __slots__ = ()

    @property
    def beside(self) -> Count:
        """No second size: its rate is that of its sums alone."""
        return 0


class Broadcast(NamedTuple):
    """A sum of (outer, side, 1) and (outer, 1, side), `b` bytes an element: each operand is spread over an axis."""

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
    def beside(self) -> int:
        """The length of the innermost axis."""
        return self.side
