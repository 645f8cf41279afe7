"""The real model as it is timed: numbers of the usual size, and memory that stays with the process."""

import resource
from collections.abc import Callable

import torch

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.spec import ModelSpec
from fixtures.model.inputs import page_inputs
from fixtures.model.real import build

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


def test_freed_memory_is_used_again() -> None:
    model, inputs = build(ModelSpec.from_preset("tiny"), CPU), page_inputs(MODES["base"], batch_size=1, run=CPU)

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.no_grad():
            model.get_image_features(**inputs.as_arguments())
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # given back, the biases of one global block of SAM alone are 2 x 4096 x 4096 x 4 bytes: 32,768 pages, several times
    assert min(faults() for _ in range(4)) < 8192
