"""Predicted time: every operator at the rate of its class, and the host's time between operators.

An operator takes its start, and its work at the rate of its class; what a product reads and writes is a bound of its own.
Where the device works while the host goes on (a GPU), a call takes the longer of device and host; else their sum. The
floor of `roofline.py` is what perfect fusion at peak rates would take; this is what these operators, one by one, take on
this device. Closed form and rates alone: nothing is fitted to a run of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analytic.cost import CostNode
from analytic.execution import DTYPE_BYTES
from analytic.op import Op, OpKind
from analytic.rates import Rates
from analytic.shape_class import ShapeClass
from analytic.spec import ModelSpec

OF_KIND: Final = {
    OpKind.MATMUL: ShapeClass.PRODUCT,
    OpKind.CONVOLUTION: ShapeClass.CONVOLUTION,
    OpKind.ATTENTION: ShapeClass.ATTENTION,
    OpKind.EMBEDDING: ShapeClass.MOVEMENT,
    OpKind.POINTWISE: ShapeClass.WRITE,
    OpKind.MOVEMENT: ShapeClass.MOVEMENT,
}
OF_LAYER: Final = {
    ("RoutedExperts", OpKind.MATMUL): ShapeClass.GROUPED,
    ("RoutedExperts", OpKind.MOVEMENT): ShapeClass.ROUTING,
    ("MoEGate", OpKind.POINTWISE): ShapeClass.GATE,
    ("LayerNorm", OpKind.POINTWISE): ShapeClass.LAYER_NORM,
    ("Activation", OpKind.POINTWISE): ShapeClass.ACTIVATION,
    ("DeepseekV2RMSNorm", OpKind.POINTWISE): ShapeClass.RMS_NORM,
    ("LlamaFlashAttention2", OpKind.ATTENTION): ShapeClass.CAUSAL_ATTENTION,
    ("LlamaFlashAttention2", OpKind.POINTWISE): ShapeClass.ROTARY,
    ("LlamaFlashAttention2", OpKind.MOVEMENT): ShapeClass.JOIN,
    ("Decoder", OpKind.MOVEMENT): ShapeClass.MASK,
    ("SamAttention", OpKind.ATTENTION): ShapeClass.BIASED_ATTENTION,
}
"""Layers whose operators of a kind are a class of their own."""
OF_MANY: Final = {ShapeClass.ROTARY: 5, ShapeClass.JOIN: 2}
"""How many operators make up a class, where a layer has others of the kind with kernels that are not fused."""
TOGETHER: Final = (ShapeClass.RMS_NORM, ShapeClass.ROTARY, ShapeClass.MASK, ShapeClass.GATE, ShapeClass.ROUTING)
"""Classes whose size is the bytes of all operators together."""
PRODUCTS: Final = (
    ShapeClass.PRODUCT,
    ShapeClass.BIASED_PRODUCT,
    ShapeClass.GROUPED,
    ShapeClass.CONVOLUTION,
    ShapeClass.PATCHES,
)
BROADCAST_LEAST: Final = 4
"""Bytes written for each byte read from which a pointwise operator is a broadcast."""
ATTENTIONS: Final = (
    ShapeClass.ATTENTION,
    ShapeClass.CAUSAL_ATTENTION,
    ShapeClass.BIASED_ATTENTION,
    ShapeClass.SINGLE_QUERY,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpTime:
    """Seconds of one `Op` on the device: the module it runs in, its class, and the time of its start and its work."""

    path: str
    layer: str
    op: Op
    shape_class: ShapeClass
    start_s: float
    work_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Seconds of a stage: `device_s` of all operators, by class, `host_s` between them, and `time_s` of both together."""

    time_s: float
    host_s: float
    launches: int
    device_s: Mapping[ShapeClass, float]


def predict(trees: Iterable[CostNode], spec: ModelSpec, rates: Rates, *, below: str = "") -> Predicted:
    """The time of the calls that `trees` describe, one after the other; only modules at and under the path `below`."""
    by_class: defaultdict[ShapeClass, float] = defaultdict(float)
    launches, time_s = 0, 0.0
    for tree in trees:
        device_s, launched = 0.0, 0
        for one in op_times(tree, spec, rates, below=below):
            taken_s = one.start_s + one.work_s
            by_class[one.shape_class] += taken_s
            device_s += taken_s
            launched += int(one.op.launches)
        host_s = launched * rates.host_s
        time_s += max(device_s, host_s) if rates.overlapped else device_s + host_s
        launches += launched
    return Predicted(time_s=time_s, host_s=launches * rates.host_s, launches=launches, device_s=dict(by_class))


def op_times(tree: CostNode, spec: ModelSpec, rates: Rates, *, below: str = "") -> Iterator[OpTime]:
    """Each operator of a call, in the order of its tree, with its time on the device alone."""
    modules = [(path, node) for path, node in tree.walk() if not below or path == below or path.startswith(f"{below}.")]
    ruler = _Ruler(spec, rates, cold=_touched_bytes(modules) > (rates.cache_bytes or 0))
    for path, node in modules:
        for op in node.ops:
            if not op.launches:
                continue
            shape_class = ruler.class_of(node.layer, op)
            yield OpTime(
                path=path,
                layer=node.layer,
                op=op,
                shape_class=shape_class,
                start_s=int(op.launches) * rates.classes[shape_class].start_s,
                work_s=ruler.work_s(op, shape_class, node.layer),
            )


def head_widths(spec: ModelSpec) -> dict[str, int]:
    """Layer with fused attention -> the width of its heads."""
    return {
        "SamAttention": spec.sam.hidden_size // spec.sam.num_heads,
        "NoTPAttention": spec.clip.hidden_size // spec.clip.num_heads,
        "LlamaFlashAttention2": spec.text.head_dim,
    }


def length_of_sums(flops: int, written_bytes: int, *, b: int) -> float:
    """How many products each element of a product's result sums up: its FLOPs are twice that. `b`: bytes of an element."""
    return flops * b / (2 * written_bytes)


def query_rows(written_bytes: int, *, width: int, b: int) -> float:
    """Queries of all heads of `width` together: fused attention writes a row for each, and one float32."""
    return written_bytes / (width * b + 4)


def positions_seen(flops: int, written_bytes: int, *, width: int, b: int) -> float:
    """Positions that each query looks at: fused attention does 4 FLOPs for each of them and each element of a row."""
    return flops / (4 * width * query_rows(written_bytes, width=width, b=b))


class _Ruler:
    """Sizes operators from what is counted of them, and reads their rates. `cold`: weights come from memory each call."""

    def __init__(self, spec: ModelSpec, rates: Rates, *, cold: bool) -> None:
        self._rates, self._cold = rates, cold
        self._b = DTYPE_BYTES[rates.dtype]
        self._widths = head_widths(spec)
        self._experts = spec.text.n_routed_experts

    def class_of(self, layer: str, op: Op) -> ShapeClass:
        """The class of `op` in a module of `layer`."""
        found = OF_LAYER.get((layer, op.kind), OF_KIND[op.kind])
        unfused = found in OF_MANY and int(op.launches) != OF_MANY[found]  # scores of transformers' own attention
        copied = found is ShapeClass.ROUTING and op.weight_bytes  # weights copied out for every row
        if unfused or copied:
            found = OF_KIND[op.kind]
        if found is ShapeClass.CAUSAL_ATTENTION and self._queries(op, layer) < 2:
            return ShapeClass.SINGLE_QUERY
        if found is ShapeClass.PRODUCT and self._has_bias(op):
            return ShapeClass.BIASED_PRODUCT
        if found is ShapeClass.CONVOLUTION and self._reads_once(op):
            return ShapeClass.PATCHES
        if found is ShapeClass.WRITE and int(op.written_bytes) >= BROADCAST_LEAST * int(op.read_bytes):
            return ShapeClass.BROADCAST
        return found

    def work_s(self, op: Op, shape_class: ShapeClass, layer: str) -> float:
        """Seconds beyond the start."""
        of_class, flops = self._rates.classes[shape_class], int(op.executed_flops)
        moved, launches = int(op.eager_bytes), int(op.launches)
        if shape_class in ATTENTIONS:
            width = self._widths[layer]
            return flops / of_class.at(positions_seen(flops, int(op.written_bytes), width=width, b=self._b), beside=width)
        if shape_class in PRODUCTS:
            rows = self._rows(op, shape_class)
            return max(flops / of_class.at(self._sums(op), beside=rows), self._memory_s(op))
        if shape_class is ShapeClass.WRITE:
            return self._memory_s(op)
        if shape_class is ShapeClass.BROADCAST:
            # two operands, each spread over an axis of the other
            return int(op.written_bytes) / of_class.at(
                int(op.written_bytes) / launches, beside=2 * int(op.written_bytes) / int(op.read_bytes)
            )
        return moved / of_class.at(moved if shape_class in TOGETHER else moved / launches)

    def _memory_s(self, op: Op) -> float:
        """Seconds of reading and writing alone, weights from memory where they do not stay in the cache."""
        launches, classes = int(op.launches), self._rates.classes
        weights = int(op.weight_bytes) - int(op.untouched_bytes) if self._cold else 0
        read, written = int(op.eager_bytes) - int(op.written_bytes) - weights, int(op.written_bytes)
        far = classes[ShapeClass.READ].at(float("inf"))
        return (
            weights / far
            + max(0, read) / classes[ShapeClass.READ].at(read / launches)
            + written / classes[ShapeClass.WRITE].at(written / launches)
        )

    def _sums(self, op: Op) -> float:
        return length_of_sums(int(op.executed_flops), int(op.written_bytes), b=self._b)

    def _rows(self, op: Op, shape_class: ShapeClass) -> float:
        """Rows of a product: of what it reads beside its weights, or of the result where it has no weights."""
        weights = int(op.weight_bytes)
        if shape_class is ShapeClass.GROUPED and weights:
            return int(op.executed_flops) * self._b * self._experts / (2 * weights)
        read = int(op.read_bytes) - weights if weights else int(op.written_bytes)
        return max(1.0, read / (self._b * self._sums(op)))

    def _reads_once(self, op: Op) -> bool:
        """Whether a convolution reads as many pixels as its windows hold: they do not overlap."""
        sums, weights = self._sums(op), int(op.weight_bytes)
        columns = weights / (self._b * sums)
        windows = int(op.written_bytes) / (self._b * columns)
        return int(op.read_bytes) - weights > 0.9 * windows * sums * self._b

    def _has_bias(self, op: Op) -> bool:
        """Whether a linear has one weight a column more than its sums are long."""
        if not op.weight_bytes:
            return False
        sums, rows = self._sums(op), self._rows(op, ShapeClass.PRODUCT)
        columns = int(op.written_bytes) / (self._b * rows)
        return int(op.weight_bytes) / (self._b * columns) > sums + 0.5

    def _queries(self, op: Op, layer: str) -> float:
        """Queries of one head: each head reads its own keys and values."""
        width = self._widths[layer]
        rows = query_rows(int(op.written_bytes), width=width, b=self._b)
        context = positions_seen(int(op.executed_flops), int(op.written_bytes), width=width, b=self._b)
        heads = (int(op.read_bytes) / (width * self._b) - rows) / (2 * context)
        return rows / heads


def _touched_bytes(modules: Sequence[tuple[str, CostNode]]) -> int:
    """Parameters that one call reads."""
    return sum(int(op.weight_bytes) - int(op.untouched_bytes) for _, node in modules for op in node.ops)
