"""Every module class of the real model has an analytic layer, and it is the one found at the module's path."""

from collections.abc import Callable

import pytest

from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS
from analytic.models.deepseek_ocr.mapping import CONTAINERS, MODULE_LAYERS, NAMED_BY_PATH, layer_of
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import gundam


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


def test_every_row_stands_for_a_layer_and_every_layer_has_a_row(
    modules_and_layers: tuple[dict[str, str], dict[str, str]],
) -> None:
    _, layers = modules_and_layers
    assert {*MODULE_LAYERS.values(), *NAMED_BY_PATH.values()} == set(layers.values())


def test_the_inventory_of_what_ran_and_the_rows_are_the_same_classes(static_compute_with: Callable) -> None:
    ran = {
        attention: {one.module_class for stage in static_compute_with(attention).stages for one in stage.classes}
        for attention in ("sdpa", "eager")
    }
    assert ran["sdpa"] | ran["eager"] == set(MODULE_LAYERS)
    assert ran["sdpa"] ^ ran["eager"] == {"UnlimitedOcrSamVisionSdpaAttention", "UnlimitedOcrSamVisionAttention"}


def test_children_of_what_ran_ran_too(static_compute_with: Callable) -> None:
    classes = [one for stage in static_compute_with("sdpa").stages for one in stage.classes]
    children = {child for one in classes for child in one.child_classes}
    assert children <= {one.module_class for one in classes}


def test_every_row_by_path_is_a_block_that_ran(static_compute_with: Callable) -> None:
    parts = [part for stage in static_compute_with("sdpa").stages for part in stage.parts]
    blocks = {block.path: block.module_class for part in parts for block in part.blocks}
    assert {path: blocks.get(path) for path in NAMED_BY_PATH} == {
        "model.multi_modal_projector": "Linear",
        "model.language_model.embed_tokens": "Embedding",
        "lm_head": "Linear",
    }


def test_a_class_without_a_row_is_refused() -> None:
    with pytest.raises(KeyError, match="UnlimitedOcrNovelty"):
        layer_of("model.novelty", "UnlimitedOcrNovelty")
