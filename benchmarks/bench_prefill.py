"""Prefill: the decoder on S positions at once, logits of the last; S from 256 to 4096, or from --seq-len."""

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


def prefill(bench: Bench, agrees: Agrees, timed: Timed, length_point: Point) -> None:
    agrees(bench.prefill(length_point))
    timed(length_point.label, lambda calls: calls.prefill(length_point.seq_len))
