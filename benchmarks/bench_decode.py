"""Decode: one token at a time on the cache of a prefill of S positions; every step is compared separately."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.config.points import Point
    from fixtures.model.timed_calls import Call, Calls
    from fixtures.validation.bench import Bench
    from fixtures.validation.point_result import PointResult

    Agrees = Callable[[PointResult], None]
    Timed = Callable[[str, Callable[[Calls], Call]], None]


def decode(bench: Bench, agrees: Agrees, timed: Timed, length_point: Point) -> None:
    agrees(bench.decode(length_point))
    timed(length_point.label, lambda calls: calls.decode(length_point.seq_len, steps=bench.decode_steps))
