"""FLOP/s and bytes/s required to answer within a target time: for the first token, and for each further token.

A first token takes vision and prefill of a page; a further token takes a decode step. A device has to sustain both rates at
once: executed FLOPs over the target time, and fused bytes over the target time. Both are lower bounds, with products and
traffic fully overlapped and no other delay: a device below one of them cannot meet the target, and a device whose datasheet
reaches both may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from analytic.core.checks import MOST_STEPS, whole
from analytic.core.cost import Cost, in_sequence
from analytic.core.execution import Execution
from analytic.io.documents import Document
from analytic.io.table import aligned
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.registry import model_of
from analytic.models.spec import ModelSpec
from analytic.prediction import hardware

DEMAND: Final = Document(name="serving_demand")
FIRST_TOKEN_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
LEAST_S: Final = 1e-9
MOST_S: Final = 1e9
"""Accepted target times: from shorter than a launch takes to decades, so that every rate is finite."""
TOKEN_S: Final = (0.005, 0.010, 0.020, 0.050)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequiredRates:
    """The rates required to finish within `time_s`, and the devices whose datasheet reaches both."""

    time_s: float
    flops_per_s: float
    bytes_per_s: float
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The work of one token, and the rates required by each target time.

    seq_len      decoder positions of the prefill
    page         the page that vision reads before the first token; None for a further token
    context_len  positions in the cache before a further token; None for the first
    """

    seq_len: int
    page: VisionWorkload | None
    context_len: int | None
    executed_flops: int
    fused_bytes: int
    targets: tuple[RequiredRates, ...]

    def as_json(self) -> dict[str, Any]:
        """The point and its targets (schemas/serving_demand.v1.schema.json)."""
        place = {"context_len": self.context_len} if self.page is None else self.page.as_json()
        return {
            "seq_len": self.seq_len,
            **place,
            "executed_flops": self.executed_flops,
            "fused_bytes": self.fused_bytes,
            "targets": [{**asdict(rates), "devices": list(rates.devices)} for rates in self.targets],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingDemand:
    """Required rates over lengths and pages. `left_out`: (length, page, least length) of pages that do not fit."""

    spec: ModelSpec
    run: Execution
    batch_size: int
    decode_steps: int
    first_token: tuple[Answer, ...]
    further_token: tuple[Answer, ...]
    left_out: tuple[tuple[int, str, int], ...]

    def as_json(self) -> dict[str, Any]:
        """The content of the file (schemas/serving_demand.v1.schema.json)."""
        return {
            "schema_version": "1.0",
            "model": {"model_id": self.spec.model_id, "model_variant": self.spec.model_variant},
            "dtype": self.run.dtype,
            "batch_size": self.batch_size,
            "decode_steps": self.decode_steps,
            "first_token": [answer.as_json() for answer in self.first_token],
            "further_token": [answer.as_json() for answer in self.further_token],
            "left_out": [
                {"seq_len": length, "page": page, "least_seq_len": least} for length, page, least in self.left_out
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A target time over all points: the range of each rate, and the devices that reach both rates at every point."""

    time_s: float
    flops_per_s: tuple[float, float]
    bytes_per_s: tuple[float, float]
    devices: tuple[str, ...]


def serving_demand(
    spec: ModelSpec,
    run: Execution,
    *,
    seq_lens: Sequence[int],
    pages: Sequence[VisionWorkload],
    batch_size: int,
    decode_steps: int,
    first_token_s: Sequence[float] = FIRST_TOKEN_S,
    token_s: Sequence[float] = TOKEN_S,
) -> ServingDemand:
    """The rates for every length with every page that fits in it, and for the last of `decode_steps` tokens after it.

    That token has the longest context, so earlier ones require less. Raises ValueError for counts below one and for times
    outside of LEAST_S to MOST_S.
    """
    if not seq_lens:
        raise ValueError("seq_lens: got none, accepted: at least one length")
    for length in seq_lens:
        whole("seq_lens", length)
    whole("decode_steps", decode_steps, most=MOST_STEPS)
    for field, times in (("first_token_s", first_token_s), ("token_s", token_s)):
        _require_times(field, times)
    root = model_of(spec, run=run)
    vision = {page: _vision(root, page, batch_size) for page in pages}
    first, further, left_out = [], [], []
    for seq_len in seq_lens:
        root.start_prefill(seq_len, batch_size)
        prefill = root.forward_cost()
        for page, seen in vision.items():
            if seq_len <= page.image_tokens:
                left_out.append((seq_len, page.label, page.image_tokens + 1))
                continue
            first.append(_answer(in_sequence((seen, prefill)), run, first_token_s, seq_len=seq_len, page=page))
        context = seq_len + decode_steps - 1
        root.start_decode(root.cache_after(seq_len, decoded=decode_steps - 1, batch_size=batch_size))
        further.append(_answer(root.forward_cost(), run, token_s, seq_len=seq_len, context_len=context))
    return ServingDemand(
        spec=spec,
        run=run,
        batch_size=batch_size,
        decode_steps=decode_steps,
        first_token=tuple(first),
        further_token=tuple(further),
        left_out=tuple(left_out),
    )


def spreads(answers: Sequence[Answer]) -> list[Spread]:
    """One `Spread` per target time over all `answers`, in the order of the times."""
    found = []
    for rates in zip(*(answer.targets for answer in answers), strict=True):
        flops, moved = [rate.flops_per_s for rate in rates], [rate.bytes_per_s for rate in rates]
        everywhere = set.intersection(*(set(rate.devices) for rate in rates))
        found.append(
            Spread(
                time_s=rates[0].time_s,
                flops_per_s=(min(flops), max(flops)),
                bytes_per_s=(min(moved), max(moved)),
                devices=tuple(name for name in rates[0].devices if name in everywhere),
            )
        )
    return found


def spread_rows(answers: Sequence[Answer], dtype: str) -> list[list[str]]:
    """One table row per target time: the time, ranges of TFLOP/s and GB/s, and the devices whose datasheet reaches them."""
    rows = [["within", "TFLOP/s", "GB/s", "on the datasheet of"]]
    for spread in spreads(answers):
        within = f"{spread.time_s:g} s" if spread.time_s >= 0.1 else f"{spread.time_s * 1e3:g} ms"
        rows.append([within, _range(spread.flops_per_s, 1e12), _range(spread.bytes_per_s, 1e9), _reached_by(spread, dtype)])
    return rows


def within(time_s: float) -> str:
    """A target time as text: `0.5 s`, `20 ms`."""
    return f"{time_s:g} s" if time_s >= 0.1 else f"{time_s * 1e3:g} ms"


def lines(demand: ServingDemand) -> list[str]:
    """The target times over all points, for a terminal."""
    dtype = demand.run.dtype
    found = [f"{demand.spec.model_variant}, {dtype}, batch {demand.batch_size}: required sustained rates"]
    for heading, answers in (
        ("first token, lengths and pages", demand.first_token),
        ("further token, lengths", demand.further_token),
    ):
        if answers:
            found += [f"{heading}: {len(answers)}", *aligned(spread_rows(answers, dtype), left=4)]
    able = len(devices_with(0, 0, dtype))
    found.append(f"datasheets: of {able} devices that have a dense peak for {dtype}")
    if demand.left_out:
        found.append(f"left out: {len(demand.left_out)} combinations of length and page that do not fit")
    return found


def devices_with(flops_per_s: float, bytes_per_s: float, dtype: str) -> tuple[str, ...]:
    """The devices whose datasheet reaches both rates, dense in `dtype`; devices without a unit for it are excluded."""
    return tuple(
        device.name
        for device in hardware.devices()
        if (peak := device.flops_per_s(dtype)) is not None
        and peak >= flops_per_s
        and device.bandwidth_bytes_per_s >= bytes_per_s
    )


def _vision(root: DeepseekOCRModel, page: VisionWorkload, batch_size: int) -> Cost:
    root.start_vision(page, batch_size=batch_size)
    return root.forward_cost()


def _answer(
    cost: Cost,
    run: Execution,
    times_s: Sequence[float],
    *,
    seq_len: int,
    page: VisionWorkload | None = None,
    context_len: int | None = None,
) -> Answer:
    flops, moved = int(cost.executed_flops), int(cost.fused_bytes)
    targets = [
        RequiredRates(
            time_s=time_s,
            flops_per_s=flops / time_s,
            bytes_per_s=moved / time_s,
            devices=devices_with(flops / time_s, moved / time_s, run.dtype),
        )
        for time_s in times_s
    ]
    return Answer(
        seq_len=seq_len,
        page=page,
        context_len=context_len,
        executed_flops=flops,
        fused_bytes=moved,
        targets=tuple(targets),
    )


def _range(ends: tuple[float, float], unit: float) -> str:
    low, high = (f"{end / unit:,.3g}" if end < 1e3 * unit else f"{end / unit:,.0f}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _reached_by(spread: Spread, dtype: str) -> str:
    """The devices that reach both rates everywhere; if all do, also the one with the least headroom, and its headroom."""
    listed = _device_list(spread.devices, dtype)
    if len(spread.devices) < len(devices_with(0, 0, dtype)):
        return listed
    flops_per_s, bytes_per_s = spread.flops_per_s[1], spread.bytes_per_s[1]
    headroom = {
        name: min((hardware.device(name).flops_per_s(dtype) or 0) / flops_per_s,
                  hardware.device(name).bandwidth_bytes_per_s / bytes_per_s)
        for name in spread.devices
    }  # fmt: skip
    least = min(headroom, key=lambda name: headroom[name])
    return f"{listed}, {least} with {headroom[least]:,.1f}x as much"


def _device_list(devices: Sequence[str], dtype: str) -> str:
    """The devices among those with a unit for `dtype`, listed by inclusion or exclusion, whichever is shorter."""
    able = devices_with(0, 0, dtype)
    missing = [name for name in able if name not in devices]
    if not missing:
        return f"all {len(able)}"
    if len(missing) <= len(devices):
        return f"{len(devices)} of {len(able)}, not {', '.join(missing)}"
    return f"{len(devices)} of {len(able)}: {', '.join(devices)}" if devices else f"none of {len(able)}"


def _require_times(field: str, times_s: Sequence[float]) -> None:
    if not times_s:
        raise ValueError(f"{field}: got none, accepted: at least one time")
    for time_s in times_s:
        if not LEAST_S <= time_s <= MOST_S:
            raise ValueError(f"{field}: got {time_s}, accepted: seconds above zero, from {LEAST_S:g} to {MOST_S:g}")
