"""The threshold failure report: the verdict in words first, the worst benchmark first, commands last, and short."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.baseline.exact import Change
from fixtures.baseline.failure_report import Context, explain, github_annotations, report, summary
from fixtures.baseline.judgement import ExactEvidence, Judgement, Outcome, TimedEvidence
from fixtures.baseline.run_verdict import Verdict
from fixtures.plugin.gates import Gates
from fixtures.timing.comparable import Mismatch

CONTEXT = Context(
    baseline="`baselines/meta/tiny.json` (of commit 000000000000, now)",
    command=["benchmarks", "--seq-len", "1024", "-k", "prefill", "--output-dir=out", "--junitxml", "x.xml"],
    accept="nox -s baseline -- refresh",
    environment={"torch": ("2.12.0", "2.13.0")},
)


def change(quantity: str, expected: int, got: int, where: str = "") -> Change:
    return Change(where=where, quantity=quantity, expected=expected, got=got)


def more_work(benchmark: str, got: int = 1_100) -> Judgement:
    return Judgement(
        benchmark=benchmark,
        outcome=Outcome.CHANGED,
        reason="7 quantities changed",
        exact=ExactEvidence(
            totals=(
                change("kv_bytes", 100, 300),
                *(change(f"other_{number}_bytes", 100, 101) for number in range(5)),
                change("executed_flops", 1_000, got),
            ),
            blocks=(
                change("flops", 600, 680, "a.layers.*.attn"),
                change("flops", 400, 420, "lm_head"),
                change("bytes", 600, 680, "a.layers.*.attn"),
                change("modules", 12, 13, "a.layers.*.attn"),
            ),
            operators=(change("matmul", 1_000, got),),
        ),
    )


SLOWER = Judgement(
    benchmark="decode[1024]",
    outcome=Outcome.SLOWER,
    reason="+7.0% against the baseline, noise ±2.0%",
    timed=TimedEvidence(
        expected_s=0.002,
        got_s=0.00214,
        log_ratio=0.0677,
        reach=0.0198,
        threshold=0.05,
        flops_log_ratio=0.0,
        calls=(10, 10),
        peak_bytes=(5, 5),
    ),
)
EQUAL = Judgement(benchmark="vision[tiny]", outcome=Outcome.EQUAL, reason="equal to the baseline")
NEW = Judgement(benchmark="vision[new]", outcome=Outcome.NEW, reason="not in tiny.json")


def test_the_report_begins_with_the_verdict_in_words_and_ends_with_what_to_do() -> None:
    text = report([EQUAL, SLOWER, more_work("prefill[64]")], CONTEXT, require_baseline=False)
    lines = text.splitlines()
    assert lines[0] == (
        "**2 of 3 benchmarks differ from the baseline: prefill[64] more work (executed_flops +10.00%); "
        "decode[1024] slower by 7.0%.**"
    )
    assert lines[-2:] == [
        "Reproduce the worst: `pytest benchmarks --seq-len 1024 -k 'prefill[64]'`",
        "If the change is intended, accept it: `nox -s baseline -- refresh`, and commit the diff of `baselines/`.",
    ]
    assert "Environment changes since the baseline: torch 2.12.0 -> 2.13.0." in lines
    assert len(lines) < 30


RENEW = "make or renew a baseline of what this run measures with `nox -s baseline -- refresh`"


def other_way(reason: str) -> Judgement:
    fields = (part.partition(": ") for part in reason.split("; "))
    found = [Mismatch.of(name, *values.split(" against ")) for name, _, values in fields]
    judgement = Judgement.incomparable("decode[64]", found)
    assert judgement.reason == reason
    return judgement


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("attention: sdpa against eager", "run without `--attention eager`"),
        (
            "attention: sdpa against eager; experts: grouped_mm against batched_mm",
            "run without `--attention eager` and without `--experts batched_mm`",
        ),
        ("threads: 2 against 8; backend: eager against compile", "run without `--backend compile`"),
        ("attention: eager against sdpa", "run with `--attention eager`"),
    ],
)
def test_what_ran_with_other_kernels_is_to_run_without_them(reason: str, advice: str) -> None:
    lines = report([other_way(reason)], CONTEXT, require_baseline=True).splitlines()
    assert lines[-2:] == [f"To compare with the baseline, {advice}.", f"M{RENEW[1:]}."]
    verdict = Verdict(judged=(other_way(reason), NEW), context=CONTEXT, require_baseline=False)
    assert verdict.lines()[-2:] == [f"  to compare with the baseline, {advice}", f"  {RENEW}"]


def test_what_changed_can_be_accepted_beside_what_ran_with_other_kernels() -> None:
    judged = [more_work("prefill[64]"), other_way("backend: eager against compile")]
    lines = report(judged, CONTEXT, require_baseline=True).splitlines()
    assert lines[-2].endswith("run without `--backend compile`.")
    assert lines[-1].startswith("If the change is intended, accept it: ")


@pytest.mark.parametrize("reason", ["threads: 2 against 8", "batch_size: 1 against 2"])
def test_another_place_is_no_switch(reason: str) -> None:
    lines = report([other_way(reason)], CONTEXT, require_baseline=True).splitlines()
    assert lines[-1] == f"M{RENEW[1:]}."
    assert "To compare with the baseline" not in "\n".join(lines)


def test_a_changed_benchmark_names_quantities_work_first_and_what_moved_most() -> None:
    lines = explain(more_work("prefill[64]")).splitlines()
    assert lines[0] == "- `prefill[64]` changed: more work (executed_flops +10.00%); exact, so any difference fails"
    assert lines[1] == "    - executed_flops: 1,000 -> 1,100 (+10.00%)"
    assert lines[2] == "    - kv_bytes: 100 -> 300 (+200.00%)"
    assert "    - and 2 more quantities" in lines
    assert lines[-2] == "    - moved most: a.layers.*.attn +13.33% FLOPs (13 modules where 12 were); lm_head +5.00% FLOPs"
    assert lines[-1] == "    - operators: matmul +10.00% FLOPs"


def test_one_unit_is_shown_as_one_unit() -> None:
    totals = (change("executed_flops", 1_000_000_000, 1_000_000_001),)
    only = Judgement(
        benchmark="decode[64]",
        outcome=Outcome.CHANGED,
        reason="1 quantity changed",
        exact=ExactEvidence(totals=totals, blocks=(), operators=()),
    )
    assert "1,000,000,000 -> 1,000,000,001 (+1)" in explain(only)


def test_many_failures_stay_short() -> None:
    judged = [more_work(f"prefill[{number}]", got=1_000 + number) for number in range(1, 60)]
    text = report(judged, CONTEXT, require_baseline=False)
    assert text.startswith("**59 of 59 benchmarks differ from the baseline: ")
    assert "- and 54 more: " in text
    assert len(text) < 6_000
    assert text.index("`prefill[59]`") < text.index("`prefill[58]`")


def test_nothing_fails_no_report() -> None:
    assert report([EQUAL, NEW], CONTEXT, require_baseline=False) == ""
    assert summary([EQUAL, NEW], require_baseline=False) == "baseline: passed: 1 equal, 1 new"
    assert summary([NEW], require_baseline=False) == "baseline: nothing was judged: 1 new"
    assert summary([EQUAL, NEW], require_baseline=True) == "baseline: FAILED: 1 equal, 1 new"
    assert "vision[new] without a baseline" in report([EQUAL, NEW], CONTEXT, require_baseline=True)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_refresh_is_advised_where_it_would_change_the_verdict(outcome: Outcome) -> None:
    """What is new, of another way or release, or too noisy gets a baseline; disturbed and unmeasured times do not."""
    judged = (replace(NEW, outcome=outcome),)
    lines = "\n".join(Verdict(judged=judged, context=CONTEXT, require_baseline=False).lines())
    helps = outcome in (Outcome.NEW, Outcome.INCOMPARABLE, Outcome.INCONCLUSIVE)
    assert (RENEW in lines) is helps
    assert (f"M{RENEW[1:]}." in report(judged, CONTEXT, require_baseline=True)) is helps


def test_a_part_of_vision_is_reproduced_by_its_test() -> None:
    sam = Judgement(benchmark="sam[tiny]", outcome=Outcome.SLOWER, reason="", timed=SLOWER.timed)
    assert "-k 'part[tiny-sam]'" in report([sam], CONTEXT, require_baseline=False)


def test_annotations_can_not_break_out_of_their_line() -> None:
    evil = Judgement(benchmark="a::b\n::error::", outcome=Outcome.MISSING, reason="50% gone\r\n::set-output name=x::y")
    (line,) = github_annotations([evil, EQUAL], require_baseline=False)
    assert "\n" not in line
    assert line.startswith("::error title=a%3A%3Ab%0A%3A%3Aerror%3A%3A::")
    assert line.index("::", 2) < line.index("::set-output")  # text of the message, not a command


def test_the_jobs_summary_is_written_where_one_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options_of: Callable
) -> None:
    target = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    gates = Gates(options_of(preset="tiny", device="meta", baseline_dir=str(tmp_path)), ["benchmarks"])
    gates._exact.judged += [EQUAL, more_work("prefill[64]")]
    (line,) = gates.verdict().github_lines()
    assert line.startswith("::error title=prefill[64]::changed: more work")
    assert target.read_text().startswith("baseline: FAILED: 1 equal, 1 changed\n\n**1 of 2 benchmarks")
    assert f"nox -s baseline -- refresh --device meta --preset tiny --baseline-dir {tmp_path}" in target.read_text()
