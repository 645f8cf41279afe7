"""The classes of modules that ran: parameters, shapes and children, and no hooks left behind."""

from collections.abc import Callable

import pytest
import torch

from fixtures.cross_check.inventory import ModuleClass, inventory
from fixtures.cross_check.static_compute import StaticCompute


def classes_of(found: StaticCompute, name: str) -> dict[str, ModuleClass]:
    return {one.module_class: one for stage in found.stages if stage.stage == name for one in stage.classes}


def test_the_inventory_holds_every_parameter_once(static_compute_with: Callable) -> None:
    found = static_compute_with("sdpa")
    held = {stage.stage: sum(one.own_parameters for one in stage.classes) for stage in found.stages}
    assert held["vision"] + held["prefill"] == found.parameters
    assert held["decode"] == held["prefill"]


def test_the_inventory_lists_shapes_and_children(static_compute_with: Callable) -> None:
    found = static_compute_with("sdpa")
    vision = classes_of(found, "vision")
    neck = vision["UnlimitedOcrSamVisionNeck"]
    assert (neck.modules, neck.calls, neck.own_parameters) == (1, 2, 0)
    assert neck.child_classes == ("Conv2d", "UnlimitedOcrSamLayerNorm")
    whole, local = (((1, 64, 64, 768),), ((1, 256, 64, 64),)), (((6, 40, 40, 768),), ((6, 256, 40, 40),))
    assert [(one.inputs, one.outputs) for one in neck.shapes] == [whole, local]
    # layers are looked for in their list; 8 of 12 run in windows: 25 of the global view, 6 times 9 of the local ones
    assert "UnlimitedOcrSamVisionLayer" in vision["UnlimitedOcrSamVisionEncoder"].child_classes
    attention = vision["UnlimitedOcrSamVisionSdpaAttention"]
    assert {one.inputs[0]: one.calls for one in attention.shapes} == {
        (25, 14, 14, 768): 8,
        (54, 14, 14, 768): 8,
        (1, 64, 64, 768): 4,
        (6, 40, 40, 768): 4,
    }
    decode = classes_of(found, "decode")
    assert decode["UnlimitedOcrTextTopkRouter"].shapes[0].outputs == ((1, 64), (1, 6), (1, 6))


def test_hooks_come_off_after_an_error() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError), inventory(model) as ran:
        model(torch.ones(3))
    assert ran.classes() == ()
    model(torch.ones(2))
    assert ran.classes() == ()
