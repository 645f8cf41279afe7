"""Every command that a message tells a reader to run is built in one place, and its parser takes it.

The calls of `shell` are read from the source; a fixture of every test holds those that it comes across, with their values.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from analytic.io import shell
from tests.command_parsers import ROOT, check, said_in, sessions

PACKAGES: Final = ("analytic", "fixtures", "benchmarks")
WRITTEN: Final = re.compile(r"nox -s \w|pytest benchmarks|python -m \w|pip install|git checkout -")
BUILDERS: Final = ("nox", "pytest", "analytic", "pip_install", "restored", "flags", "command")
PROGRAMS: Final = ("prog", "description")
"""Arguments of a parser that name its own program."""
PAGES_OF_DOCS: Final = ("fixtures/drift/pairs.py", "fixtures/plugin/matrix.py")
"""Modules that write pages of docs/, which tests/test_docs.py checks."""
ELSEWHERE: Final = ("analytic/__main__.py",)
"""Names its program in its errors."""


class Call(NamedTuple):
    """A call of `shell` in the source."""

    where: str
    builder: str
    words: tuple[str, ...]
    open: bool


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def unbuilt(tree: ast.Module) -> list[tuple[int, str]]:
    """The text with a command that is not built by `shell`: no docstring, no name of a parser's program."""
    kept = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in PROGRAMS:
            kept |= {id(inner) for inner in ast.walk(node.value)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in kept]
    return [(node.lineno, node.value) for node in found if isinstance(node.value, str) and WRITTEN.search(node.value)]


def calls(where: str, tree: ast.Module) -> Iterator[Call]:
    """The calls of `shell`; a call is open if some of its words are not in the source."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="shell"), attr=builder), args=arguments):
                words = [word.value for word in arguments if isinstance(word, ast.Constant)]
                yield Call(f"{where}:{node.lineno}", builder, tuple(map(str, words)), len(words) < len(arguments))


def found_calls() -> list[Call]:
    return [call for where, tree in sources() for call in calls(where, tree)]


def unknown_flags(session: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of `flags` that no parser behind the session has."""
    known: list[str] = []
    add = argparse._ActionsContainer.add_argument

    def added(self: argparse._ActionsContainer, *names: str, **given: object) -> argparse.Action:
        known.extend(names)
        return add(self, *names, **given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(argparse._ActionsContainer, "add_argument", added)
        with pytest.raises(ValueError, match="does not take it"):
            check(f"nox -s {session} -- --no-such-option")
    return [flag for flag in flags if flag not in known]


def test_no_message_writes_a_command_itself() -> None:
    found = [
        f"{where}:{line}: {text.strip()[:80]!r}"
        for where, tree in sources()
        if where not in (*PAGES_OF_DOCS, *ELSEWHERE)
        for line, text in unbuilt(tree)
    ]
    assert found == [], "build these with analytic/io/shell.py"


def test_a_command_that_a_message_writes_itself_is_found() -> None:
    text = '"""Docstring: `nox -s noise`."""\nsay(f"go on with `nox -s noise -- {rest}`", prog="nox -s noise --")\n'
    assert unbuilt(ast.parse(text)) == [(2, "go on with `nox -s noise -- ")]


def test_messages_use_the_builders_that_there_are() -> None:
    found = found_calls()
    assert {call.builder for call in found} <= set(BUILDERS)
    assert len(found) >= 30


@pytest.mark.parametrize("call", [call for call in found_calls() if call.builder == "nox"], ids=lambda call: call.where)
def test_every_session_and_option_of_a_message_exists(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call.words, "the name of the session stands in the source"
    session, *arguments = call.words
    assert session in sessions()
    flags = [word for word in arguments if word.startswith("--")]
    if flags:
        assert unknown_flags(session, flags, monkeypatch) == []
    if not call.open and session != "lock":  # the parser of lock needs no more than its flags
        check(shell.nox(*call.words), values=False)


def test_an_option_that_no_session_has_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_flags("noise", ["--device", "--no-such-flag"], monkeypatch) == ["--no-such-flag"]


def test_the_commands_of_a_message_stand_between_backticks() -> None:
    text = "go on with `nox -s noise -- --continue`, then `pytest benchmarks -k 'a b'`; `git diff`"
    assert said_in(text) == ["nox -s noise -- --continue", "pytest benchmarks -k 'a b'"]


def test_flags_leave_out_what_is_usual_and_quote_what_needs_it() -> None:
    given = {
        "--device": "cpu",
        "--preset": "tiny",
        "--batch-size": 1,
        "--checkpoint": None,
        "--by-module": True,
        "--all": False,
    }
    assert shell.flags(given, {"--batch-size": "1"}) == ("--device", "cpu", "--preset", "tiny", "--by-module")
    assert shell.nox("merge", Path("a folder"), "RUN") == "nox -s merge -- 'a folder' RUN"
    assert shell.nox("report") == "nox -s report"
    assert shell.pip_install("-e", ".[gpu]") == "pip install -e '.[gpu]'"
