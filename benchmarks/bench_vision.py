"""Vision: SAM, CLIP and projector on the views of a page.

point       views                     what changes
gundam-WxH  1 x 1024 px, W*H x 640    number of local views
tiny ...    1 x 512 to 1280 px        size of the one view
a4-200dpi   as the crop rule cuts it  shape of the page
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.bench import Bench
    from fixtures.points import Point
    from fixtures.result import PointResult


def vision(bench: Bench, agrees: Callable[[PointResult], None], vision_point: Point) -> None:
    agrees(bench.vision(vision_point))
