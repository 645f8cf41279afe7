"""The commands that messages, reports and pages tell a reader to run.

Every one is built here, so that its words are quoted and the tests can hold it to the parser that will read it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def nox(session: str, *arguments: object) -> str:
    """A session of noxfile.py: `nox -s merge -- RUN_A RUN_B`."""
    return _advised("nox", "-s", session, *(("--", *arguments) if arguments else ()))


def pytest(*arguments: object) -> str:
    """A run of pytest: `pytest benchmarks --seq-len 1024`."""
    return _advised("pytest", *arguments)


def analytic(*arguments: object) -> str:
    """A command of the closed form: `python -m analytic cost --preset tiny`."""
    return _advised("python", "-m", "analytic", *arguments)


def pip_install(*requirements: str) -> str:
    """The installation of packages: `pip install '.[gpu]'`."""
    return command("pip", "install", *requirements)


def restored(file: object) -> str:
    """The way back to the committed version of a file: `git checkout -- constraints.txt`."""
    return command("git", "checkout", "--", file)


def flags(values: Mapping[str, object], usual: Mapping[str, object] | None = None) -> tuple[str, ...]:
    """The words of options by flag: `--device cpu`; without those that are None or have their `usual` value.

    True is a switch, and stands for the flag alone; False is a switch that is off.
    """
    usual = usual or {}
    words: list[str] = []
    for flag, value in values.items():
        if value is None or value is False or str(value) == str(usual.get(flag)):
            continue
        words += [flag] if value is True else [flag, str(value)]
    return tuple(words)


def command(*words: object) -> str:
    """The words of any command line, such as that of a recorded run, quoted for a shell."""
    return shlex.join(str(word) for word in words)


def _advised(*words: object) -> str:
    """A command with a parser in this project; the tests hold each one that they come across to it."""
    return command(*words)
