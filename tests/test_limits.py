"""The most pages/s within limits on times, and pages that never stop: hand arithmetic on times that are made up."""

import math

import pytest

from analytic.core.execution import Execution
from analytic.models.registry import load_spec
from analytic.planning.capacity import MixMemory
from analytic.planning.limits import Limited, Limits, limited, served_within, wait_s
from analytic.planning.loops import without_loops
from analytic.planning.mix import Loop, Mix
from analytic.planning.throughput import service
from tests.made_times import Made

SPEC = load_spec("tiny")
RUN = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="float32")


def mix_of(*texts: str, new_tokens: int = 101, seq_len: int = 1000, loop: Loop | None = None) -> Mix:
    made = Mix.parsed(texts, seq_len=seq_len, prompt_tokens=0, new_tokens=new_tokens)
    return Mix(pages=made.pages, new_tokens=new_tokens, loop=loop)


def within(mix: Mix, *, token_s: float | None = None, first_token_s: float | None = None, most: int = 100) -> Limited:
    return limited(mix, Made(), most, Limits(token_s=token_s, first_token_s=first_token_s))


def test_the_limit_on_a_token_bounds_the_pages_in_flight() -> None:
    # a page enters in 1 + 10 = 11 ms; with N in flight a token takes 1 + 1.049 N ms, and (N - 1) * 11 / 100 ms of others:
    # 0.89 + 1.159 N is 4.367 ms for 3 and 5.526 ms for 4
    found = within(mix_of("base=1"), token_s=5e-3)
    assert found.service is not None
    assert (found.service.pages_in_flight, found.bounded_by) == (3, "token_s")
    assert found.service.tpot_s == pytest.approx(4.367e-3)
    # a page takes 11 ms and 100 / 3 steps of 4.147 ms: 149.23 ms
    assert found.service.pages_per_s == pytest.approx(1 / 0.149233, rel=1e-5)


def test_a_page_waits_for_those_before_it_and_for_the_step_that_runs() -> None:
    # 6.7009 pages/s of 11 ms: 6.7009 * 0.011^2 / (2 * (1 - 0.07371)) = 0.4377 ms, and half of a step of 4.147 ms
    mix = mix_of("base=1")
    assert wait_s(mix, Made(), service(mix, Made(), 3)) == pytest.approx(0.4377e-3 + 2.0735e-3, rel=1e-4)
    # of two shapes, 7 and 1 views: S is 17 or 11 ms, in the mean 14, and S^2 205 ms^2 rather than 14^2
    two = mix_of("2x3=0.5", "base=0.5")
    found = service(two, Made(), 1)
    rate = 1 / (0.014 + 100 * 2.049e-3)
    assert wait_s(two, Made(), found) == pytest.approx(rate * 205e-6 / (2 * (1 - rate * 0.014)) + 2.049e-3 / 2)


def test_the_limit_on_the_first_token_counts_the_wait() -> None:
    # with N in flight a first token takes 11 ms, half of a step of 1 + 1.049 N ms, and some 0.4 ms in the queue:
    # 11 + 2.598 + 0.466 = 14.064 ms with 4, and 11 + 3.123 + 0.484 = 14.607 ms with 5
    found = within(mix_of("base=1"), first_token_s=14.2e-3)
    assert found.service is not None
    assert (found.service.pages_in_flight, found.bounded_by) == (4, "first_token_s")
    assert found.wait_s + found.service.ttft_s == pytest.approx(14.064e-3, rel=1e-4)
    both = within(mix_of("base=1"), first_token_s=14.2e-3, token_s=5e-3)
    assert both.service is not None
    assert both.service.pages_in_flight == 3


def test_limits_that_nothing_breaks_leave_memory_as_the_bound() -> None:
    found = within(mix_of("base=1"), token_s=1.0, first_token_s=1.0, most=7)
    assert found.service is not None
    assert (found.service.pages_in_flight, found.bounded_by) == (7, "memory")


@pytest.mark.parametrize(("limits", "by"), [({"token_s": 2e-3}, "token_s"), ({"first_token_s": 11e-3}, "first_token_s")])
def test_limits_that_one_page_in_flight_breaks_leave_nothing(limits: dict[str, float], by: str) -> None:
    found = within(mix_of("base=1"), **limits)
    assert (found.service, found.bounded_by) == (None, by)
    assert found.fewest == service(mix_of("base=1"), Made(), 1)
    assert found.as_json(None)["service"] is None


def test_no_page_in_memory_leaves_nothing_to_limit() -> None:
    found = within(mix_of("base=1"), token_s=1.0, most=0)
    assert (found.service, found.fewest, found.bounded_by) == (None, None, "memory")


def test_a_measured_batch_keeps_the_limits_or_does_not() -> None:
    # 4 pages together: 4.196 + 1 ms a step, 11 ms to the first token, and no wait is known
    mix, made = mix_of("base=1"), Made(batch_size=4)
    kept = limited(mix, made, 100, Limits(token_s=6e-3, first_token_s=12e-3))
    assert (kept.service, kept.wait_s) == (service(mix, made, 4), 0.0)
    assert limited(mix, made, 100, Limits(token_s=5e-3, first_token_s=None)).service is None


def test_the_service_within_the_limits_is_among_the_services() -> None:
    found, kept = served_within(mix_of("base=1"), Made(), 100, Limits(token_s=7e-3, first_token_s=None))
    assert kept is not None
    assert kept.service is not None
    assert kept.service.pages_in_flight == 5  # no step of the ladder 1, 2, 3, 4, 6
    assert [one.pages_in_flight for one in found][:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("limits", [{"token_s": 0.0}, {"first_token_s": -1.0}, {"token_s": math.inf}, {"token_s": 1e-12}])
def test_a_limit_that_is_no_time_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"token_s: got .*, accepted: seconds above zero"):
        within(mix_of("base=1"), **limits)


def test_a_page_of_one_token_has_none_to_limit() -> None:
    with pytest.raises(ValueError, match="new_tokens: got 1 with a limit on tokens, accepted: at least 2"):
        within(mix_of("base=1", new_tokens=1), token_s=1.0)


def test_pages_that_never_stop_are_more_of_those_in_flight_than_of_those_that_arrive() -> None:
    # 0.9 * 101 + 0.1 * 1001 tokens; 0.9 * 100 + 0.1 * 1000 = 190 steps, of which loops have 100
    mix = mix_of("base=1", loop=Loop(share=0.1, tokens=1001, window=8192))
    assert mix.mean_new_tokens == pytest.approx(191)
    stops, loops = mix.classes
    assert (stops.share, loops.share) == (pytest.approx(0.9), pytest.approx(0.1))
    assert (stops.in_flight_share, loops.in_flight_share) == (pytest.approx(90 / 190), pytest.approx(100 / 190))
    # 1000 + 49.5 positions of one kind, 1000 + 499.5 of the other
    assert mix.mean_context_len == int(1049.5 * 90 / 190 + 1499.5 * 100 / 190) == 1286
    # 190 steps of 1 + 1.286 * 2 ms for 2 pages
    assert service(mix, Made(), 2).decode_s == pytest.approx(190 * 3.572e-3 / 2)


def test_pages_that_never_stop_hold_the_cache_of_their_length() -> None:
    mix = mix_of("base=1", loop=Loop(share=0.1, tokens=1001, window=8192))
    found = without_loops(SPEC, RUN, mix, memory_bytes=10**9, times=Made(), limits=None)
    assert found.in_flight_share == pytest.approx(100 / 190)
    # 1000 + 1000 positions of a loop, 1000 + 100 of another page
    assert found.cache_share == pytest.approx(100 * 2000 / (100 * 2000 + 90 * 1100), rel=1e-6)
    stopping = MixMemory(SPEC, RUN, mix_of("base=1")).most_in_flight(10**9)
    looping = MixMemory(SPEC, RUN, mix).most_in_flight(10**9)
    # the mean cache is (90 * 1100 + 100 * 2000) / 190 = 1573.7 positions rather than 1100
    assert looping / stopping == pytest.approx(1100 / 1573.7, rel=0.01)
    assert found.chosen is not None
    assert found.chosen.pages_in_flight == stopping


def test_a_page_that_never_stops_ends_when_the_window_is_full() -> None:
    # 8000 positions and 193 tokens, of which the last is not fed back, are 8192
    assert Loop(share=0.1, tokens=1001, window=8192).tokens_after(8000) == 193
    assert Loop(share=0.1, tokens=1001, window=8192).tokens_after(1000) == 1001


def test_a_batch_lasts_until_its_longest_page_is_done() -> None:
    # of 4 pages one loops with probability 1 - 0.9^4 = 0.3439: 100 + 0.3439 * 900 steps
    mix = mix_of("base=1", loop=Loop(share=0.1, tokens=1001, window=8192))
    assert mix.batch_steps(4) == pytest.approx(100 + 0.3439 * 900)
    assert service(mix, Made(batch_size=4), 4).decode_s == pytest.approx(409.51 * (1e-3 + 4 * 1.286e-3) / 4)
    assert mix_of("base=1").batch_steps(4) == 100


@pytest.mark.parametrize(
    ("share", "tokens", "message"),
    [
        (0.0, 1000, "loop_share: got 0, accepted: above 0 and below 1"),
        (1.0, 1000, "loop_share: got 1, accepted"),
        (math.nan, 1000, "loop_share: got nan"),
        (0.1, 0, "loop_tokens: got 0, accepted: a whole number of at least 1"),
        (0.1, 100, "loop_tokens: got 100, accepted: at least new_tokens, 101"),
    ],
)
def test_a_loop_that_is_none_is_refused(share: float, tokens: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix_of("base=1", loop=Loop(share=share, tokens=tokens, window=8192))
