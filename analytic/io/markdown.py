"""Tables in Markdown, and pages of the docs in which a session of nox writes what stands between two markers of its own."""

from __future__ import annotations

from collections.abc import Sequence


def marks(session: str) -> tuple[str, str]:
    """The lines between which a session writes."""
    return f"<!-- written by the session {session}: begin -->", f"<!-- written by the session {session}: end -->"


def around(page: str, session: str, *, option: str = "--page") -> tuple[str, str]:
    """What stands before and after the part of `session`, with its markers.

    Raises ValueError naming `option`, which chose the page, if it does not have them.
    """
    begin, end = marks(session)
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"{option}: got a page without the lines {begin} and {end}, accepted: one that has both")
    return before + begin, end + after


def replaced(page: str, session: str, text: str, *, option: str = "--page") -> str:
    """`page` with `text` as the part of `session`. Raises ValueError if it has no such part."""
    before, after = around(page, session, option=option)
    return f"{before}\n\n{text}\n\n{after}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int, right_to: int | None = None) -> str:
    """A table whose columns from `left` to `right_to`, or to the last, are aligned to the right."""
    right = range(left, len(head) if right_to is None else right_to)
    ruler = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ruler, *([cell(text) for text in row] for row in rows)))


def cell(text: str) -> str:
    """A cell of a table: one line in which no bar ends it and, outside of code, no tag or emphasis is read."""
    line = " ".join(text.split()).replace("|", "\\|")
    if "`" in line or line.startswith("**"):
        return line
    return line.replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")
