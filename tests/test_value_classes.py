"""What carries values is frozen, named at every field and slotted: nothing changes it, mixes up its fields or adds one."""

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("analytic/core", "analytic/models", "fixtures/baseline", "fixtures/timing")
POSITIONAL = {"Polynomial", "Maximum"}
"""Of one field, which needs no name."""

GROWING = {"ExactGate", "TimedGate", "KeptRefresh"}
"""What they have found so far is added to them."""


def classes() -> list[type]:
    """Every dataclass of the formulas and of the gate."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        module = importlib.import_module(str(path.relative_to(ROOT).with_suffix("")).replace("/", "."))
        owned = (one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == module.__name__)
        found += [one for one in owned if "__dataclass_params__" in vars(one)]
    return found


@pytest.mark.parametrize("one", classes(), ids=lambda one: one.__name__)
def test_a_class_of_values_is_frozen_named_and_slotted(one: type) -> None:
    assert one.__dataclass_params__.frozen is (one.__name__ not in GROWING)  # type: ignore[attr-defined]
    assert "__slots__" in vars(one)
    positional = [field.name for field in dataclasses.fields(one) if field.init and not field.kw_only]
    assert positional == [] or one.__name__ in POSITIONAL
