"""Time floor, MFU and MBU: work and traffic against the ceilings of a device.

MFU is useful or executed FLOPs over time and peak FLOP/s; MBU is the bytes that have to move over time and bandwidth.
Decode is bound by the second: it reads every touched weight and the cache for one token per sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from analytic.core.checks import accept, whole
from analytic.core.execution import CONTEXT_LEN_MODES, ContextLenMode
from analytic.core.op import Count

Convention = Literal["executed", "useful"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """Ceilings of a device, from a datasheet or measured; None if unknown.

    flops_per_s  dense products in the dtype of the run
    bytes_per_s  memory traffic
    """

    flops_per_s: float | None
    bytes_per_s: float | None


class StageWork(Protocol):
    """What utilization and the lower bound are computed from: a `Cost`, or the same counts read from a file."""

    @property
    def executed_flops(self) -> Count: ...
    @property
    def useful_flops(self) -> Count: ...
    @property
    def fused_bytes(self) -> Count: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedCost:
    """Cost and measured time in seconds of a stage, or of one of its tokens."""

    cost: StageWork
    time_s: float

    def __post_init__(self) -> None:
        if not self.time_s > 0:
            raise ValueError(f"time_s: got {self.time_s}, accepted: seconds above zero")


def floor_s(cost: StageWork, ceilings: Ceilings) -> float | None:
    """Roofline lower bound on stage time in seconds: the larger of executed FLOPs over peak and fused bytes over bandwidth.

    None if both ceilings are unknown; with only one known, its bound alone.
    """
    bounds = []
    if ceilings.flops_per_s is not None:
        bounds.append(int(cost.executed_flops) / ceilings.flops_per_s)
    if ceilings.bytes_per_s is not None:
        bounds.append(int(cost.fused_bytes) / ceilings.bytes_per_s)
    return max(bounds, default=None)


def mfu(stages: Sequence[TimedCost], peak_flops_per_s: float | None, *, convention: Convention) -> float | None:
    """Model FLOPs utilization of one or more stages: summed FLOPs over summed time and peak; None without a peak."""
    accept("convention", convention, ("executed", "useful"))
    if peak_flops_per_s is None:
        return None
    work = sum(int(getattr(stage.cost, f"{convention}_flops")) for stage in stages)
    return work / (sum(stage.time_s for stage in stages) * peak_flops_per_s)


def mbu(stages: Sequence[TimedCost], bytes_per_s: float | None) -> float | None:
    """Memory bandwidth utilization: fused bytes over time and bandwidth; None without a bandwidth.

    Fused bytes are touched weights, cache, and the inputs and outputs of modules.
    """
    if bytes_per_s is None:
        return None
    moved = sum(int(stage.cost.fused_bytes) for stage in stages)
    return moved / (sum(stage.time_s for stage in stages) * bytes_per_s)


def decode_context_len(
    mode: ContextLenMode, *, prefill_len: int, new_tokens: int, window: int, fixed: int | None = None
) -> int:
    """The assumed context length of a decoded token, in positions.

    auto   prefill_len + new_tokens // 2, the mean over the decoded tokens
    fixed  `fixed`
    max    `window`, the longest context of the model

    Raises ValueError for another mode, and for `fixed` without a length or a length without `fixed`.
    """
    accept("context_len_mode", mode, CONTEXT_LEN_MODES)
    if (mode == "fixed") != (fixed is not None):
        needs = "a length (context_len_fixed)" if mode == "fixed" else "no context_len_fixed"
        raise ValueError(f"context_len_fixed: got {fixed} with context_len_mode {mode!r}, accepted: {needs}")
    if fixed is not None:
        whole("context_len_fixed", fixed)
        return fixed
    return window if mode == "max" else prefill_len + new_tokens // 2
