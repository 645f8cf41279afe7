"""The closed-form cost model of DeepSeek-OCR: FLOPs, bytes, memory and KV cache from shapes alone, and times from rates.

Pure arithmetic: nothing here imports torch, and every formula accepts an int or a numpy array. The packages, in import
order (a package imports only from those above it); the docstring of each package lists its modules.

framework   FrameworkProfile: the cost that a release of transformers or torch adds to that of the architecture
core        the cost of an operator, and how costs add up
io          stored JSON: validated, migrated from earlier versions, read and written; tables, charts; how a command ends
models      one package per model: dimensions, layers, stages, tokens and crop rule
prediction  datasheets, roofline lower bound, operator rates, predicted time
planning    memory capacity, pages/s, price
cli         the commands of `python -m analytic`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from analytic.io.starting import quiet_start

if TYPE_CHECKING:
    from analytic.core.execution import Execution as Execution
    from analytic.framework import Framework as Framework
    from analytic.framework import FrameworkProfile as FrameworkProfile
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel as DeepseekOCRModel
    from analytic.models.deepseek_ocr.workload import VisionWorkload as VisionWorkload
    from analytic.models.spec import ModelSpec as ModelSpec
    from analytic.planning.sweep import evaluate as evaluate

_EXPORTED = {
    "DeepseekOCRModel": "analytic.models.deepseek_ocr.model",
    "Execution": "analytic.core.execution",
    "Framework": "analytic.framework",
    "FrameworkProfile": "analytic.framework",
    "ModelSpec": "analytic.models.spec",
    "VisionWorkload": "analytic.models.deepseek_ocr.workload",
    "evaluate": "analytic.planning.sweep",
}
__all__ = sorted(_EXPORTED)
quiet_start()


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that numpy is loaded only for sweeps."""
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTED[name]), name)
