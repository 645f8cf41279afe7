"""What a session was asked to measure, what it measured, and who left out the rest."""

from collections.abc import Callable
from typing import Any

import pytest

from fixtures.baseline.judgement import Outcome
from fixtures.plugin.account import Account, Asked, LastRun, LeftOut, account, shortened
from tests.conftest import Ended

ENDED = LastRun(measured=("exact",), state="disabled", by="--benchmark-disable")


def asked(*names: str, quantities: tuple[str, ...] = ("exact",)) -> list[Asked]:
    return [Asked(node=f"bench.py::{name}", benchmark=name, quantities=quantities) for name in names]


def settled(tests: list[Asked], ran: dict[str, LastRun], **more: Any) -> Account:
    """An account in which nothing but `more` happened; `ran` is by benchmark."""
    given = {"collected": len(tests), "deselected": {}, "taken_out": {}, "not_run": "", "judged": 0, "rerun": {}} | more
    return account(tests, {f"bench.py::{name}": one for name, one in ran.items()}, **given)


def test_everything_measured_once_needs_no_line() -> None:
    found = settled(asked("decode[16]"), {"decode[16]": ENDED}, deselected={"-k": 13})
    assert (found.line(), found.missing, found.empty) == ("", (), False)


def test_a_disabled_time_is_missing_and_its_exact_result_is_not() -> None:
    found = settled(
        asked("decode[16]", "decode[32]", quantities=("exact", "time")), {"decode[16]": ENDED, "decode[32]": ENDED}
    )
    assert (found.measured, found.asked) == ({"exact": 2, "time": 0}, {"exact": 2, "time": 2})
    assert found.line() == (
        "account: measured 2 of 2 exact results, 0 of 2 times; "
        "2 times disabled (decode[16] and 1 more): --benchmark-disable"
    )
    assert not found.empty


def test_nothing_measured_is_empty_and_nothing_asked_is_not() -> None:
    skipped = LastRun(measured=(), state="skipped", by="no network")
    assert settled(asked("decode[16]"), {"decode[16]": skipped}).empty
    assert not settled([], {}).empty


def test_each_missing_result_says_why() -> None:
    tests = asked("vision[tiny]", "prefill[16]", "decode[16]", "decode[32]")
    ran = {
        "vision[tiny]": LastRun(measured=(), state="failed", by="Failed: Timeout (>1.0s) from pytest-timeout."),
        "prefill[16]": LastRun(measured=(), state="skipped", by="no network"),
    }
    found = settled(tests, ran, taken_out={"bench.py::decode[16]": "pytest_split"}, not_run="stopping after 1 failures")
    assert [(one.benchmark, one.state, one.by) for one in found.missing] == [
        ("vision[tiny]", "failed", "Failed: Timeout (>1.0s) from pytest-timeout."),
        ("prefill[16]", "skipped", "no network"),
        ("decode[16]", "deselected", "pytest_split"),
        ("decode[32]", "not run", "stopping after 1 failures"),
    ]


def test_a_repeated_benchmark_counts_once_and_is_named() -> None:
    tests = [Asked(node=f"bench.py::decode[16-{n}-3]", benchmark="decode[16]", quantities=("exact",)) for n in (1, 2, 3)]
    found = account(
        tests, {test.node: ENDED for test in tests}, collected=3, deselected={}, taken_out={}, not_run="", judged=1,
        rerun={"prefill[16]": 2},
    )  # fmt: skip
    assert (found.asked, found.measured, found.repeated) == ({"exact": 1}, {"exact": 1}, {"decode[16]": 3})
    assert (
        "rerun, the last run counts: prefill[16] 2 runs; repeated, the last run counts: decode[16] 3 runs" in found.line()
    )


def test_missing_results_are_judged_unmeasured_unless_their_test_has_failed_and_is_judged() -> None:
    failed = LastRun(measured=("exact",), state="failed", by="differs from the baseline")
    tests = asked("decode[16]", "decode[32]", quantities=("exact", "time")) + asked("one_call", quantities=("speed",))
    found = settled(tests, {"decode[16]": failed, "decode[32]": ENDED}, not_run="stopping after 1 failures")
    assert [(one.benchmark, one.outcome) for one in found.unmeasured(["decode[16]", "decode[32]"])] == [
        ("decode[32]", Outcome.UNMEASURED)
    ]
    assert [one.benchmark for one in found.unmeasured([])] == ["decode[16]", "decode[32]"]
    assert not any(one.fails(require_baseline=False) for one in found.unmeasured([]))
    assert all(one.fails(require_baseline=True) for one in found.unmeasured([]))


def test_a_reason_is_one_short_line() -> None:
    assert shortened("\n first \nsecond") == "first"
    assert len(shortened("x" * 500)) == 120


@pytest.mark.parametrize("state", ["", "lost"])
def test_an_unknown_state_is_refused(state: str) -> None:
    with pytest.raises(ValueError, match="state: got"):
        LeftOut(benchmark="decode[16]", quantity="time", state=state, by="")


def test_what_the_user_narrows_is_not_missing(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode or prefill", "--deselect", "benchmarks/bench_prefill.py::prefill[16]")
    assert done.code == 0, done.output
    assert "account:" not in done.output
    (record,) = done.records
    assert record["account"]["deselected"] == {
        "lengths or pages, without speed": 7, "--device meta": 4, "--deselect": 1, "-k": 2,
    }  # fmt: skip
    assert (record["account"]["measured"], record["account"]["missing"]) == ({"exact": 1}, [])


def test_speed_tests_are_counted_as_tests() -> None:
    tests = asked("one_call", "sweep", quantities=("speed",))
    assert settled(tests, {}, not_run="interrupted").line() == (
        "account: measured 0 of 2 speed tests; 2 speed tests not run (one_call and 1 more): interrupted"
    )


class SkipsPrefill:
    """Skips a benchmark with a marker, as a foreign conftest.py may do."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.name.startswith("prefill"):
                item.add_marker(pytest.mark.skip(reason="no network"))


class TakesOutPrefill:
    """Takes a benchmark out without a word, as a sharding plugin may do."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not item.name.startswith("prefill")]


@pytest.mark.parametrize(
    ("plugin", "state", "by"),
    [(SkipsPrefill, "skipped", "no network"), (TakesOutPrefill, "deselected", "a plugin that does not name itself")],
)
def test_a_benchmark_left_out_is_named_and_fails_where_a_baseline_is_required(
    session: Callable[..., Ended], plugin: type, state: str, by: str
) -> None:
    done = session("-k", "decode or prefill", plugins=(plugin(),))
    assert done.code == 0, done.output
    line = f"account: measured 1 of 2 exact results; 1 exact result {state} (prefill[16]): {by}"
    assert line in done.output
    assert f"unmeasured: prefill[16]: not measured, {state}: {by}" in done.output
    assert done.records[0]["account"]["missing"] == [
        {"benchmark": "prefill[16]", "quantity": "exact", "state": state, "by": by}
    ]
    required = session("-k", "decode or prefill", "--require-baseline", plugins=(plugin(),))
    assert required.code == 1, required.output
    assert "baseline: FAILED: 1 new, 1 unmeasured" in required.output


def test_a_run_that_measures_nothing_is_not_green_and_does_not_say_passed(session: Callable[..., Ended]) -> None:
    done = session("-k", "prefill", plugins=(SkipsPrefill(),))
    assert done.code == pytest.ExitCode.NO_TESTS_COLLECTED, done.output
    assert "baseline: nothing was judged: 1 unmeasured" in done.output
    assert "record: not written, nothing was measured" in done.output
    assert "passed" not in done.output
    assert session("-k", "prefill", "--require-baseline", plugins=(SkipsPrefill(),)).code == 1


class RunsTwice:
    """Runs every test twice, as a plugin that reruns failures does."""

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        from _pytest.runner import runtestprotocol

        for attempt in (1, 2):
            item._initrequest()
            for report in runtestprotocol(item, nextitem=nextitem, log=False):
                if attempt == 1 and report.when == "call":
                    report.outcome = "rerun"
                item.ihook.pytest_runtest_logreport(report=report)
        return True


def test_a_benchmark_that_ran_again_stands_once(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode", plugins=(RunsTwice(),))
    assert done.code == 0, done.output
    assert "account: measured 1 of 1 exact result; rerun, the last run counts: decode[16] 2 runs" in done.output
    (record,) = done.records
    assert [point["stage"] for point in record["points"]] == ["decode"]
    assert [one["benchmark"] for one in record["gate"]["judged"]] == ["decode[16]"]
    assert record["account"]["rerun"] == {"decode[16]": 2}
