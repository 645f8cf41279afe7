"""The vision stack of a model as its root sees it: every encoder on the views of a batch of equal pages."""

from __future__ import annotations

from dataclasses import dataclass

from analytic.core.execution import Execution
from analytic.core.layer import AnalyticLayer
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PageVision(AnalyticLayer):
    """All encoders on every view of `batch` equal pages, and the assembly of their image tokens."""

    spec: ModelSpec
    workload: VisionWorkload
    batch: int
    run: Execution
