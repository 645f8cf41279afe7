"""Every module class of the real model has an analytic layer, and it is the one found at the module's path."""

from collections.abc import Callable

import pytest

from analytic.mapping import CONTAINERS, MODULE_LAYERS, layer_of
from analytic.model import DeepseekOCRModel
from analytic.workload import ALL_GRIDS, gundam


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def modules_and_layers(request: pytest.FixtureRequest, subject_on: Callable) -> tuple[dict[str, str], dict[str, str]]:
    """Path -> class of the real model, and path -> layer of the cost trees of all stages."""
    subject = subject_on("meta", request.param, "grouped_mm")
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    layers = {}
    root.start_vision(workload=gundam(ALL_GRIDS[0]))
    layers |= {path: node.layer for path, node in root.tree().walk()}
    root.start_prefill(8, 1)
    layers |= {path: node.layer for path, node in root.tree().walk()}
    return {path: type(module).__name__ for path, module in subject.model.named_modules()}, layers


def test_every_module_class_has_a_row(modules_and_layers: tuple[dict[str, str], dict[str, str]]) -> None:
    modules, _ = modules_and_layers
    assert set(modules.values()) - CONTAINERS - set(MODULE_LAYERS) == set()


def test_every_module_has_its_layer_at_its_path(modules_and_layers: tuple[dict[str, str], dict[str, str]]) -> None:
    modules, layers = modules_and_layers
    expected = {path: layer for path, name in modules.items() if (layer := layer_of(path, name)) is not None}
    assert layers == expected


def test_a_class_without_a_row_is_refused() -> None:
    with pytest.raises(KeyError, match="UnlimitedOcrNovelty"):
        layer_of("model.novelty", "UnlimitedOcrNovelty")
