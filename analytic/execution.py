"""How the model is run: the choices that change which operators execute, not what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from analytic.checks import accept

Device = Literal["meta", "cpu", "cuda"]
Attention = Literal["sdpa", "eager"]
Experts = Literal["grouped_mm", "batched_mm"]
AttentionKernel = Literal["eager", "math", "fused"]

DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Device, kernels and precision of a run.

    device     `meta` (shapes only; SDPA decomposes into its two products), `cpu` or `cuda` (SDPA is one kernel)
    attention  transformers' attention implementation
    experts    transformers' experts implementation
    dtype      parameters and activations
    """

    device: Device
    attention: Attention
    experts: Experts
    dtype: str

    def __post_init__(self) -> None:
        accept("device", self.device, get_args(Device))
        accept("attention", self.attention, get_args(Attention))
        accept("experts", self.experts, get_args(Experts))
        accept("dtype", self.dtype, tuple(DTYPE_BYTES))

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one parameter or activation element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def casts(self) -> bool:
        """Whether a step that transformers computes in float32 copies its input first."""
        return self.dtype != "float32"

    @property
    def attention_kernel(self) -> AttentionKernel:
        """Which operators an attention turns into: transformers' own, SDPA decomposed, or SDPA as one kernel."""
        if self.attention == "eager":
            return "eager"
        return "math" if self.device == "meta" else "fused"

    @property
    def counter_sees_attention(self) -> bool:
        """torch has a FLOP formula for the CUDA kernels and for products, none for the CPU's fused kernel."""
        return not (self.attention_kernel == "fused" and self.device == "cpu")

    @property
    def counter_sees_experts(self) -> bool:
        """torch has no FLOP formula for `_grouped_mm`; batched products are counted."""
        return self.experts != "grouped_mm"


FULL_SIZE: Final = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
"""The exact reference: bfloat16 on the meta device with transformers' default kernels."""
