"""Devices side by side: what fits, pages/s, power and price of each, and the stages of a page with MFU and MBU.

Floor, prediction and measurement stand beside each other and are never mixed: a column is of one source. MFU and MBU are
those of the measured time, else of the predicted one; a floor has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from analytic.core.cost import Cost, CostNode, in_sequence, mean_of
from analytic.core.execution import Execution
from analytic.io.documents import Document
from analytic.models.registry import model_of
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix, PageShare
from analytic.planning.plan import Plan
from analytic.planning.recorded_times import RecordedTimes
from analytic.planning.throughput import Service
from analytic.planning.times import Source
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.predict import predict
from analytic.prediction.rates import Rates
from analytic.prediction.roofline import Ceilings, TimedCost, floor_s, mbu, mfu

DEVICES: Final = Document(name="devices")
SOURCES: Final[tuple[Source, ...]] = ("floor", "predicted", "measured")
MILLION: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class CostedStage:
    """A stage of a batch of pages: its cost, and the trees that a time is predicted from (of `calls` equal calls)."""

    stage: str
    cost: Cost
    trees: tuple[CostNode, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSide:
    """A stage on one device: seconds by source, what its floor is bound by, and the power that was measured in it.

    MFU and MBU are None where there is only a floor, watts where no energy was measured.
    """

    stage: str
    times_s: dict[Source, float | None]
    bound_by: Literal["FLOPs", "bytes"]
    mfu: float | None
    mbu: float | None
    watts: float | None

    def as_json(self) -> dict[str, Any]:
        """Seconds by source and shares (schemas/devices.v1.schema.json)."""
        times = {f"{source}_s": self.times_s.get(source) for source in SOURCES}
        shares = {"mfu": self.mfu, "mbu": self.mbu, "watts": self.watts}
        return {"stage": self.stage, **times, "bound_by": self.bound_by, **shares}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSide:
    """One device: its plans by source of times, and the stages of a page.

    price_per_hour  None without
    stages          empty for a mix of several shapes
    left_out        why nothing is planned on it; None if something is
    """

    device: DevicePeaks
    plans: dict[Source, Plan]
    price_per_hour: float | None
    stages: tuple[StageSide, ...]
    left_out: str | None

    def service(self, source: Source) -> Service | None:
        """The service of the mix with the most pages/s, within the limits, by the times of `source`."""
        return self.plans[source].chosen if source in self.plans else None

    def first_token_s(self, source: Source) -> float | None:
        """Seconds to the first token, with the wait of pages that arrive at random where there are limits."""
        found = self.service(source)
        if found is None:
            return None
        limited = self.plans[source].limited
        return found.ttft_s + (0.0 if limited is None else limited.wait_s)

    def kwh_per_million(self, source: Source) -> float | None:
        """Energy of a million pages at the board's full power, in kWh; None if that is unknown."""
        found, watts = self.service(source), self.device.board_power_w
        return None if found is None or watts is None else watts * found.device_hours_per_million_pages / 1000

    def cost_per_million(self, source: Source) -> float | None:
        """Price of a million pages; None without a price."""
        found, price = self.service(source), self.price_per_hour
        return None if found is None or price is None else found.cost_per_million_pages(price)

    def as_json(self) -> dict[str, Any]:
        """The device (schemas/devices.v1.schema.json)."""
        return {
            "device": self.device.name,
            "memory_bytes": self.device.memory_bytes,
            "bandwidth_bytes_per_s": self.device.bandwidth_bytes_per_s,
            "board_power_w": self.device.board_power_w,
            "price_per_hour": self.price_per_hour,
            "pages_fit": max((plan.pages_in_flight for plan in self.plans.values()), default=0),
            "left_out": self.left_out,
            "services": {source: self._service_json(source) for source in SOURCES},
            "stages": [stage.as_json() for stage in self.stages],
        }

    def _service_json(self, source: Source) -> dict[str, Any] | None:
        found = self.service(source)
        if found is None:
            return None
        return {
            "pages_in_flight": found.pages_in_flight,
            "pages_per_s": found.pages_per_s,
            "tokens_per_s": found.tokens_per_s,
            "first_token_s": self.first_token_s(source),
            "tpot_s": found.tpot_s,
            "bound_by": found.bound_by,
            "kwh_per_million_pages": self.kwh_per_million(source),
            "cost_per_million_pages": self.cost_per_million(source),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Devices beside each other, for one mix; `batch_size` is that of the stages, `decode_steps` their decoded tokens."""

    spec: ModelSpec
    run: Execution
    mix: Mix
    batch_size: int
    decode_steps: int
    devices: tuple[DeviceSide, ...]

    @property
    def planned(self) -> tuple[DeviceSide, ...]:
        """The devices on which something is planned."""
        return tuple(side for side in self.devices if side.left_out is None)

    @property
    def source(self) -> Source:
        """The source closest to the devices that all of them have."""
        return next(
            source for source in reversed(SOURCES) if source == "floor" or all(source in one.plans for one in self.planned)
        )

    def as_json(self) -> dict[str, Any]:
        """The content of the file (schemas/devices.v1.schema.json)."""
        return {
            "schema_version": "1.0",
            "model": {"model_id": self.spec.model_id, "model_variant": self.spec.model_variant},
            "execution": {name: getattr(self.run, name) for name in ("attention", "experts", "dtype")},
            "crop_rule": {"served_by": self.mix.crop_rule.name, "max_tiles": self.mix.crop_rule.max_tiles},
            "new_tokens": self.mix.new_tokens,
            "pages": [{"page": one.label, "share": one.share, "seq_len": one.seq_len} for one in self.mix.pages],
            "batch_size": self.batch_size,
            "decode_steps": self.decode_steps,
            "source": self.source,
            "devices": [side.as_json() for side in self.devices],
        }


def costed_stages(
    spec: ModelSpec, run: Execution, page: PageShare, *, batch_size: int, decode_steps: int
) -> list[CostedStage]:
    """Vision, prefill and the mean of `decode_steps` decode steps of a batch of one shape."""
    root = model_of(spec, run=run)
    calls: dict[str, list[tuple[Cost, CostNode]]] = {}
    walked = root.walk(page.page, seq_len=page.seq_len, batch_size=batch_size, decode_steps=decode_steps)
    for call in walked:
        calls.setdefault(call.stage, []).append((root.forward_cost(), root.tree()))
    found = []
    for stage, made in calls.items():
        costs = [cost for cost, _ in made]
        cost = mean_of(costs) if len(costs) > 1 else in_sequence(costs)
        found.append(CostedStage(stage=stage, cost=cost, trees=tuple(tree for _, tree in made)))
    return found


def stage_side(
    work: CostedStage,
    device: DevicePeaks,
    run: Execution,
    page: PageShare,
    *,
    rates: Rates | None,
    recorded: RecordedTimes | None,
) -> StageSide:
    """A stage on a device by every source that there is."""
    peak = device.flops_per_s(run.dtype)
    ceilings = Ceilings(flops_per_s=peak, bytes_per_s=device.bandwidth_bytes_per_s)
    times: dict[Source, float | None] = {"floor": floor_s(work.cost, ceilings)}
    if rates is not None:
        times["predicted"] = predict(work.trees, rates).time_s / len(work.trees)
    watts = None
    if recorded is not None:
        times["measured"] = _recorded_s(work.stage, page, recorded)
        watts = recorded.watts(page)[work.stage]
    closest_s = times.get("measured") or times.get("predicted")
    timed = [] if closest_s is None else [TimedCost(cost=work.cost, time_s=closest_s)]
    seconds = int(work.cost.executed_flops) / peak if peak else 0.0
    return StageSide(
        stage=work.stage,
        times_s=times,
        bound_by="FLOPs" if seconds >= (times["floor"] or 0.0) else "bytes",
        mfu=mfu(timed, peak, convention="executed") if timed else None,
        mbu=mbu(timed, device.bandwidth_bytes_per_s) if timed else None,
        watts=watts,
    )


def _recorded_s(stage: str, page: PageShare, recorded: RecordedTimes) -> float:
    if stage == "vision":
        return recorded.vision_s(page)
    if stage == "prefill":
        return recorded.prefill_s(page)
    return recorded.step_s(Mix(pages=(page,), new_tokens=2), recorded.batch_size or 1)


def slowest_first(sides: Sequence[DeviceSide], source: Source) -> list[DeviceSide]:
    """The devices by pages/s, the fewest first."""
    found = [(side.service(source), side) for side in sides]
    return [side for service, side in sorted(found, key=lambda pair: 0.0 if pair[0] is None else pair[0].pages_per_s)]
