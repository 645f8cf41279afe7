"""Decode: tokens one at a time on the cache that a prefill of S positions left; every step compared on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.bench import Bench
    from fixtures.points import Point
    from fixtures.result import PointResult


def decode(bench: Bench, agrees: Callable[[PointResult], None], length_point: Point) -> None:
    agrees(bench.decode(length_point))
