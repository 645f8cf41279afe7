"""Predicted time: every operator at the rate of its class, plus the host's time between operators.

An operator takes its start time, plus its work at the rate of its class; a product is also bound by the bytes it reads and
writes. If the device runs while the host continues (a GPU), the host issues the operators of a call to a queue, and waits
for the device where an operator makes it wait; otherwise a call takes the sum of device and host time. The floor of
`roofline.py` assumes perfect fusion at peak rates; this prediction runs the operators one by one on the measured device. It
uses closed form and rates alone: nothing is fitted to a run of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analytic.core.cost import CostNode
from analytic.core.op import Op
from analytic.core.shape_class import ShapeClass
from analytic.prediction.rates import Rates

TOGETHER: Final = frozenset((ShapeClass.RMS_NORM, ShapeClass.ROTARY, ShapeClass.MASK, ShapeClass.GATE, ShapeClass.ROUTING))
"""Classes whose size is the total bytes of all operators."""
PRODUCTS: Final = frozenset(
    (
        ShapeClass.PRODUCT,
        ShapeClass.BIASED_PRODUCT,
        ShapeClass.GROUPED,
        ShapeClass.CONVOLUTION,
        ShapeClass.PATCHES,
    )
)
"""Classes that take the longer of FLOP time and memory time."""
SHAPED: Final = frozenset(
    (
        ShapeClass.ATTENTION,
        ShapeClass.CAUSAL_ATTENTION,
        ShapeClass.BIASED_ATTENTION,
        ShapeClass.SINGLE_QUERY,
        ShapeClass.BROADCAST,
    )
)
"""Classes whose rate includes memory time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpTime:
    """Device seconds of one `Op`: the module it runs in, and the times of its start and its work."""

    path: str
    layer: str
    op: Op
    start_s: float
    work_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Seconds of a stage: `device_s` of all operators by class, `host_s` between them, and the combined `time_s`."""

    time_s: float
    host_s: float
    launches: int
    device_s: Mapping[ShapeClass, float]


@dataclass(kw_only=True, slots=True)
class _Queue:
    """The clocks of a call on a device that runs while the host continues, in seconds since its begin.

    `host_s`: when the host has issued all operators so far; `device_s`: when the device has done them.
    """

    host_s: float = 0.0
    device_s: float = 0.0

    def add(self, op: Op, *, issued_s: float, taken_s: float) -> None:
        """Issue the launches of `op`, evenly over `issued_s`; the device takes `taken_s` for all of them."""
        launches = int(op.launches)
        begin_s, self.host_s = self.host_s, self.host_s + issued_s
        self.device_s = max(
            self.device_s + taken_s,  # the device was busy when the first was issued
            begin_s + issued_s / launches + taken_s,  # it was idle, and is slower than the host
            self.host_s + taken_s / launches,  # it is faster than the host
        )
        if op.waits:
            self.host_s = max(self.host_s, self.device_s)


def predict(trees: Iterable[CostNode], rates: Rates, *, below: str = "") -> Predicted:
    """Predicted time of the calls in `trees`, in sequence; only modules at or below the path `below`."""
    by_class: defaultdict[ShapeClass, float] = defaultdict(float)
    launches, time_s, host_s = 0, 0.0, 0.0
    for tree in trees:
        queue, in_turns_s = _Queue(), 0.0
        for timed in op_times(tree, rates, below=below):
            taken_s, issued_s = timed.start_s + timed.work_s, int(timed.op.launches) * rates.host_of(timed.op.rate_class)
            by_class[timed.op.rate_class] += taken_s
            queue.add(timed.op, issued_s=issued_s, taken_s=taken_s)
            in_turns_s += taken_s + issued_s
            host_s += issued_s
            launches += int(timed.op.launches)
        time_s += max(queue.host_s, queue.device_s) if rates.overlapped else in_turns_s
    return Predicted(time_s=time_s, host_s=host_s, launches=launches, device_s=dict(by_class))


def op_times(tree: CostNode, rates: Rates, *, below: str = "") -> Iterator[OpTime]:
    """Each operator of a call, in tree order, with its device time."""
    modules = [(path, node) for path, node in tree.walk() if not below or path == below or path.startswith(f"{below}.")]
    clock = _Clock(rates, cold=_touched_bytes(modules) > (rates.cache_bytes or 0))
    for path, node in modules:
        for op in node.ops:
            if not op.launches:
                continue
            yield OpTime(
                path=path,
                layer=node.layer,
                op=op,
                start_s=int(op.launches) * rates.classes[op.rate_class].start_s,
                work_s=clock.work_s(op),
            )


class _Clock:
    """Seconds of the work of one operator at `rates`. `cold`: weights are read from memory in each call."""

    def __init__(self, rates: Rates, *, cold: bool) -> None:
        self._rates, self._cold = rates, cold

    def work_s(self, op: Op) -> float:
        """Seconds after the start."""
        if op.rate_class in PRODUCTS:
            return max(self._shaped_s(op), self._memory_s(op))
        if op.rate_class in SHAPED:
            return self._shaped_s(op)
        if op.rate_class is ShapeClass.WRITE:
            return self._memory_s(op)
        moved = int(op.eager_bytes)
        size = moved if op.rate_class in TOGETHER else moved / int(op.launches)
        return moved / self._rates.classes[op.rate_class].at(size)

    def _shaped_s(self, op: Op) -> float:
        """Seconds of every product (or attention, or broadcast) at the rate for its sizes."""
        of_class = self._rates.classes[op.rate_class]
        return sum(
            int(shape.work) / of_class.at(int(shape.size), second_size=int(shape.second_size)) for shape in op.shapes
        )

    def _memory_s(self, op: Op) -> float:
        """Seconds of memory traffic, with weights from memory unless they stay in the cache."""
        launches, classes = int(op.launches), self._rates.classes
        weights = int(op.weight_bytes) - int(op.untouched_bytes) if self._cold else 0
        read, written = int(op.eager_bytes) - int(op.written_bytes) - weights, int(op.written_bytes)
        far = classes[ShapeClass.READ].at(float("inf"))
        return (
            weights / far
            + max(0, read) / classes[ShapeClass.READ].at(read / launches)
            + written / classes[ShapeClass.WRITE].at(written / launches)
        )


def _touched_bytes(modules: Sequence[tuple[str, CostNode]]) -> int:
    """Parameter bytes that one call reads."""
    return sum(int(op.weight_bytes) - int(op.untouched_bytes) for _, node in modules for op in node.ops)
