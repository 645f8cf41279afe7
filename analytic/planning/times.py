"""Times of vision, prefill and a decode step from the closed form: the floor of a datasheet, or predicted from rates.

Plans read times from a `Times` and name its source. The third source, measured times, is in `recorded_times.py`. Sources
are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from analytic.core.execution import Execution
from analytic.io import shell
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.registry import model_of
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix, PageShare
from analytic.prediction import hardware
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.predict import predict
from analytic.prediction.rates import Rates
from analytic.prediction.roofline import Ceilings, floor_s

Source = Literal["floor", "predicted", "measured"]


class Times(Protocol):
    """Times in seconds of the calls for a page.

    source      origin of the times
    description  the same as a sentence for the reader
    file        file the times come from; None for a datasheet
    batch_size  pages that pass each stage together, as measured; None if a page enters alone and any number of pages
                decodes together
    """

    @property
    def source(self) -> Source: ...
    @property
    def description(self) -> str: ...
    @property
    def file(self) -> str | None: ...
    @property
    def batch_size(self) -> int | None: ...

    def vision_s(self, page: PageShare) -> float:
        """One call of vision on one page, or on `batch_size` pages; 0 without an image."""

    def prefill_s(self, page: PageShare) -> float:
        """One prefill of one page, or of `batch_size` pages."""

    def step_s(self, mix: Mix, pages: int) -> float:
        """One decode step on `pages` pages of the mix."""


class ClosedFormTimes:
    """A `Times` that applies `seconds` to the model after it starts a stage; every page enters alone."""

    def __init__(
        self,
        spec: ModelSpec,
        run: Execution,
        *,
        source: Source,
        description: str,
        file: str | None,
        seconds: Callable[[DeepseekOCRModel], float],
    ) -> None:
        self.source, self.description, self.file = source, description, file
        self.batch_size: int | None = None
        self._root = model_of(spec, run=run)
        self._seconds = seconds
        self._entered: dict[VisionWorkload | int, float] = {}

    def vision_s(self, page: PageShare) -> float:
        if page.page is None:
            return 0.0
        if page.page not in self._entered:
            self._root.start_vision(page.page)
            self._entered[page.page] = self._seconds(self._root)
        return self._entered[page.page]

    def prefill_s(self, page: PageShare) -> float:
        if page.seq_len not in self._entered:
            self._root.start_prefill(page.seq_len, 1)
            self._entered[page.seq_len] = self._seconds(self._root)
        return self._entered[page.seq_len]

    def step_s(self, mix: Mix, pages: int) -> float:
        """All pages at the mean context: FLOPs and bytes are linear in it, so their sum over the pages is the same."""
        context = mix.mean_attended(self._root.mean_decoded)
        self._root.start_decode(self._root.cache_after(context, decoded=0, batch_size=pages))
        return self._seconds(self._root)


def floor_times(spec: ModelSpec, run: Execution, device: DevicePeaks) -> ClosedFormTimes:
    """Roofline times per stage from the datasheet. Raises ValueError for a dtype that the device has no unit for."""
    peak, bandwidth = device.flops_per_s(run.dtype), device.bandwidth_bytes_per_s
    if peak is None:
        known = [dtype for dtype, flops_per_s in device.peak_flops_per_s if flops_per_s is not None]
        raise ValueError(
            f"dtype: got {run.dtype}, which {device.name} has no unit for, accepted: {', '.join(known)}; "
            f"choose one of them with --dtype"
        )
    ceilings = Ceilings(flops_per_s=peak, bytes_per_s=bandwidth)

    def seconds(root: DeepseekOCRModel) -> float:
        return floor_s(root.forward_cost(), ceilings) or 0.0

    return ClosedFormTimes(
        spec,
        run,
        source="floor",
        description=f"floor, the roofline of {device.name}'s datasheet ({peak / 1e12:,.4g} TFLOP/s, "
        f"{bandwidth / 1e9:,.0f} GB/s): a lower bound on time, so pages/s are upper bounds",
        file=None,
        seconds=seconds,
    )


def predicted_times(spec: ModelSpec, run: Execution, rates: Rates, *, file: str, device: str | None) -> ClosedFormTimes:
    """Times predicted with every operator at the measured rate of its class.

    Raises ValueError if the rates are for another model or dtype, or for another device than `device` (None: any device).
    """
    for field, got, accepted in (
        ("preset", spec.model_variant, rates.model_variant),
        ("dtype", run.dtype, rates.dtype),
    ):
        if got != accepted:
            raise ValueError(
                f"{field}: got {got}, accepted: {accepted}, as in the rates of {file}; add --{field} {accepted}, or "
                f"measure other rates with `{shell.nox('predict_study')}`"
            )
    require_device("rates", file, measured_on=rates.device_name, device=device)
    return ClosedFormTimes(
        spec,
        run,
        source="predicted",
        description=f"predicted, every operator at the measured rate of its class on {rates.device_name} ({file})",
        file=file,
        seconds=lambda root: predict([root.tree()], rates).time_s,
    )


def require_device(field: str, file: str, *, measured_on: str | None, device: str | None) -> None:
    """Raise ValueError unless the content of `file` was measured on the device `device`; None accepts any device."""
    if device is None:
        return
    known = None if measured_on is None else hardware.recognized(measured_on)
    if known is None or known.name != device:
        raise ValueError(
            f"{field}: got {file}, measured on {measured_on or 'a device without a name'}, accepted: measurements on "
            f"{device}; or give the memory of that device with --memory-gb in place of --on"
        )
