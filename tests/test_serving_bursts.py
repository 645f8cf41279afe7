"""Tokens that come faster than a decode step can make them: found by the floor of a step of one page, and what is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from analytic.prediction import hardware
from fixtures.serving import served_run
from fixtures.serving.cell import ServedCell
from fixtures.serving.exchange import ServedAnswer
from fixtures.serving.floor import ServedFloor, served_floor
from fixtures.serving.held import floor_problems
from fixtures.serving.served_run import cell_json
from fixtures.serving.served_table import COLUMNS, row
from tests.serving_runs import SLOW, SMALL, answer_at, cell_with, floor_of, run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures
MS = 1e-3


def answers_of(*token_ms: float, tokens: int = 3) -> list[ServedAnswer]:
    """Answers one after the other: a first token after half a second, and the others at these distances."""
    return [
        answer_at(float(at), 0.5 + (tokens - 1) * one * MS, ttft_s=0.5, tokens=tokens) for at, one in enumerate(token_ms)
    ]


def problems(cell: ServedCell, *, floor_ms: float = 0.36) -> list[str]:
    """With first tokens far above their floor."""
    floor = replace(floor_of(cell, output_tokens=3), token_s=floor_ms * MS)
    return floor_problems([cell], {cell.name: floor}, device="h200")


def test_the_least_time_of_a_token_is_that_of_a_step_of_one_page() -> None:
    """Twelve attentions, a dense layer, eleven of six routed and two shared experts and a router, the head, the cache."""
    weights = 12 * 4 * 1280**2 + 3 * 1280 * 6848 + 11 * (8 * 3 * 1280 * 896 + 64 * 1280) + 129_280 * 1280
    moved = 2 * weights + 1_097 * 12 * 2 * 1280 * 2  # bfloat16; 1,097 positions of keys and values
    alone, batch = (floor_of(cell_with(), output_tokens=9, in_flight=pages) for pages in (1, 16))
    assert alone.token_s == pytest.approx(moved / 4.8e12, rel=0.02)  # 0.253 ms at 4.8 TB/s; activations on top
    assert alone.token_s >= moved / 4.8e12
    assert alone.token_s == alone.stages.token_s == batch.token_s < batch.stages.token_s / 2


def test_a_token_faster_than_a_decode_step_is_a_burst() -> None:
    (problem,) = problems(cell_with(*answers_of(0.00716, 0.00716)))
    assert problem.startswith(
        "1920x1080px-c1: token p50 over all answers 0.00716 ms, below the floor of 0.360 ms, a decode step of one page on "
        "h200: tokens arrive in bursts, so the time between them is not that of a decode step; make the server"
    )
    assert "speculative decoding" in problem


@pytest.mark.parametrize(
    ("token_ms", "tokens", "wrong"),
    [
        ((0.007, 0.007, 1.0), 3, True),
        ((0.007, 1.0, 1.0), 3, False),  # the median counts
        ((0.36, 0.36), 3, False),
        ((0.30, 0.30), 3, True),  # 0.1 ms over two steps: 0.35 ms at most
        ((0.32, 0.32), 3, False),  # 0.37 ms
        ((0.32, 0.32), 101, True),  # 0.321 ms
        ((0.0, 0.0), 1, False),  # a single token has no such time
    ],
)
def test_the_median_is_held_beyond_what_a_late_read_explains(token_ms: tuple[float, ...], tokens: int, wrong: bool) -> None:
    assert len(problems(cell_with(*answers_of(*token_ms, tokens=tokens)))) == wrong


def test_a_token_below_the_floor_of_its_batch_alone_is_none() -> None:
    """Where most pages in flight wait, a step has fewer: 0.5 ms are more than a step of one page takes."""
    cell = cell_with(*answers_of(0.5, 0.5, 0.5))
    floor = floor_of(cell, output_tokens=3, in_flight=64)
    assert floor.token_s < 0.5 * MS < floor.stages.token_s
    assert floor_problems([cell], {cell.name: floor}, device="h200") == []
    assert not cell_json(cell, floor)["bursts"]


@pytest.mark.parametrize(("token_ms", "shown"), [(0.01, "bursts"), (2.0, None)])
def test_bursts_have_no_multiple_of_the_floor(token_ms: float, shown: str | None) -> None:
    cell = cell_with(*answers_of(token_ms, token_ms))
    floor = floor_of(cell, output_tokens=3)
    found = row(cell_json(cell, floor))[COLUMNS.index("token p50 ms") + 3]
    assert found == shown if shown else float(found) == pytest.approx(2.0 * MS / floor.token_s, rel=0.01)


def test_bursts_alone_fail_a_run(
    started: Callable[..., Stub], run: Callable[..., tuple[int, str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No first token is held here, so that nothing else is wrong; a step takes minutes on this device."""

    def only_tokens(*arguments: Any, **options: Any) -> ServedFloor:
        floor = served_floor(*arguments, **options)
        return replace(floor, ttft_s=tuple(0.0 for _ in floor.ttft_s))

    monkeypatch.setattr(hardware, "devices", lambda: (SLOW,))
    monkeypatch.setattr(served_run, "served_floor", only_tokens)
    code, said, kept = run(started(), *SMALL, "--image-size", "600x400", "--on", "slow")
    assert code == 1
    (problem,) = kept["problems"]
    assert f"WRONG: {problem}" in said
    assert "tokens arrive in bursts" in problem
    assert kept["cells"][0]["bursts"]


def test_bursts_of_several_loads_are_one_sentence() -> None:
    cells = [cell_with(*answers_of(time_ms, time_ms), concurrency=level) for level, time_ms in ((1, 0.01), (2, 0.02))]
    floors = {cell.name: floor_of(cell, output_tokens=3) for cell in cells}
    (said,) = floor_problems(cells, floors, device="h200")
    assert said.startswith(
        "1920x1080px-c1, 1920x1080px-c2: token p50 over all answers 0.0100 to 0.0200 ms, below the floor of "
    )
