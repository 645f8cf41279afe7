"""Time floor, MFU and MBU: work and traffic against what a device can do.

MFU is useful or executed FLOPs over time and peak FLOP/s; MBU is the bytes that have to move over time and bandwidth.
Decode lives on the second: it reads every touched weight and the cache for one token a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analytic.core.checks import accept, whole
from analytic.core.cost import Cost

ContextLenMode = Literal["auto", "fixed", "max"]
Convention = Literal["executed", "useful"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What a device can do, from a datasheet or measured; None where it is not known.

    flops_per_s  dense products in the dtype of the run
    bytes_per_s  memory traffic
    """

    flops_per_s: float | None
    bytes_per_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedCost:
    """A stage, or a token of it, with the time it took in seconds."""

    cost: Cost
    time_s: float

    def __post_init__(self) -> None:
        if not self.time_s > 0:
            raise ValueError(f"time_s: got {self.time_s}, accepted: seconds above zero")


def floor_s(cost: Cost, ceilings: Ceilings) -> float | None:
    """Seconds below which the stage cannot be: the larger of executed FLOPs over peak and fused bytes over bandwidth.

    None while both ceilings are unknown; with one known, the floor of that one.
    """
    bounds = []
    if ceilings.flops_per_s is not None:
        bounds.append(int(cost.executed_flops) / ceilings.flops_per_s)
    if ceilings.bytes_per_s is not None:
        bounds.append(int(cost.fused_bytes) / ceilings.bytes_per_s)
    return max(bounds, default=None)


def mfu(stages: Sequence[TimedCost], peak_flops_per_s: float | None, *, convention: Convention) -> float | None:
    """Model FLOPs utilization of one stage, or of several: summed FLOPs over summed time and peak. None without a peak."""
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
    """The context a decoded token is taken to see.

    auto   prefill_len + new_tokens // 2, the mean over the decoded tokens
    fixed  `fixed`
    max    `window`, the longest the model takes

    Raises ValueError for another mode, and for `fixed` without a length or a length without `fixed`.
    """
    accept("context_len_mode", mode, ("auto", "fixed", "max"))
    if (mode == "fixed") != (fixed is not None):
        needs = "a length (context_len_fixed)" if mode == "fixed" else "no context_len_fixed"
        raise ValueError(f"context_len_fixed: got {fixed} with context_len_mode {mode!r}, accepted: {needs}")
    if fixed is not None:
        whole("context_len_fixed", fixed)
        return fixed
    return window if mode == "max" else prefill_len + new_tokens // 2
