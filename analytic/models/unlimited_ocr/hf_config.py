"""A Hugging Face config of Unlimited-OCR read field by field: that of DeepSeek-OCR with a sliding window.

transformers has one class for both models: `layer_types` tells them apart, which slides in every layer if it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from analytic.core.checks import whole
from analytic.models.deepseek_ocr.hf_config import SLIDING, of_transformers, of_vendor, slides
from analytic.models.deepseek_ocr.hf_fields import TRANSFORMERS, VENDOR
from analytic.models.deepseek_ocr.hf_reading import ConfigSection, read, refused
from analytic.models.family import ConfigKind

NAME: Final = "Unlimited-OCR"
WINDOWS: Final = ("sliding_window", "sliding_window_size")
"""Both names in the vendor's config.json state the window."""


CONFIGS: Final = (
    ConfigKind(
        name=NAME,
        layout="transformers",
        architectures=("UnlimitedOcrForConditionalGeneration",),
        model_types=("unlimited_ocr",),
        applies=slides,
    ),
    ConfigKind(name=NAME, layout="vendor", architectures=("UnlimitedOCRForCausalLM",), model_types=("unlimited-ocr",)),
)
"""The configs that describe an Unlimited-OCR."""


def _with_window(text: ConfigSection, defaults: Mapping[str, int | None]) -> ConfigSection:
    """The section of the decoder with the window as a size."""
    return replace(
        text,
        sizes={**text.sizes, **defaults},
        fixed={name: values for name, values in text.fixed.items() if name not in defaults},
        free={name: why for name, why in text.free.items() if name not in defaults},
    )


def _with_part(section: ConfigSection, name: str, part: ConfigSection, **fixed: tuple[Any, ...]) -> ConfigSection:
    return replace(section, fixed={**section.fixed, **fixed}, parts={**section.parts, name: part})


_OF_TRANSFORMERS: Final = _with_part(
    TRANSFORMERS, "text_config", _with_window(TRANSFORMERS.parts["text_config"], {"sliding_window": 128})
)
_OF_VENDOR: Final = _with_part(
    VENDOR,
    "language_config",
    _with_window(VENDOR.parts["language_config"], dict.fromkeys(WINDOWS)),
    model_type=(None, "", "unlimited-ocr"),
)


def unlimited_dimensions(config: Any, kind: ConfigKind) -> dict[str, Any]:
    """The dimensions in `config`, in the form of a stored preset. Raises ValueError as for a DeepSeek-OCR."""
    vendor = kind.layout == "vendor"
    sizes = read(config, _OF_VENDOR if vendor else _OF_TRANSFORMERS, model=NAME)
    whole("image_token_id", sizes["image_token_id"], least=0)
    path = "language_config" if vendor else "text_config"
    window = _window(sizes[path], path)
    parts = of_vendor(sizes) if vendor else of_transformers(sizes)
    if not vendor:
        kinds, layers = sizes[path]["layer_types"], sizes[path]["num_hidden_layers"]
        if kinds not in (None, [SLIDING] * layers):
            raise refused(f"{path}.layer_types", kinds, f"{SLIDING} in each of the {layers} layers", model=NAME)
    return {"image_token_id": sizes["image_token_id"], **parts, "sliding_window": window}


def _window(text: dict[str, Any], path: str) -> int:
    """The window of the decoder, taken out of its sizes. Raises ValueError if there is none, or two."""
    stated = {name: value for name in WINDOWS if (value := text.pop(name, None)) is not None}
    if not stated:
        raise refused(f"{path}.sliding_window", None, "the decoded positions that a step attends to", model=NAME)
    for name, value in stated.items():
        whole(f"{path}.{name}", value, least=2)
    first, *others = stated.values()
    if any(other != first for other in others):
        raise refused(f"{path}.sliding_window_size", others[0], f"{first}, as sliding_window", model=NAME)
    return int(first)
