"""The rooms of fixtures/: the map names them all, and each imports only from itself and from those above it."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def first_words(path: Path) -> list[str]:
    """The first words of the lines of a map."""
    return re.findall(r"^(\w+)(?:\.py)?  ", docstring(path), re.MULTILINE)


ORDER = first_words(FIXTURES / "__init__.py")
ROOMS = sorted(path.parent for path in FIXTURES.glob("*/__init__.py"))
every_room = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)


def imported(code: str) -> Iterator[str]:
    """Every module that `code` imports, wherever it does: at the top, in a function, for its types alone."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import does not say which room it is from"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def against_the_order(room: str, code: str) -> list[str]:
    """Imports in `code`, which stands in `room`, from a room below it."""
    below = ORDER[ORDER.index(room) + 1 :]
    return [name for name in imported(code) if name.startswith("fixtures.") and name.split(".")[1] in below]


def test_the_map_names_every_room_and_every_flat_module() -> None:
    flat = {path.stem for path in FIXTURES.glob("*.py")} - {"__init__"}
    assert sorted(ORDER) == sorted(flat | {room.name for room in ROOMS})


@every_room
def test_a_room_imports_only_from_rooms_above_it(room: Path) -> None:
    found = {path.name: against_the_order(room.name, path.read_text(encoding="utf-8")) for path in room.glob("*.py")}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_flat_module_imports_only_from_rooms_above_it() -> None:
    paths = [path for path in FIXTURES.glob("*.py") if path.stem != "__init__"]
    found = {path.name: against_the_order(path.stem, path.read_text(encoding="utf-8")) for path in paths}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from fixtures.plugin.hooks import RUN_ID",
        "from fixtures import scaling",
        "import fixtures.distributed.merge",
        "def late():\n    from fixtures.report import index",
        "if TYPE_CHECKING:\n    from fixtures.records.record import RecordError",
    ],
)
def test_an_import_from_below_is_found_wherever_it_stands(code: str) -> None:
    assert len(against_the_order("baseline", code)) == 1
    assert against_the_order("scaling", code) == []


@every_room
def test_a_room_says_what_its_modules_are_for_and_imports_nothing_itself(room: Path) -> None:
    said = set(re.findall(r"\w+", docstring(room / "__init__.py")))
    assert {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"} - said == set()
    assert len(ast.parse((room / "__init__.py").read_text(encoding="utf-8")).body) == 1


def test_every_room_is_installed() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert {f"fixtures.{room.name}" for room in ROOMS} <= set(packages)


def test_the_closed_form_imports_none_of_them() -> None:
    found = {path.name: list(imported(path.read_text(encoding="utf-8"))) for path in (ROOT / "analytic").rglob("*.py")}
    assert {name for name, names in found.items() if any(one.split(".")[0] == "fixtures" for one in names)} == set()
