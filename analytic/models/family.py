"""What a model says about itself: its names, the parts that are timed alone, its blocks, its spec and its closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from analytic.core.checks import accept, whole
from analytic.io.documents import Document

if TYPE_CHECKING:
    from analytic.core.execution import Execution
    from analytic.core.layer import AnalyticLayer
    from analytic.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigKind:
    """A form of Hugging Face config, recognised by its `architectures`, else by its `model_type`.

    name           the model that it describes
    layout         how it is laid out; None if the model is known by name only and not modelled
    applies        whether a config with these names is of this kind, from its fields; two models may share a class
    """

    name: str
    layout: Literal["transformers", "vendor"] | None
    architectures: tuple[str, ...]
    model_types: tuple[str, ...]
    applies: Callable[[Mapping[str, Any]], bool] = lambda _: True


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
class EngineFiles:
    """What the files of a checkpoint folder tell an engine beside the weights.

    vendor_config             spec -> the vendor's config.json, as far as that layout can state it
    special_tokens            tokens with a meaning: the image token, then those that follow it id by id
    vendor_processor          the vendor's processor_config.json, without its pad token
    transformers_processor    transformers' processor_config.json
    transformers_preprocessor transformers' preprocessor_config.json, which cuts pages as the closed form's default
    unused_tensors            spec -> shape by key of the tensors in the vendor's file that never run
    """

    vendor_config: Callable[[Any], dict[str, Any]]
    special_tokens: tuple[str, ...]
    vendor_processor: Mapping[str, Any]
    transformers_processor: Mapping[str, Any]
    transformers_preprocessor: Mapping[str, Any]
    unused_tensors: Callable[[Any], dict[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFamily:
    """A model as one package describes it.

    name          name of its package, of its adapter in `fixtures/model/`, and of `family` in its spec
    title         name for the reader: `DeepSeek-OCR`
    configs       the Hugging Face configs that describe it
    parts         parts of its vision stack, in order of execution
    blocks        (module path, title) of the decoder's blocks that reports show; the first matching prefix applies
    presets       the document of its stored dimensions
    full_size     the preset of the published model
    small         the preset that runs on a CPU in seconds
    spec          class of its dimensions
    model         (spec, run, logits) -> its stateful root
    engine_files  what a checkpoint folder for engines holds; None: none is made
    """

    name: str
    title: str
    configs: tuple[ConfigKind, ...]
    parts: tuple[ModelPart, ...]
    blocks: tuple[tuple[str, str], ...]
    presets: Document
    full_size: str
    small: str
    spec: type[ModelSpec]
    model: Callable[[Any, Execution, Any], Any]
    engine_files: EngineFiles | None = None

    @property
    def architectures(self) -> tuple[str, ...]:
        """`architectures` of Hugging Face configs that describe it."""
        return tuple(name for kind in self.configs for name in kind.architectures)

    @property
    def model_types(self) -> tuple[str, ...]:
        """`model_type` of such configs."""
        return tuple(name for kind in self.configs for name in kind.model_types)

    def part(self, name: str) -> ModelPart:
        """The part `name`. Raises ValueError naming the parts if there is no such part."""
        accept("part", name, tuple(part.name for part in self.parts))
        return next(part for part in self.parts if part.name == name)


def with_layers(spec: Any, layers: int | None) -> Any:
    """`spec` with its first `layers` decoder layers, under a name that says so; `spec` itself for None or for all of them.

    Raises ValueError for more layers than there are.
    """
    text = spec.text
    if layers is None:
        return spec
    whole("layers", layers, most=text.num_layers)
    if layers == text.num_layers:
        return spec
    fewer = replace(text, num_layers=layers, num_dense_layers=min(text.num_dense_layers, layers))
    return replace(spec, text=fewer, model_variant=f"{spec.model_variant}-{layers}-layers")
