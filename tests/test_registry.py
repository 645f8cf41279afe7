"""The registry: every preset has a family, and nothing outside `analytic/models/` names a model's parts."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytic.core.execution import Execution
from analytic.io import stored
from analytic.models import registry
from analytic.models.spec import ModelSpec
from fixtures.config.stages import PARTS
from fixtures.model.real import adapter_of, build

ROOT = Path(__file__).resolve().parent.parent
META = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")


@pytest.mark.parametrize("preset", stored.names("presets"))
def test_every_preset_has_a_family_whose_parts_are_modules_of_the_real_model(preset: str) -> None:
    spec = registry.load_spec(preset)
    family, model = registry.family_of(spec), build(spec, META)
    assert spec.model_variant == preset
    assert model.config.model_type in family.model_types
    assert type(model).__name__ in family.architectures
    assert isinstance(model, adapter_of(spec).model_class())
    for part in family.parts:
        found = sum(parameter.numel() for parameter in model.get_submodule(part.path).parameters())
        assert found > 0


def test_the_root_of_a_family_is_that_of_its_spec() -> None:
    spec = registry.load_spec("tiny")
    assert isinstance(spec, ModelSpec)
    root = registry.model_of(spec, run=META)
    root.start_prefill(16, 1)
    assert root.forward_cost().executed_flops > 0


def test_an_unknown_preset_or_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="preset: got 'huge', accepted: deepseek-ocr"):
        registry.load_spec("huge")
    with pytest.raises(ValueError, match="part: got 'eye', accepted: sam, clip, projector"):
        registry.family_of(registry.load_spec("tiny")).part("eye")


def test_the_parts_of_every_family_are_stages() -> None:
    assert [part.name for part in registry.parts()] == list(PARTS)


def strings(path: Path) -> Iterator[str]:
    """The string constants of a module, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def names_a_part(path: Path) -> list[str]:
    """The strings of a module that are, or contain, the name or the module path of a part."""
    said = {word for part in registry.parts() for word in (part.name, part.path.rpartition(".")[2])}
    return [text for text in strings(path) if said & set(re.findall(r"\w+", text.lower()))]


OWN = {"deepseek_ocr.py", "deepseek_ocr2.py", "unlimited_ocr.py"}
"""The adapters of fixtures/model, one a family."""


@pytest.mark.parametrize("folder", ["fixtures", "benchmarks", "analytic/planning", "analytic/prediction", "analytic/cli"])
def test_nothing_else_names_the_parts_of_a_model(folder: str) -> None:
    paths = [path for path in (ROOT / folder).rglob("*.py") if path.name not in OWN]
    assert {str(path.relative_to(ROOT)): found for path in paths if (found := names_a_part(path))} == {}


def test_a_named_part_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('PATHS = {"eye": "model.vision_tower.sam_encoder"}\n')
    assert names_a_part(tmp_path / "module.py") == ["model.vision_tower.sam_encoder"]
