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
        "def late():\n    from fixtures.report import pair",
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


def installed_packages() -> set[str]:
    """The packages that setuptools finds for an installation."""
    from setuptools import find_namespace_packages

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return set(find_namespace_packages(str(ROOT), **settings["packages"]["find"]))


def test_every_room_is_installed() -> None:
    assert {f"fixtures.{room.name}" for room in ROOMS} | {"fixtures", "schemas"} <= installed_packages()


def test_the_closed_form_imports_none_of_them() -> None:
    found = {path.name: list(imported(path.read_text(encoding="utf-8"))) for path in (ROOT / "analytic").rglob("*.py")}
    assert {name for name, names in found.items() if any(one.split(".")[0] == "fixtures" for one in names)} == set()


ANALYTIC = ROOT / "analytic"
PACKAGES = first_words(ANALYTIC / "__init__.py")


def test_the_map_of_the_closed_form_names_every_package() -> None:
    found = {path.parent.name for path in ANALYTIC.glob("*/__init__.py")} | {"framework"}
    assert set(PACKAGES) == found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_of_the_closed_form_imports_only_from_those_above_it(package: str) -> None:
    below = PACKAGES[PACKAGES.index(package) + 1 :]
    paths = [ANALYTIC / f"{package}.py"] if package == "framework" else list((ANALYTIC / package).rglob("*.py"))
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in paths
        if (wrong := [name for name in imported(path.read_text(encoding="utf-8")) if name.split(".")[1:2] and
                      name.split(".")[0] == "analytic" and name.split(".")[1] in below])
    }  # fmt: skip
    assert found == {}


@pytest.mark.parametrize("init", sorted(ANALYTIC.glob("**/__init__.py"))[1:], ids=lambda path: path.parent.name)
def test_a_package_of_the_closed_form_says_what_its_modules_are_for(init: Path) -> None:
    said = set(re.findall(r"\w+", docstring(init)))
    assert {path.stem for path in init.parent.glob("*.py")} - {"__init__"} - said == set()


def test_the_closed_form_is_installed_whole_and_its_public_names_are_there() -> None:
    import analytic

    inside = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in ANALYTIC.rglob("__init__.py")}
    assert inside <= installed_packages()
    assert [getattr(analytic, name).__name__ for name in analytic.__all__] == analytic.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = analytic.Nothing


def modules() -> dict[str, Path]:
    """Every module of the project by name."""
    return {
        str(path.relative_to(ROOT).with_suffix("")).replace("/", "."): path
        for folder in (ANALYTIC, FIXTURES)
        for path in folder.rglob("*.py")
    }


def at_the_top(path: Path) -> list[str]:
    """What a module imports when it is itself imported: not in functions, and not for types alone."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    imports = (node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    return [name for node in imports for name in imported(ast.unparse(node))]


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    edges = {
        name: {found for one in at_the_top(path) for found in (one, one.rpartition(".")[0]) if found in known}
        for name, path in known.items()
    }
    while leaves := [name for name, targets in edges.items() if not targets & set(edges) - {name}]:
        for name in leaves:
            del edges[name]
    assert sorted(edges) == []


def test_no_class_name_is_defined_twice() -> None:
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
