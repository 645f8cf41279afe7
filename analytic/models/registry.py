"""Preset, config or spec -> the family that describes it. Nothing outside `analytic/models/` names a model or its parts.

A package of `analytic/models/` whose module `family` defines a `FAMILY` is registered; nothing else has to be changed for a
new one.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from analytic import models
from analytic.core.execution import FULL_SIZE, Execution
from analytic.io import stored
from analytic.models.family import ModelFamily, ModelPart

if TYPE_CHECKING:
    from analytic.models.deepseek_ocr.language_model import Logits
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel
    from analytic.models.deepseek_ocr.spec import ModelSpec


@cache
def families() -> tuple[ModelFamily, ...]:
    """Every registered family, by the name of its package."""
    packages = sorted(found.name for found in pkgutil.iter_modules(models.__path__) if found.ispkg)
    made = (import_module(f"{models.__name__}.{name}.family").FAMILY for name in packages)
    return tuple(made)


def family_of(spec: ModelSpec) -> ModelFamily:
    """The family of a model's dimensions."""
    return next(family for family in families() if family.name == spec.family)


def parts() -> tuple[ModelPart, ...]:
    """The parts of every family in order, each name once."""
    found = {part.name: part for family in families() for part in family.parts}
    return tuple(found.values())


def blocks() -> tuple[tuple[str, str], ...]:
    """(Module path, title) of the parts, then of the decoder's blocks, of every family."""
    vision = ((part.path, part.title) for family in families() for part in family.parts)
    decoder = (block for family in families() for block in family.blocks)
    return tuple(dict.fromkeys((*vision, *decoder)))


def load_spec(preset: str) -> ModelSpec:
    """The dimensions stored as `preset`, in the package of its family.

    Raises ValueError naming the known presets, or the file and key of a damaged one.
    """
    package = stored.path_of("presets", preset, field="preset").parent.parent.name
    found: ModelSpec = next(family for family in families() if family.name == package).spec.from_preset(preset)
    return found


def model_of(spec: ModelSpec, *, run: Execution = FULL_SIZE, logits: Logits = "last") -> DeepseekOCRModel:
    """The stateful root of the closed form of `spec` for `run`; `logits` of the `last` position or of `all`."""
    found: DeepseekOCRModel = family_of(spec).model(spec, run, logits)
    return found
