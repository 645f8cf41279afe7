"""Calls on meta are inferred and costed once, and only where result and cost follow from layouts alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.model import counted_stages as stages
from fixtures.op_counter.formulas import cost_of
from fixtures.op_counter.ledger import Entry, Ledger
from fixtures.op_counter.meta_calls import Operator

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


def counted(func: Any, args: tuple, kwargs: dict | None = None) -> tuple[Any, Entry | None]:
    """The result of one call under a ledger, and its entry; None if it is free."""
    with Ledger(torch.nn.Identity(), outside="") as ledger:
        result = func(*args, **(kwargs or {}))
    found = list(ledger.entries.values())
    assert len(found) <= 1
    return result, found[0] if found else None


def costed(func: Any, args: tuple, kwargs: dict | None = None) -> Entry | None:
    """The entry of one call, its cost from the formulas alone."""
    cost = cost_of(func, args, kwargs or {}, func(*args, **(kwargs or {})))
    if cost is None:
        return None
    entry = Entry()
    entry.record(cost)
    return entry


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
    counted(func, args, kwargs)
    with Calls() as calls:
        again, entry = counted(func, args, kwargs)
    assert str(func) not in calls.names
    assert entry == costed(func, args, kwargs)
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
    for _ in range(2):
        with Calls() as calls:
            _, entry = counted(func, args)
        assert str(func) in calls.names
        assert entry == costed(func, args)


def test_operands_that_differ_in_anything_but_values_are_told_apart() -> None:
    for other in (meta(4, 5), meta(4, 6), meta(4, 5, dtype=torch.float32), meta(5, 4).t()):
        left = meta(3, 4, dtype=other.dtype)
        for _ in range(2):
            result, entry = counted(aten.mm.default, (left, other))
            assert (result.dtype, result.shape) == (other.dtype, (3, other.shape[1]))
            assert entry == costed(aten.mm.default, (left, other))
    ints = meta(2, dtype=torch.int64)
    for scalar, dtype in ((1, torch.int64), (1.0, torch.float32), (True, torch.int64)):
        for _ in range(2):
            assert counted(aten.add.Tensor, (ints, scalar))[0].dtype == dtype


def test_an_operand_that_is_given_twice_is_read_once_whatever_ran_before() -> None:
    # 3 x 4 in bfloat16: two operands are 48 bytes, one that is both 24
    one, other = meta(3, 4), meta(3, 4)
    for left, right, read in ((one, other, 48), (one, one, 24), (one, other, 48), (one, one, 24)):
        _, entry = counted(aten.mul.Tensor, (left, right))
        assert entry is not None
        assert entry.read_bytes == read
        _, entry = counted(aten.cat.default, ([left, right],))
        assert entry is not None
        assert entry.read_bytes == read


def test_a_stage_counts_the_same_with_every_call_inferred_anew(
    subject_on: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analytic.models.deepseek_ocr.workload import MODES, TokenLayout

    subject = subject_on("meta", "sdpa", "grouped_mm", "tiny")

    def measured() -> Iterator[stages.Measured]:
        yield stages.vision(subject, MODES["tiny"], batch_size=2)
        prefill, cache = stages.prefill(subject, TokenLayout.of(24, None), batch_size=2)
        yield prefill
        yield from stages.decode(subject, cache, batch_size=2, steps=2)

    known = list(measured())
    monkeypatch.setattr(Operator, "known", lambda self, args, kwargs: (None, None))
    monkeypatch.setattr(Operator, "is_view", False)
    anew = list(measured())
    for mine, theirs in zip(known, anew, strict=True):
        assert mine.ledger.entries == theirs.ledger.entries
        assert mine.activation_bytes == theirs.activation_bytes


def test_differentiated_operators_always_run() -> None:
    operands = (meta(2, 2), meta(2, 2))
    with torch.enable_grad():
        for _ in range(2):
            with Calls() as calls:
                counted(aten.mm.default, operands)
            assert calls.names == ["aten.mm.default"]
