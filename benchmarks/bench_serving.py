"""A served model: pages sent to --url under each load; image tokens exactly, times over the floor and held to the baseline.

Collected only with --url. The loads and pages are those of `nox -s serve`: --concurrency, --rate, --image-size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.plugin.served_session import ServedPoint
    from fixtures.serving.cell import ServedCell

    Measured = Callable[[ServedPoint], ServedCell]
    Holds = Callable[[ServedCell], None]


def served(served_point: ServedPoint, pages_sent: Measured, holds: Holds) -> None:
    holds(pages_sent(served_point))
