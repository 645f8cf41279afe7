"""torch's own counter by module and block: against the closed form, and what it has no formula for."""

from collections.abc import Callable

import torch

from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import TokenLayout, VisionWorkload
from fixtures.cross_check.flop_count import blocks, count
from fixtures.model.inputs import page_inputs, token_ids
from tests.samples import flops_by_path


def test_every_module_is_the_closed_forms_to_the_flop(subject_on: Callable) -> None:
    subject, page = subject_on("meta", "sdpa", "batched_mm"), VisionWorkload.from_image(1654, 2339)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    pixels = page_inputs(page, batch_size=1, run=subject.run).as_arguments()
    ids = token_ids(TokenLayout.of(1024, page), subject.spec, batch_size=1, run=subject.run)
    vision, _ = count(subject.model, lambda model: model.get_image_features(**pixels))
    prefill, _ = count(subject.model, lambda model: model(input_ids=ids, use_cache=True, logits_to_keep=1))
    root.start_vision(workload=page)
    trees = [(vision, root.tree())]
    root.start_prefill(1024, 1)
    for counted, tree in [*trees, (prefill, root.tree())]:
        # `model` is called by a method in vision and has no node of its own in the decoder's tree
        found = {path: flops for path, flops in counted.flops_by_path.items() if path != "model"}
        assert found == {path: flops for path, flops in flops_by_path(tree).items() if flops and path != "model"}


def test_a_product_in_nested_modules_is_counted_once() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(3, 5, bias=False), torch.nn.Linear(5, 2, bias=False))
    model = torch.nn.Sequential(torch.nn.Sequential(inner), torch.nn.Identity())
    counted, _ = count(model, lambda model: model(torch.ones(7, 3)))
    # 2 * 7 * 3 * 5 + 2 * 7 * 5 * 2
    assert counted.flops == 210 + 140
    assert counted.flops_by_path == {"": 350, "0": 350, "0.0": 350, "0.0.0": 210, "0.0.1": 140}


def test_what_a_divided_module_computes_itself_is_its_own() -> None:
    class Divided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(3, 3, bias=False) for _ in range(2))
            self.weight = torch.nn.Parameter(torch.ones(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x @ self.weight

    model = Divided()
    counted, _ = count(model, lambda model: model(torch.ones(5, 3)))
    found = {block.path: (block.own_only, block.parameters, block.flops) for block in blocks(model, counted)}
    assert found == {"": (True, 12, 2 * 5 * 3 * 4), "layers.0": (False, 9, 90), "layers.1": (False, 9, 90)}


def test_silent_zeros_of_the_counter_are_named(subject_on: Callable) -> None:
    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    ids = token_ids(TokenLayout.of(64, None), subject.spec, batch_size=1, run=subject.run)
    counted, _ = count(subject.model, lambda model: model(input_ids=ids, use_cache=True, logits_to_keep=1))
    missed = {one.operator for one in counted.unseen if one.kind == "products"}
    assert missed == {"aten._grouped_mm", "aten._scaled_dot_product_flash_attention_for_cpu"}
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    root.start_prefill(64, 1)
    assert counted.flops == root.forward_cost().counter_flops < root.forward_cost().executed_flops


def test_operators_without_a_formula_are_sorted_by_what_they_may_hide() -> None:
    matrix, vector = torch.ones(3, 4), torch.ones(4)

    def call(_: object) -> list[torch.Tensor]:
        products = [matrix @ vector, torch.dot(vector, vector)]
        views = [matrix.t(), matrix.view(12), matrix.expand(2, 3, 4)]
        integers = [torch.arange(4), matrix > 0]
        return [*products, vector * vector, matrix.softmax(0), torch.cat([matrix, matrix]), *views, *integers]

    counted, _ = count(torch.nn.Identity(), call)
    assert counted.flops == 0
    assert [(one.operator, one.kind, one.calls, one.result_elements) for one in counted.unseen] == [
        ("aten.mv", "products", 1, 3),
        ("aten.dot", "products", 1, 1),
        ("aten.mul", "pointwise", 1, 4),
        ("aten.cat", "other", 1, 24),
        ("aten._softmax", "other", 1, 12),
    ]
