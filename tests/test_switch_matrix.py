"""The matrix of switches and plugins: what it holds a process to, and the page that it writes."""

from pathlib import Path

import pytest

from fixtures.plugin.matrix import CaseResult, checked, main, page
from fixtures.plugin.matrix_cases import PLUGINS, SWITCHES, Case

PAGE = Path(__file__).resolve().parent.parent / "docs" / "switches.md"
CASES = (*SWITCHES, *(case for cases in PLUGINS.values() for case in cases))
ENDED = "GFLOP\nbaseline: nothing was judged: 1 new\n"
RECORD = {"points": [{"stage": "decode", "point": "16"}], "timings": [{"stage": "decode", "point": "16"}]}
RUNS = Case(arguments="--benchmark-only", device="cpu", code=0, record=True, effect="runs")
REFUSED = Case(arguments="-n 2", device="cpu", code=4, record=False, effect="refused", says=("side by side",))


def test_a_case_that_does_what_it_has_to_is_right() -> None:
    assert checked(RUNS, 0, ENDED, [RECORD]) == ()
    assert checked(REFUSED, 4, "side by side", []) == ()


@pytest.mark.parametrize(
    ("case", "code", "output", "records", "wrong"),
    [
        (RUNS, 1, ENDED, [RECORD], "exit code 1, expected 0"),
        (RUNS, 0, "GFLOP", [RECORD], "no verdict"),
        (RUNS, 0, "baseline: passed: 1 equal", [RECORD], "no table"),
        (RUNS, 0, ENDED, [], "0 records"),
        (RUNS, 0, f"{ENDED} INTERNALERROR> x", [RECORD], "internal error of pytest"),
        (RUNS, 0, ENDED, [{"points": RECORD["points"] * 2, "timings": []}], "decode[16] more than once"),
        (RUNS, 0, ENDED, [{"points": [], "timings": RECORD["timings"] * 2}], "decode[16] more than once"),
        (REFUSED, 4, "refused", [], "does not say 'side by side'"),
        (REFUSED, 4, "side by side, baseline: passed", [], "says that it passed, and measured nothing"),
    ],
)
def test_each_deviation_is_named(case: Case, code: int, output: str, records: list[dict], wrong: str) -> None:
    assert checked(case, code, output, records) == (wrong,)


def test_a_case_without_a_record_has_to_say_something() -> None:
    with pytest.raises(ValueError, match="says: got nothing"):
        Case(arguments="-n 2", device="cpu", code=4, record=False, effect="refused")


def test_the_page_has_a_row_for_every_case_and_names_what_is_wrong() -> None:
    results = [CaseResult(case=case, code=case.code, wrong=()) for case in CASES]
    text = page(results, date="2026-01-01", releases="pytest 9")
    assert all(result.row() in text for result in results)
    broken = CaseResult(case=RUNS, code=3, wrong=("exit code 3, expected 0",))
    assert "| 3 | table, verdict, record | **exit code 3, expected 0** |" in broken.row()


def test_the_committed_page_is_of_these_cases_and_none_was_wrong() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for case in CASES:
        assert CaseResult(case=case, code=case.code, wrong=()).row() in text, f"run `nox -s switches`: {case.arguments}"
    assert text.count("\n| `") == len(CASES)
    for name in ("pytest-benchmark 5", "pytest-xdist", *(f"pytest-{name}" for name in PLUGINS)):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "zzzz"], "--only: got 'zzzz', which no case has, accepted: words of the case's arguments"),
        (["--jobs", "0"], "--jobs: got 0, accepted: 1 to 256"),
        (["--jobs", "two"], "argument --jobs: got 'two', accepted: a whole number"),
    ],
)
def test_what_can_not_be_run_is_refused_before_anything_is_installed(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def installed() -> None:
        raise AssertionError("the overlay is made")

    monkeypatch.setattr("fixtures.plugin.matrix.overlay", installed)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
