"""The page of two runs: headline, colours and tables say what the numbers say, from one judgement."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from markupsafe import Markup

from analytic.io.run_record import RECORD
from fixtures.baseline.judgement import Outcome
from fixtures.evidence.render import as_html, as_markdown, breakable, coded
from fixtures.evidence.section import Page, Standing, Tone
from fixtures.report.judged_pair import JudgedPair, judged
from fixtures.report.pair import page_of_pair
from fixtures.report.run import RecordedRun, run_of
from tests import samples

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def record() -> dict[str, Any]:
    made = RECORD.current(json.loads(samples.RECORD.read_text()), where="the sample")
    made["gate"] = None
    return made


def nothing(made: dict[str, Any]) -> None:
    """No change."""


def runs(record: dict[str, Any], change: Change) -> tuple[RecordedRun, RecordedRun]:
    other = copy.deepcopy(record)
    other["run_id"] = "20270101-000000-1"
    change(other)
    return run_of(record), run_of(other)


def times(factor: float) -> Change:
    """Every time of the run multiplied, round by round."""

    def change(made: dict[str, Any]) -> None:
        for timing in made["timings"]:
            timing["time_s"] *= factor
            timing["samples_s"] = [sample * factor for sample in timing["samples_s"]]

    return change


def steady(record: dict[str, Any]) -> dict[str, Any]:
    """The record with rounds that differ by 0.1%, so that the noise is that of processes alone."""
    for timing in record["timings"]:
        timing["samples_s"] = [timing["time_s"] * (1 + step / 1000) for step in (-1, 0, 0, 0, 1)]
    return record


def colours(page: Page, section: str) -> list[Tone]:
    """The colours of the rows of a section's first table."""
    (found,) = (one for one in page.sections if one.key == section)
    return [found.tables[0].tones.get(number, Tone.PLAIN) for number in range(len(found.tables[0].rows))]


def verdict_class(page: Page) -> str:
    """The colour of the headline, as the browser gets it."""
    (found,) = re.findall(r'<div class="verdict (\w+)">', as_html(page))
    return found


@pytest.mark.parametrize(
    ("factor", "standing", "colour", "headline"),
    [
        (1.30, Standing.WORSE, "bad", "Slower: 8 of 8 times, +30.0%."),
        (0.54, Standing.BETTER, "good", "Faster: 8 of 8 times, -46.0%."),
    ],
)
def test_headline_and_colours_are_those_of_the_times(
    record: dict[str, Any], factor: float, standing: Standing, colour: str, headline: str
) -> None:
    page = page_of_pair(*runs(steady(record), times(factor)))
    assert page.standing is standing
    assert page.verdict[0] == headline
    assert verdict_class(page) == colour
    assert colours(page, "times") == [Tone(colour)] * 8
    rows = page.sections[0].tables[0].rows
    assert {row[1] for row in rows} == {f"{factor - 1:+.1%}"}
    text = as_html(page)
    assert text.count(f'<tr class="{colour}">') == 8
    assert f"var(--{colour})" in page.sections[0].charts[0].svg
    other = "good" if colour == "bad" else "bad"
    assert f'<tr class="{other}">' not in text
    assert f"var(--{other})" not in page.sections[0].charts[0].svg


def test_runs_whose_own_verdicts_pass_are_still_slower(record: dict[str, Any]) -> None:
    first, second = runs(steady(record), times(1.3))
    assert first.passes
    assert second.passes
    assert page_of_pair(first, second).standing is Standing.WORSE


@pytest.mark.parametrize("factor", [1.0, 1.02, 0.97])
def test_a_change_within_the_noise_has_no_colour(record: dict[str, Any], factor: float) -> None:
    # two processes of one build differ by up to 8%, more than the line of a threshold of 5%
    page = page_of_pair(*runs(steady(record), times(factor)))
    assert page.standing is Standing.INCONCLUSIVE
    assert page.verdict[0] == "No change beyond the noise: 8 of 8 times within the noise."
    assert set(colours(page, "times")) == {Tone.PLAIN}
    assert '<tr class="good">' not in as_html(page)


def test_the_noise_of_the_rounds_counts(record: dict[str, Any]) -> None:
    # the rounds of projector spread over most of its time: 30% of it is no finding
    found = judged(*runs(record, times(1.3)))
    (projector,) = (time for time in found.times if time.second.stage == "projector")
    assert projector.outcome is Outcome.INCONCLUSIVE
    assert projector.tone is Tone.PLAIN
    assert page_of_pair(found.first, found.second).verdict[0].startswith("Slower: 6 of 8 times, +30.0%; 1 within the noise")


def test_a_baseline_says_how_far_processes_differ(record: dict[str, Any]) -> None:
    # 0.5% of noise between a process and the baseline: 0.7% between two, less than the line of 2.4%
    timed = {
        "expected_s": 1.0,
        "got_s": 1.0,
        "log_ratio": 0.0,
        "reach": 0.005,
        "threshold": 0.05,
        "flops_log_ratio": 0.0,
        "calls": [1, 1],
        "peak_bytes": [1, 1],
    }
    judgements = [
        {"benchmark": f"{one['stage']}[{one['point']}]", "outcome": "same", "reason": "", "exact": None, "timed": timed}
        | {"mismatches": []}
        for one in record["timings"]
    ]
    record["gate"] = {"require_baseline": False, "held_to": None, "accept": None, "environment": {}, "judged": judgements}
    same = page_of_pair(*runs(steady(record), times(1.01)))
    assert same.standing is Standing.SAME
    assert same.verdict[0] == "The same: 8 of 8 times."
    assert verdict_class(same) == "plain"
    assert page_of_pair(*runs(record, times(1.03))).verdict[0] == "Slower: 8 of 8 times, +3.0%."


def test_slower_and_faster_times_are_told_apart(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        times(1.3)(made)
        made["timings"][0]["time_s"] *= 0.5 / 1.3

    page = page_of_pair(*runs(steady(record), change))
    assert page.standing is Standing.WORSE
    assert page.verdict[0] == "Slower and faster: 7 of 8 times slower, +30.0%; 1 faster, -50.0%."
    assert sorted(colours(page, "times")) == [Tone.BAD] * 7 + [Tone.GOOD]


def test_disturbed_times_are_not_judged_and_say_why(record: dict[str, Any]) -> None:
    why = "other processes used 1.9 CPUs"

    def change(made: dict[str, Any]) -> None:
        times(1.3)(made)
        disturbed = {
            "unit": "s/call",
            "source": "timed",
            "error": None,
            "trust": "disturbed",
            "reasons": [why],
            "repeats": 0,
        }
        made["timings"][0]["measurement"] = {"value": made["timings"][0]["time_s"], **disturbed}

    page = page_of_pair(*runs(steady(record), change))
    assert page.verdict[0] == "Slower: 7 of 8 times, +30.0%; 1 disturbed, not judged."
    assert colours(page, "times").count(Tone.PLAIN) == 1
    assert why in as_markdown(page)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made["environment"]["device"].update(name="another CPU"), "device_name: Intel(R) Xeon(R) Processor"),
        (lambda made: made["timed"]["execution"].update(backend="compile"), "backend: eager against compile"),
        (lambda made: made["timed"].update(batch_size=2), "batch_size: 1 against 2"),
        (lambda made: made["timed"].update(weights="checkpoint"), "weights: seeded_random against checkpoint"),
        (lambda made: made["environment"].update(device=None), "does not name the device"),
    ],
)
def test_times_that_are_not_comparable_have_no_colour_and_say_why(
    record: dict[str, Any], change: Change, said: str
) -> None:
    def slower(made: dict[str, Any]) -> None:
        times(1.3)(made)
        change(made)

    page = page_of_pair(*runs(steady(record), slower))
    assert page.standing is Standing.MEASURED
    assert verdict_class(page) == "plain"
    assert set(colours(page, "times")) == {Tone.PLAIN}
    assert page.verdict[0] == "Times are not judged: 8 of 8 times not comparable."
    assert said in page.verdict[1]
    assert page.sections[0].charts == ()


def test_a_stage_that_is_timed_otherwise_now_is_not_judged(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        times(1.3)(made)
        made["timings"][0]["measurement_version"] = "00000002"

    record["timings"][0]["measurement_version"] = "00000001"
    page = page_of_pair(*runs(steady(record), change))
    assert page.verdict[0] == "Slower: 7 of 8 times, +30.0%; 1 not comparable."
    assert "measurement_version: 00000001 against 00000002" in as_markdown(page).replace("\\_", "_")


def test_another_number_of_decoded_tokens_keeps_the_other_stages_comparable(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        times(1.3)(made)
        for point in made["points"]:
            point["decoded_tokens"] *= 2

    page = page_of_pair(*runs(steady(record), change))
    assert page.verdict[0] == "Slower: 6 of 8 times, +30.0%; 2 not comparable."
    assert "decode[1024], end_to_end[gundam-2x1-1024]: shown and not judged: decode_steps: 4 against 8." in page.verdict


@pytest.mark.parametrize(("more", "colour"), [(1, Tone.BAD), (-1, Tone.GOOD)])
def test_work_that_moved_is_listed_alone_in_its_colour(record: dict[str, Any], more: int, colour: Tone) -> None:
    def change(made: dict[str, Any]) -> None:
        made["timings"] = []
        made["points"][1]["compared"]["executed_flops"]["measured"] += more

    page = page_of_pair(*runs(record, change))
    assert page.standing.tone is colour
    assert page.verdict[0] == f"{'More' if more > 0 else 'Less'} work; no benchmark is timed in both."
    assert page.verdict[1].startswith("Work: 1 of 4 shared points differ in FLOPs, bytes and cache: ")
    assert colours(page, "work") == [colour]


def test_bytes_of_releases_with_other_glue_are_not_judged(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        made["framework"]["transformers"] = "5.24.0"
        made["points"][1]["compared"]["read_bytes"]["measured"] += 1

    page = page_of_pair(*runs(record, change))
    assert "Bytes are shown and not judged: transformers 5.23.0 against 5.24.0." in page.verdict
    assert [section.key for section in page.sections] == ["times", "environment"] or page.standing is not Standing.WORSE
    assert "work" not in [section.key for section in page.sections]


def test_a_pair_of_runs_without_times_has_no_table_of_dashes(record: dict[str, Any]) -> None:
    record |= {"timings": [], "timed": None, "ceilings": None, "pages": []}
    record["environment"]["device"] = None
    page = page_of_pair(*runs(record, nothing))
    assert page.standing is Standing.SAME
    assert page.sections == ()
    assert page.verdict[0] == "Equal work; no benchmark is timed in both."
    assert "| - |" not in as_markdown(page)


def test_another_model_is_not_compared_in_work(record: dict[str, Any]) -> None:
    page = page_of_pair(*runs(record, lambda made: made["execution"].update(attention="eager")))
    assert "Work is not compared: attention: sdpa against eager." in page.verdict


def test_what_only_one_run_holds_is_named(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        made["points"][2]["decoded_tokens"] = 9
        del made["timings"][0]

    page = page_of_pair(*runs(record, change))
    assert any(words.startswith("Only in the first: decode[1024] +4") for words in page.verdict)
    assert any(words.startswith("Only in the second: decode[1024] +9") for words in page.verdict)


def test_both_sides_name_device_way_commit_and_date(record: dict[str, Any]) -> None:
    def change(made: dict[str, Any]) -> None:
        made["environment"] |= {"commit": "0123456789abcdef", "dirty": False}
        made["created"] = "2027-01-01T10:20:30+00:00"

    page = page_of_pair(*runs(record, change))
    assert page.sides is not None
    rows = {row[0]: row[1:] for row in page.sides.rows}
    assert rows["date"] == ("2026-11-21 15:36 UTC", "2027-01-01 10:20 UTC")
    assert rows["commit"] == ("b4bde224eff8 with uncommitted changes", "0123456789ab")
    assert rows["device"] == ("Intel(R) Xeon(R) Processor, 2 threads",) * 2
    assert rows["timed"] == ("tiny on cpu, float32, attention sdpa, experts grouped_mm, batch 1",) * 2
    assert 'class="table sides"' in as_html(page)
    assert "| device | Intel(R) Xeon(R) Processor, 2 threads |" in as_markdown(page)


def test_smaller_changes_are_left_to_a_comparison_of_the_same_way(record: dict[str, Any]) -> None:
    record["timed"]["execution"]["experts"] = "batched_mm"
    (section,) = (one for one in page_of_pair(*runs(record, nothing)).sections if one.key == "times")
    assert "`nox -s compare -- BASE_REF --experts batched_mm` decides" in section.words[0]
    folders = "results/20261121-153605-26722 results/20270101-000000-1"
    assert f"`nox -s explain -- {folders}` says why" in section.words[0]


def test_text_between_backticks_is_code_and_never_markup() -> None:
    assert coded("run `nox -s compare -- 'a b'` & go") == "run <code>nox -s compare -- &#39;a b&#39;</code> &amp; go"
    assert coded("`<b>`") == "`&lt;b&gt;`"


def test_a_long_dotted_name_may_go_on_after_a_dot_and_is_looked_for_at_the_start_of_words() -> None:
    assert breakable(Markup("in layers.0.mlp.experts at x.y")) == "in layers.<wbr>0.<wbr>mlp.<wbr>experts at x.y"
    assert breakable(Markup("9a.b.c")) == "9a.b.c"
    assert len(breakable(Markup("x" * 1_000_000))) == 1_000_000  # from every letter of it, hours
    page = Page(title="t", subtitle="s", standing=Standing.MEASURED, verdict=("use `nox -s compare`",))
    assert "`" not in as_html(page)
    assert "**use `nox -s compare`**" in as_markdown(page)


def test_the_judgement_does_not_depend_on_the_order_of_the_points(record: dict[str, Any]) -> None:
    found = judged(*runs(steady(record), lambda made: (times(1.3)(made), made["timings"].reverse())[0]))
    assert isinstance(found, JudgedPair)
    assert {time.outcome for time in found.times} == {Outcome.SLOWER}
