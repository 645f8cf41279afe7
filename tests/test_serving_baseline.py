"""A served run held to accepted times and tokens, in the gate's own words."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.io.ending import ended
from fixtures.baseline.judgement import Outcome
from fixtures.evidence.section import Standing
from fixtures.serving import __main__ as serve
from fixtures.serving.cell import ServedCell
from fixtures.serving.options import parsed
from fixtures.serving.serve_evidence import page_of
from fixtures.serving.served_baseline import (
    ROUNDS,
    SERVING_BASELINE,
    ServedBaseline,
    accepted,
    judged,
    judged_time,
    place_of,
)
from fixtures.serving.served_gate import gate_of
from tests.serving_runs import answer_at, cell_with, run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures
FEW = ("--image-size", "64x64", "--concurrency", "1", "--warmup", "0", "--requests", "2", "--output-tokens", "1")
URL = "http://127.0.0.1:8000/v1"
PLACE = place_of(parsed(["--url", URL, "--requests", "2"], {}), model="ocr", text_tokens=4)
PATH = Path("served.json")


def cell(time_s: float) -> ServedCell:
    """Two pages of this time."""
    return cell_with(answer_at(0.0, time_s), answer_at(time_s, time_s))


def baseline(*times_s: float) -> ServedBaseline:
    return accepted(PLACE, [[cell(time_s)] for time_s in times_s])


STEADY = (1.0, 1.001, 0.999, 1.0, 1.001, 0.999, 1.0, 1.0)


@pytest.mark.parametrize(
    ("time_s", "outcome", "reason"),
    [
        (1.01, Outcome.SAME, "+1.0% against the baseline, noise ±0.2%"),
        (1.1, Outcome.SLOWER, "+10.0% against the baseline"),
        (0.9, Outcome.FASTER, "-10.0% against the baseline"),
    ],
)
def test_a_time_is_judged_against_the_rounds(time_s: float, outcome: Outcome, reason: str) -> None:
    tokens, ttft, page = judged(baseline(*STEADY), PATH, PLACE, [cell(time_s)], threshold=0.05)
    assert (tokens.benchmark, tokens.outcome) == ("served[1920x1080px-c1]", Outcome.EQUAL)
    assert (ttft.benchmark, ttft.outcome) == ("served[1920x1080px-c1] ttft", outcome)
    assert ttft.reason.startswith(reason)
    assert (page.benchmark, page.outcome) == ("served[1920x1080px-c1] page", outcome)


def test_noisy_or_few_rounds_decide_nothing() -> None:
    noisy = judged_time("x", (0.8, 1.2) * 4, 1.1, threshold=0.05)
    assert (noisy.outcome, "too large for a threshold of 5.0%" in noisy.reason) == (Outcome.INCONCLUSIVE, True)
    few = judged_time("x", (1.0,) * (ROUNDS - 1), 2.0, threshold=0.05)
    assert (few.outcome, few.reason) == (Outcome.INCONCLUSIVE, "the baseline holds 7 rounds, accepted: at least 8")
    far = judged_time("x", (0.8, 1.2) * 4, 10.0, threshold=0.05)  # beyond any noise
    assert far.outcome is Outcome.SLOWER


def test_a_token_more_than_accepted_has_changed() -> None:
    more = cell(1.0)
    for at, answer in enumerate(more.measured):
        fields = {name: getattr(answer, name) for name in answer.__dataclass_fields__}
        more.measured[at] = type(answer)(**fields | {"prompt_tokens": 1_098})
    changed, *_ = judged(baseline(*STEADY), PATH, PLACE, [more], threshold=0.05)
    assert (changed.outcome, changed.reason) == (Outcome.CHANGED, "image tokens of 1920x1080px: 1,093 -> 1,094")


def test_another_place_is_incomparable_and_an_unknown_cell_is_new() -> None:
    elsewhere = dict(PLACE) | {"device": "h200", "output_tokens": 9}
    (found,) = judged(baseline(*STEADY), PATH, elsewhere, [cell(1.0)], threshold=0.05)
    assert found.outcome is Outcome.INCOMPARABLE
    assert found.reason == "device: None against h200; output_tokens: 64 against 9"
    (none,) = judged(None, PATH, PLACE, [cell(1.0)], threshold=0.05)
    assert (none.outcome, none.reason) == (Outcome.NEW, "no baseline: served.json does not exist")
    other = cell_with(answer_at(0.0, 1.0), concurrency=None, rate_per_s=1.0)
    (unknown,) = judged(baseline(*STEADY), PATH, PLACE, [other], threshold=0.05)
    assert (unknown.outcome, unknown.reason) == (Outcome.NEW, "not in served.json")


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    baseline(*STEADY).write(path, ["nox", "-s", "serve"])
    assert ServedBaseline.read(path) == baseline(*STEADY)
    assert ServedBaseline.read(tmp_path / "none.json") is None


def test_a_refresh_is_held_by_the_next_run(started: Callable[..., Stub], run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    stub = started()
    assert serve.main(["--url", stub.url, *FEW, "--baseline", str(path), "--refresh"], {}) == 0
    assert len(stub.images) == len(set(stub.images)) == ROUNDS * 2  # every round sends other pages
    kept = SERVING_BASELINE.read(path)
    assert kept["cells"]["64x64px-c1"]["image_tokens"] == {"64x64px": 273}
    assert {time: len(values) for time, values in kept["cells"]["64x64px-c1"]["medians_s"].items()} == {
        "ttft": ROUNDS,
        "token": 0,  # answers of one token
        "page": ROUNDS,
    }
    _, said, found = run(stub, *FEW, "--baseline", str(path))
    outcomes = {one["benchmark"]: one["outcome"] for one in found["gate"]["judged"]}
    assert outcomes["served[64x64px-c1]"] == "equal"
    assert outcomes.keys() == {f"served[64x64px-c1]{time}" for time in ("", " ttft", " page")}
    assert "baseline: " in said


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_run_that_is_slower_than_accepted_fails(started: Callable[..., Stub], run: Callable, tmp_path: Path) -> None:
    """Accepted times of a nanosecond, which no server keeps."""
    path = tmp_path / "served.json"
    stub = started()
    place = place_of(parsed(["--url", stub.url, *FEW], {}), model="ocr", text_tokens=4)
    accepted(place, [[cell(1.0)]] * ROUNDS).write(path, [])

    def change(document: dict[str, Any]) -> None:
        document["cells"] = {"64x64px-c1": document["cells"]["1920x1080px-c1"]}
        document["cells"]["64x64px-c1"]["medians_s"]["ttft"] = [1e-9] * ROUNDS

    edited(path, change)
    code, said, kept = run(stub, *FEW, "--baseline", str(path))
    assert code == 1
    assert "baseline: FAILED" in said
    assert "served[64x64px-c1] ttft: slower: +" in said
    page = page_of(kept)
    assert page.standing is Standing.FAILED
    assert page.verdict[0] == "FAILED against the baseline: served[64x64px-c1] ttft."
    assert page.sections[0].tables[0].marked == {1}


def test_a_run_without_a_baseline_passes_unless_one_is_required(
    started: Callable[..., Stub], run: Callable, tmp_path: Path
) -> None:
    none = ("--baseline", str(tmp_path / "none.json"))
    code, said, _ = run(started(), *FEW, *none)
    assert code == 0
    assert "baseline: nothing was judged: 1 new" in said
    assert "create or refresh the baseline with the same command and --refresh" in said
    assert run(started(), *FEW, *none, "--require-baseline")[0] == 1


def test_a_round_with_a_problem_is_not_accepted(
    started: Callable[..., Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "served.json"
    stub = started(fault=lambda number, _: "500" if number == 5 else None)
    assert serve.main(["--url", stub.url, *FEW, "--baseline", str(path), "--refresh"], {}) == 1
    said = capsys.readouterr()
    assert "WRONG: 64x64px-c1: 1 of 2 requests failed" in said.out
    assert "nothing was accepted" in said.err
    assert not path.exists()
    assert len(stub.images) == 6


def test_an_interrupted_refresh_changes_nothing(
    started: Callable[..., Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(page: int, _: tuple[int, int]) -> str | None:
        if page == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            return "hang"
        return None

    stub = started(fault=fault)
    arguments = ["--url", stub.url, *FEW, "--baseline", str(tmp_path / "served.json"), "--refresh"]
    assert ended("serve", lambda given: serve.main(given, {}), arguments) == 128 + signal.SIGTERM
    assert "a baseline is written whole, so none was changed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--refresh"], "--refresh: got no --baseline"),
        (["--require-baseline"], "--require-baseline: got no --baseline"),
        (["--baseline", "x.json", "--refresh", "--require-baseline"], "--require-baseline: got it with --refresh"),
        (["--baseline", ".", "--refresh"], "--baseline: got ., a folder"),
        (["--baseline", "x.json", "--against", "http://127.0.0.1:1/v1"], "--baseline: got it with --against"),
        (["--baseline", "DAMAGED"], "--baseline: "),
    ],
)
def test_an_unusable_baseline_is_refused_before_anything_is_sent(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    given = [str(damaged) if word == "DAMAGED" else word for word in arguments]
    assert serve.main(["--url", URL, *given, "--output-dir", str(tmp_path / "out")], {}) == 2
    assert told in capsys.readouterr().err


def test_a_gate_says_what_it_held_to() -> None:
    options = parsed(["--url", URL, "--baseline", "none.json", "--threshold", "7"], {})
    found = gate_of(options, Path("none.json"), model="ocr", text_tokens=4, cells=[cell(1.0)]).as_json()
    assert (found["baseline"], found["threshold"], found["require_baseline"]) == ("none.json", 0.07, False)
