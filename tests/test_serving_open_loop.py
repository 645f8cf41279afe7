"""What a server can do wrong in an open loop: the same as in a closed one, and nothing waits for ever."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.io.ending import ended
from fixtures.serving import __main__ as serve
from fixtures.serving.served_run import SERVING
from tests.serving_runs import run, started
from tests.serving_stub import MOST_WAIT_S, Stub
from tests.test_serving_faults import FAULTS

__all__ = ["run", "started"]  # fixtures
FEW = ("--image-size", "64x64", "--rate", "200", "--warmup", "0", "--requests", "4", "--output-tokens", "3")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_counted_with_its_reason_and_the_rest_is_kept(
    started: Callable[..., Stub], run: Callable, fault: str
) -> None:
    kind, told = FAULTS[fault]
    code, said, kept = run(started(fault=lambda number, _: fault if number == 1 else None), *FEW)
    assert code == 1
    (cell,) = kept["cells"]
    (failure,) = [answer["failure"] for answer in cell["measured"] if answer["failure"] is not None]
    assert len(cell["measured"]) == 4
    assert failure["kind"] == kind
    assert failure["said"].startswith(told)
    assert kept["problems"] == [f"64x64px-r200: 1 of 4 requests failed: 1 x {failure['said']}"]
    assert "Traceback" not in said


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_requests_without_an_end_are_ended_at_their_limit(started: Callable[..., Stub], run: Callable, fault: str) -> None:
    """All four are in flight together, since none waits for another."""
    given = ("--model", "ocr", "--text-tokens", "4", "--timeout-s", "0.3")
    code, said, kept = run(started(fault=lambda *_: fault), *FEW, *given)
    assert code == 1
    assert {answer["failure"]["kind"] for answer in kept["cells"][0]["measured"]} == {"timeout"}
    assert "x no end of the answer within 0.3 s" in said


def test_a_server_that_refuses_everything_is_given_up(started: Callable[..., Stub], run: Callable) -> None:
    """Forty pages at 20 a second take 2 s; the first three failures end it long before."""
    stub = started(fault=lambda *_: "429")
    code, said, _ = run(stub, *FEW[:2], "--rate", "20", *FEW[4:6], "--requests", "40", *FEW[8:])
    assert code == 1
    assert 3 <= len(stub.images) < 40
    assert "given up: the first requests all failed" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_answered(
    started: Callable[..., Stub], tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the real signal, while the third page is under way."""
    stub = started()

    def fault(page: int, _: tuple[int, int]) -> str | None:
        if page == 2:
            os.kill(os.getpid(), number)
            return "hang"
        return None

    stub.fault = fault
    arguments = ["--url", stub.url, "--output-dir", str(tmp_path), *FEW]
    assert ended("serve", lambda given: serve.main(given, {}), arguments) == 128 + number
    assert stub.hung_up.wait(MOST_WAIT_S)  # the request under way is ended, not waited for
    said = capsys.readouterr()
    kept = SERVING.read(tmp_path / "latest-serve" / "serving.json")
    answered = len(kept["cells"][0]["measured"])
    assert all(answer["failure"] is None for answer in kept["cells"][0]["measured"])
    assert answered < 4
    assert f"missing: {4 - answered} of 64x64px-r200" in said.err
    assert kept["problems"] == []
