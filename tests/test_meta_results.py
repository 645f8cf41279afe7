"""Results on meta are inferred once, and only where what an operator returns follows from layouts alone."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.model import counted_stages as stages
from fixtures.op_counter.ledger import Ledger
from fixtures.op_counter.meta_results import MetaResults

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


class Calls(TorchDispatchMode):
    """Counts the operators that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (aten.mm.default, (meta(3, 4), meta(4, 5)), {}),
        (aten.add.Tensor, (meta(3, 4), 2.0), {"alpha": 3}),
        (aten.cat.default, ([meta(2, 3), meta(4, 3)],), {}),
        (aten.topk.default, (meta(7, 9), 3), {}),
        (aten._to_copy.default, (meta(3, 4),), {"dtype": torch.float32}),
        (aten.mul.Tensor, (meta(3, 4).t(), meta(4, 1)), {}),
        (aten.native_layer_norm.default, (meta(2, 8), [8], meta(8), meta(8), 1e-5), {}),
    ],
)
def test_a_result_that_was_inferred_before_is_laid_out_the_same(func: object, args: tuple, kwargs: dict) -> None:
    results = MetaResults()
    results.of(func, args, kwargs)
    with Calls() as calls:
        again = results.of(func, args, kwargs)
    assert str(func) not in calls.names
    expected = func(*args, **kwargs)
    pairs = zip(again, expected, strict=True) if isinstance(expected, tuple) else [(again, expected)]
    for mine, real in pairs:
        assert (mine.shape, mine.stride(), mine.dtype, mine.device) == (real.shape, real.stride(), real.dtype, real.device)
        assert mine.untyped_storage().nbytes() == real.untyped_storage().nbytes()


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.view.default, (meta(3, 4), [12])),
        (aten._unsafe_view.default, (meta(3, 4), [12])),
        (aten.add_.Tensor, (meta(3, 4), meta(3, 4))),
        (aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2))),
    ],
)
def test_views_changes_and_values_always_run(func: object, args: tuple) -> None:
    results = MetaResults()
    for _ in range(2):
        with Calls() as calls:
            results.of(func, args, {})
        assert str(func) in calls.names


def test_operands_that_differ_in_anything_but_values_are_told_apart() -> None:
    results = MetaResults()
    for other in (meta(4, 5), meta(4, 6), meta(4, 5, dtype=torch.float32), meta(5, 4).t()):
        left = meta(3, 4, dtype=other.dtype)
        assert results.of(aten.mm.default, (left, other), {}).dtype == other.dtype
        assert results.of(aten.mm.default, (left, other), {}).shape == (3, other.shape[1])
    assert results.of(aten.add.Tensor, (meta(2, dtype=torch.int64), 1), {}).dtype == torch.int64
    assert results.of(aten.add.Tensor, (meta(2, dtype=torch.int64), 1.0), {}).dtype == torch.float32
    assert results.of(aten.add.Tensor, (meta(2, dtype=torch.int64), True), {}).dtype == torch.int64


def test_a_stage_counts_the_same_with_every_result_inferred_anew(
    subject_on: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analytic.models.deepseek_ocr.workload import MODES

    subject = subject_on("meta", "sdpa", "grouped_mm", "tiny")
    found = stages.vision(subject, MODES["tiny"], batch_size=2)
    monkeypatch.setattr(MetaResults, "of", lambda self, func, args, kwargs: func(*args, **kwargs))
    anew = stages.vision(subject, MODES["tiny"], batch_size=2)
    assert found.ledger.entries == anew.ledger.entries
    assert found.activation_bytes == anew.activation_bytes
    assert isinstance(found.ledger, Ledger)


def test_differentiated_operators_always_run() -> None:
    results, operands = MetaResults(), (meta(2, 2), meta(2, 2))
    with torch.enable_grad():
        for _ in range(2):
            with Calls() as calls:
                results.of(aten.mm.default, operands, {})
            assert calls.names == ["aten.mm.default"]
