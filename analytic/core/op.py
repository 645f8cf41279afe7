"""One operator: its classes, its dimensions and its counts.

Every quantity is a `Count`: an int, or an int64 array if a formula is evaluated for many points in one call. A formula that
is evaluated once for all calls has it as a `Polynomial`.
Units are FLOPs and bytes; one multiply-add is two FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from analytic.core.polynomial import Maximum, Polynomial
from analytic.core.shape_class import ShapeClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Count: TypeAlias = int | NDArray[Any]
else:
    Count = int


NOTHING: Final = 0
"""Zero, for a quantity that an operator does not have; compared by identity, since a count can be an array."""


SYMBOLIC: Final = (Polynomial, Maximum)


def larger(left: Count, right: Count) -> Count:
    """The elementwise maximum of two counts."""
    if right is NOTHING or left is right:
        return left
    if isinstance(left, SYMBOLIC) or isinstance(right, SYMBOLIC):
        return Maximum.of(left, right)  # type: ignore[return-value]  # counts as far as arithmetic goes, see SYMBOLIC
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    import numpy as np

    return np.maximum(left, right)


class OpKind(StrEnum):
    """The kind of an operator. The first four are compared with measurements at zero difference."""

    MATMUL = "matmul"
    CONVOLUTION = "convolution"
    ATTENTION = "attention"
    EMBEDDING = "embedding"
    POINTWISE = "pointwise"
    MOVEMENT = "movement"


EXACT_KINDS = (OpKind.MATMUL, OpKind.CONVOLUTION, OpKind.ATTENTION, OpKind.EMBEDDING)


class Shape(Protocol):
    """Dimensions of one product, attention or broadcast that determine its rate (see `ShapeClass`).

    work    the quantity divided by the rate: FLOPs, or bytes written by a broadcast
    size    position on the curves of its class: length of sums, positions attended to, or bytes written
    second_size  second size if the class has one, else 0: rows, head width, or length of the innermost axis
    """

    @property
    def work(self) -> Count: ...
    @property
    def size(self) -> Count: ...
    @property
    def second_size(self) -> Count: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operator, or several in sequence: FLOPs by convention, bytes of the operands and results of each.

    `launches` is the number of operators that torch dispatches, without views and allocations; a device may run one as
    several kernels. `read_bytes` counts every operand once, parameters included; `weight_bytes` is its share of parameters,
    and `untouched_bytes` the share of those that belongs to experts with no routed token. `live_bytes` is the activation
    memory alive while the operator runs. `backward_ratio` is backward over forward FLOPs as a fraction (2/1 for a product
    of two tensors that both need a gradient).

    `rate_class` selects the measured rate; an array of calls has a single class, that of several queries. `shapes` are the
    dimensions of its products (or its attention, or its broadcast), one per such operator; empty if only bytes matter.

    `waits`: how often the host waits until a device that runs meanwhile (a GPU) has done all that was issued before.
    """

    kind: OpKind
    rate_class: ShapeClass
    shapes: tuple[Shape, ...]
    launches: Count
    executed_flops: Count
    useful_flops: Count
    counter_flops: Count
    cuda_core_flops: Count
    read_bytes: Count
    written_bytes: Count
    weight_bytes: Count
    untouched_bytes: Count
    live_bytes: Count
    backward_ratio: tuple[int, int]
    waits: Count = 0

    @property
    def eager_bytes(self) -> Count:
        """Bytes read and written, without the weights of experts with no routed token."""
        return self.read_bytes + self.written_bytes - self.untouched_bytes

    @property
    def backward_flops(self) -> Count:
        """Matmul and convolution FLOPs of the gradients of this operator."""
        numerator, denominator = self.backward_ratio
        return self.executed_flops * numerator // denominator

    @property
    def backward_bytes(self) -> Count:
        """Bytes of the gradients: each gradient product reads two of the forward's three tensors and writes the third."""
        numerator, denominator = self.backward_ratio
        return self.eager_bytes * numerator // denominator
