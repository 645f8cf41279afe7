"""What a model says about itself: its names, the parts that are timed alone, its blocks, its spec and its closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analytic.core.checks import accept

if TYPE_CHECKING:
    from analytic.core.execution import Execution
    from analytic.core.layer import AnalyticLayer


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPart:
    """A part of the vision stack that is timed alone, as a stage of the same name.

    name   the stage: `sam`
    title  name in reports: `SAM`
    path   module path in the real model
    layer  (spec, shape of the module's input, run) -> the analytic layer of that call
    """

    name: str
    title: str
    path: str
    layer: Callable[[Any, tuple[int, ...], Execution], AnalyticLayer]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFamily:
    """A model as one package describes it.

    name           name of its package, of its adapter in `fixtures/model/`, and of `family` in its presets
    model_types    `model_type` of Hugging Face configs that describe it
    architectures  `architectures` of such configs
    parts          parts of its vision stack, in order of execution
    blocks         (module path, title) of the decoder's blocks that reports show; the first matching prefix applies
    spec           class of its dimensions, with `from_preset` and `from_hf_config`
    model          (spec, run, logits) -> its stateful root
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    parts: tuple[ModelPart, ...]
    blocks: tuple[tuple[str, str], ...]
    spec: Any
    model: Callable[[Any, Execution, Any], Any]

    def part(self, name: str) -> ModelPart:
        """The part `name`. Raises ValueError naming the parts if there is no such part."""
        accept("part", name, tuple(part.name for part in self.parts))
        return next(part for part in self.parts if part.name == name)
