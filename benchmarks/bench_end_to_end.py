"""End to end: a page from its views to its last token; image, BOS and text share the S positions of the prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.bench import Bench
    from fixtures.points import Point
    from fixtures.result import PointResult


def end_to_end(bench: Bench, agrees: Callable[[PointResult], None], page_point: Point) -> None:
    agrees(bench.end_to_end(page_point))
