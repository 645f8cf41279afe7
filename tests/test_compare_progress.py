"""What a comparison says while it runs: its heartbeat, the time that is left, and when no further pair begins."""

import threading

import pytest

from fixtures.ab_testing import compare_progress
from fixtures.ab_testing.compare_progress import CompareProgress, Heartbeat, busy_machine, pairs_needed, spent
from fixtures.ab_testing.pairs import Pair
from fixtures.ab_testing.pairwise import FEWEST_PAIRS, MOST_PAIRS, Pairs


def pair(head_s: float) -> Pair:
    return Pair(base_s=(0.020,), head_s=(head_s,), dropped=0)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(compare_progress.time, "monotonic", lambda: self.now_s)


def test_a_heartbeat_says_what_is_being_done_until_the_pair_ends() -> None:
    said: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "round 3" in text:
            heard.set()

    with Heartbeat(say, name="pair 2", every_s=0.01) as note:
        note("decode[16], round 3 of 24")
        assert heard.wait(timeout=30)
    assert "  pair 2: decode[16], round 3 of 24 (0 s so far)" in said


def test_a_pair_is_said_with_its_unit_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), []
    watch = CompareProgress(said.append, threshold=0.05, limit_s=None)
    watch.phase("again, ", before=0)
    clock.now_s = 40.0
    watch.seen(2, {"decode[16]": [pair(0.020), pair(0.0202)]})
    # 20 s a pair, and four more to the least of six
    assert said == [
        "again, pair 2 of about 6: decode[16] +0.5% ± 0.5% of 20.000 ms a token; 40 s taken, about 80 s left",
    ]
    assert watch.may_begin()


def test_no_pair_begins_that_would_end_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), []
    watch = CompareProgress(said.append, threshold=0.05, limit_s=100.0)
    watch.phase("", before=3)
    assert watch.may_begin()
    for number, now_s, may_begin in ((4, 30.0, True), (5, 60.0, True), (6, 90.0, False)):
        clock.now_s = now_s
        watch.seen(number, {"vision[tiny]": [pair(0.020 + 0.01 * (at % 2)) for at in range(number)]})
        assert watch.may_begin() is may_begin
    assert "of 20.000 ms a call; 90 s taken, --minutes leaves 10 s, and a verdict needs about" in said[-1]


@pytest.mark.parametrize(
    ("load", "said"), [(1.9, None), (2.0, "a load of 2.0 on 2 cores"), (14.3, "a load of 14.3 on 2 cores")]
)
def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch, load: float, said: str | None) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda number: {0, 1})
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    found = busy_machine()
    assert (found is None) if said is None else (found is not None and said in found)


def test_two_pairs_run_whatever_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = CompareProgress(print, threshold=0.05, limit_s=1.0)
    watch.phase("", before=0)
    clock.now_s = 50.0
    watch.seen(1, {"decode[16]": [pair(0.020)]})
    assert watch.may_begin()
    watch.seen(2, {"decode[16]": [pair(0.020), pair(0.024)]})
    assert not watch.may_begin()


@pytest.mark.parametrize(
    ("samples", "needed"),
    [
        ([0.0], FEWEST_PAIRS),
        ([0.0, 0.001], FEWEST_PAIRS),
        # standard deviation 5.8%: t * 5.8% / sqrt(n) has to be below log(1.05), 4.879%: 4.891% at 13, 4.648% at 14
        ([0.05, -0.05] * 2, 14),
        ([1.0, -1.0], MOST_PAIRS),
    ],
)
def test_the_pairs_that_are_needed_follow_from_the_spread(samples: list[float], needed: int) -> None:
    assert pairs_needed(Pairs(log_ratios=tuple(samples)), 0.05) == needed


def test_seconds_and_minutes() -> None:
    assert (spent(40.4), spent(99.0), spent(150.0)) == ("40 s", "99 s", "2.5 min")
