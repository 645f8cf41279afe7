"""Two servers that are sent the same pages in turns: the samples, the verdict, and what is wrong on each."""

import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io.ending import ended
from analytic.models.deepseek_ocr.crop_rule import RULES
from fixtures.ab_testing.pairwise import PairwiseVerdict
from fixtures.evidence.section import Standing
from fixtures.evidence.study import Card
from fixtures.serving import __main__ as serve
from fixtures.serving.against import PairedCell, ServedPair, ServedSide
from fixtures.serving.against_run import exit_code_of
from fixtures.serving.endpoint import Endpoint
from fixtures.serving.exchange import OpenSockets, RequestFailure, ServedAnswer
from fixtures.serving.measure import Sender
from fixtures.serving.options import ServeOptions, parsed
from fixtures.serving.page_set import GeneratedPages
from fixtures.serving.serve_evidence import page_of
from fixtures.serving.served_run import SERVING
from tests.serving_runs import KEY, SLIDE, answer_at, cell_with, run, started
from tests.serving_stub import MOST_WAIT_S, Stub

__all__ = ["run", "started"]  # fixtures
FEW = ("--image-size", "64x64", "--concurrency", "1", "--warmup", "0", "--requests", "1", "--output-tokens", "2")
URL = "http://127.0.0.1:8000/v1"


def options() -> ServeOptions:
    return parsed(["--url", URL, "--image-size", "1920x1080", "--concurrency", "1"], {})


def side(*answers: ServedAnswer) -> ServedSide:
    """One server's answers, the pages in order."""
    chosen = options()
    sender = Sender(options=chosen, endpoint=chosen.endpoint, model="ocr", sockets=OpenSockets(), numbers=iter(()))
    return ServedSide(sender=sender, cell=cell_with(*answers), by_place=dict(enumerate(answers)))


def pair(ratio: float) -> ServedPair:
    """Two pages of three tokens: 1 and 3 s on the other server, half of it to the first; `ratio` times that on ours."""

    def answers(by: float) -> list[ServedAnswer]:
        return [
            answer_at(0.0, by, ttft_s=by / 2, tokens=3),
            answer_at(by, 3 * by, ttft_s=3 * by / 2, tokens=3),
        ]

    return ServedPair(url=side(*answers(ratio)), against=side(*answers(1.0)))


def paired(*ratios: float, fresh: tuple[float, ...] = ()) -> PairedCell:
    chosen = options()
    pages = GeneratedPages.cut_by(RULES["transformers"], SLIDE)
    cell = PairedCell(pages=pages, load=chosen.loads[0])
    cell.pairs += [pair(ratio) for ratio in ratios]
    cell.fresh += [pair(ratio) for ratio in fresh]
    return cell


def test_a_sample_compares_each_page_with_itself() -> None:
    found = pair(1.2)
    for time_of in ("ttft", "token", "page"):
        assert found.sample(time_of) == pytest.approx(math.log(1.2))


def test_a_page_that_failed_on_one_server_is_in_no_sample() -> None:
    """The median over both pages would be between log 1.2 and log 2; the second page failed on the other server."""
    ours = side(answer_at(0.0, 1.2, ttft_s=0.6), answer_at(1.2, 6.0, ttft_s=3.0))
    failed = replace(answer_at(1.0, 3.0, ttft_s=1.5), failure=RequestFailure(kind="status", said="500"))
    theirs = side(answer_at(0.0, 1.0, ttft_s=0.5), failed)
    assert ServedPair(url=ours, against=theirs).sample("ttft") == pytest.approx(math.log(1.2))
    alone = ServedPair(url=ours, against=side(failed))
    assert [alone.sample(time_of) for time_of in ("ttft", "token", "page")] == [None, None, None]


@pytest.mark.parametrize(
    ("ratios", "fresh", "verdict"),
    [
        ([1.001, 0.999] * 4, (), PairwiseVerdict.SAME),
        ([0.9, 0.901] * 4, (), PairwiseVerdict.FASTER),
        ([1.1, 1.101] * 4, (1.1, 1.101) * 4, PairwiseVerdict.SLOWER),
        ([1.1, 1.101] * 4, (1.0, 1.001) * 4, PairwiseVerdict.SAME),  # fresh pairs contradict it
        ([1.1, 1.101] * 4, (), PairwiseVerdict.INCONCLUSIVE),  # nothing has confirmed it
        ([1.5, 0.7] * 4, (), PairwiseVerdict.INCONCLUSIVE),
        ([1.1] * 7, (), PairwiseVerdict.INCONCLUSIVE),  # too few
    ],
)
def test_the_verdict_is_that_of_compare(ratios: list[float], fresh: tuple[float, ...], verdict: PairwiseVerdict) -> None:
    found = paired(*ratios, fresh=fresh).verdicts(0.05)
    assert [(one.time, one.verdict) for one in found] == [("ttft", verdict), ("token", verdict), ("page", verdict)]


@pytest.mark.parametrize(
    ("verdicts", "problems", "code"),
    [
        (["SAME", "FASTER"], [], 0),
        (["SAME", "SLOWER", "INCONCLUSIVE"], [], 1),
        (["SAME", "INCONCLUSIVE"], [], 2),
        (["SAME"], ["a problem"], 1),
        ([], [], 2),
    ],
)
def test_the_exit_code_is_that_of_compare(verdicts: list[str], problems: list[str], code: int) -> None:
    assert exit_code_of({"verdicts": [{"verdict": verdict} for verdict in verdicts]}, problems) == code


def test_a_slower_server_is_named_and_both_get_the_same_pages_in_turns(
    started: Callable[..., Stub], run: Callable, tmp_path: Path
) -> None:
    """Each token takes 20 ms longer, many times what either takes without."""
    turns: list[str] = []

    def told(name: str, delay_s: float) -> Callable[[int, int], None]:
        def before(_: int, event: int) -> None:
            if event == 0:
                turns.append(name)
            time.sleep(delay_s)

        return before

    slow, fast = started(before=told("url", 0.02)), started(before=told("against", 0.0))
    code, said, kept = run(slow, *FEW, "--against", fast.url)
    assert code == 1, said
    assert f"SLOWER than {fast.url}: TTFT of 64x64px-c1, time per token of 64x64px-c1" in said
    assert "again, pair 6: ttft +" in said
    verdicts = {row["time"]: row for row in kept["against"]["verdicts"]}
    assert {name: row["verdict"] for name, row in verdicts.items()} == dict.fromkeys(("ttft", "token", "page"), "SLOWER")
    pairs = len(verdicts["ttft"]["log_ratios"]) + len(verdicts["ttft"]["fresh_log_ratios"])
    assert len(kept["cells"]) == len(kept["against"]["cells"]) == pairs
    assert slow.images == fast.images  # the same pages, no two of them equal
    assert len(set(slow.images)) == pairs
    assert turns[:8] == ["url", "against", "against", "url", "url", "against", "against", "url"]
    card = Card.read(tmp_path / "latest-serve")
    assert (card.standing, card.ways[-1]) == (Standing.FAILED, f"against {fast.url}")
    assert page_of(kept).sections[0].tables[0].marked == {0, 1, 2}


def test_what_is_wrong_on_either_server_is_named(started: Callable[..., Stub], run: Callable) -> None:
    url, against = started(), started(rule=RULES["vllm"], fault=lambda number, _: "500" if number else None)
    pages = ("--image-size", "1920x1080", *FEW[2:])
    code, said, kept = run(url, *pages, "--against", against.url)
    assert code == 1
    assert kept["problems"] == [
        "--against: 1920x1080px: got 483 image tokens in 1 request, closed form 1,093 (grid 4x2 under transformers, at "
        "most 9 tiles); 483 = grid 2x1 under vllm, at most 6 tiles: --served-by vllm",
        "--against: 1920x1080px-c1: 1 of 2 requests failed: 1 x 500 Internal Server Error",
    ]
    assert f"WRONG: {kept['problems'][0]}" in said
    assert {row["verdict"] for row in kept["against"]["verdicts"]} == {"INCONCLUSIVE"}  # after one pair
    assert page_of(kept).standing is Standing.FAILED


def test_each_server_gets_its_own_key_and_no_output_has_one(started: Callable[..., Stub], run: Callable) -> None:
    url, against = started(), started(fault=lambda *_: "401")
    other = "sk-other-secret"
    prompt = ("--prompt", f"{KEY} {other}")
    keys = {"OPENAI_API_KEY": KEY, "OPENAI_API_KEY_AGAINST": other}
    code, said, kept = run(url, *FEW, *prompt, "--against", against.url, **keys)
    assert code == 1
    assert set(url.keys) == {f"Bearer {KEY}"}
    assert set(against.keys) == {f"Bearer {other}"}
    for text in (said, repr(kept)):
        assert other not in text
        assert KEY not in text.replace("no such key sk-test-secret", "")


def test_a_server_that_has_no_key_of_its_own_gets_none(started: Callable[..., Stub], run: Callable) -> None:
    url, against = started(), started(fault=lambda *_: "500")
    run(url, *FEW, "--against", against.url, OPENAI_API_KEY=KEY)
    assert set(against.keys) == {None}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--against", URL], "--against: got http://127.0.0.1:8000/v1, accepted: another server"),
        (["--against", "127.0.0.1"], "--against: got '127.0.0.1'"),
        (["--against", f"http://me:{KEY}@127.0.0.1/v1"], "--against: got a user or password"),
        (["--against", "http://127.0.0.1:1/v1", "--probe-cache"], "--probe-cache: got it with --against"),
        (["--threshold", "0"], "--threshold: got 0, accepted: percent above 0"),
    ],
)
def test_an_unusable_comparison_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert serve.main(["--url", URL, *arguments, "--output-dir", str(tmp_path)], {}) == 2
    said = capsys.readouterr().err
    assert told in said
    assert KEY not in said


def test_both_servers_that_are_not_this_machine_are_said_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def refuse(*_: Any) -> None:
        said.append(capsys.readouterr().err)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(Endpoint, "connection", refuse)
    with pytest.raises(ConnectionRefusedError):
        serve.main(["--url", "http://192.0.2.1/v1", "--against", "http://192.0.2.2/v1"], {})
    assert said == [
        "serve: pages are sent to http://192.0.2.1:80/v1, which is not this machine\n"
        "serve: pages are sent to http://192.0.2.2:80/v1, which is not this machine\n"
    ]


def test_an_interrupted_comparison_keeps_its_pairs_and_judges_nothing(
    started: Callable[..., Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, against = started(), started()

    def fault(page: int, _: tuple[int, int]) -> str | None:
        if page == 2:
            os.kill(os.getpid(), signal.SIGINT)
            return "hang"
        return None

    against.fault = fault
    arguments = ["--url", url.url, "--against", against.url, "--output-dir", str(tmp_path), *FEW]
    assert ended("serve", lambda given: serve.main(given, {}), arguments) == 128 + signal.SIGINT
    assert against.hung_up.wait(MOST_WAIT_S)
    said = capsys.readouterr()
    assert "INCOMPLETE: interrupted (Ctrl-C); missing: the verdict on 64x64px-c1" in said.err
    kept = SERVING.read(tmp_path / "latest-serve" / "serving.json")
    assert kept["incomplete"]["missing"] == ["the verdict on 64x64px-c1"]
    assert [len(row["log_ratios"]) for row in kept["against"]["verdicts"] if row["time"] == "ttft"] == [2]
    assert page_of(kept).standing is Standing.INCOMPLETE
    assert kept["problems"] == []
