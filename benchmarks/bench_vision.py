"""Vision: the vision stack on the views of a page, then each of its parts alone.

point       views                     what varies
gundam-WxH  1 x 1024 px, W*H x 640    number of local views
tiny ...    1 x 512 to 1280 px        size of the single view
a4-200dpi   as cut by the crop rule   shape of the page
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.config.stages import BenchmarkId

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.config.points import Point
    from fixtures.model.timed_calls import Call, Calls
    from fixtures.validation.bench import Bench
    from fixtures.validation.point_result import PointResult

    Agrees = Callable[[PointResult], None]
    Timed = Callable[[str, Callable[[Calls], Call]], None]


def vision(bench: Bench, agrees: Agrees, timed: Timed, vision_point: Point) -> None:
    agrees(bench.vision(vision_point))
    timed(vision_point.label, lambda calls: calls.vision(vision_point.page))


@pytest.mark.only_timed
def part(timed: Timed, vision_point: Point, part_name: str) -> None:
    name = str(BenchmarkId(part_name, vision_point.label))
    timed(vision_point.label, lambda calls: calls.named(name, steps=1))
