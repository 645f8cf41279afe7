"""How the model runs: the choices that change which operators execute, but not what they compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from analytic.core.checks import accept
from analytic.framework import Framework, GlueDtype, TorchProfile, TransformersProfile, installed

Device = Literal["meta", "cpu", "cuda"]
Attention = Literal["sdpa", "eager"]
Experts = Literal["grouped_mm", "batched_mm", "eager"]
Backend = Literal["eager", "compile", "cudagraph"]
ContextLenMode = Literal["auto", "fixed", "max"]
AttentionKernel = Literal["eager", "math", "fused"]

DEVICES: Final = get_args(Device)
ATTENTIONS: Final = get_args(Attention)
EXPERTS: Final = get_args(Experts)
BACKENDS: Final = get_args(Backend)
CONTEXT_LEN_MODES: Final = get_args(ContextLenMode)
"""The accepted values, for help texts and for checks."""

DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
INSTEAD: Final = {
    ("compile", "meta"): "meta has shapes and no times; add --device cpu --preset tiny",
    ("cudagraph", "meta"): "CUDA graphs need a CUDA device; elsewhere use --backend compile --device cpu --preset tiny",
    ("cudagraph", "cpu"): "a CPU has no CUDA graphs; use --backend compile",
}
"""What to do if a backend cannot run on a device."""


def usual_dtype(device: str) -> str:
    """The dtype that a model is run in if none is given: float32 on a CPU, bfloat16 elsewhere."""
    return "float32" if device == "cpu" else "bfloat16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Device, kernels and precision of a run, and the framework whose glue is counted.

    device     `meta` (shapes only; SDPA decomposes into its two products), `cpu` or `cuda` (SDPA is one kernel)
    attention  transformers' attention implementation
    experts    transformers' experts implementation; `eager` loops over the experts that tokens are routed to
    dtype      of parameters and activations
    backend    `eager`, the default, dispatches operators one by one; `compile` is torch.compile; `cudagraph` is
               torch.compile with its kernels replayed as a CUDA graph
    framework  releases of transformers and torch; the installed ones by default

    Raises ValueError for combinations that cannot run: a backend on a device that does not support it, or the expert loop,
    which depends on values, on meta (which has none) or in a compiled graph.
    """

    device: Device
    attention: Attention
    experts: Experts
    dtype: str
    backend: Backend = "eager"
    framework: Framework = field(default_factory=installed, repr=False)

    def __post_init__(self) -> None:
        accept("device", self.device, DEVICES)
        accept("attention", self.attention, ATTENTIONS)
        accept("experts", self.experts, EXPERTS)
        accept("dtype", self.dtype, tuple(DTYPE_BYTES))
        accept("backend", self.backend, BACKENDS)
        if self.backend == "cudagraph" and self.device != "cuda":
            raise ValueError(
                f"backend: got cudagraph on device {self.device}, accepted: on cuda only; "
                f"{INSTEAD[self.backend, self.device]}"
            )
        if self.backend == "compile" and self.device == "meta":
            raise ValueError(
                f"backend: got compile on device meta, accepted: on cpu or cuda; {INSTEAD[self.backend, self.device]}"
            )
        if self.experts == "eager" and self.device == "meta":
            raise ValueError(
                "experts: got eager on device meta, where no tokens are routed; accepted there: grouped_mm or "
                "batched_mm; or add --device cpu --preset tiny"
            )
        if self.experts == "eager" and self.backend != "eager":
            raise ValueError(
                f"experts: got eager with backend {self.backend}: its loop over the hit experts depends on "
                f"values and cannot be one graph; accepted: grouped_mm or batched_mm"
            )

    @property
    def dtype_bytes(self) -> int:
        """Bytes per parameter or activation element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def transformers(self) -> TransformersProfile:
        """The glue of transformers."""
        return self.framework.profile.transformers

    @property
    def torch(self) -> TorchProfile:
        """The glue of torch."""
        return self.framework.profile.torch

    def bytes_in(self, dtype: GlueDtype) -> int:
        """Bytes per element in a step that computes in `dtype`."""
        return DTYPE_BYTES["float32"] if dtype == "float32" else self.dtype_bytes

    def casts(self, dtype: GlueDtype) -> bool:
        """Whether a step that computes in `dtype` casts its input first."""
        return dtype == "float32" and self.dtype != "float32"

    def choices(self) -> dict[str, str]:
        """The chosen options by field, as stored in records; the framework is stored separately."""
        return {name: getattr(self, name) for name in ("device", "attention", "experts", "dtype", "backend")}

    @property
    def static_cache(self) -> bool:
        """Whether the KV cache has a fixed capacity and is attended to in full; compiled graphs need static shapes."""
        return self.backend != "eager"

    @property
    def attention_kernel(self) -> AttentionKernel:
        """The operators that attention runs as: transformers' own, SDPA decomposed, or SDPA as one kernel."""
        if self.attention == "eager":
            return "eager"
        return "math" if self.device == "meta" else "fused"

    @property
    def writes_row_statistics(self) -> bool:
        """Whether one float32 per row counts as written by SDPA's kernel.

        The CPU kernel writes it in every call. Of a CUDA kernel only the output counts: which further results there are
        (statistics of the rows, a random state) depends on the kernel that torch selects for the GPU.
        """
        return self.device != "cuda"

    @property
    def counter_sees_attention(self) -> bool:
        """Whether FlopCounterMode counts the attention; it counts products and the CUDA kernels in every release."""
        on_cpu = self.attention_kernel == "fused" and self.device == "cpu"
        return not on_cpu or self.torch.counts_cpu_attention

    @property
    def counter_sees_experts(self) -> bool:
        """Whether FlopCounterMode counts the experts' products; it counts batched ones in every release."""
        return self.experts != "grouped_mm" or self.torch.counts_grouped_mm


FULL_SIZE: Final = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
"""The exact reference: bfloat16 on the meta device with transformers' default kernels."""
