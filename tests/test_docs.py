"""README, CONTRIBUTING and docs/: every link leads somewhere, and every command is one that the project takes."""

import argparse
import importlib
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nox.registry
import pytest
import yaml

from fixtures.config.pytest_options import add_options
from fixtures.config.run_options import RunOptions

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
NAMED = [str(path.relative_to(ROOT)) for path in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMED)

UNCHECKED = ("python3 -m venv .venv", "pip install -q -c constraints.txt -e", "pip install -c constraints.txt -e")
UNCHECKED += (". .venv/bin/activate", "export PIP_EXTRA_INDEX_URL=", "pre-commit install")
"""Beginnings of commands that have no parser of ours."""
TOOLS = ("ruff", "mypy", "mkdocs", "actionlint")
"""What sessions run that is not ours."""
LARGEST_README_BYTES = 6_500


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Targets inside the project."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if not link.startswith("https://")]


def broken(page: Path, text: str) -> list[str]:
    """Links of a page to no file, or to no heading of a page."""
    found = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8") if name else text)):
            found.append(link)
    return found


def commands(text: str) -> Iterator[str]:
    """Every command in the sh blocks of a page; those of one line that are joined by && each for itself."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for command in line.split(" && "):
                if command.strip() and not command.startswith("#"):
                    yield command.strip().removeprefix(".venv/bin/")


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """The sessions of noxfile.py by name."""
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return dict(nox.registry.get())


class Parsed(BaseException):
    """A command line was parsed, and nothing of it was run."""


@pytest.fixture
def check(sessions: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hold a command to the sessions and parsers of the project. Raises ValueError for one that they do not take."""
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> None:
        parse_args(self, arguments, namespace)
        raise Parsed

    def held(words: list[str], command: str) -> None:
        if words[0] == "pytest":
            _check_pytest(words[1:], parse_args)
        elif words[:2] == ["python", "-m"]:
            _check_module(words[2], words[3:], command)
        elif words[0] not in TOOLS:
            raise ValueError(f"{command}: {words[0]} has no parser here, and is not in UNCHECKED")

    def check(command: str) -> None:
        if command.startswith(UNCHECKED):
            return
        words = shlex.split(command)
        if words[0] == "nox":
            for line in _run_by(words[1:], sessions, command):
                held(line, command)
        else:
            held(words, command)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    return check


def _run_by(words: list[str], sessions: dict[str, Any], command: str) -> list[list[str]]:
    """What `nox` with these words runs."""
    own, _, given = " ".join(words).partition(" -- ")
    names = [word for word in own.split() if word not in ("--no-venv", "-s")]
    unknown = set(names) - set(sessions)
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
        sessions[name](SimpleNamespace(posargs=arguments, name=name, virtualenv=sandbox, run=run))
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


def _check_pytest(words: list[str], parse_args: Callable[..., argparse.Namespace]) -> None:
    """The options of the plugin, and those of pytest and pytest-xdist that the docs use."""
    if "--help" in words:
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option in ("-k", "-m", "-n", "--junitxml"):
        parser.add_argument(option)
    parser.add_argument("paths", nargs="*", default=[])
    add_options(SimpleNamespace(getgroup=lambda *_: SimpleNamespace(addoption=parser.add_argument)))
    try:
        given = vars(parse_args(parser, words))
    except SystemExit as stopped:
        raise ValueError(f"pytest {' '.join(words)}: the plugin does not take it") from stopped
    missing = [path for path in given["paths"] if not (ROOT / path).exists()]
    if missing:
        raise ValueError(f"pytest {' '.join(words)}: no {', '.join(missing)}")
    if not {"cuda", "DIR"} & set(words):  # neither a GPU nor the reader's folder is here
        RunOptions.parsed(lambda option: given[option.removeprefix("--").replace("-", "_")])


@every_page
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["docs/no-such-page.md", "docs/gate.md#no-such-heading", "#no-such-heading"])
def test_a_link_to_nothing_is_found(link: str) -> None:
    assert broken(ROOT / "README.md", f"# A heading\n\n[a page]({link}), [a part](docs/gate.md#baselines)") == [link]
    assert broken(ROOT / "README.md", f"# A heading\n\n[a part](#a-heading)\n\n```\n[code]({link})\n```\n") == []


@every_page
def test_every_command_is_one_that_the_project_takes(page: Path, check: Callable[[str], None]) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        check(command)


@pytest.mark.parametrize(
    "command",
    [
        "nox -s no_such_session",
        "nox -s bench -- --no-such-option",
        "nox -s drift -- transformers==5.24.0 --no-such-option",
        "nox -s lock -- --no-such-option",
        "nox -s fleet -- --no-such-option",
        "pytest benchmarks --no-such-option",
        "pytest no_such_folder",
        "pytest benchmarks --profile no-such-profile",
        "python -m analytic no-such-command",
        "python -m analytic cost --no-such-option",
        "no-such-tool --help",
    ],
)
def test_a_command_that_the_project_does_not_take_is_found(command: str, check: Callable[[str], None]) -> None:
    with pytest.raises(ValueError, match=r"no-such|no_such"):
        check(command)


def test_commands_are_those_of_sh_blocks_one_by_one() -> None:
    text = "```sh\n# set up\npython3 -m venv .venv && .venv/bin/pytest -q\n\nnox -s docs\n```\n```\nnot this\n```\n"
    assert list(commands(text)) == ["python3 -m venv .venv", "pytest -q", "nox -s docs"]


@every_page
def test_every_session_that_a_page_names_exists(page: Path, sessions: dict[str, Any]) -> None:
    found = re.findall(r"\bnox (?:--no-venv )?-s ((?:\w+ )*\w+)", page.read_text(encoding="utf-8"))
    assert {name for names in found for name in names.split()} <= set(sessions)


@every_page
def test_every_file_of_the_project_that_a_page_names_exists(page: Path) -> None:
    folders = "analytic|fixtures|benchmarks|schemas|baselines|docs|tests"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(page.read_text(encoding="utf-8"))))
    written = {name for name in named if not re.search(r"[A-Z]", name)}  # capitals stand for the reader's name
    assert {name for name in written if not (ROOT / name).exists()} == set()


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= LARGEST_README_BYTES


def test_the_site_shows_every_page_and_loads_nothing_from_elsewhere() -> None:
    text = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    configured = yaml.safe_load(text)
    shown = {Path(name) for name in re.findall(r"[\w-]+\.md", yaml.safe_dump(configured["nav"]))}
    assert shown == {Path(page.name) for page in DOCS}
    assert configured["theme"]["font"] is False
    assert configured["plugins"] == ["search"]
    assert "http" not in text
