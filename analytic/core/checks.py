"""Validation of user input; errors name the field, the value and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from analytic.core.polynomial import Polynomial

MOST: Final = 1 << 31
"""The largest accepted count: more positions or pages than any machine holds, and far from overflow."""
MOST_STEPS: Final = 100_000
"""The largest accepted number of decode steps where each step is evaluated."""


def accept(field: str, got: object, accepted: tuple[object, ...]) -> None:
    """Raise ValueError, naming the field, the value and the choices, unless `got` is one of `accepted`."""
    if got not in accepted:
        raise ValueError(f"{field}: got {got!r}, accepted: {', '.join(map(str, accepted))}")


def listed(values: Sequence[str]) -> str:
    """The accepted values as an option's help offers them: `sdpa or eager`."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def whole(field: str, got: object, *, least: int = 1, most: int = MOST) -> None:
    """Raise ValueError unless `got` is a single whole number from `least` to `most`."""
    if isinstance(got, bool) or not isinstance(got, int) or not least <= got <= most:
        limit = f" and at most {most}" if isinstance(got, int) and got > most else ""
        raise ValueError(f"{field}: got {got!r}, accepted: a whole number of at least {least}{limit}")


def within_window(field: str, seq_len: int, *, decoded: int, window: int, model: str, given: str | None = None) -> None:
    """Raise ValueError, with both numbers, if `seq_len` positions and `decoded` more are past the window of `model`.

    given  what the user gave for the decoded tokens, if that is another number
    """
    needed = seq_len + decoded
    if needed > window:
        more = f", which with {given or f'{decoded} decoded tokens'} needs {needed} positions" if decoded else ""
        raise ValueError(
            f"{field}: got {seq_len}{more}, accepted: at most {window} positions, the window (max_position_embeddings) of "
            f"{model}; choose a shorter sequence{' or fewer tokens' if decoded else ''}"
        )


def whole_numbers(field: str, got: Any, *, least: int = 1) -> None:
    """Raise ValueError unless `got` is a whole number or an array of them, from `least` to MOST."""
    if isinstance(got, Polynomial):  # a dimension, not yet a number
        return
    dtype = getattr(got, "dtype", None)
    if dtype is None or getattr(dtype, "kind", "") not in ("i", "u"):
        whole(field, got, least=least)
        return
    if dtype.itemsize != 8:
        raise ValueError(f"{field}: got an array of {dtype}, accepted: int64, which the counts need")
    if got.size and (got.min() < least or got.max() > MOST):
        wrong = got.min() if got.min() < least else got.max()
        raise ValueError(f"{field}: got {wrong}, accepted: whole numbers of at least {least} and at most {MOST}")
