"""End to end: a page from its views to its last token; image, BOS and text fill the S positions of the prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.config.points import Point
    from fixtures.model.timed_calls import Call, Calls
    from fixtures.validation.bench import Bench
    from fixtures.validation.point_result import PointResult

    Agrees = Callable[[PointResult], None]
    Timed = Callable[[str, Callable[[Calls], Call]], None]


def end_to_end(bench: Bench, agrees: Agrees, timed: Timed, page_point: Point) -> None:
    agrees(bench.end_to_end(page_point))
    page, length = page_point.page, page_point.seq_len
    timed(page_point.label, lambda calls: calls.page(page, length, steps=bench.decode_steps))


@pytest.mark.only_timed
def first_token(timed: Timed, page_point: Point) -> None:
    timed(page_point.label, lambda calls: calls.first_token(page_point.page, page_point.seq_len))
