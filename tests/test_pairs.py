"""Pairs of processes: who stands where, who goes first, and what a throttled round does."""

import math
from typing import Any, ClassVar, Self

import pytest

from fixtures.ab_testing import pairs
from fixtures.ab_testing.compare_builds import Compared, table
from fixtures.ab_testing.conversation import WorkerError
from fixtures.ab_testing.pairs import (
    ROUNDS,
    Pair,
    PairWatch,
    Side,
    mean_wall_ratio,
    median_time_s,
    pairs_of,
    ratio_contradicts_times,
    run_pair,
    until_enough,
)
from fixtures.ab_testing.pairwise import PairwiseVerdict
from fixtures.ab_testing.worker_process import HERE, Round
from tests.samples import JOB

BASE = Side(build=HERE, job=JOB)


class Stand:
    """A stand-in for a worker: `started` numbers them, `asked` logs who was asked, times are given by number."""

    started = 0
    asked: ClassVar[list[int]] = []
    throttled: ClassVar[set[int]] = set()
    uuids: ClassVar[dict[int, str]] = {}

    def __init__(self, build: object, job: object) -> None:
        Stand.started += 1
        self.number = Stand.started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def finish(self) -> None:
        pass

    def greeting(self) -> dict[str, Any]:
        return {"device_uuid": Stand.uuids.get(self.number), "stages": {"decode[16]": {"restored": True, "run_s": 0.04}}}

    def round(self, stage: str, *, runs: int) -> Round:
        Stand.asked.append(self.number)
        wall_s = 2.0 * self.number if Stand.uuids else None
        return Round(time_s=float(self.number), wall_s=wall_s, throttled=len(Stand.asked) in Stand.throttled)


@pytest.fixture(autouse=True)
def stand(monkeypatch: pytest.MonkeyPatch) -> None:
    Stand.started, Stand.asked, Stand.throttled, Stand.uuids = 0, [], set(), {}
    monkeypatch.setattr(pairs, "WorkerProcess", Stand)
    monkeypatch.setattr(pairs, "PAUSE_S", 0.0)


@pytest.mark.parametrize("head_first", [False, True])
def test_a_build_is_compared_with_itself_in_two_processes_that_take_turns(head_first: bool) -> None:
    found = run_pair(BASE, BASE, ["decode[16]"], head_first=head_first)["decode[16]"]
    assert Stand.started == 2
    head = 1 if head_first else 2
    assert set(found.head_s) == {float(head)}
    assert set(found.base_s) == {float(3 - head)}
    assert len(found.base_s) == ROUNDS
    # A B B A
    assert Stand.asked[:8] == [1, 2, 2, 1, 1, 2, 2, 1]


def test_throttled_rounds_are_dropped_on_both_sides_and_counted() -> None:
    Stand.throttled = {1, 6}
    found = run_pair(BASE, BASE, ["decode[16]"], head_first=False)["decode[16]"]
    assert (len(found.base_s), len(found.head_s), found.dropped) == (ROUNDS - 2, ROUNDS - 2, 2)


def test_pairs_go_on_until_there_are_enough_and_alternate_who_starts() -> None:
    seen: list[int] = []
    *_, found = until_enough(BASE, BASE, ["decode[16]"], threshold=0.05, seen=lambda number, _: seen.append(number))
    # processes are numbered on, so ratios differ from pair to pair and 48 are needed
    assert len(found["decode[16]"]) == len(pairs_of(found["decode[16]"]).log_ratios) == seen[-1]
    assert seen == list(range(1, len(seen) + 1))
    first = found["decode[16]"][0]
    assert median_time_s([first], "head") == pytest.approx(2.0)
    assert found["decode[16]"][1].head_s[0] == 3.0


def test_pairs_go_on_from_earlier_ones_and_end_when_the_watch_says_so() -> None:
    class TwoMore(PairWatch):
        def may_begin(self) -> bool:
            return len(seen) < 2

    seen: list[int] = []
    earlier = [Pair(base_s=(1.0,), head_s=(1.1,), dropped=0)] * 3
    *_, found = until_enough(
        BASE,
        BASE,
        ["decode[16]"],
        threshold=0.05,
        seen=lambda number, _: seen.append(number),
        before={"decode[16]": earlier},
        watch=TwoMore(),
    )
    assert seen == [4, 5]
    assert len(found["decode[16]"]) == 5
    assert found["decode[16]"][:3] == earlier


def test_a_pair_says_what_it_is_doing() -> None:
    said: list[str] = []
    run_pair(BASE, BASE, ["decode[16]"], head_first=True, note=said.append)
    assert said[:4] == [
        "starting two processes",
        "importing, building and warming up head",
        "importing, building and warming up base",
        f"decode[16], round 1 of {ROUNDS}",
    ]
    assert said[-1] == "ending two processes"


def test_a_ratio_may_contradict_the_medians_of_all_rounds() -> None:
    # head is 1% faster in every pair and in the medians
    slow = Pair(base_s=(10.0,) * 5, head_s=(9.9,) * 5, dropped=0)
    fast = Pair(base_s=(8.0,) * 4, head_s=(7.92,) * 4, dropped=1)
    assert not ratio_contradicts_times([slow, fast])
    # medians of all rounds: base 8.299 of (8.0, 8.299, 9.0), head 8.36 of (7.9, 8.36, 8.9); ratios -1.3%, +0.7%, -1.1%
    contrary = [Pair(base_s=(base,), head_s=(head,), dropped=0) for base, head in ((8.0, 7.9), (8.299, 8.36), (9.0, 8.9))]
    assert median_time_s(contrary, "head") > median_time_s(contrary, "base")
    assert pairs_of(contrary).mean < 0
    assert ratio_contradicts_times(contrary)
    (line,) = table({"decode[16]": Compared(stage="decode[16]", pairs=tuple(contrary), verdict=PairwiseVerdict.SAME)})[2:]
    assert line.startswith("decode[16]: head / base has the other sign than the times beside it: the times are medians of")
    assert len(table({"decode[16]": Compared(stage="decode[16]", pairs=(slow, fast), verdict=PairwiseVerdict.SAME)})) == 2


def test_on_a_gpu_both_run_on_one_device_and_the_wall_clock_is_kept_beside_the_devices() -> None:
    Stand.uuids = {1: "GPU-a", 2: "GPU-a"}
    found = run_pair(BASE, BASE, ["decode[16]"], head_first=False)["decode[16]"]
    assert found.wall_sample == pytest.approx(math.log(2))  # the second process takes twice as long as the first
    assert mean_wall_ratio([found, found]) == pytest.approx(math.log(2))
    Stand.started, Stand.uuids = 0, {1: "GPU-a", 2: "GPU-b"}
    with pytest.raises(WorkerError, match="base and head run on two GPUs"):
        run_pair(BASE, BASE, ["decode[16]"], head_first=False)
    Stand.started, Stand.uuids = 0, {}
    on_cpu = run_pair(BASE, BASE, ["decode[16]"], head_first=False)["decode[16]"]
    assert mean_wall_ratio([on_cpu]) is None
