"""What a plan says in sentences: the limits and what they cost, all devices together, and pages that never stop."""

import re
from typing import Any

import pytest

from tests.test_plan import H200, in_json, printed

MIX = [*H200, "--mix", "a4-200dpi=0.7", "base=0.3"]


def sentences(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The printed plan with its lines joined."""
    return " ".join(printed(capsys, *arguments).split())


def best(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return dict(in_json(capsys, *arguments)["mix"]["best"])


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, text
    return [float(word.replace(",", "")) for word in found.groups()]


def test_a_limit_on_a_token_costs_pages_and_binds(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, *MIX, "--token-s", "0.01")["mix"]
    free, limited = found["best"], found["within_limits"]["service"]
    assert limited["tpot_s"] <= 0.01 < free["tpot_s"]
    said = sentences(capsys, *MIX, "--token-s", "0.01")
    rate, share = numbers(r"within 10\.0 ms a token: ([\d.]+) pages/s, (\d+)% of the most without limits", said)
    assert rate == pytest.approx(limited["pages_per_s"], rel=5e-3)
    assert share == pytest.approx(100 * limited["pages_per_s"] / free["pages_per_s"], abs=0.5)
    assert "; bounded by the limit on a token" in said
    assert re.search(r"a first token after [\d.]+ ms, [\d.]+ ms of them waiting, then one every [\d.]+ ms with", said)


def test_a_limit_that_binds_nothing_leaves_memory_as_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    said = sentences(capsys, *MIX, "--token-s", "100", "--first-token-s", "100")
    assert "within 100 s a token and 100 s to the first: " in said
    assert "pages/s, 100% of the most without limits; bounded by memory" in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--token-s", "no pages/s within the limits: a token takes "),
        ("--first-token-s", "no pages/s within the limits: a first token takes "),
    ],
)
def test_a_limit_below_what_one_page_takes_leaves_no_throughput(
    capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    text = sentences(capsys, *MIX, option, "0.0001")
    assert said in text
    assert re.search(r"takes [\d.]+ ms with 1 in flight, and the limit is 0\.100 ms assumed:", text)


def test_devices_add_their_pages_and_their_price(capsys: pytest.CaptureFixture[str]) -> None:
    one = best(capsys, *MIX)
    said = sentences(capsys, *MIX, "--devices", "4", "--price-per-hour", "2.5")
    pages, tokens, price = numbers(
        r"4 devices, each with pages of its own: ([\d.,]+) pages/s, ([\d.,]+) tokens/s, ([\d.,]+) an hour", said
    )
    assert pages == pytest.approx(4 * one["pages_per_s"], rel=5e-3)
    assert tokens == pytest.approx(4 * one["tokens_per_s"], rel=5e-3)
    assert price == 4 * 2.5
    assert "devices, each" not in sentences(capsys, *MIX, "--devices", "1")


def test_as_many_devices_as_the_asked_pages_take(capsys: pytest.CaptureFixture[str]) -> None:
    each = best(capsys, *MIX)["pages_per_s"]
    said = sentences(capsys, *MIX, "--pages-per-s", str(2.5 * each))
    # 2.5 devices' worth of pages takes three, of which 2.5 / 3 is used
    count, share = numbers(
        r"pages/s take (\d+) devices, each with pages of its own: .*?; (\d+)% of that is asked for", said
    )
    assert (count, share) == (3, 83)
    assert "an hour" not in said
    assert "take 1 device, each" in sentences(capsys, *MIX, "--pages-per-s", str(0.5 * each))


def test_pages_that_never_stop_are_said_with_what_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    looping = [*MIX, "--loop-share", "0.02"]
    cost = in_json(capsys, *looping)["mix"]
    said = sentences(capsys, *looping)
    tokens, all_stop = numbers(
        r"2% of the pages never stop and end after [\d,]+ to [\d,]+ tokens: .*?; a page has ([\d.,]+) tokens in the mean; "
        r"if all stopped: ([\d.]+) pages/s",
        said,
    )
    # 512 tokens of 98% of the pages, and up to the window of 8,192 positions of 2%: 0.98 * 512 + 0.02 * (8192 - prompt)
    assert 0.98 * 512 < tokens < 0.98 * 512 + 0.02 * 8192
    assert all_stop > cost["best"]["pages_per_s"]
    assert "end after 3,000 tokens: " in sentences(capsys, *looping, "--loop-tokens", "3000")


def test_a_first_token_without_limits_is_said_to_wait_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"a first token after [\d.]+ ms without waiting, then one every", sentences(capsys, *MIX))
