"""The verdict of a run: it survives the way through its record, and says the same afterwards."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.io.ending import Incomplete
from analytic.io.run_record import RECORD
from analytic.io.schemas import SCHEMAS
from fixtures.baseline.failure_report import ACCEPT, Context
from fixtures.baseline.judgement import ExactEvidence, Judgement, Outcome, TimedEvidence
from fixtures.baseline.run_verdict import Verdict
from fixtures.timing.comparable import Mismatch
from tests.test_failure_report import CONTEXT, EQUAL, NEW, SLOWER, more_work

DATA = Path(__file__).resolve().parent / "data"


def verdict(*judged: Judgement, require_baseline: bool = False) -> Verdict:
    return Verdict(judged=judged, context=CONTEXT, require_baseline=require_baseline)


def through_a_record(made: Verdict) -> Verdict | None:
    """What a record with `made` in it says; the record is held to its schema."""
    whole = json.loads((DATA / "record.v5.json").read_text())
    whole |= {"gate": made.as_json(), "command": ["pytest", *made.context.command]}
    RECORD.check(whole, where="the record of the test")  # as it is before it is written
    whole = json.loads(json.dumps(whole, allow_nan=False))
    return Verdict.from_record(whole)


def test_it_says_the_same_after_the_way_through_a_record() -> None:
    made = verdict(EQUAL, SLOWER, more_work("prefill[64]"), NEW, require_baseline=True)
    read = through_a_record(made)
    assert read == made
    assert read.report() == made.report() != ""
    assert read.lines() == made.lines()


def test_what_changed_from_the_baseline_to_now_is_not_mixed_up_in_a_record() -> None:
    assert SLOWER.timed is not None
    made = verdict(replace(SLOWER, timed=replace(SLOWER.timed, calls=(10, 12), peak_bytes=(5, 7))))
    assert through_a_record(made) == made


def test_unknown_noise_is_null_in_the_record() -> None:
    assert SLOWER.timed is not None
    made = verdict(replace(SLOWER, timed=replace(SLOWER.timed, reach=math.inf)))
    assert made.as_json()["judged"][0]["timed"]["reach"] is None
    assert through_a_record(made) == made


def test_a_record_keeps_the_largest_changes_of_many() -> None:
    one = more_work("prefill[64]")
    assert one.exact is not None
    many = replace(one, exact=replace(one.exact, blocks=one.exact.blocks[:1] * 59))
    (stored_one,) = verdict(many).as_json()["judged"]
    assert len(stored_one["exact"]["blocks"]) == 50
    assert len(stored_one["exact"]["totals"]) == len(one.exact.totals)


def test_the_lines_name_every_unjudged_benchmark_by_its_reason() -> None:
    other = replace(NEW, benchmark="vision[other]")
    late = replace(NEW, benchmark="decode[64]", reason="no baseline: it does not exist")
    disturbed = Judgement(benchmark="sam[base]", outcome=Outcome.DISTURBED, reason="another process")
    assert verdict(EQUAL, disturbed, NEW, late, other, SLOWER).lines() == [
        "baseline: FAILED: 1 equal, 1 disturbed, 3 new, 1 slower",
        "  new: vision[new] and 1 more: not in tiny.json",
        "  new: decode[64]: no baseline: it does not exist",
        "  disturbed: sam[base]: another process",
        "  make or renew a baseline of what this run measures with `nox -s baseline -- refresh`",
    ]
    three = verdict(NEW, other, replace(NEW, benchmark="vision[third]")).lines()
    assert three[1] == "  new: vision[new] and 2 more: not in tiny.json"


def test_the_lines_name_three_reasons_of_an_outcome_at_most() -> None:
    for number in (2, 3, 4):
        judged = [replace(NEW, benchmark=f"vision[{one}]", reason=f"reason {one}") for one in range(number)]
        listed = [line for line in verdict(*judged).lines() if line.startswith("  new: ")]
        assert listed == [f"  new: vision[{one}]: reason {one}" for one in range(min(number, 3))]


def test_a_verdict_without_anything_unjudged_is_one_line() -> None:
    assert verdict(EQUAL).lines() == ["baseline: passed: 1 equal"]
    assert verdict(EQUAL).report() == ""


def test_what_fails_depends_on_whether_a_baseline_is_required() -> None:
    assert verdict(EQUAL, SLOWER, NEW).failing == (SLOWER,)
    assert verdict(EQUAL, SLOWER, NEW, require_baseline=True).failing == (SLOWER, NEW)


ENDED = Incomplete(reason="interrupted", missing=("decode[64]",))


def test_an_incomplete_run_has_not_passed() -> None:
    ended = replace(verdict(EQUAL), incomplete=ENDED)
    assert ended.summary() == "baseline: incomplete, not passed: 1 equal so far"
    assert verdict(EQUAL).summary() == "baseline: passed: 1 equal"


def test_annotations_name_how_a_run_ended_and_then_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    failed = "::error title=decode[1024]::slower: +7.0%25 against the baseline, noise ±2.0%25"
    assert verdict(EQUAL, SLOWER).github_lines() == [failed]
    assert replace(verdict(EQUAL, SLOWER), incomplete=ENDED).github_lines() == [
        "::error title=incomplete::interrupted; missing: decode[64]",
        failed,
    ]
    assert verdict(EQUAL).github_lines() == []


def test_the_jobs_summary_is_appended_to_and_a_failure_to_write_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    for _ in range(2):
        assert verdict(EQUAL).github_lines() == []
    assert target.read_text(encoding="utf-8") == "baseline: passed: 1 equal\n" * 2  # no report, so no empty lines
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "missing" / "summary.md"))
    (line,) = verdict(EQUAL).github_lines()
    assert line.startswith("::warning title=job summary::not written: ")
    assert "No such file" in line


def test_a_verdict_is_recorded_with_its_context() -> None:
    stored = verdict(EQUAL, SLOWER, require_baseline=True).as_json()
    assert {name: value for name, value in stored.items() if name != "judged"} == {
        "require_baseline": True,
        "held_to": CONTEXT.baseline,
        "accept": CONTEXT.accept,
        "environment": {"torch": ["2.12.0", "2.13.0"]},
    }
    equal, slower = stored["judged"]
    assert equal == {
        "benchmark": "vision[tiny]",
        "outcome": "equal",
        "reason": "equal to the baseline",
        "exact": None,
        "timed": None,
        "mismatches": [],
    }
    assert (slower["timed"]["reach"], slower["timed"]["calls"], slower["timed"]["peak_bytes"]) == (0.0198, [10, 10], [5, 5])


def test_what_is_not_reported_and_what_is_incomparable_survive_the_way_through_a_record() -> None:
    assert SLOWER.timed is not None
    silent = replace(SLOWER, timed=replace(SLOWER.timed, calls=None, peak_bytes=None))
    elsewhere = Judgement.incomparable("prefill[64]", [Mismatch.of("threads", 2, 8)])
    made = verdict(silent, elsewhere)
    assert through_a_record(made) == made


def test_a_record_that_does_not_say_what_it_was_held_to_is_read() -> None:
    gate = verdict(EQUAL).as_json() | {"held_to": None, "accept": None}
    incomplete = {"reason": "interrupted", "missing": ["decode[64]"]}
    read = Verdict.from_record({"gate": gate, "command": ["pytest", "benchmarks"], "incomplete": incomplete})
    assert read is not None
    assert read.context == replace(
        CONTEXT, baseline="a baseline that the record does not name", accept=ACCEPT, command=["benchmarks"]
    )
    assert read.incomplete == ENDED


def test_a_run_that_nothing_judged_has_no_verdict() -> None:
    assert Verdict.from_record({"gate": None}) is None


def test_names_of_evidence_are_those_of_the_schema() -> None:
    schema, newest = (json.loads((SCHEMAS / f"record.v{number}.schema.json").read_text()) for number in (4, 5))
    fields = schema["$defs"]["judgement"]["properties"]
    for name, evidence in (("exact_evidence", ExactEvidence), ("timed_evidence", TimedEvidence)):
        stated, added = schema["$defs"][f"{name}_fields"], newest["$defs"][name]  # v5 refers to v4 and adds to it
        assert {*stated["properties"], *added["properties"]} == set(evidence.__dataclass_fields__)
    added = newest["$defs"]["judgement"]["properties"]["outcome"]["anyOf"][1]["enum"]
    assert {*fields["outcome"]["enum"], *added} == {str(one) for one in Outcome}
    assert {"held_to", "accept", "environment"} <= set(schema["properties"]["gate"]["anyOf"][0]["properties"])
    assert set(Context.__dataclass_fields__) == {"baseline", "command", "accept", "environment"}
