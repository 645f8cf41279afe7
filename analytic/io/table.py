"""Tables for a terminal: aligned columns, text flush left, numbers flush right; numbers with their nouns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

SMALLEST: Final = 1e-6
"""Numbers below it are written with an exponent."""


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """One line per row; the first `left` columns flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def three_digits(value: float) -> str:
    """A number of at least 0 to three significant digits, or all digits of its whole part, with thousands separators."""
    if value == 0:
        return "0"
    if value < SMALLEST:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def number_of(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: 1 benchmark, 2 benchmarks, 1,024 tokens; `plural` if it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
