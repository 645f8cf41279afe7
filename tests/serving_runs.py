"""What the tests of serving share: a started server, a run against it, cells without a server."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from analytic.io.ending import Incomplete
from analytic.models.deepseek_ocr.crop_rule import RULES
from analytic.models.registry import load_spec
from analytic.prediction.hardware import DevicePeaks
from fixtures.serving import __main__ as serve
from fixtures.serving.cell import Load, ServedCell, ServedShape
from fixtures.serving.device import ServedDevice, served_device
from fixtures.serving.endpoint import Endpoint
from fixtures.serving.exchange import OpenSockets, ServedAnswer, ask, body
from fixtures.serving.floor import ServedFloor, served_floor
from fixtures.serving.measure import CacheProbe
from fixtures.serving.options import execution, parsed
from fixtures.serving.page_image import PageSize, png
from fixtures.serving.served_baseline import SERVING_BASELINE, accepted, place_of
from fixtures.serving.served_run import SERVING, ServedRun, as_json
from tests.serving_stub import MOST_WAIT_S, Stub, serving

SMALL: Final = ("--concurrency", "1", "--requests", "2", "--output-tokens", "3")
SLIDE: Final = PageSize.parsed("1920x1080")
KEY: Final = "sk-test-secret"
SLOW: Final = DevicePeaks(
    name="slow",
    matches=(),
    peak_flops_per_s=(("bfloat16", 1_000_000_000),),
    bandwidth_bytes_per_s=1_000_000,
    memory_bytes=1,
    source="",
)
"""So slow that no server can be: whatever answers has skipped the work."""


@pytest.fixture
def started() -> Iterator[Callable[..., Stub]]:
    """Starts a server; ended after the test."""
    with ExitStack() as running:
        yield lambda **told: running.enter_context(serving(Stub(**told)))


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """The exit code, the output and the file of a run against a server; no file is an empty object."""

    def run(stub: Stub, *arguments: str, **environment: str) -> tuple[int, str, dict[str, Any]]:
        code = serve.main(["--url", stub.url, "--output-dir", str(tmp_path), *arguments], environment)
        said = capsys.readouterr()
        files = list(tmp_path.rglob("serving.json"))
        return code, said.out + said.err, SERVING.read(files[0]) if files else {}

    return run


def endpoint(stub: Stub) -> Endpoint:
    return Endpoint.parsed(stub.url, {})


def answered(stub: Stub, *, tokens: int, clock: Callable[[], float] = time.perf_counter) -> ServedAnswer:
    page = png(PageSize.parsed("64x64"), seed=0, number=0)
    request = body("ocr", "Free OCR.", image=page, output_tokens=tokens)
    return ask(endpoint(stub), request, output_tokens=tokens, timeout_s=MOST_WAIT_S, sockets=OpenSockets(), clock=clock)


def answer_at(started_s: float, total_s: float, *, ttft_s: float | None = None, tokens: int = 1) -> ServedAnswer:
    """An answer of so many tokens, sent and ended at these times; its first token comes at its end if not told."""
    first_s = total_s if ttft_s is None else ttft_s
    return ServedAnswer(
        started_s=started_s,
        token_times_s=(first_s, total_s)[: min(tokens, 2)],
        total_s=total_s,
        prompt_tokens=1_097,
        output_tokens=tokens,
        failure=None,
    )


def cell_with(*answers: ServedAnswer, concurrency: int | None = 1, rate_per_s: float | None = None) -> ServedCell:
    """A cell of slides with these answers."""
    shape = ServedShape(size=SLIDE, page=SLIDE.cut_by(RULES["transformers"]))
    load = Load(concurrency=concurrency, rate_per_s=rate_per_s)
    cell = ServedCell(label=SLIDE.label, shapes=(shape,), load=load, requests=len(answers) or 1, sent=len(answers) or 1)
    cell.measured.extend(answers)
    return cell


def on_h200() -> ServedDevice:
    """The device of a datasheet."""
    found = served_device(load_spec("deepseek-ocr-v1-base"), execution("bfloat16"), on="h200", rates_file=None)
    assert found is not None
    return found


def floor_of(cell: ServedCell, *, output_tokens: int, in_flight: int = 1) -> ServedFloor:
    """The floor of a cell of one shape on an H200."""
    return served_floor(
        load_spec("deepseek-ocr-v1-base"),
        execution("bfloat16"),
        on_h200(),
        {cell.shapes[0]: 1.0},
        beside_image=4,
        output_tokens=output_tokens,
        in_flight=in_flight,
    )


def example() -> dict[str, Any]:
    """The document of a run with a floor and a probe, which ended early: two slides, a second each."""
    cell = cell_with(answer_at(0.0, 1.0), answer_at(1.0, 1.0))
    run = ServedRun(
        model="ocr",
        text_tokens=4,
        cells=[cell],
        probes=[CacheProbe(shape=cell.shapes[0], first=cell.measured[0], again=cell.measured[1])],
        floors={cell.name: floor_of(cell, output_tokens=1)},
        problems=["a problem"],
        incomplete=Incomplete(reason="interrupted (Ctrl-C)", missing=("2 of a page",)),
    )
    arguments = ["--url", "http://127.0.0.1:8000/v1", "--on", "h200"]
    found: dict[str, Any] = json.loads(json.dumps(as_json(run, parsed(arguments, {}), arguments)))
    return found


def baseline_example() -> dict[str, Any]:
    """The document of a baseline of eight rounds, each of two slides of a second."""
    place = place_of(parsed(["--url", "http://127.0.0.1:8000/v1"], {}), model="ocr", text_tokens=4)
    rounds = [[cell_with(answer_at(0.0, 1.0, tokens=3, ttft_s=0.5), answer_at(1.0, 1.0, tokens=3, ttft_s=0.5))]] * 8
    with TemporaryDirectory() as folder:
        accepted(place, rounds).write(Path(folder) / "served.json", ["nox", "-s", "serve"])
        return SERVING_BASELINE.read(Path(folder) / "served.json")
