"""The ledger against torch's own counter, its formulas by hand, and its refusal of unknown operators."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from analytic.core.attention import AttentionShape, products
from analytic.core.execution import Execution
from analytic.core.op import OpKind
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import TokenLayout, gundam
from fixtures.model import counted_stages as stages
from fixtures.model.inputs import page_inputs, token_ids
from fixtures.op_counter import formulas as operators
from fixtures.op_counter.formulas import UncountedOperatorError, storage_bytes
from fixtures.op_counter.ledger import Ledger


def flops_of(ledger: Ledger, name: str = "executed_flops") -> int:
    return sum(getattr(entry, name) for entry in ledger.entries.values())


@pytest.mark.parametrize(("attention", "experts"), [*itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm"))])
@pytest.mark.parametrize(("device", "preset"), [("meta", "deepseek-ocr-v1-base"), ("cpu", "tiny")])
def test_counter_convention_is_what_torchs_counter_sees(
    subject_on: Callable, device: str, preset: str, attention: str, experts: str
) -> None:
    subject, layout, page = subject_on(device, attention, experts, preset), TokenLayout.of(64, None), gundam(None)
    root = DeepseekOCRModel.from_spec(subject.spec, run=subject.run)
    ids = token_ids(layout, subject.spec, batch_size=1, run=subject.run)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    root.start_prefill(64, 1)
    measured, _ = stages.prefill(subject, layout, batch_size=1)
    assert counter.get_total_flops() == flops_of(measured.ledger, "counter_flops") == root.forward_cost().counter_flops

    inputs = page_inputs(page, batch_size=1, run=subject.run)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.model.get_image_features(**inputs.as_arguments())
    root.start_vision(workload=page)
    assert counter.get_total_flops() == root.forward_cost().counter_flops


def test_the_counters_holes_are_as_large_as_known(subject_on: Callable) -> None:
    # 11 MoE layers, 1024 tokens, 6 experts each, 6 * 1280 * 896 FLOPs: 465 GFLOP that torch counts as zero
    root = DeepseekOCRModel.from_spec(subject_on("meta", "sdpa", "grouped_mm").spec)
    root.start_prefill(1024, 1)
    cost = root.forward_cost()
    assert cost.executed_flops - cost.counter_flops == 11 * 1024 * 6 * 6 * 1280 * 896


def test_grouped_products_count_as_their_decomposition(subject_on: Callable) -> None:
    layout = TokenLayout.of(64, None)
    grouped, _ = stages.prefill(subject_on("meta", "sdpa", "grouped_mm"), layout, batch_size=1)
    batched, _ = stages.prefill(subject_on("meta", "sdpa", "batched_mm"), layout, batch_size=1)
    assert flops_of(grouped.ledger) == flops_of(batched.ledger)


@pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ("_scaled_dot_product_flash_attention", ()),
        ("_scaled_dot_product_efficient_attention", (None, False)),
        ("_scaled_dot_product_efficient_attention", (None, True)),
        ("_scaled_dot_product_cudnn_attention", (None, False)),
        ("_scaled_dot_product_cudnn_attention", (None, True)),
    ],
)
def test_of_every_cuda_attention_kernel_the_output_alone_is_written(kernel: str, more: tuple[object, ...]) -> None:
    # 2 x 3 heads, 5 queries, 7 keys, width 8, 2 bytes: q and output 480 bytes, k and v 672 each; 4 * 6 * 5 * 7 * 8 FLOPs
    q, k, v = (torch.empty(2, 3, length, 8, dtype=torch.bfloat16, device="meta") for length in (5, 7, 7))
    operator = getattr(torch.ops.aten, kernel)
    cost = operators.cost_of(operator.default, (q, k, v, *more), {}, operator(q, k, v, *more))
    assert cost is not None
    shape = AttentionShape(groups=6, queries=5, keys=7, head_dim=8, useful_pairs=35)
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    closed = products(shape, run, fused=ShapeClass.ATTENTION)
    assert (cost.kind, cost.read_bytes, cost.written_bytes, cost.executed_flops) == (OpKind.ATTENTION, 1824, 480, 6720)
    assert (closed.kind, closed.read_bytes, closed.written_bytes, closed.executed_flops) == (
        OpKind.ATTENTION,
        1824,
        480,
        6720,
    )


def test_inductors_softmax_in_one_pass_is_a_reduction() -> None:
    from torch._inductor import inductor_prims

    scores = torch.randn(4, 6)
    packet = torch.ops.prims.prepare_softmax_online
    cost = operators.cost_of(packet.default, (scores, 1), {}, inductor_prims.eager_prepare_softmax(scores, 1))
    # a maximum and a sum of each of 4 rows: 2 * 4 * 4 bytes
    assert cost is not None
    assert (cost.executed_flops, cost.cuda_core_flops, cost.read_bytes, cost.written_bytes) == (0, 24, 96, 32)


def test_the_cpus_attention_kernel_counts_as_its_decomposition() -> None:
    q, k, v = (torch.randn(1, 2, length, 8) for length in (5, 7, 7))
    with Ledger(torch.nn.Identity(), outside="") as fused:
        torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with (
        Ledger(torch.nn.Identity(), outside="") as decomposed,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert "aten._scaled_dot_product_flash_attention_for_cpu" in {key.operator for key in fused.entries}
    assert flops_of(fused) == flops_of(decomposed) == 2 * (2 * 5 * 7 * 8) * 2


def test_vectors_are_counted() -> None:
    # 3 x 4 times 4: 24 FLOPs; 4 . 4: 8 FLOPs; torch's counter sees neither
    matrix, vector = torch.ones(3, 4), torch.ones(4)
    with Ledger(torch.nn.Identity(), outside="") as ledger, FlopCounterMode(display=False) as counter:
        matrix @ vector
        vector @ vector
    assert flops_of(ledger) == 24 + 8
    assert counter.get_total_flops() == flops_of(ledger, "counter_flops") == 0


def test_grouped_weight_gradient_counts_every_row_once() -> None:
    # x (k=4, T=6) times dy (6, n=5): every one of the 6 rows meets one group, 2 * 4 * 6 * 5
    assert operators.grouped_mm_flops(torch.empty(4, 6), torch.empty(6, 5)) == 240


def test_an_operator_without_a_formula_is_refused_by_name() -> None:
    matrix = torch.eye(3)
    with (
        pytest.raises(UncountedOperatorError, match=r"aten\.linalg_cholesky_ex\.default: it has no FLOP formula"),
        Ledger(torch.nn.Identity(), outside=""),
    ):
        torch.linalg.cholesky(matrix)


def test_nothing_is_recorded_after_an_error() -> None:
    ledger = Ledger(torch.nn.Identity(), outside="")
    with pytest.raises(UncountedOperatorError), ledger:
        torch.linalg.cholesky(torch.ones(3, 3))
    before = dict(ledger.entries)
    torch.ones(2) + 1
    assert dict(ledger.entries) == before


def test_bytes_count_a_broadcast_element_once() -> None:
    assert storage_bytes(torch.empty(1, 8).expand(100, 8)) == 8 * 4
    assert storage_bytes(torch.empty(3, 5, dtype=torch.bfloat16)) == 30
    assert storage_bytes(torch.empty(0, 5)) == 0


def test_a_product_reads_its_operands_and_writes_its_result() -> None:
    with Ledger(torch.nn.Identity(), outside="here") as ledger:
        torch.empty(2, 3) @ torch.empty(3, 5)
    (key, entry), *_ = ((key, entry) for key, entry in ledger.entries.items() if key.operator == "aten.mm")
    # (2 * 3 + 3 * 5) * 4 read, 2 * 5 * 4 written, 2 * 2 * 3 * 5 FLOPs
    assert (entry.read_bytes, entry.written_bytes, entry.executed_flops) == (84, 40, 60)
    assert key.path == "here"


@pytest.mark.parametrize(("experts", "operator"), [("grouped_mm", "aten._grouped_mm"), ("batched_mm", "aten.index")])
def test_routed_experts_are_known_where_the_routing_has_values(subject_on: Callable, experts: str, operator: str) -> None:
    subject, layout = subject_on("cpu", "sdpa", experts, "tiny"), TokenLayout.of(1, None)
    one, _ = stages.prefill(subject, layout, batch_size=1)
    found = [entry.unique_experts for key, entry in one.ledger.entries.items() if key.operator == operator]
    picked = subject.spec.text.num_experts_per_tok
    # one token meets K experts, in both products of every MoE layer
    assert [each for each in found if each] == [[picked, picked]] * subject.spec.text.num_moe_layers
    on_meta, _ = stages.prefill(subject_on("meta", "sdpa", experts), layout, batch_size=1)
    assert all(entry.unique_experts == [] for entry in on_meta.ledger.entries.values())


def test_a_scalar_fills_all_that_it_is_copied_to() -> None:
    # on meta the assignment of a number is a copy of an int64 scalar: 8 bytes read, 3 x 4 x 8 written
    blocks, linear = torch.empty((3, 6), dtype=torch.long, device="meta"), torch.nn.Linear(1, 1)
    with Ledger(linear, outside="") as ledger:
        blocks[:, :4] = 0
    copied = next(entry for key, entry in ledger.entries.items() if key.operator == "aten.copy_")
    assert (copied.read_bytes, copied.written_bytes) == (8, 96)


def test_operators_belong_to_the_innermost_module_that_runs() -> None:
    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long_name_of_the_first = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
            self.b = torch.nn.Linear(2, 2, bias=False)
            self.long_name_of_the_first[0].forward = lambda x: self.b(x) + 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.long_name_of_the_first(x) * 2

    outside = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad(), Ledger(root := Outer(), outside="nowhere") as ledger:
        x = root(torch.ones(1, 2))
        outside(x)
    assert {(key.path, key.operator) for key in ledger.entries} == {
        ("nowhere", "aten.ones"),
        ("b", "aten.mm"),
        ("long_name_of_the_first.0", "aten.add"),
        ("", "aten.mul"),
        ("Sequential.0", "aten.mm"),
    }


def test_a_forward_that_fails_leaves_no_module_running() -> None:
    linear = torch.nn.Linear(2, 2, bias=False)
    ledger = Ledger(linear, outside="outside")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), torch.no_grad(), ledger:
        linear(torch.ones(1, 3))
    with torch.no_grad(), ledger:
        torch.ones(2) + 1
    assert {key.path for key in ledger.entries} == {"outside"}
