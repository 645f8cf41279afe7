"""The counts of a call, and how the parts of a model combine.

An `Op` is one operator (or one sequence of pointwise operators) of a module. A `CostNode` is a module of the real model:
its own operators, its children, and its module-level quantities (parameters, inputs and outputs, cache). A `Cost` is the
sum over a subtree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from analytic.core.op import NOTHING, Count, Op, larger

ACTIVATION_SLACK_BYTES: Final = 65_536
"""Slack in bytes for small tensors that the closed form of peak activations omits: a smaller difference is accepted."""


def relative_error(closed_form: int, measured: int) -> float:
    """|closed form - measured| / |measured|; infinite if measured is zero and the closed form is not."""
    gap = abs(closed_form - measured)
    if measured == 0:
        return float("inf") if gap else 0.0
    return gap / abs(measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of a subtree. Most fields add up; `activation_bytes` is a peak, so a parent takes its largest child.

    launches              operators that torch dispatches, without views and allocations
    executed_flops        every matmul and convolution FLOP that runs, attention over the full S x S
    useful_flops          the same, with causal attention counted on the lower triangle only
    counter_flops         FLOPs that torch's FlopCounterMode counts on this device with these kernels
    cuda_core_flops       pointwise arithmetic (norms, activations, softmax, rotary, residuals), no tensor cores
    eager_bytes           bytes read and written by the operators that run; only experts with routed tokens are counted
    fused_bytes           minimum traffic: touched weights once per call, module inputs and outputs once, no S x S traffic
    weight_bytes          resident parameters
    touched_weight_bytes  parameters read
    activation_bytes      peak of live activations, without weights and cache
    kv_bytes              KV cache after the stage
    """

    launches: Count
    executed_flops: Count
    useful_flops: Count
    counter_flops: Count
    cuda_core_flops: Count
    eager_bytes: Count
    fused_bytes: Count
    weight_bytes: Count
    touched_weight_bytes: Count
    activation_bytes: Count
    kv_bytes: Count

    @property
    def arithmetic_intensity(self) -> Any:
        """FLOPs (tensor and CUDA cores) per byte of eager traffic; a float or an array."""
        return (self.executed_flops + self.cuda_core_flops) / self.eager_bytes

    def as_dict(self) -> dict[str, Count]:
        """Field name -> value, in field order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class BackwardCost:
    """The gradients of a call.

    tensor_core_flops  matmuls and convolutions, verified against torch's counter module by module
    cuda_core_flops    pointwise, an estimate: twice the forward's, one product with the incoming gradient and one with the
                       saved derivative
    moved_bytes        an estimate: each gradient product reads two of the forward's three tensors and writes the third
    """

    tensor_core_flops: Count
    cuda_core_flops: Count
    moved_bytes: Count


def in_sequence(costs: Sequence[Cost]) -> Cost:
    """Total of successive calls on the same parameters: sums of work and traffic, the largest peak, the last cache."""
    first, *others = costs
    total = first
    for cost in others:
        total = Cost(
            launches=total.launches + cost.launches,
            executed_flops=total.executed_flops + cost.executed_flops,
            useful_flops=total.useful_flops + cost.useful_flops,
            counter_flops=total.counter_flops + cost.counter_flops,
            cuda_core_flops=total.cuda_core_flops + cost.cuda_core_flops,
            eager_bytes=total.eager_bytes + cost.eager_bytes,
            fused_bytes=total.fused_bytes + cost.fused_bytes,
            weight_bytes=larger(total.weight_bytes, cost.weight_bytes),
            touched_weight_bytes=total.touched_weight_bytes + cost.touched_weight_bytes,
            activation_bytes=larger(total.activation_bytes, cost.activation_bytes),
            kv_bytes=cost.kv_bytes,
        )
    return total


def mean_of(costs: Sequence[Cost]) -> Cost:
    """Cost per token over a window: work and traffic divided by tokens; weights, peak and last cache unchanged."""
    kept = ("weight_bytes", "activation_bytes", "kv_bytes")
    together = in_sequence(costs).as_dict()
    return Cost(**{name: value if name in kept else value // len(costs) for name, value in together.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class CostNode:
    """One module of the real model, or several identical ones.

    name         path below the parent, dots allowed: `self_attn`, `layers`, `patch_embed.projection`
    layer        the analytic layer that describes it (see analytic/models/deepseek_ocr/mapping.py)
    ops          operators that run in this module itself, not in a child
    parameters   number of own parameters, children excluded
    parameter_bytes  resident bytes of these
    fused_bytes  traffic of this module as one kernel, weights included; 0 if the parent accounts for it
    held_bytes   activations this module keeps alive while a child runs
    kv_bytes     KV cache after this module
    copies       names of identical siblings (`layers.1` ... `layers.11`); empty for a single module
    """

    name: str
    layer: str
    ops: tuple[Op, ...]
    parameters: int
    parameter_bytes: int
    fused_bytes: Count
    held_bytes: Count
    kv_bytes: Count
    children: tuple[CostNode, ...]
    copies: tuple[str, ...]

    def total(self) -> Cost:
        """The cost of this subtree, all copies included."""
        sums = _Sums()
        peak = self._gather(sums)
        return Cost(
            launches=sums.launches,
            executed_flops=sums.executed,
            useful_flops=sums.executed - sums.masked,
            counter_flops=sums.executed - sums.uncounted,
            cuda_core_flops=sums.pointwise,
            eager_bytes=sums.read + sums.written - sums.untouched,
            fused_bytes=sums.fused,
            weight_bytes=sums.parameters,
            touched_weight_bytes=sums.weights - sums.untouched,
            activation_bytes=peak,
            kv_bytes=sums.kv,
        )

    def _gather(self, sums: _Sums) -> Count:
        """Add this subtree to `sums`; returns its peak of activations."""
        if len(self.copies) < 2:
            return self._gather_single(sums)
        single = _Sums()
        peak = self._gather_single(single)
        sums.add(single, times=len(self.copies))
        return peak

    def _gather_single(self, sums: _Sums) -> Count:
        peak: Count = 0
        for op in self.ops:
            sums.add_op(op)
            peak = larger(peak, op.live_bytes)
        sums.parameters += self.parameter_bytes
        sums.fused = sums.fused + self.fused_bytes
        sums.kv = sums.kv + self.kv_bytes
        for child in self.children:
            peak = larger(peak, child._gather(sums))
        return self.held_bytes + peak

    def backward(self) -> BackwardCost:
        """The gradients of this subtree, all copies included."""
        flops = _sum(op.backward_flops for op in self.ops)
        pointwise = 2 * _sum(op.cuda_core_flops for op in self.ops)
        moved = _sum(op.backward_bytes for op in self.ops)
        for child in self.children:
            below = child.backward()
            flops = flops + below.tensor_core_flops
            pointwise = pointwise + below.cuda_core_flops
            moved = moved + below.moved_bytes
        times = len(self.copies) or 1
        return BackwardCost(tensor_core_flops=flops * times, cuda_core_flops=pointwise * times, moved_bytes=moved * times)

    def operand_bytes(self) -> Count:
        """Bytes of every operand and result of every operator in this subtree, with the weights of all resident experts.

        This follows from shapes alone, so a run on meta measures it; `Cost.eager_bytes` excludes the experts that no token
        is routed to.
        """
        own = _sum(op.read_bytes + op.written_bytes for op in self.ops)
        return (own + _sum(child.operand_bytes() for child in self.children)) * (len(self.copies) or 1)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, CostNode]]:
        """(full path, node) of this module and every module below it; each copy is listed."""
        for own in self.copies or ("",):
            path = ".".join(part for part in (prefix, self.name, own) if part)
            yield path, self
            for child in self.children:
                yield from child.walk(path)

    def merged(self, other: CostNode) -> CostNode:
        """Two calls of this module combined: operators and traffic of both, parameters once, the larger peak.

        Raises ValueError if the two are not the same module.
        """
        same = (self.name, self.layer, self.copies, len(self.children)) == (
            other.name,
            other.layer,
            other.copies,
            len(other.children),
        )
        if not same:
            raise ValueError(f"cannot merge the calls of two modules: {self.name!r} and {other.name!r}")
        return replace(
            self,
            ops=self.ops + other.ops,
            fused_bytes=self.fused_bytes + other.fused_bytes,
            held_bytes=larger(self.held_bytes, other.held_bytes),
            kv_bytes=self.kv_bytes + other.kv_bytes,
            children=tuple(mine.merged(its) for mine, its in zip(self.children, other.children, strict=True)),
        )


class _Sums:
    """Running sums of a subtree. Useful and counter FLOPs mostly equal executed ones: only differences are summed."""

    __slots__ = (
        "executed",
        "fused",
        "kv",
        "launches",
        "masked",
        "parameters",
        "pointwise",
        "read",
        "uncounted",
        "untouched",
        "weights",
        "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.launches: Count = 0
        self.executed: Count = 0
        self.masked: Count = 0
        self.uncounted: Count = 0
        self.pointwise: Count = 0
        self.read: Count = 0
        self.written: Count = 0
        self.untouched: Count = 0
        self.weights: Count = 0
        self.fused: Count = 0
        self.parameters: int = 0
        self.kv: Count = 0

    def add_op(self, op: Op) -> None:
        """Add one operator."""
        self.launches = self.launches + op.launches
        executed = op.executed_flops
        if executed is not NOTHING:
            self.executed = self.executed + executed
            if op.useful_flops is not executed:
                self.masked = self.masked + (executed - op.useful_flops)
            if op.counter_flops is not executed:
                self.uncounted = self.uncounted + (executed - op.counter_flops)
        if op.cuda_core_flops is not NOTHING:
            self.pointwise = self.pointwise + op.cuda_core_flops
        if op.untouched_bytes is not NOTHING:
            self.untouched = self.untouched + op.untouched_bytes
        self.read = self.read + op.read_bytes
        self.written = self.written + op.written_bytes
        self.weights = self.weights + op.weight_bytes

    def add(self, other: _Sums, *, times: int) -> None:
        """Add another subtree `times` times."""
        for name in _Sums.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name) * times)


def _sum(values: Iterator[Count]) -> Count:
    total: Count = 0
    for value in values:
        total = total + value
    return total
