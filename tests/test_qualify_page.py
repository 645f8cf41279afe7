"""The page of a qualification: what it says, from its document alone, and what makes it fail."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.baseline.judgement import least_threshold, noise_reach
from fixtures.evidence.kinds import kind_named
from fixtures.evidence.render import as_html, as_markdown
from fixtures.evidence.section import Standing, Tone
from fixtures.evidence.study import Subject, keep
from fixtures.qualify.findings import pages
from fixtures.qualify.qualify_evidence import STUDY, page_of
from fixtures.qualify.state import QualifyState
from tests.qualified import STEP, example, stage, state


def test_the_page_says_what_the_device_is_good_for(tmp_path: Path) -> None:
    kept = keep(STUDY, example(), Subject(model="a model", device="a device", ways=()), output_dir=tmp_path, arguments=[])
    page = page_of(kind_named("qualify").document.read(kept.document))
    assert page.standing is Standing.MEASURED
    assert page.verdict[0] == "1 of 2 steps are measured, in 2 pieces and 17 minutes."
    text = as_markdown(page)
    for said in (
        "Every FLOP, byte and launch of 4 benchmarks and 1,200 modules equals the closed form",
        "The fastest way of decode\\[1024\\] is cudagraph/sdpa/batched\\_mm: 1.000 ms, 2.0 times the floor",
        "At its usual threshold of 5%, the gate judges 1 of 2 stages on this device",
        "Not measured: nsys; why stands below",
        "| bfloat16 | 800.00 | 2.0% | 80.9% | 3,000.0 | 1.0% | 89.6% | 4.00 |",  # 800 / 989 and 3.0 / 3.35
        "| vision\\[gundam-2x1\\] | 4.000 | 10.800 | -10.0% | 12.500 | 3.1 | 40.0% | 20.0% |",  # of the baseline
        "| gundam-2x1-1024 | 0.0245 | 10.000 | 10.024 | 0.100 | 1.972 |",  # 1 / 10.0245 and 1 / 0.507
        "| nsys | not measured | needs nsys | - |",
        "580.1",
    ):
        assert said in text, said
    assert "needs nsys" in as_html(page)


def failing() -> dict[str, dict[str, Any]]:
    failed = STEP | {"exit_code": 7, "reason": "exit code 7: no", "output": ["what went wrong"], "found": None}
    return {
        "FAILED: exact.": {"steps": [{"name": "exact", "status": "failed", **failed}]},
        "FAILED: decode[1024] took less than the floor.": {"stages": [stage("decode[1024]", 0.001, 0.5)]},
        "FAILED: 1 of 4 benchmarks differ from the closed form.": {"exact": example()["exact"] | {"equal": 3}},
    }


@pytest.mark.parametrize("headline", failing())
def test_a_failed_step_and_an_impossible_result_fail_the_page(headline: str) -> None:
    page = page_of(example() | failing()[headline])
    assert (page.standing, page.verdict[0]) == (Standing.FAILED, headline)
    tones = [tone for section in page.sections for table in section.tables for tone in table.tones.values()]
    assert (Tone.BAD in tones) == ("benchmarks differ" not in headline)
    if "exact." in headline:
        assert "what went wrong" in as_markdown(page)


def test_a_qualification_that_goes_on_is_incomplete() -> None:
    page = page_of(example() | {"incomplete": {"reason": "not every step has been measured yet", "missing": ["noise"]}})
    assert page.standing is Standing.INCOMPLETE
    assert page.verdict[0] == "INCOMPLETE: not every step has been measured yet; missing: noise."


def test_nothing_that_was_not_measured_has_a_section() -> None:
    nothing = {name: [] for name in ("ceilings", "stages", "pages", "backends", "noise", "kernels")}
    page = page_of(example() | nothing | {"exact": None, "prediction_error": None})
    assert [section.key for section in page.sections] == ["steps", "provenance"]


def test_a_page_costs_vision_prefill_and_a_thousand_tokens() -> None:
    stages = [
        stage("vision[gundam-2x1]", 0.004, 2.0, baseline_s=0.01),
        stage("prefill[1024]", 0.003, 4.0),
        stage("decode[1024]", 0.001, 5.0),
        stage("end_to_end[gundam-2x1-1024]", 0.02, 5.0),
        stage("end_to_end[gundam-2x1-2048]", 0.02, 5.0),  # no decode of this length
    ]
    (page,) = pages(stages)
    # 0.01 of the baseline + 0.003 * 4 + 1000 * 0.001 * 5, and 0.004 + 0.003 + 1000 * 0.001
    assert (page["point"], page["page_s"], page["floor_s"]) == (
        "gundam-2x1-1024",
        pytest.approx(5.022),
        pytest.approx(1.007),
    )


def test_the_smallest_slowdown_is_that_whose_threshold_judges_the_noise() -> None:
    reach = noise_reach([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.0])
    assert 0.03 < reach < 0.05  # 2.998 of t with 7 degrees of freedom, times 1.2% times sqrt(9 / 8)
    assert least_threshold(reach) == pytest.approx((1 + reach) ** 2 - 1, rel=0.05)
    assert noise_reach([1.0]) == float("inf")


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = state(tmp_path / "state.json")
    made.write()
    assert QualifyState.read(made.path) == made
