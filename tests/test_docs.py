"""README, CONTRIBUTING and docs/: every link leads somewhere, and every command is one that the project takes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.command_parsers import check, sessions

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
NAMED = [str(path.relative_to(ROOT)) for path in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMED)

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


@every_page
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["docs/no-such-page.md", "docs/gate.md#no-such-heading", "#no-such-heading"])
def test_a_link_to_nothing_is_found(link: str) -> None:
    assert broken(ROOT / "README.md", f"# A heading\n\n[a page]({link}), [a part](docs/gate.md#baselines)") == [link]
    assert broken(ROOT / "README.md", f"# A heading\n\n[a part](#a-heading)\n\n```\n[code]({link})\n```\n") == []


@every_page
def test_every_command_is_one_that_the_project_takes(page: Path) -> None:
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
def test_a_command_that_the_project_does_not_take_is_found(command: str) -> None:
    with pytest.raises(ValueError, match=r"no-such|no_such"):
        check(command)


def test_commands_are_those_of_sh_blocks_one_by_one() -> None:
    text = "```sh\n# set up\npython3 -m venv .venv && .venv/bin/pytest -q\n\nnox -s docs\n```\n```\nnot this\n```\n"
    assert list(commands(text)) == ["python3 -m venv .venv", "pytest -q", "nox -s docs"]


@every_page
def test_every_session_that_a_page_names_exists(page: Path) -> None:
    found = re.findall(r"\bnox (?:--no-venv )?-s ((?:\w+ )*\w+)", page.read_text(encoding="utf-8"))
    assert {name for names in found for name in names.split()} <= set(sessions())


@every_page
def test_every_file_of_the_project_that_a_page_names_exists(page: Path) -> None:
    folders = "analytic|fixtures|benchmarks|schemas|baselines|docs|examples|tests"
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
