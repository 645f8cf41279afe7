"""The load of a served run: as many requests as asked, when they are due, and figures of its steady time alone."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from fixtures.serving.arrivals import poisson
from fixtures.serving.cell import Load, Percentiles
from fixtures.serving.exchange import OpenSockets, RequestFailure, ServedAnswer, ask, body
from fixtures.serving.load import closed_loop, open_loop
from fixtures.serving.page_image import PageSize, png
from fixtures.serving.steady import SteadyTime
from fixtures.serving.stream import Received
from tests.serving_runs import SMALL, answer_at, answered, cell_with, endpoint, run, started
from tests.serving_stub import MOST_WAIT_S, SteppedClock, Stub

__all__ = ["run", "started"]  # fixtures


@pytest.mark.parametrize("chunked", [False, True])
def test_the_delays_of_queue_first_token_and_each_token_come_back(started: Callable[..., Stub], chunked: bool) -> None:
    clock = SteppedClock()
    # read once when sent, then at every event: 2 s of queue and 1 s of work before the first, 0.5 s before each further one
    stub = started(before=lambda _, event: clock.advance(0.5 if event else 2 + 1, after_reads=1 + event), chunked=chunked)
    answer = answered(stub, tokens=4, clock=clock)
    assert answer.failure is None
    assert answer.token_times_s == (3.0, 3.5, 4.0, 4.5)
    assert (answer.ttft_s, answer.token_s, answer.total_s) == (3.0, 0.5, 4.5)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("open_at_once", [False, True])
def test_injected_delays_come_back_at_every_concurrency(
    started: Callable[..., Stub], concurrency: int, open_at_once: bool
) -> None:
    """Each request has a clock of its own, which the server sets forward by its delays while all are in flight."""
    pages = [png(PageSize.parsed("64x64"), seed=0, number=number) for number in range(concurrency)]
    clocks = {page: SteppedClock() for page in pages}
    all_here = threading.Barrier(concurrency)

    def before(number: int, event: int) -> None:
        page = stub.images[number]
        if event == 0:
            all_here.wait(MOST_WAIT_S)
        # 0.25 s of queue for each page before it and 1 s of work, then 0.5 s a token
        delay_s = 0.5 if event else 0.25 * pages.index(page) + 1
        clocks[page].advance(delay_s, after_reads=1 + event)

    stub = started(before=before)
    target, sockets = endpoint(stub), OpenSockets()
    found: dict[bytes, ServedAnswer] = {}

    def send(page: bytes) -> ServedAnswer:
        request = body("ocr", "x", image=page, output_tokens=3)
        found[page] = ask(target, request, output_tokens=3, timeout_s=MOST_WAIT_S, sockets=sockets, clock=clocks[page])
        return found[page]

    into: list[ServedAnswer] = []
    if open_at_once:
        due_s = (0.0,) * concurrency
        open_loop(pages, send, due_s=due_s, most_in_flight=concurrency, into=into, stop=sockets.shut)
    else:
        closed_loop(pages, send, concurrency=concurrency, into=into, stop=sockets.shut)
    assert len(into) == concurrency
    for number, page in enumerate(pages):
        first_s = 0.25 * number + 1
        assert found[page].failure is None
        assert found[page].token_times_s == (first_s, first_s + 0.5, first_s + 1.0)
        assert found[page].token_s == 0.5


def test_an_event_without_text_is_no_token() -> None:

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


def test_arrivals_are_those_of_their_seed_and_have_the_mean_gap_of_the_rate() -> None:
    due_s = poisson(4.0, 4_001, seed=7)
    assert due_s == poisson(4.0, 4_001, seed=7)
    assert due_s != poisson(4.0, 4_001, seed=8)
    assert due_s[0] == 0.0
    gaps = [after - before for before, after in pairwise(due_s)]
    assert min(gaps) > 0
    # 4,000 exponential gaps: their mean is 1/4 with a standard deviation of 1/4/sqrt(4,000) = 0.004
    assert sum(gaps) / 4_000 == pytest.approx(0.25, abs=0.02)
    # and half of them are below ln 2 of the mean
    assert sum(gap < 0.25 * 0.6931 for gap in gaps) == pytest.approx(2_000, abs=150)


def test_an_open_loop_waits_for_no_answer(started: Callable[..., Stub]) -> None:
    """Nothing is answered before all have arrived, which breaks the barrier of a loop that waits."""
    all_here = threading.Barrier(5)
    stub = started(before=lambda _, event: event or all_here.wait(MOST_WAIT_S))
    request = body("ocr", "x", image=png(PageSize.parsed("64x64"), seed=0, number=0), output_tokens=1)
    target, sockets, found = endpoint(stub), OpenSockets(), []
    open_loop(
        [request] * 5,
        lambda one: ask(target, one, output_tokens=1, timeout_s=MOST_WAIT_S, sockets=sockets),
        due_s=(0.0, 0.001, 0.002, 0.003, 0.004),
        most_in_flight=5,
        into=found,
        stop=sockets.shut,
    )
    assert [answer.failure for answer in found] == [None] * 5
    assert all(answer.late_s is not None for answer in found)


def test_a_request_that_waits_for_another_is_sent_late_and_not_left_out() -> None:
    def send(_: int) -> ServedAnswer:
        started_s = time.perf_counter()
        time.sleep(0.05)
        return answer_at(started_s, time.perf_counter() - started_s)

    found: list[ServedAnswer] = []
    open_loop([1, 2, 3], send, due_s=(0.0, 0.0, 0.0), most_in_flight=1, into=found, stop=lambda: None)
    first, second, third = sorted(answer.late_s or 0.0 for answer in found)
    assert second >= 0.05
    assert third >= 0.1
    late = cell_with(*found, concurrency=None, rate_per_s=1.0).late
    assert sorted(late)[-2:] == [second, third]
    assert first < second


def test_an_open_loop_whose_first_requests_all_fail_is_given_up() -> None:
    failed = replace(answer_at(0.0, 0.0), failure=RequestFailure(kind="status", said="500"))
    found: list[ServedAnswer] = []
    open_loop([0] * 100, lambda _: failed, due_s=poisson(200.0, 100, seed=0), most_in_flight=1, into=found, stop=print)
    assert 3 <= len(found) < 100


def test_a_run_at_a_rate(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    code, said, kept = run(stub, "--rate", "50", "--requests", "6", "--output-tokens", "2", "--image-size", "64x64")
    assert code == 0, said
    (cell,) = kept["cells"]
    assert (cell["name"], cell["concurrency"], cell["rate_per_s"]) == ("64x64px-r50", None, 50.0)
    # six, and those that arrive while the one of the warm-up is answered, before and after them
    assert len(cell["measured"]) >= 6
    assert len(stub.images) == len(cell["warm_up"]) + len(cell["measured"])
    assert cell["late"]["requests"] == sum(answer["late_s"] > 0.01 for answer in cell["measured"])
    assert {answer["phase"] for answer in cell["measured"]} <= {"ramp-up", "steady", "ramp-down"}
    assert "50/s" in said


def test_late_sends_are_said() -> None:
    from fixtures.serving.served_run import cell_json
    from fixtures.serving.served_table import notes

    answers = [replace(answer_at(float(number), 1.0), late_s=late_s) for number, late_s in enumerate((0.0, 0.5, 0.02))]
    cell = cell_json(cell_with(*answers, concurrency=None, rate_per_s=1.0), None)
    assert cell["late"] == {"requests": 2, "most_s": 0.5}
    assert notes({"device": None, "cells": [cell]})[-1] == (
        "1920x1080px-r1: 2 of 3 requests were sent late, the latest 500 ms after it was due"
    )


def test_ramps_of_a_closed_loop_enter_no_figure() -> None:
    """Three in flight, 2 s each: one at a time is started at 0, 1, 2, then one whenever one ends; the last at 6."""
    cell = cell_with(*(answer_at(float(start), 3.0, ttft_s=start + 1.0, tokens=5) for start in range(7)), concurrency=3)
    # whole from the third start (2) to the first end after the last start (4 + 3)
    assert cell.steady_time == SteadyTime(begin_s=2.0, end_s=7.0)
    assert cell.phases == ["ramp-up", "ramp-up", "steady", "steady", "steady", "ramp-down", "ramp-down"]
    assert cell.ttft is not None
    assert cell.ttft.p50_s == 4.0  # of 3, 4 and 5
    # three in flight of 3 s each make one page a second, whatever the edges: 1/3 + 2/3 + 3 + 2/3 + 1/3 in 5 s
    assert cell.in_flight == pytest.approx(3.0)
    assert cell.pages_per_s == pytest.approx(1.0)
    assert cell.tokens_per_s == pytest.approx(5.0)


def test_an_open_loop_is_steady_from_its_first_answer_to_its_last_request() -> None:
    starts = (0.0, 1.0, 2.5, 3.0, 5.0)
    cell = cell_with(*(answer_at(start, 2.0) for start in starts), concurrency=None, rate_per_s=1.0)
    assert cell.steady_time == SteadyTime(begin_s=2.0, end_s=5.0)
    assert cell.phases == ["ramp-up", "ramp-up", "steady", "steady", "ramp-down"]


def test_waves_of_a_closed_loop_give_the_rate_that_they_have() -> None:
    """Four in flight that all end together after 2 s, four times: two pages a second, though waves are cut off."""
    waves = [answer_at(2.0 * (number // 4) + 1e-6 * (number % 4), 2.0) for number in range(14)]
    cell = cell_with(*waves, concurrency=4)
    assert cell.pages_per_s == pytest.approx(2.0, rel=1e-3)
    assert len(cell.steady) == 8  # of 14: three before, three after


def test_a_failed_answer_is_in_flight_and_in_no_rate() -> None:
    failed = replace(answer_at(1.0, 1.0), failure=RequestFailure(kind="status", said="500"))
    cell = cell_with(answer_at(0.0, 1.0), failed, answer_at(2.0, 1.0))
    assert (cell.in_flight, cell.pages_per_s) == (1.0, pytest.approx(2 / 3))


def test_a_load_that_was_never_whole_has_no_figures() -> None:
    cell = cell_with(answer_at(0.0, 1.0), answer_at(0.0, 1.0), concurrency=4)
    assert (cell.steady_time, cell.ttft, cell.pages_per_s, cell.in_flight) == (None, None, None, None)
    assert cell.phases == ["ramp-up", "ramp-up"]


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_so_many_requests_are_steady_as_asked(started: Callable[..., Stub], run: Callable, concurrency: int) -> None:
    """The first end together, so that the rest follow in step: as many before and after them as fill the server."""
    lock, all_here = threading.Lock(), threading.Barrier(concurrency)
    seen = [0]

    def before(_: int, event: int) -> None:
        with lock:
            seen[0] += event == 0
            number = seen[0]
        if event == 0 and 1 + concurrency >= number > 1:
            all_here.wait(MOST_WAIT_S)

    stub = started(before=before)
    arguments = ("--concurrency", str(concurrency), "--requests", "5", "--output-tokens", "2", "--image-size", "64x64")
    code, said, kept = run(stub, *arguments)
    assert code == 0, said
    (cell,) = kept["cells"]
    assert len(cell["measured"]) == 5 + 2 * (concurrency - 1)
    assert cell["steady"] == sum(answer["phase"] == "steady" for answer in cell["measured"])
    assert 1 <= cell["steady"] <= len(cell["measured"])
    assert sum(answer["phase"] == "ramp-up" for answer in cell["measured"]) == concurrency - 1


def test_percentiles_have_the_intervals_that_their_number_allows() -> None:
    few = Percentiles.of([1.0, 2.0, 3.0])
    assert few is not None
    assert (few.p50_s, few.p50_interval, few.p99_interval) == (2.0, None, None)
    many = Percentiles.of([float(number) for number in range(1, 101)])
    assert many is not None
    assert many.p50_interval is not None
    # the 40th and the 61st of a hundred hold the median at 95%: binomial(100, 1/2)
    assert (many.p50_interval.low_s, many.p50_interval.high_s) == (40.0, 61.0)
    assert many.p50_interval.confidence >= 0.95
    assert many.p90_interval is not None
    assert many.p90_interval.low_s <= 90 <= many.p90_interval.high_s
    assert many.p99_interval is None  # the largest of a hundred is below the 99th percentile in 37% of the cases


@pytest.mark.parametrize(("concurrency", "rate"), [(None, None), (1, 1.0)])
def test_a_load_is_closed_or_open(concurrency: int | None, rate: float | None) -> None:
    with pytest.raises(ValueError, match="accepted: one of the two"):
        Load(concurrency=concurrency, rate_per_s=rate)


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
