"""Counts as polynomials: a formula given dimensions in place of numbers yields what it yields for every number."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analytic.core.execution import FULL_SIZE, Execution
from analytic.core.op import larger
from analytic.core.polynomial import Evaluation, Maximum, Polynomial
from analytic.models.deepseek_ocr.language_model import Decoder, Logits
from analytic.models.registry import load_spec

X, Y = Polynomial.dimension("x", least=1), Polynomial.dimension("y", least=0)
Formula = Callable[[Any, Any], Any]
FORMULAS: dict[str, Formula] = {
    "constants": lambda x, y: 7 - 3 + 0 * x,
    "products": lambda x, y: (2 * x + y - 5) * (x * y - 3) + x,
    "cancelling": lambda x, y: x * y - y * x + 4,
    "exact quotient": lambda x, y: (6 * x + 4 * y) // 2,
    "quotient that rounds": lambda x, y: (x * (x + 1) // 2 + y) // 3,
    "negative quotient": lambda x, y: (y - 7 * x) // 4,
    "comparisons": lambda x, y: (x > 1) * 8 + (y >= 3) * 4 + (x < y) * 2 + (x <= y) * 1,
    "decided comparisons": lambda x, y: (x > 0) * 8 + (x >= 1) * 4 + (y < 0) * 2 + (x + y > -1) * x,
    "comparisons of what falls": lambda x, y: (-1 * y < 0) * 8 + (-1 * y >= 0) * 4 + (3 - y > 0) * 2 + (3 - y <= 0) * x,
    "equality": lambda x, y: (x == 1) * 2 + (x == y) * y,
    "lesser": lambda x, y: x * (x < y) + y * (x >= y),
    "largest": lambda x, y: larger(larger(3 * x, x + y * y), 40) + x,
    "largest of one": lambda x, y: larger(5 * x + 1, x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_the_same_in_dimensions_in_numbers_and_in_arrays(name: str) -> None:
    formula, points = FORMULAS[name], [(x, y) for x in range(1, 13) for y in range(13)]
    prepared = Evaluation({"found": formula(X, Y)})
    expected = [formula(x, y) for x, y in points]
    assert [prepared.at({"x": x, "y": y})["found"] for x, y in points] == expected
    x, y = (np.array(column, dtype=np.int64) for column in zip(*points, strict=True))
    assert np.broadcast_to(prepared.at({"x": x, "y": y})["found"], x.shape).tolist() == expected


def test_what_the_least_values_decide_is_a_number() -> None:
    assert [X > 0, X >= 1, Y < 0, Y >= 0, X == 0, X - X] == [1, 1, 0, 1, 0, 0]
    assert all(isinstance(found, int) for found in (X > 0, Y < 0, X - X + 3))
    assert isinstance(X > 1, Polynomial)


def test_what_differs_by_a_number_is_decided_by_that_number() -> None:
    assert [X > X, X >= X, X < X, X <= X, X == X] == [0, 1, 0, 1, 1]
    assert [X + 1 > X, X > X + 1, X + 1 <= X, X <= X + 1, X == X + 1] == [1, 0, 0, 1, 0]


def test_the_least_of_a_sum_is_known_unless_a_dimension_is_subtracted() -> None:
    assert [(2 * X + 3 * Y - 4).least, (X * X).least, (X - Y).least, (X * Y - X).least] == [-2, 1, None, None]


def test_a_condition_on_a_dimension_is_refused() -> None:
    with pytest.raises(TypeError, match="accepted: a factor of 0 or 1"):
        bool(X > 1)
    with pytest.raises(TypeError, match=r"count: got 0\.5 beside a polynomial"):
        X * 0.5


def test_a_candidate_that_another_always_exceeds_is_left_out() -> None:
    found = Maximum.of(Maximum.of(3 * X, X + Y), 5 * X + 2 * Y)
    assert len(found.candidates) == 1
    assert len(Maximum.of(3 * X, 4 * Y).candidates) == 2
    assert len(Maximum.of(3 * X, 3 * X).candidates) == 1
    assert len(Maximum.of(X, X + Y).candidates) == 1  # Y may be 0


@pytest.mark.parametrize(
    "run",
    [
        FULL_SIZE,
        replace(FULL_SIZE, attention="eager", experts="batched_mm"),
        Execution(device="cpu", attention="sdpa", experts="eager", dtype="float32"),
        Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="float16"),
        Execution(device="cuda", attention="eager", experts="batched_mm", dtype="bfloat16", backend="compile"),
    ],
    ids=lambda run: f"{run.device}-{run.attention}-{run.experts}-{run.backend}",
)
@pytest.mark.parametrize("preset", ["tiny", "deepseek-ocr-v1-base", "unlimited-tiny", "deepseek-ocr-2-base"])
def test_the_cost_of_a_call_is_that_of_its_tree(preset: str, run: Execution) -> None:
    text = load_spec(preset).text
    logits: tuple[Logits, ...] = ("last", "all")
    capacity = 512 if run.static_cache and text.sliding_window is None else None
    dimensions = [(1, 1, 0, 1), (1, 1, 7, 7), (1, 1, 300, 40), (3, 1, 5, 5), (1, 9, 0, 9), (4, 9, 0, 9), (2, 9, 5, 14)]
    for every in logits:
        for batch, new, past, prompt in dimensions:
            shape = text.call_shape(batch=batch, new_tokens=new, past_tokens=past, prompt_tokens=prompt, capacity=capacity)
            decoder = Decoder(spec=text, shape=shape, logits=every, run=run)
            assert decoder.forward_cost() == decoder.tree("").total()
        columns = [np.array(column, dtype=np.int64) for column in zip(*dimensions, strict=True)]
        batch_sizes, new_tokens, past_tokens, prompt_tokens = columns
        together = text.call_shape(
            batch=batch_sizes, new_tokens=new_tokens, past_tokens=past_tokens, prompt_tokens=prompt_tokens,
            capacity=capacity,
        )  # fmt: skip
        decoder = Decoder(spec=text, shape=together, logits=every, run=run)
        found, expected = decoder.forward_cost().as_dict(), decoder.tree("").total().as_dict()
        for name, values in expected.items():
            assert np.array_equal(np.broadcast_to(found[name], new_tokens.shape), np.broadcast_to(values, new_tokens.shape))
