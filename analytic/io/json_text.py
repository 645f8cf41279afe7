"""JSON text of any origin as a value. What a program cannot compute with is refused by name, before anything else sees it.

Accepted: valid UTF-8 of at most MOST_BYTES, nested at most MOST_DEPTH levels, no key twice in an object, and numbers of at
most MOST_NUMBER, so that sums, products, ratios and logarithms of a few of them are finite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 1 << 26
MOST_DEPTH: Final = 100
MOST_NUMBER: Final = 1e30
MOST_DIGITS: Final = 32
"""Characters of an integer that can be within MOST_NUMBER."""


def parsed(text: str) -> Any:
    """The value of JSON `text`. Raises ValueError naming the key and what was got, also for NaN, infinities and 1e999."""
    try:
        value = _DECODER.decode(text)
        problem = _problem(value, MOST_DEPTH)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_DEPTH} levels") from None
    if problem is not None:
        raise ValueError(f"${problem}")
    return value


def read_text(path: Path) -> str:
    """The text of the file. Raises ValueError if it is too large or not UTF-8, OSError if it is not there."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start:,}") from error


class _Refused(str):
    """A number that is not accepted, as it was written."""

    __slots__ = ()


def _integer(text: str) -> int | _Refused:
    return int(text) if len(text) <= MOST_DIGITS and abs(int(text)) <= MOST_NUMBER else _Refused(text)


def _number(text: str) -> float | _Refused:
    value = float(text)
    return value if abs(value) <= MOST_NUMBER else _Refused(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"got the key {twice!a} twice in an object, accepted: once")
    return found


_DECODER: Final = json.JSONDecoder(
    parse_int=_integer, parse_float=_number, parse_constant=_Refused, object_pairs_hook=_object
)


def _problem(value: Any, depth: int) -> str | None:
    """The key, relative to `value`, and the reason of the first value that is not accepted; None if all are."""
    if isinstance(value, str):
        if isinstance(value, _Refused):
            return f": got {_short(value)}, accepted: a number of at most {MOST_NUMBER:g}, or null"
        return None if value.isascii() or _encodable(value) else f": got {_short(value)!a}, accepted: valid Unicode"
    if not isinstance(value, dict | list):
        return None
    if depth == 0:
        raise RecursionError
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and not (key.isascii() or _encodable(key)):
            return f": got the key {_short(key)!a}, accepted: valid Unicode"
        problem = _problem(item, depth - 1)
        if problem is not None:
            return f".{key}{problem}" if isinstance(key, str) else f"[{key}]{problem}"
    return None


def _encodable(text: str) -> bool:
    """Whether UTF-8 can write `text`: an escape such as `\\ud800` alone makes half a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"
