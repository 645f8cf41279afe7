"""The parsers of the project: whether a command line, of a page or of a message, is one that it takes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from fixtures.config.pytest_options import add_options
from fixtures.config.run_options import RunOptions
from fixtures.config.served_options import add_served_options

ROOT: Final = Path(__file__).resolve().parent.parent
UNCHECKED: Final = (
    *("python3 -m venv .venv", "pip install -q -c constraints.txt -e", "pip install -c constraints.txt -e"),
    *(". .venv/bin/activate", "export PIP_EXTRA_INDEX_URL=", "pre-commit install"),
)
"""Beginnings of commands that have no parser of ours."""
TOOLS: Final = ("ruff", "mypy", "mkdocs", "actionlint")
"""What sessions run that is not ours."""
SAID: Final = re.compile(r"`((?:nox -s|pytest|python -m analytic)(?: [^`]*)?)`")
"""A command of ours in a message."""


class Parsed(BaseException):
    """A command line was parsed, and nothing of it was run."""


@cache
def sessions() -> dict[str, Any]:
    """The sessions of noxfile.py by name."""
    import nox.registry

    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return dict(nox.registry.get())


def check(command: str, *, values: bool = True) -> None:
    """Hold a command to the sessions and parsers of the project. Raises ValueError for one that they do not take.

    Without `values`, the values of the options of pytest may be those of another machine or folder.
    """
    if command.startswith(UNCHECKED):
        return
    words = shlex.split(command)
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> None:
        parse_args(self, arguments, namespace)
        raise Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parsed):
        for line in _run_by(words[1:], command) if words[0] == "nox" else [words]:
            if line[0] == "pytest":
                _check_pytest(line[1:], parse_args, values=values)
            elif line[:2] == ["python", "-m"]:
                _check_module(line[2], line[3:], command)
            elif line[0] == "python" and line[1].startswith("examples/"):
                _check_example(line[1:], command)
            elif line[0].startswith("URL=") and line[1] == "examples/gate_server.sh":
                _check_module("fixtures.serving", ["--url", line[0].removeprefix("URL="), *line[2:]], command)
            elif line[0] not in TOOLS:
                raise ValueError(f"{command}: {line[0]} has no parser here, and is not in UNCHECKED")


def said_in(text: str) -> list[str]:
    """The commands of ours between backticks; one that stands alone and ends in dots names no arguments."""
    return [found for found in SAID.findall(text) if not found.endswith("...")]


def _run_by(words: list[str], command: str) -> list[list[str]]:
    """What `nox` with these words runs."""
    own, _, given = " ".join(words).partition(" -- ")
    names = [word for word in own.split() if word not in ("--no-venv", "-s")]
    unknown = set(names) - set(sessions())
    if unknown or not names:
        raise ValueError(f"{command}: no session {', '.join(unknown)}")
    found: list[list[str]] = []

    def run(*line: str, **_: Any) -> str:
        if "fixtures.config.needs" not in line:  # this machine may lack what the command needs
            found.append(list(line))
        return ""

    for name in names:
        arguments = words[words.index("--") + 1 :] if given else []
        sandbox = SimpleNamespace(is_sandboxed=False)
        sessions()[name](SimpleNamespace(posargs=arguments, name=name, virtualenv=sandbox, run=run))
    return found


def _check_module(name: str, arguments: list[str], command: str) -> None:
    """A module of the project by its own parser."""
    runs = f"{name}.__main__" if (ROOT / name.replace(".", "/")).is_dir() else name
    try:
        importlib.import_module(runs).main(arguments)
    except Parsed:
        return
    except SystemExit as stopped:
        if not stopped.code and "--help" in arguments:
            return
    raise ValueError(f"{command}: {name} does not take it")


def _check_example(words: list[str], command: str) -> None:
    """A script by its own parser."""
    with mock.patch.object(sys, "argv", words):
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except Parsed:
            return
        except (SystemExit, OSError):
            pass
    raise ValueError(f"{command}: {words[0]} does not take it")


def _check_pytest(words: list[str], parse_args: Callable[..., argparse.Namespace], *, values: bool) -> None:
    """The options of the plugin, and those of pytest and its plugins that commands use."""
    if "--help" in words:
        return
    parser = argparse.ArgumentParser(exit_on_error=False, fromfile_prefix_chars="@")
    for option in ("-k", "-m", "-n", "-p", "-c", "-W", "--junitxml", "--capture", "--rootdir", "--maxfail"):
        parser.add_argument(option)
    parser.add_argument("paths", nargs="*", default=[])
    groups = SimpleNamespace(getgroup=lambda *_: SimpleNamespace(addoption=parser.add_argument))
    add_options(groups)
    add_served_options(groups)
    own = [word for word in words if not word.startswith("--benchmark-")]  # of pytest-benchmark, which says what it takes
    try:
        given = vars(parse_args(parser, own))
    except (SystemExit, argparse.ArgumentError) as stopped:
        raise ValueError(f"pytest {' '.join(words)}: the plugin does not take it") from stopped
    missing = [path for path in given["paths"] if not (ROOT / path.partition("::")[0]).exists()]
    if missing and values:
        raise ValueError(f"pytest {' '.join(words)}: no {', '.join(missing)}")
    if values and not {"cuda", "DIR"} & set(words):  # neither a GPU nor the reader's folder is here
        RunOptions.parsed(lambda option: given[option.removeprefix("--").replace("-", "_")])
