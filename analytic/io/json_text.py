"""JSON text of any origin as a value. What a program cannot compute with is refused by name, before anything else sees it.

Accepted: valid UTF-8 of at most MOST_BYTES, nested at most MOST_DEPTH levels, no key twice in an object, no control
characters other than tab and the ends of lines, and numbers of at most MOST_NUMBER, so that sums, products, ratios and
logarithms of a few of them are finite.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 1 << 26
MOST_DEPTH: Final = 100
MOST_NUMBER: Final = 1e30
READABLE: Final = "valid Unicode without control characters"
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_HALF: Final = re.compile("[\ud800-\udfff]")
"""Half characters, which an escape such as `\\ud800` alone makes and UTF-8 cannot write."""
_UNREADABLE: Final = re.compile(f"{_CONTROL.pattern}|{_HALF.pattern}")
MOST_DIGITS: Final = 32
"""Characters of an integer that can be within MOST_NUMBER."""


def parsed(text: str, *, control_characters: bool = False) -> Any:
    """The value of JSON `text`. Raises ValueError naming the key and what was got, also for NaN, infinities and 1e999.

    `control_characters` are accepted in what a running process or server says, which is shown on no page as it is.
    """
    try:
        value = _DECODER.decode(text)
        problem = _problem(value, MOST_DEPTH, _HALF if control_characters else _UNREADABLE)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_DEPTH} levels") from None
    if problem is not None:
        raise ValueError(f"${problem}")
    return value


def read_bytes(path: Path) -> bytes:
    """The content of the file. Raises ValueError if it is too large, or a pipe, which may wait for ever; OSError."""
    if path.is_fifo():
        raise ValueError("it is a pipe, accepted: a file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES:,} bytes")
    return content


def read_text(path: Path) -> str:
    """The text of the file, read as `read_bytes` does. Raises ValueError also if it is not UTF-8."""
    content = read_bytes(path)
    if content.startswith(BOM_UTF8):
        raise ValueError("it starts with a byte order mark (BOM), accepted: UTF-8 without one; save it without")
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


def _problem(value: Any, depth: int, unreadable: re.Pattern[str]) -> str | None:
    """The key, relative to `value`, and the reason of the first value that is not accepted; None if all are."""
    if isinstance(value, str):
        if isinstance(value, _Refused):
            return f": got {_short(value)}, accepted: a number of at most {MOST_NUMBER:g}, or null"
        return f": got {_short(value)!a}, accepted: {READABLE}" if unreadable.search(value) else None
    if not isinstance(value, dict | list):
        return None
    if depth == 0:
        raise RecursionError
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and unreadable.search(key):
            return f": got the key {_short(key)!a}, accepted: {READABLE}"
        problem = _problem(item, depth - 1, unreadable)
        if problem is not None:
            return f".{key}{problem}" if isinstance(key, str) else f"[{key}]{problem}"
    return None


def escaped(value: Any) -> Any:
    """`value` with every control character in its text as `\\x1b`: what a program writes, it and others can read."""
    if isinstance(value, str):
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    if isinstance(value, dict):
        return {escaped(key): escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list | tuple) else value


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"
