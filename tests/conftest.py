"""Models shared by the tests of a session."""

import ast
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from analytic.core.execution import Execution
from analytic.io import shell, signals
from analytic.models.spec import ModelSpec
from fixtures.config.pytest_options import DEFAULTS
from fixtures.config.run_options import RunOptions
from tests import command_parsers, fresh_process

if "PYTEST_XDIST_WORKER" in os.environ:  # a core a worker: threads of one would spin on the core of another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("any machine, however busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine, however busy")
FILTERS: Final = (
    "error",
    "ignore::DeprecationWarning:transformers.*",
    # what torch.compile says of its own modules, and of a cached check of versions in transformers
    "ignore::DeprecationWarning:torch.*",
    # a damaged file in the user's cache is said at the end of a run, and fails none
    "default:.*measured? (again|each time):UserWarning",
    "ignore:Dynamo detected a call to a `functools.lru_cache`",
)

ROOT: Final = Path(__file__).resolve().parent.parent
HELD: Final[set[str]] = set()
"""Advised commands that their parsers take."""
TINY: Final = ("--preset", "tiny", "--device", "meta", "--seq-len", "16", "--decode-steps", "1")


def pytest_configure(config: pytest.Config) -> None:
    """A warning fails a test, and the collection of tests. A run of benchmarks alone does not load this, and shows it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; processes of tests need it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


def pytest_unconfigure() -> None:
    """End the process that tests fork theirs from."""
    fresh_process.close()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of these tests are kept with them, not in the user's cache; the workers of xdist share them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(autouse=True)
def no_signal_of_an_earlier_test() -> None:
    """A test that is interrupted here is not said to be ended by what an earlier one received."""
    signals._received.clear()


@pytest.fixture(autouse=True)
def advice_is_executable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold every command that a message of this test tells a reader to run, here or in a fresh process, to its parser.

    Commands that repeat the words of damaged files are left out: a module that makes some has DAMAGES.
    """
    if getattr(request.module, "DAMAGES", False):
        yield
        return
    made: list[str] = []

    def advised(*words: object) -> str:
        made.append(shell.command(*words))
        return made[-1]

    monkeypatch.setattr(shell, "_advised", advised)
    outputs: list[str] = []
    monkeypatch.setattr(fresh_process, "outputs", outputs)
    yield
    monkeypatch.undo()
    printed = [command for output in outputs for command in command_parsers.said_in(output)]
    for command in dict.fromkeys([*made, *printed]):
        if command not in HELD and "<script>" not in command:  # a hostile record's own words
            command_parsers.check(command, values=False)
            HELD.add(command)


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[list[str]], str]:
    """What `python -m analytic` says of a command line that it refuses: exit code 2, and nothing written."""

    def said(arguments: list[str]) -> str:
        from analytic.__main__ import main

        monkeypatch.chdir(tmp_path)
        try:
            code = main(arguments)
        except SystemExit as stopped:  # argparse's own refusals
            code = int(stopped.code or 0)
        assert code == 2
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().err

    return said


@pytest.fixture(scope="session")
def full_spec() -> ModelSpec:
    return ModelSpec.from_preset("deepseek-ocr-v1-base")


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    return ModelSpec.from_preset("tiny")


@pytest.fixture(scope="session")
def subject_on() -> Callable[..., object]:
    """A factory of models under measurement, each built once: `subject_on("meta", "sdpa", "grouped_mm")`."""
    from fixtures.model.counted_stages import ModelUnderTest
    from fixtures.model.real import build

    @cache
    def make(
        device: str, attention: str, experts: str, preset: str = "deepseek-ocr-v1-base", dtype: str = ""
    ) -> ModelUnderTest:
        run = Execution(
            device=device,
            attention=attention,
            experts=experts,
            dtype=dtype or ("float32" if device == "cpu" else "bfloat16"),
        )
        spec = ModelSpec.from_preset(preset)
        return ModelUnderTest(spec=spec, run=run, model=build(spec, run))

    return make


@pytest.fixture(scope="session")
def options_of() -> Callable[..., RunOptions]:
    """Run options as the command line gives them: `options_of(device="cpu", seq_len=["64"])`, defaults for the rest."""

    def parsed(**given: object) -> RunOptions:
        asked = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
        return RunOptions.parsed({**DEFAULTS, **asked}.get)

    return parsed


@pytest.fixture(scope="session")
def static_compute_with() -> Callable[[str], object]:
    """The static compute report of an A4 page at 200 dpi on the full size, by attention implementation."""
    from fixtures.cross_check.static_compute import estimate_static_compute

    return cache(lambda attention: estimate_static_compute(2339, 1654, 1024, attention=attention))


class Ended(NamedTuple):
    """A session of `pytest benchmarks` in this process."""

    code: int
    output: str
    records: list[dict[str, Any]]


@pytest.fixture
def session(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `pytest benchmarks` in this process, which has torch loaded: the tiny preset on meta unless lengths are given."""

    def run(*arguments: str, benchmarks: Path = ROOT / "benchmarks", plugins: tuple[object, ...] = ()) -> Ended:
        for name in [name for name in os.environ if name.startswith("PYTEST_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(ROOT)
        out = tmp_path / "out"
        own = ("-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "--capture=no", "--output-dir", str(out))
        tiny = () if "--seq-len" in arguments else TINY
        code = pytest.main([*own, str(benchmarks), *tiny, *arguments], plugins=plugins)
        said = capfd.readouterr()
        records = [json.loads(path.read_text()) for path in sorted(out.glob("2*/record.json"))]
        return Ended(int(code), said.out + said.err, records)

    return run


@pytest.fixture(scope="session")
def real_rule() -> Callable[..., tuple[int, int]]:
    """The model's own `get_optimal_tiled_canvas`, taken from its source: the module itself needs torchvision."""
    package = find_spec("transformers")
    assert package is not None
    folder = Path(str(package.origin)).parent / "models" / "unlimited_ocr"
    source = (folder / "image_processing_unlimited_ocr.py").read_text(encoding="utf-8")
    wanted = ("get_all_supported_aspect_ratios", "get_optimal_tiled_canvas")
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    assert len(found) == 2
    scope: dict[str, Callable[..., tuple[int, int]]] = {}
    exec("from functools import lru_cache", scope)
    exec(compile(ast.Module(body=list(found), type_ignores=[]), "rule", "exec"), scope)
    return scope["get_optimal_tiled_canvas"]
