"""A signal before the first benchmark or after the last: a sentence and an exit code, and nothing measured is lost."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended

CODES = {signal.SIGINT: 2, signal.SIGTERM: 143, signal.SIGHUP: 129}
REASONS = {
    signal.SIGINT: "interrupted (Ctrl-C)",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "terminated (SIGHUP)",
}


class Sends:
    """Sends this process a signal, once."""

    def __init__(self, number: signal.Signals) -> None:
        self.left = [number]

    def send(self) -> None:
        if self.left:
            os.kill(os.getpid(), self.left.pop())


class BeforeTheSummary(Sends):
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self.send()


class AfterTheReport(Sends):
    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self) -> None:
        self.send()


class WhileCollecting(Sends):
    def pytest_collectstart(self) -> None:
        self.send()


@pytest.mark.parametrize("when", [BeforeTheSummary, AfterTheReport])
@pytest.mark.parametrize("number", [*CODES])
def test_a_signal_after_the_last_benchmark_waits_for_record_and_page(
    session: Callable[..., Ended], tmp_path: Path, when: type[Sends], number: signal.Signals
) -> None:
    done = session("-k", "decode", plugins=(when(number),))
    assert done.code == CODES[number], done.output
    said = f"pytest benchmarks: {REASONS[number]} after the last benchmark; the results of the run are kept\n"
    assert done.output.endswith(said)
    assert "Traceback" not in done.output
    (record,) = done.records
    assert record["incomplete"] is None
    assert (tmp_path / "out" / "latest" / "report.html").exists()
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize("number", [*CODES])
def test_a_signal_while_the_benchmarks_are_collected_is_said(
    session: Callable[..., Ended], tmp_path: Path, number: signal.Signals
) -> None:
    done = session("-k", "decode", plugins=(WhileCollecting(number),))
    assert done.code == CODES[number], done.output
    said = f"INCOMPLETE: {REASONS[number]} while the benchmarks were collected; nothing was measured or written\n"
    assert said in done.output
    assert not (tmp_path / "out").exists()
