"""Reading one part of a Hugging Face config: every field is a size, fixed, free, a part, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REQUIRED: Final = object()
"""In place of a default: a config without the field is refused."""
NAME: Final = "DeepSeek-OCR"
LONGEST: Final = 80
INSTEAD: Final = {
    "quantization_config": "quantised weights and their kernels are not modelled; use the unquantised checkpoint",
    "sliding_window": "a window is that of an Unlimited-OCR, whose config says so in architectures",
    "sliding_window_size": "a window is that of an Unlimited-OCR, whose config says so in architectures",
    "use_mla": f"multi-head latent attention is not modelled; {NAME}'s config says false",
}
"""What to do about a fixed field, where more can be said than the accepted values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigSection:
    """What is known of one part of a config, field by field.

    sizes    fields of the spec, with the value that the code reading the config takes where one is left out
    fixed    fields that change what runs, with the accepted values; None among them accepts a config without the field
    free     fields that change no cost, with the reason
    parts    nested parts
    repeats  the nested part whose fields may also stand in this one; where both state a field, they must agree
    """

    sizes: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    free: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, ConfigSection] = field(default_factory=dict)
    repeats: str | None = None

    def knows(self, name: str) -> bool:
        """Whether the part itself has the field."""
        return name in self.sizes or name in self.fixed or name in self.free or name in self.parts


def read(given: Any, section: ConfigSection, path: str = "", *, model: str = NAME) -> dict[str, Any]:
    """The sizes of a part, and those of its parts by name. Raises ValueError naming `model` for a refused field."""
    fields = _with_repeated(fields_of(given, path or "config"), section, path, model)
    for name, got in fields.items():
        if not section.knows(name):
            raise ValueError(
                f"{_joined(path, name)}: got {shown(got)}, accepted: only the fields of {model}'s config, because any "
                f"other may change the cost; remove it if it does not"
            )
    found: dict[str, Any] = {}
    for name, default in section.sizes.items():
        found[name] = normal(fields.get(name, default))
        if found[name] is REQUIRED:
            raise ValueError(f"{_joined(path, name)}: got none, accepted: that of a {model}, whose config states it")
    for name in section.fixed:
        _check_fixed(name, normal(fields.get(name)), section, path, model)
    for name, part in section.parts.items():
        inside = fields.get(name)
        found[name] = read({} if inside is None else inside, part, _joined(path, name), model=model)
    return found


def _with_repeated(fields: dict[str, Any], section: ConfigSection, path: str, model: str) -> dict[str, Any]:
    """The fields with those that repeat a part's moved into that part. Raises ValueError where the two differ."""
    if section.repeats is None:
        return fields
    part, where = section.parts[section.repeats], _joined(path, section.repeats)
    own = {name: value for name, value in fields.items() if section.knows(name) or not part.knows(name)}
    inside = fields.get(section.repeats)
    inner = {} if inside is None else fields_of(inside, where)
    for name in fields.keys() - own.keys():
        outer = normal(fields[name])
        if outer is None:
            continue
        _check_fixed(name, outer, part, path, model)
        if inner.get(name) is None:
            inner[name] = outer
        elif normal(inner[name]) != outer and name not in part.free:
            raise refused(f"{where}.{name}", inner[name], f"{shown(outer)}, as at the root", model=model)
    return {**own, section.repeats: inner}


def _check_fixed(name: str, got: Any, section: ConfigSection, path: str, model: str) -> None:
    """Raise ValueError if the field is fixed and `got` is none of its values."""
    accepted = section.fixed.get(name)
    if accepted is not None and got not in accepted:
        values = " or ".join(str(value) for value in accepted if value is not None and value != "") or "none"
        raise refused(_joined(path, name), got, values, instead=INSTEAD.get(name), model=model)


def fields_of(given: Any, path: str) -> dict[str, Any]:
    """The fields of a mapping or of an object, by name. Raises ValueError for anything else."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, type) or not hasattr(given, "__dict__"):
        raise ValueError(
            f"{path}: got {shown(given)}, accepted: a config of {NAME}, as a mapping or as an object with its fields"
        )
    as_dict = getattr(given, "to_dict", None)
    if callable(as_dict):
        return dict(as_dict())
    found = dict(vars(given))
    kind = getattr(given, "model_type", None)  # an attribute of the class in transformers' configs
    return found if kind is None else {"model_type": kind, **found}


def normal(value: Any) -> Any:
    """Tuples as lists and torch's dtypes by name, as in JSON."""
    if isinstance(value, tuple | list):
        return [normal(item) for item in value]
    text = str(value) if type(value).__name__ == "dtype" else ""
    return text.removeprefix("torch.") if text.startswith("torch.") else value


def refused(name: str, got: Any, accepted: Any, *, instead: str | None = None, model: str = NAME) -> ValueError:
    """The error about a field whose value is not that of `model`."""
    return ValueError(f"{name}: got {shown(got)}, accepted: {accepted} ({model}); {instead or 'no other form is modelled'}")


def shown(value: Any) -> str:
    """A value as text, cut to LONGEST characters."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
