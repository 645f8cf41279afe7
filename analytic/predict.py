"""Predicted time: every operator at the rate of its class, and the launch of every one of them.

An operator takes max(FLOPs / rate, bytes / bandwidth), plus a launch; where the device works while the host launches, the
longer of the two. The floor of `roofline.py` is what perfect fusion at peak rates would take; this is what these operators,
one by one, take on this device. Closed form and rates alone: nothing is fitted to a run of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from analytic.cost import CostNode
from analytic.op import Op, OpKind
from analytic.rates import Rates, ShapeClass
from analytic.spec import ModelSpec

CLASSES: Final = {
    OpKind.MATMUL: ShapeClass.PRODUCT,
    OpKind.CONVOLUTION: ShapeClass.CONVOLUTION,
    OpKind.ATTENTION: ShapeClass.ATTENTION,
    OpKind.EMBEDDING: ShapeClass.MOVEMENT,
    OpKind.POINTWISE: ShapeClass.STREAM,
    OpKind.MOVEMENT: ShapeClass.MOVEMENT,
}
OF_LAYER: Final = {
    ("RoutedExperts", OpKind.MATMUL): ShapeClass.GROUPED,
    ("LayerNorm", OpKind.POINTWISE): ShapeClass.NORM,
    ("Activation", OpKind.POINTWISE): ShapeClass.ACTIVATION,
}
"""Layers whose operators of a kind are a class of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Seconds of a stage: `work_s` by class, `launch_s` of all launches alone, and `time_s` of both together."""

    time_s: float
    launch_s: float
    launches: int
    work_s: Mapping[ShapeClass, float]


def predict(trees: Iterable[CostNode], spec: ModelSpec, rates: Rates, *, below: str = "") -> Predicted:
    """The time of the calls that `trees` describe, one after the other; only modules at and under the path `below`."""
    widths = head_widths(spec)
    work: defaultdict[ShapeClass, float] = defaultdict(float)
    total, launches = 0.0, 0
    for tree in trees:
        for path, node in tree.walk():
            if below and path != below and not path.startswith(f"{below}."):
                continue
            for op in node.ops:
                if not op.launches:
                    continue
                kind = OF_LAYER.get((node.layer, op.kind), CLASSES[op.kind])
                work_s, launch_s = _work_s(op, kind, rates, widths.get(node.layer)), int(op.launches) * rates.launch_s
                work[kind] += work_s
                launches += int(op.launches)
                total += max(work_s, launch_s) if rates.overlapped else work_s + launch_s
    return Predicted(time_s=total, launch_s=launches * rates.launch_s, launches=launches, work_s=dict(work))


def head_widths(spec: ModelSpec) -> dict[str, int]:
    """Layer with fused attention -> the width of its heads."""
    return {
        "SamAttention": spec.sam.hidden_size // spec.sam.num_heads,
        "NoTPAttention": spec.clip.hidden_size // spec.clip.num_heads,
        "LlamaFlashAttention2": spec.text.head_dim,
    }


def _work_s(op: Op, kind: ShapeClass, rates: Rates, head_width: int | None) -> float:
    """Seconds of the work alone: of a product at the rate of its sums' length, of others at that of its bytes."""
    flops, moved = int(op.executed_flops), int(op.eager_bytes)
    each = moved / int(op.launches)
    if kind in (ShapeClass.STREAM, ShapeClass.MOVEMENT, ShapeClass.NORM, ShapeClass.ACTIVATION):
        return moved / rates.curves[kind].at(each)
    bandwidth_s = moved / rates.curves[ShapeClass.STREAM].at(each)
    if kind is ShapeClass.ATTENTION:
        assert head_width is not None, "fused attention in a layer without heads"
        curve = rates.attention[head_width]
        rows = int(op.written_bytes) / (head_width * _BYTES[rates.dtype] + 4)  # a row of the output and its float32 sum
        size = flops / (4 * head_width * rows)
    else:
        curve = rates.curves[kind]
        size = flops * _BYTES[rates.dtype] / (2 * int(op.written_bytes))
    return max(flops / curve.at(size), bandwidth_s)


_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
