"""What a server can do wrong: every failure is counted with its reason, the rest is kept, and nothing waits for ever."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.serving import __main__ as serve
from fixtures.serving.served_run import SERVING
from fixtures.serving.stream import Received
from tests.serving_runs import run, started
from tests.serving_stub import MOST_WAIT_S, Stub, serving

__all__ = ["run", "started"]  # fixtures
ROOT = Path(__file__).resolve().parent.parent
FEW = ("--image-size", "64x64", "--concurrency", "1", "--warmup", "0", "--requests", "4", "--output-tokens", "3")
FAULTS = {
    "401": ("status", "401 Unauthorized: no such key sk-test-secret"),
    "404": ("status", "404 Not Found: no model `ocr`"),
    "429": ("status", "429 Too Many Requests: slow down"),
    "500": ("status", "500 Internal Server Error"),
    "400": ("status", "400 Bad Request: image refused"),
    "redirect": ("status", "302 Found: a redirect, which is not followed"),
    "drop": ("connection", "the server closed the connection"),
    "stop": ("stream", "the stream ended before [DONE], after 1 events with a token"),
    "no end": ("stream", "the stream ended before [DONE], after 3 events with a token"),
    "error": ("stream", "the server reports: lost"),
    "malformed": ("event", "malformed event: not JSON"),
    "not utf-8": ("event", "malformed event: not UTF-8"),
    "no usage": ("usage", "no usage: the server does not report tokens"),
    "odd usage": ("usage", "usage: prompt_tokens: got True"),
    "no token": ("output", "no event with a token"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_fault_is_counted_with_its_reason_and_the_rest_is_kept(
    started: Callable[..., Stub], run: Callable, fault: str, chunked: bool
) -> None:
    kind, told = FAULTS[fault]
    stub = started(fault=lambda number, _: fault if number == 1 else None, chunked=chunked)
    if fault == "stop" and chunked:
        told = "the server closed the connection"
    code, said, kept = run(stub, *FEW)
    assert code == 1
    (cell,) = kept["cells"]
    failures = [answer["failure"] for answer in cell["measured"]]
    assert [failure is not None for failure in failures] == [False, True, False, False]
    assert failures[1]["kind"] == kind
    assert failures[1]["said"].startswith(told)
    assert kept["problems"] == [f"64x64px-c1: 1 of 4 requests failed: 1 x {failures[1]['said']}"]
    assert f"WRONG: {kept['problems'][0]}" in said
    assert cell["pages_per_s"] > 0
    assert "Traceback" not in said


def test_what_came_before_a_failure_is_kept(started: Callable[..., Stub], run: Callable) -> None:
    *_, kept = run(started(fault=lambda number, _: "stop" if number == 1 else None), *FEW)
    cut_off = kept["cells"][0]["measured"][1]
    assert len(cut_off["token_times_s"]) == 1
    assert (cut_off["prompt_tokens"], cut_off["output_tokens"]) == (None, None)


def test_an_answer_of_another_length_is_a_failure_whose_tokens_are_kept(
    started: Callable[..., Stub], run: Callable
) -> None:
    code, _, kept = run(started(tokens=2), *FEW)
    assert code == 1
    first = kept["cells"][0]["measured"][0]
    assert first["failure"] == {"kind": "output", "said": "got 2 output tokens, asked for 3 (ignore_eos)"}
    assert (first["prompt_tokens"], first["output_tokens"]) == (277, 2)


def test_a_page_that_is_refused_leaves_the_others(started: Callable[..., Stub], run: Callable) -> None:
    stub = started(fault=lambda _, size: "400" if size == (640, 640) else None)
    code, _, kept = run(stub, *FEW, "--image-size", "640x640", "64x64")
    assert code == 1
    refused, good = kept["cells"]
    assert (len(refused["measured"]), refused["ttft"], len(good["measured"])) == (3, None, 4)
    assert kept["problems"] == [
        "640x640px-c1: 3 of 3 requests failed: 3 x 400 Bad Request: image refused",
        "640x640px-c1: given up: the first requests all failed; 1 were not sent",
    ]


def test_nothing_listens(run: Callable) -> None:
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        code, said, kept = run(Stub(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1"), *FEW)
    assert (code, kept) == (2, {})
    assert "connection refused; nothing was measured; --url takes the address of a running server" in said


def test_a_server_that_is_killed_in_the_middle(run: Callable) -> None:
    """The first page is answered, the second finds its connection closed, and those after it find nobody."""
    stub = Stub()
    with ExitStack() as running:
        running.enter_context(serving(stub))

        def fault(number: int, _: tuple[int, int]) -> str | None:
            if number != 1:
                return None
            running.close()
            return "drop"

        stub.fault = fault
        code, said, kept = run(stub, *FEW)
    assert code == 1
    failures = [answer["failure"] for answer in kept["cells"][0]["measured"]]
    assert [failure and failure["said"] for failure in failures] == [
        None,
        "the server closed the connection",
        "connection refused",
        "connection refused",
    ]
    assert "Traceback" not in said


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_request_without_an_end_is_ended_at_its_limit_and_the_cell_given_up(
    started: Callable[..., Stub], run: Callable, fault: str
) -> None:
    """A stream that trickles has no pause as long as the limit, and takes twenty times as long."""
    stub = started(fault=lambda *_: fault)
    code, said, kept = run(stub, *FEW, "--model", "ocr", "--text-tokens", "4", "--timeout-s", "0.1")
    assert code == 1
    assert [answer["failure"] for answer in kept["cells"][0]["measured"]] == [
        {"kind": "timeout", "said": "no end of the answer within 0.1 s"}
    ] * 3
    assert "given up: the first requests all failed; 1 were not sent" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_answered(
    started: Callable[..., Stub], tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, by the real signal, while the third page is under way."""
    from analytic.io.ending import ended

    stub = started()

    def fault(page: int, _: tuple[int, int]) -> str | None:
        if page == 2:
            os.kill(os.getpid(), number)
            return "hang"
        return None

    stub.fault = fault
    arguments = ["--url", stub.url, "--output-dir", str(tmp_path), *FEW, "--probe-cache"]
    assert ended("serve", lambda given: serve.main(given, {}), arguments) == 128 + number
    assert stub.hung_up.wait(MOST_WAIT_S)  # the request under way is ended, not waited for
    said = capsys.readouterr()
    reason = "interrupted (Ctrl-C)" if number == signal.SIGINT else "terminated (SIGTERM)"
    assert f"serve: INCOMPLETE: {reason}; missing: 2 of 64x64px-c1, the probe of 64x64px" in said.err
    (path,) = tmp_path.rglob("serving.json")
    kept = SERVING.read(path)
    assert kept["incomplete"] == {"reason": reason, "missing": ["2 of 64x64px-c1", "the probe of 64x64px"]}
    assert [answer["failure"] for answer in kept["cells"][0]["measured"]] == [None, None]
    assert kept["problems"] == []


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fixtures.serving", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--probe-cache" in done.stdout


def event(content: str | None, *, role: str | None = None, finish: str | None = None) -> dict[str, object]:
    delta = {name: value for name, value in (("role", role), ("content", content)) if value is not None}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("events", "times"),
    [
        # as vLLM 0.32 streams three tokens without text: the role first, then one event a token
        ([event("", role="assistant"), event(""), event(""), event("", finish="length")], [1.0, 2.0, 3.0]),
        ([event("a"), event(""), event("b", finish="length")], [0.0, 1.0, 2.0]),
        ([event("a"), event("b"), event("", finish="stop")], [0.0, 1.0]),
        ([event(None), event("a", role="assistant")], [1.0]),
    ],
)
def test_a_token_may_have_no_text(events: list[dict[str, object]], times: list[float]) -> None:
    received = Received()
    for number, found in enumerate(events):
        received.take(found, float(number))
    assert received.token_times_s == times
