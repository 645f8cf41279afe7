"""How the model is run: the choices that change which operators execute, not what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from analytic.checks import accept

Device = Literal["meta", "cpu", "cuda"]
Attention = Literal["sdpa", "eager"]
Experts = Literal["grouped_mm", "batched_mm", "eager"]
Backend = Literal["eager", "compile", "cudagraph"]
AttentionKernel = Literal["eager", "math", "fused"]

DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
INSTEAD: Final = {
    ("compile", "meta"): "meta has shapes and no times; add --device cpu --preset tiny",
    ("cudagraph", "meta"): "CUDA graphs need a CUDA device; elsewhere use --backend compile --device cpu --preset tiny",
    ("cudagraph", "cpu"): "a CPU has no CUDA graphs; use --backend compile",
}
"""What to do where a backend can not run on a device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Device, kernels and precision of a run.

    device     `meta` (shapes only; SDPA decomposes into its two products), `cpu` or `cuda` (SDPA is one kernel)
    attention  transformers' attention implementation
    experts    transformers' experts implementation; `eager` loops over the experts that some token was routed to
    dtype      parameters and activations
    backend    `eager` dispatches operators one by one, and is what is meant where nothing is said; `compile` is
               torch.compile; `cudagraph` is torch.compile whose kernels are replayed as a CUDA graph

    Raises ValueError for what can not run: a backend where its device is missing, or a loop that depends on values where
    there are none or where a graph is made ahead of them.
    """

    device: Device
    attention: Attention
    experts: Experts
    dtype: str
    backend: Backend = "eager"

    def __post_init__(self) -> None:
        accept("device", self.device, get_args(Device))
        accept("attention", self.attention, get_args(Attention))
        accept("experts", self.experts, get_args(Experts))
        accept("dtype", self.dtype, tuple(DTYPE_BYTES))
        accept("backend", self.backend, get_args(Backend))
        if self.backend == "cudagraph" and self.device != "cuda":
            raise ValueError(
                f"backend: got cudagraph on device {self.device}, accepted: on cuda alone; "
                f"{INSTEAD[self.backend, self.device]}"
            )
        if self.backend == "compile" and self.device == "meta":
            raise ValueError(
                f"backend: got compile on device meta, accepted: on cpu or cuda; {INSTEAD[self.backend, self.device]}"
            )
        if self.experts == "eager" and self.device == "meta":
            raise ValueError(
                "experts: got eager on device meta, where tokens are routed nowhere; accepted there: grouped_mm or "
                "batched_mm; or add --device cpu --preset tiny"
            )
        if self.experts == "eager" and self.backend != "eager":
            raise ValueError(
                f"experts: got eager with backend {self.backend}: its loop over the experts that were hit depends on "
                f"values, so it is no graph; accepted: grouped_mm or batched_mm"
            )

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one parameter or activation element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def casts(self) -> bool:
        """Whether a step that transformers computes in float32 copies its input first."""
        return self.dtype != "float32"

    @property
    def static_cache(self) -> bool:
        """Whether the KV cache has a fixed capacity and is attended to whole; compiled graphs need shapes that stay."""
        return self.backend != "eager"

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
