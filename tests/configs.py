"""Configs of DeepSeek-OCR as mappings, and their fields one by one."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analytic.models.deepseek_ocr.hf_reading import ConfigSection
from analytic.models.spec import ModelSpec

Config = dict[str, Any]
Where = tuple[str, ...]
VENDOR_FILE = Path(__file__).resolve().parent / "data" / "deepseek_ocr_config.json"


def vendors() -> Config:
    """The vendor's published config.json."""
    loaded: Config = json.loads(VENDOR_FILE.read_text(encoding="utf-8"))
    return loaded


def transformers_of(preset: str) -> Config:
    """transformers' config of a preset."""
    from fixtures.model.deepseek_ocr import config_for

    made: Config = config_for(ModelSpec.from_preset(preset)).to_dict()
    return made


def leaves(config: Config, above: Where = ()) -> Iterator[Where]:
    """The path of every field that is not itself a part of the config."""
    for name, value in config.items():
        if isinstance(value, dict) and name not in ("id2label", "label2id", "auto_map"):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name)


def at(config: Config, path: Where) -> Any:
    """The value at `path`."""
    for name in path:
        config = config[name]
    return config


def changed(config: Config, path: Where, value: Any) -> Config:
    """A copy with another value at `path`."""
    made = copy.deepcopy(config)
    at(made, path[:-1])[path[-1]] = value
    return made


def without(config: Config, path: Where) -> Config:
    """A copy without the field at `path`."""
    made = copy.deepcopy(config)
    del at(made, path[:-1])[path[-1]]
    return made


def section_at(section: ConfigSection, path: Where) -> ConfigSection:
    """The section that describes the part at `path`."""
    for name in path:
        section = section.parts[name]
    return section


def as_object(value: Any) -> Any:
    """A config as an object with its fields as attributes, the nested ones too."""
    if not isinstance(value, dict):
        return value
    made = type("Config", (), {})()
    for name, inner in value.items():
        setattr(made, name, as_object(inner) if name.endswith("_config") else inner)
    return made


def spec_of(config: Any) -> ModelSpec:
    """The spec of a config, under a name of no importance."""
    return ModelSpec.from_hf_config(config, model_id="m", model_variant="v")
