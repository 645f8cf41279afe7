"""Checks of values from outside: the field, what was got, what is accepted."""

from __future__ import annotations


def accept(field: str, got: object, accepted: tuple[object, ...]) -> None:
    """Raise ValueError naming the field, the value and what is accepted, unless `got` is one of `accepted`."""
    if got not in accepted:
        raise ValueError(f"{field}: got {got!r}, accepted: {', '.join(map(str, accepted))}")


def positive(field: str, got: object, *, least: int = 1) -> None:
    """Raise ValueError unless `got` is a whole number of at least `least` (or an array of such numbers)."""
    if isinstance(got, int) and not isinstance(got, bool):
        if got < least:
            raise ValueError(f"{field}: got {got}, accepted: a whole number of at least {least}")
        return
    kind = getattr(getattr(got, "dtype", None), "kind", "")
    if kind not in ("i", "u"):
        raise ValueError(f"{field}: got {got!r}, accepted: a whole number of at least {least}")
    if got.size and got.min() < least:  # type: ignore[attr-defined]
        raise ValueError(f"{field}: got {got.min()}, accepted: whole numbers of at least {least}")  # type: ignore[attr-defined]
