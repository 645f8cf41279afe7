"""Preset, config or spec -> the family that describes it. Nothing outside `analytic/models/` names a model or its parts.

A package of `analytic/models/` whose module `family` defines a `FAMILY` is registered; nothing else has to be changed for a
new one.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytic import models
from analytic.core.execution import FULL_SIZE, Execution
from analytic.io import stored
from analytic.models.deepseek_ocr.hf_reading import fields_of, shown
from analytic.models.family import ConfigKind, ModelFamily, ModelPart

if TYPE_CHECKING:
    from analytic.models.deepseek_ocr.language_model import Logits
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel
    from analytic.models.spec import ModelSpec

NOT_MODELLED: Final = (
    ConfigKind(name="DeepSeek-VL2", layout=None, architectures=("DeepseekVLV2ForCausalLM",), model_types=()),
)
"""Models that are recognised by their configs only to be refused by name."""


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


@cache
def blocks(preset: str = "") -> tuple[tuple[str, str], ...]:
    """(Module path, title) of the parts, then of the decoder's blocks: of the family of `preset`, then of all.

    Two families may have different parts at one path; the first title of a path applies.
    """
    own = [family for family in families() if preset in presets_of(family)]
    known = (*own, *families())
    vision = ((part.path, part.title) for family in known for part in family.parts)
    decoder = (block for family in known for block in family.blocks)
    return tuple(dict.fromkeys((*vision, *decoder)))


def load_spec(preset: str) -> ModelSpec:
    """The dimensions stored as `preset`, in the package of its family.

    Raises ValueError naming the known presets, or the file and key of a damaged one.
    """
    return spec_in(stored.path_of("presets", preset, field="preset"))


def spec_in(path: Path) -> ModelSpec:
    """The dimensions in the file of a preset, which lies in the package of its family. Raises ValueError if damaged."""
    family = next(family for family in families() if family.name == path.parent.parent.name)
    loaded = family.presets.read(path)
    try:
        return family.spec.from_dict(loaded)
    except ValueError as error:
        raise ValueError(f"preset {path.stem}: {error}") from error


def presets_of(family: ModelFamily) -> tuple[str, ...]:
    """The sorted names of the presets in the package of `family`."""
    found = {name: stored.path_of("presets", name, field="preset") for name in stored.names("presets")}
    return tuple(name for name, path in found.items() if path.parent.parent.name == family.name)


def recognised(config: Any) -> tuple[ModelFamily, ConfigKind]:
    """The family that a Hugging Face config describes, by its `architectures`, else by its `model_type`; and its form.

    Raises ValueError for a config of no known model, and of one that is not modelled.
    """
    fields = fields_of(config, "config")
    given, model_type = fields.get("architectures") or [], fields.get("model_type")
    names = given if isinstance(given, list) else [given]
    for family, kind in _kinds():
        named = any(name in kind.architectures for name in names) if names else model_type in kind.model_types
        if not named or not kind.applies(fields):
            continue
        if family is None:
            titles = " or ".join(family.title for family in families())
            raise ValueError(f"config: recognised as {kind.name}; not modelled, accepted: a config of {titles}")
        return family, kind
    known = ", ".join(dict.fromkeys(name for family in families() for name in family.architectures))
    titles = " or ".join(family.title for family in families())
    raise ValueError(
        f"architectures: got {shown(given or None)} with model_type {shown(model_type)}, accepted: {known}; give "
        f"the config of a {titles}"
    )


def spec_of_config(config: Any, *, model_id: str, model_variant: str) -> ModelSpec:
    """The dimensions in a Hugging Face config of any family: transformers', the vendor's config.json, or its object.

    Raises ValueError for a config of no family, and for a field that is neither in the spec nor known to change no cost.
    """
    family, kind = recognised(config)
    return family.spec.from_config(config, kind, model_id=model_id, model_variant=model_variant)


def _kinds() -> Iterator[tuple[ModelFamily | None, ConfigKind]]:
    """Every known kind of config with its family; None for the models that are not modelled."""
    yield from ((family, kind) for family in families() for kind in family.configs)
    yield from ((None, kind) for kind in NOT_MODELLED)


def model_of(spec: ModelSpec, *, run: Execution = FULL_SIZE, logits: Logits = "last") -> DeepseekOCRModel:
    """The stateful root of the closed form of `spec` for `run`; `logits` of the `last` position or of `all`."""
    found: DeepseekOCRModel = family_of(spec).model(spec, run, logits)
    return found
