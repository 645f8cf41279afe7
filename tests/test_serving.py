"""A served model held to the closed form, over real HTTP: tokens, times, caches, and what is kept of a run."""

import errno
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from analytic.core.execution import Execution
from analytic.io.ending import Incomplete
from analytic.models.deepseek_ocr.crop_rule import RULES, crop_rule
from analytic.models.registry import load_spec, model_of
from analytic.prediction import hardware
from analytic.prediction.hardware import DevicePeaks
from fixtures.serving import __main__ as serve
from fixtures.serving.endpoint import Endpoint
from fixtures.serving.exchange import OpenSockets, ServedAnswer, ask, body
from fixtures.serving.floor import ServedFloor, served_floor
from fixtures.serving.held import explanation, floor_problems
from fixtures.serving.load import ServedCell, closed_loop
from fixtures.serving.options import parsed
from fixtures.serving.page_image import PageSize, png
from fixtures.serving.served_run import SERVING, CacheProbe, ServedRun, as_json
from tests.serving_stub import MOST_WAIT_S, SteppedClock, Stub, serving

SMALL = ("--concurrency", "1", "--requests", "2", "--output-tokens", "3")
SLIDE = PageSize.parsed("1920x1080")
KEY = "sk-test-secret"


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


@pytest.mark.parametrize("chunked", [False, True])
def test_the_delays_of_queue_first_token_and_each_token_come_back(started: Callable[..., Stub], chunked: bool) -> None:
    clock = SteppedClock()
    # read once when sent, then at every event: 2 s of queue and 1 s of work before the first, 0.5 s before each further one
    stub = started(before=lambda _, event: clock.advance(0.5 if event else 2 + 1, after_reads=1 + event), chunked=chunked)
    answer = answered(stub, tokens=4, clock=clock)
    assert answer.failure is None
    assert answer.token_times_s == (3.0, 3.5, 4.0, 4.5)
    assert (answer.ttft_s, answer.token_s, answer.total_s) == (3.0, 0.5, 4.5)


def test_an_event_without_text_is_no_token() -> None:
    from fixtures.serving.stream import Received

    received = Received()
    for number, delta in enumerate(({"role": "assistant", "content": ""}, {"content": "a"}, {}, {"reasoning": "b"})):
        received.take({"choices": [{"delta": delta}]}, float(number))
    assert received.token_times_s == [1.0, 3.0]


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_as_many_requests_are_in_flight_as_asked_and_no_more(started: Callable[..., Stub], concurrency: int) -> None:
    lock, all_here = threading.Lock(), threading.Barrier(concurrency)
    now, most = [0], [0]

    def before(_: int, event: int) -> None:
        with lock:
            now[0] += event == 0
            most[0] = max(most[0], now[0])
        if event == 0:
            all_here.wait(MOST_WAIT_S)  # which breaks unless so many are here at once
        else:
            with lock:
                now[0] -= 1

    stub = started(before=before)
    found: list[ServedAnswer] = []
    request = body("ocr", "x", image=png(PageSize.parsed("64x64"), seed=0, number=0), output_tokens=2)
    target, sockets = endpoint(stub), OpenSockets()
    closed_loop(
        [request] * (3 * concurrency),
        lambda one: ask(target, one, output_tokens=2, timeout_s=MOST_WAIT_S, sockets=sockets),
        concurrency=concurrency,
        into=found,
        stop=sockets.shut,
    )
    assert [answer.failure for answer in found] == [None] * (3 * concurrency)
    assert most == [concurrency]


def test_a_server_that_cuts_pages_as_the_closed_form_passes(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    code, said, kept = run(stub, *SMALL, "--image-size", "1920x1080", "600x400")
    assert code == 0, said
    assert [(cell["page"], cell["image_tokens"], len(cell["measured"])) for cell in kept["cells"]] == [
        ("1920x1080px", 1_093, 2),  # 273 + (10 * 4 + 1) * 10 * 2
        ("600x400px", 273, 2),
    ]
    assert kept["problems"] == []
    assert kept["text_tokens"] == 4
    assert "name the device with --on" in said
    # the text alone, then for each page one of warm-up and two that are measured
    assert [request["max_tokens"] for request in stub.requests] == [1, 3, 3, 3, 3, 3, 3]
    for request in stub.requests:
        assert request["stream_options"] == {"include_usage": True}
        assert request["ignore_eos"] is True
        assert request["min_tokens"] == request["max_tokens"]


def test_a_server_that_cuts_at_six_fails_and_the_rule_is_named(started: Callable[..., Stub], run: Callable) -> None:
    code, said, kept = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9")
    assert code == 1
    assert kept["problems"] == [
        "slide-16x9: got 483 image tokens in 3 requests, closed form 1,093 (grid 4x2 under transformers, at most 9 tiles); "
        "483 = grid 2x1 under vllm, at most 6 tiles: --served-by vllm"
    ]
    assert f"WRONG: {kept['problems'][0]}" in said


def test_a_server_that_cuts_at_six_passes_under_its_rule(started: Callable[..., Stub], run: Callable) -> None:
    code, said, _ = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9", "--served-by", "vllm")
    assert code == 0
    assert said.count("crop rule: vllm, at most 6 tiles") == 1


def test_one_token_more_fails_and_the_template_is_named(started: Callable[..., Stub], run: Callable) -> None:
    pages = ("--image-size", "1920x1080", "600x400")
    code, _, kept = run(started(around=1), *SMALL, *pages)
    assert code == 1
    assert [problem.rpartition("; ")[2] for problem in kept["problems"]] == [
        "every page has +1, as of a chat template: --around-image 1"
    ] * 2


def test_tokens_of_the_template_are_taken_off(started: Callable[..., Stub], run: Callable) -> None:
    assert run(started(around=1), *SMALL, "--image-size", "600x400", "--around-image", "1")[0] == 0


@pytest.mark.parametrize(
    ("got", "shift", "told"),
    [
        (483, None, "--served-by vllm"),
        (273, None, "mode base"),  # not cut
        (111, None, "mode small"),  # 10 * 11 + 1
        (700, 1, "--around-image 3"),
        (700, None, "no known crop rule"),
        (700, -1_000, "no known crop rule"),
    ],
)
def test_what_would_explain_a_number_of_image_tokens(got: int, shift: int | None, told: str) -> None:
    assert told in explanation(SLIDE, got, shift=shift, around_image=2)


def test_another_limit_of_tiles_is_named() -> None:
    size = PageSize.parsed("2048x2048")  # 3x3 at 9, 2x2 at 6; 1x1 is none
    got = size.cut_by(crop_rule(None, 4)).image_tokens
    assert "--served-by vllm" in explanation(size, got, shift=None, around_image=0)
    size = PageSize.parsed("600x2400")
    limits = {size.cut_by(crop_rule(None, most)).image_tokens: most for most in range(9, 1, -1)}
    fewest = min(limits)
    assert f"--max-tiles {limits[fewest]}" in explanation(size, fewest, shift=None, around_image=0)


SLOW = DevicePeaks(
    name="slow",
    matches=(),
    peak_flops_per_s=(("bfloat16", 1_000_000_000),),
    bandwidth_bytes_per_s=1_000_000,
    memory_bytes=1,
    source="",
)


def cell_with(*ttft_s: float) -> ServedCell:
    cell = ServedCell(size=SLIDE, page=SLIDE.cut_by(RULES["transformers"]), concurrency=1, requests=len(ttft_s))
    for time_s in ttft_s:
        answer = ServedAnswer(
            started_s=0.0, token_times_s=(time_s,), total_s=time_s, prompt_tokens=1_097, output_tokens=1, failure=None
        )
        cell.measured.append(answer)
    return cell


def floor_of(cell: ServedCell, *, output_tokens: int, concurrency: int = 1) -> ServedFloor:
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    return served_floor(
        load_spec("deepseek-ocr-v1-base"),
        run,
        hardware.device("h200"),
        cell.page,
        prompt_tokens=1_097,
        output_tokens=output_tokens,
        concurrency=concurrency,
    )


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_work_of_a_page_is_that_of_every_forward(concurrency: int) -> None:
    """Vision and prefill alone, and a part of each step of the batch: what `walk` gives, forward by forward."""
    cell, steps = cell_with(1.0), 8
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    root = model_of(load_spec("deepseek-ocr-v1-base"), run=run)
    flops = moved = 0.0
    for call in root.walk(cell.page, seq_len=1_097, batch_size=1, decode_steps=0):
        assert call.stage != "decode"
        flops, moved = flops + root.forward_cost().useful_flops, moved + root.forward_cost().fused_bytes
    for call in root.walk(None, seq_len=1_097, batch_size=concurrency, decode_steps=steps):
        if call.stage == "decode":
            flops += root.forward_cost().useful_flops / concurrency
            moved += root.forward_cost().fused_bytes / concurrency
    floor = floor_of(cell, output_tokens=steps + 1, concurrency=concurrency)
    assert floor.work.useful_flops == pytest.approx(flops, rel=1e-4)  # which takes every step at the mean context
    assert floor.work.fused_bytes == pytest.approx(moved, rel=1e-4)
    sheet = hardware.device("h200")
    assert floor.mfu(3, 2.0) == pytest.approx(3 * flops / (2 * sheet.flops_per_s("bfloat16")), rel=1e-4)
    assert floor.mbu(3, 2.0) == pytest.approx(3 * moved / (2 * sheet.bandwidth_bytes_per_s), rel=1e-4)


def test_utilization_is_in_the_file() -> None:
    (cell,) = example()["cells"]
    floor = floor_of(cell_with(1.0), output_tokens=1)
    assert cell["mfu"] == floor.mfu(2, cell["span_s"])
    assert cell["mbu"] == floor.mbu(2, cell["span_s"])
    assert cell["mfu"] == pytest.approx(2 * 5.179e12 / (2 * 989.4e12), rel=1e-3)  # two pages in 2 s


def example() -> dict[str, Any]:
    """The file of a run with a floor and a probe, which ended early."""
    cell = cell_with(1.0, 2.0)
    run = ServedRun(
        model="ocr",
        text_tokens=4,
        cells=[cell],
        probes=[CacheProbe(size=SLIDE, first=cell.measured[0], again=cell.measured[1])],
        floors={cell.name: floor_of(cell, output_tokens=1)},
        problems=["a problem"],
        incomplete=Incomplete(reason="interrupted (Ctrl-C)", missing=("2 of a page",)),
    )
    arguments = ["--url", "http://127.0.0.1:8000/v1", "--on", "h200"]
    return as_json(run, parsed(arguments, {}), arguments)


def test_a_first_token_under_the_floor_is_cached_or_skipped_work() -> None:
    cell = cell_with(1.0)
    floor = floor_of(cell, output_tokens=1)
    assert 1e-3 < floor.ttft_s < 1e-1  # some TFLOP on some hundred TFLOP/s
    assert floor_problems([cell], {cell.name: floor}, device="h200") == []
    cell = cell_with(1.0, floor.ttft_s / 2, floor.ttft_s)
    (problem,) = floor_problems([cell], {cell.name: floor}, device="h200")
    assert problem.startswith("1920x1080px-c1: cached or skipped work: 1 request of 3 had the first token after")
    assert "under the floor of vision and prefill on h200" in problem


def test_a_page_served_from_a_cache_is_caught(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device so slow that no server can be: whatever answers has skipped the work."""
    monkeypatch.setattr(hardware, "devices", lambda: (SLOW,))
    code, said, kept = run(started(), *SMALL, "--image-size", "600x400", "--on", "slow", "--probe-cache")
    assert code == 1
    assert [problem.partition(" of 2")[0] for problem in kept["problems"]] == [
        "600x400px-c1: cached or skipped work: 2 requests"
    ]
    assert kept["cells"][0]["floor"]["ttft_s"] > 1e3  # some TFLOP on 1 GFLOP/s
    assert "600x400px, sent twice: first token after" in said
    assert "; under the floor: served from a cache" in said


def test_no_floor_is_held_where_the_tokens_differ(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "devices", lambda: (SLOW,))
    code, _, kept = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9", "--on", "slow")
    assert code == 1
    assert kept["cells"][0]["floor"] is None
    assert not any("cached" in problem for problem in kept["problems"])


def test_only_the_probe_sends_a_page_twice(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    code, _, kept = run(stub, *SMALL, "--image-size", "64x64", "--probe-cache")
    assert code == 0
    assert len(stub.images) == 5  # one of warm-up, two measured, one twice
    assert len(set(stub.images)) == 4
    assert stub.images[3] == stub.images[4]
    assert [probe["page"] for probe in kept["cache_probes"]] == ["64x64px"]


def pixels(image: bytes) -> tuple[int, int, bytes]:
    """Width, height and the rows of an RGB image without filters, read chunk by chunk."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(image):
        (length,) = struct.unpack(">I", image[at : at + 4])
        kind, content = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack(">I", image[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        chunks[kind], at = content, at + 12 + length
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == height * (1 + 3 * width)
    assert {rows[row * (1 + 3 * width)] for row in range(height)} == {0}
    return width, height, rows


def test_a_page_is_an_image_of_its_size_and_no_two_are_equal() -> None:
    size = PageSize.parsed("61x17")
    found = [pixels(png(size, seed=seed, number=number)) for seed in (1, 2) for number in (0, 1, 256)]
    assert {(width, height) for width, height, _ in found} == {(61, 17)}
    assert len({rows for *_, rows in found}) == 6
    assert pixels(png(size, seed=1, number=0)) == found[0]


def test_a_page_is_read_by_a_common_decoder() -> None:
    from io import BytesIO

    from PIL import Image

    image = png(PageSize.parsed("61x17"), seed=7, number=9)
    with Image.open(BytesIO(image)) as decoded:
        assert (decoded.size, decoded.mode) == ((61, 17), "RGB")
        assert decoded.getpixel((0, 0)) == (0, 0, 0)
        assert decoded.getpixel((1, 0)) == (7, 0, 0)  # the seed 7 and the number 9, four bytes each
        assert decoded.getpixel((2, 0)) == (0, 9, 0)


def test_a_key_is_sent_and_is_in_no_output(started: Callable[..., Stub], run: Callable) -> None:
    stub = started(fault=lambda number, _: "401" if number == 1 else None)
    code, said, kept = run(stub, *SMALL, "--image-size", "64x64", "--prompt", f"say {KEY}", OPENAI_API_KEY=f"{KEY}\n")
    assert code == 1
    assert set(stub.keys) == {f"Bearer {KEY}"}
    assert "no such key ***" in said
    assert KEY not in said
    assert KEY not in json.dumps(kept)
    assert KEY not in repr(Endpoint.parsed(stub.url, {"OPENAI_API_KEY": KEY}))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--url", "ftp://127.0.0.1/v1"], "--url: got 'ftp://127.0.0.1/v1'"),
        (["--url", f"http://me:{KEY}@127.0.0.1/v1"], "--url: got a user or password"),
        (["--url", f"http://127.0.0.1/v1?key={KEY}"], "--url: got a query or fragment"),
        (["--url", "http://[::1/v1"], "--url: got a URL that is not one"),
        (["--url", "http://127.0.0.1:99999/v1"], "--url: got a URL that is not one"),
        (["--url", "http://127.0.0.1/ v1"], "--url: got"),
        (["--url", "http://localhost:1", "--requests", "2"], "--requests: got 2, accepted: at least 4"),
        (["--url", "http://localhost:1", "--timeout-s", "-1"], "--timeout-s: got -1"),
        (["--url", "http://localhost:1", "--timeout-s", "0"], "--timeout-s: got 0"),
        (["--url", "http://localhost:1", "--pages", "a5"], "--pages: got 'a5'"),
        (["--url", "http://localhost:1", "--image-size", "8x8"], "width_px: got 8"),
        (["--url", "http://localhost:1", "--image-size", "tall"], "--image-size: got 'tall'"),
        (["--url", "http://localhost:1", "--on", "abacus"], "--on: got 'abacus'"),
        (["--url", "http://localhost:1", "--prompt", " "], "--prompt: got"),
        (["--url", "http://localhost:1", "--text-tokens", "9000", "--model", "m"], "window (max_position_embeddings)"),
    ],
)
def test_an_unusable_command_line_is_refused_before_anything_is_sent(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert serve.main([*arguments, "--output-dir", str(tmp_path)], {}) == 2
    said = capsys.readouterr().err
    assert told in said
    assert KEY not in said


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--url", "http://localhost:1"], {"OPENAI_API_KEY": f"{KEY}\n{KEY}"}) == 2
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY: got what no header can hold" in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:8000/v1/", True),
        ("http://localhost:8000", True),
        ("https://localhost.example/v1", False),
        ("http://127.0.0.1.example/v1", False),
        ("http://192.0.2.1:8000/v1", False),
    ],
)
def test_a_url_on_another_machine_is_known(url: str, loopback: bool) -> None:
    assert Endpoint.parsed(url, {}).is_loopback is loopback


def test_a_url_on_another_machine_is_said_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Refusing(HTTPConnection):
        def connect(self) -> None:
            said.append(capsys.readouterr().err)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(Endpoint, "connection", lambda self, timeout_s: Refusing(self.host, self.port, timeout=timeout_s))
    assert serve.main(["--url", "http://192.0.2.1:8000/v1"], {}) == 1
    assert said == ["serve: pages are sent to http://192.0.2.1:8000/v1, which is not this machine\n"]


def test_proxies_of_the_environment_are_not_used(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert run(started(), *SMALL, "--image-size", "64x64")[0] == 0


def test_a_server_of_several_models_needs_a_name(started: Callable[..., Stub], run: Callable) -> None:
    stub = started(models=("a", "b"))
    code, said, _ = run(stub)
    assert (code, stub.requests) == (2, [])
    assert "--model: got none, accepted: one that is served: a, b" in said
    code, _, kept = run(stub, *SMALL, "--image-size", "64x64", "--model", "b")
    assert (code, kept["model"]) == (0, "b")
    assert {request["model"] for request in stub.requests} == {"b"}


def test_warm_up_enters_no_figure(started: Callable[..., Stub], run: Callable) -> None:
    def slow(number: int, event: int) -> None:
        if number < 2 and event == 0:
            time.sleep(0.1)

    code, _, kept = run(started(before=slow), *SMALL, "--image-size", "64x64", "--warmup", "2")
    (cell,) = kept["cells"]
    assert code == 0
    assert len(cell["warm_up"]) == len(cell["measured"]) == 2
    assert min(answer["token_times_s"][0] for answer in cell["warm_up"]) >= 0.1
    firsts = [answer["token_times_s"][0] for answer in cell["measured"]]
    assert min(firsts) <= cell["ttft"]["p50_s"] <= cell["ttft"]["p90_s"] <= cell["ttft"]["p99_s"] <= max(firsts)


def test_rates_are_of_the_span_from_the_first_request_to_the_last_answer() -> None:
    cell = cell_with()
    for number in range(4):  # 4 pages of 11 tokens, two at a time, each 2 s: the last ends at 4 s
        cell.measured.append(
            ServedAnswer(
                started_s=100.0 + 2 * (number // 2),
                token_times_s=(1.0, 2.0),
                total_s=2.0,
                prompt_tokens=1,
                output_tokens=11,
                failure=None,
            )
        )
    assert (cell.span_s, cell.pages_per_s, cell.tokens_per_s) == (4.0, 1.0, 11.0)
    assert cell.token is not None
    assert cell.token.p50_s == pytest.approx(0.1)  # 1 s for the 10 tokens after the first
