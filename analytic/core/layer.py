"""The interface of every analytic layer, and the leaves that layers are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from analytic.core import ops
from analytic.core.cost import BackwardCost, Cost, CostNode
from analytic.core.execution import Execution
from analytic.core.op import Count, Op


class AnalyticLayer(ABC):
    """A module of the model with its shapes, and its cost in FLOPs and bytes.

    `forward_*` is one call of the module; `backward_*` the gradients of that call. A subclass is a frozen dataclass that
    holds dimensions and shapes and builds its cost tree in `tree`.
    """

    __slots__ = ()

    @abstractmethod
    def tree(self, name: str) -> CostNode:
        """The cost tree of this layer as the module `name` of its parent."""

    def forward_cost(self) -> Cost:
        """All quantities of one forward call."""
        return self.tree("").total()

    def forward_tensor_core_flops(self) -> Count:
        """Executed matmul and convolution FLOPs."""
        return self.forward_cost().executed_flops

    def forward_cuda_core_flops(self) -> Count:
        """Pointwise FLOPs: norms, activations, softmax, rotary, residuals."""
        return self.forward_cost().cuda_core_flops

    def forward_cal_io(self) -> Count:
        """Bytes read and written by the operators that run."""
        return self.forward_cost().eager_bytes

    def forward_arithmetic_intensity(self) -> Any:
        """FLOPs per byte: tensor and CUDA cores over `forward_cal_io`."""
        return self.forward_cost().arithmetic_intensity

    def forward_memory_weight(self) -> Count:
        """Bytes of resident parameters."""
        return self.forward_cost().weight_bytes

    def forward_memory_activation(self) -> Count:
        """Peak bytes of live activations, without weights and cache."""
        return self.forward_cost().activation_bytes

    def forward_memory_kvcache(self) -> Count:
        """Bytes of KV cache after the call."""
        return self.forward_cost().kv_bytes

    def backward_cost(self) -> BackwardCost:
        """The gradients of one call."""
        return self.tree("").backward()

    def backward_tensor_core_flops(self) -> Count:
        """Matmul and convolution FLOPs of the gradients."""
        return self.backward_cost().tensor_core_flops

    def backward_cuda_core_flops(self) -> Count:
        """Pointwise FLOPs of the gradients; an estimate."""
        return self.backward_cost().cuda_core_flops

    def backward_cal_io(self) -> Count:
        """Bytes read and written by the gradient operators; an estimate."""
        return self.backward_cost().moved_bytes

    def backward_arithmetic_intensity(self) -> Any:
        """FLOPs per byte of the gradients."""
        cost = self.backward_cost()
        return (cost.tensor_core_flops + cost.cuda_core_flops) / cost.moved_bytes

    def backward_memory_weight(self) -> Count:
        """Bytes of weight gradients: one for every resident parameter."""
        return self.forward_memory_weight()

    def backward_memory_activation(self) -> Count:
        """Peak bytes of live activation gradients; estimated as the forward's peak."""
        return self.forward_memory_activation()

    def backward_memory_kvcache(self) -> Count:
        """0: training keeps no KV cache."""
        return 0


def module(
    name: str,
    layer: str,
    *,
    ops: tuple[Op, ...] = (),
    parameters: int = 0,
    parameter_b: int = 0,
    fused_bytes: Count = 0,
    held_bytes: Count = 0,
    kv_bytes: Count = 0,
    children: tuple[CostNode, ...] = (),
    copies: tuple[str, ...] = (),
) -> CostNode:
    """A node of the cost tree; omitted fields are zero or empty. `parameter_b`: bytes per parameter."""
    return CostNode(
        name=name,
        layer=layer,
        ops=ops,
        parameters=parameters,
        parameter_bytes=parameters * parameter_b,
        fused_bytes=fused_bytes,
        held_bytes=held_bytes,
        kv_bytes=kv_bytes,
        children=children,
        copies=copies,
    )


def linears(*names: str, tokens: Count, width_in: int, width_out: int, bias: bool, b: int) -> tuple[CostNode, ...]:
    """Linears of one shape inside a fused parent, one per name."""
    op = ops.linear(tokens=tokens, width_in=width_in, width_out=width_out, bias=bias, b=b)
    weights = (width_in + bias) * width_out
    return tuple(module(name, "Linear", ops=(op,), parameters=weights, parameter_b=b) for name in names)


def conv2d(
    name: str,
    *,
    batch: Count,
    channels_in: int,
    channels_out: int,
    side_in: int,
    side_out: int,
    kernel: int,
    b: int,
    bias: bool = False,
    first: bool = False,
) -> CostNode:
    """A Conv2d; a separate kernel even when its parent is fused."""
    op = ops.conv2d(
        batch=batch,
        channels_in=channels_in,
        channels_out=channels_out,
        side_in=side_in,
        side_out=side_out,
        kernel=kernel,
        bias=bias,
        b=b,
        first=first,
    )
    weights = (channels_in * kernel * kernel + bias) * channels_out
    return module(name, "Conv2d", ops=(op,), parameters=weights, parameter_b=b, fused_bytes=op.eager_bytes)


def layer_norm(name: str, *, rows: Count, width: int, run: Execution) -> CostNode:
    """A LayerNorm; when fused, only its weights are read."""
    b, weights = run.dtype_bytes, 2 * width
    return module(
        name,
        "LayerNorm",
        ops=(ops.layer_norm(rows=rows, width=width, run=run),),
        parameters=weights,
        parameter_b=b,
        fused_bytes=weights * b,
    )


def activation(name: str, *, elements: Count, kind: str, b: int) -> CostNode:
    """An activation module (gelu, silu); when fused, it moves no bytes."""
    return module(name, "Activation", ops=(ops.activation(elements=elements, name=kind, b=b),))
