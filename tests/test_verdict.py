"""The verdict of a run: it survives the way through its record, and says the same afterwards."""

import json
import math
from dataclasses import replace
from pathlib import Path

from analytic.io.run_record import RECORD
from analytic.io.schemas import SCHEMAS
from fixtures.baseline.failure_report import Context
from fixtures.baseline.judgement import ExactEvidence, Judgement, Outcome, TimedEvidence
from fixtures.baseline.run_verdict import MOST_CHANGES, Verdict
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
    many = replace(one, exact=replace(one.exact, blocks=one.exact.blocks[:1] * (MOST_CHANGES + 9)))
    (stored_one,) = verdict(many).as_json()["judged"]
    assert len(stored_one["exact"]["blocks"]) == MOST_CHANGES
    assert len(stored_one["exact"]["totals"]) == len(one.exact.totals)


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
