"""The real model as it is timed: numbers of the usual size, none of them denormal."""

from collections.abc import Callable

import torch

from analytic.execution import Execution
from analytic.spec import ModelSpec
from analytic.workload import MODES
from fixtures.inputs import page_inputs
from fixtures.model import build

CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")


def test_random_weights_give_no_number_that_a_cpu_multiplies_slowly() -> None:
    model = build(ModelSpec.from_preset("tiny"), CPU)
    smallest = torch.finfo(torch.float32).tiny
    slow: dict[str, float] = {}

    def seen(name: str) -> Callable[..., None]:
        def hook(_: object, __: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                sizes = output.abs()
                slow[name] = float(((sizes > 0) & (sizes < smallest)).float().mean())

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(seen(name))
    with torch.no_grad():
        model.get_image_features(**page_inputs(MODES["tiny"], batch_size=1, run=CPU).as_arguments())
    assert len(slow) > 50
    assert max(slow.values()) < 0.001
