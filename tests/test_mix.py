"""A mix of pages: names, shares and lengths as they were asked for, or refused with what is accepted."""

import re

import pytest

from analytic.models.deepseek_ocr.workload import MODES, VisionWorkload
from analytic.planning.mix import Mix


def parsed(*texts: str, seq_len: int | None = None) -> Mix:
    return Mix.parsed(texts, seq_len=seq_len, prompt_tokens=16, new_tokens=512)


def test_pages_have_the_names_of_the_benchmarks_and_of_grids() -> None:
    mix = parsed("a4-200dpi=0.5", "3x3=0.2", "base=0.2", "600x2400px=0.1")
    assert [one.label for one in mix.pages] == ["a4-200dpi", "gundam-3x3", "base", "600x2400px"]
    assert mix.pages[0].page == VisionWorkload.from_image(1654, 2339)
    assert mix.pages[2].page == MODES["base"]


def test_a_page_takes_its_image_one_bos_and_the_prompt_unless_a_length_is_given() -> None:
    assert [one.seq_len for one in parsed("2x3=0.5", "base=0.5").pages] == [903 + 1 + 16, 273 + 1 + 16]
    assert [one.seq_len for one in parsed("2x3=0.5", "base=0.5", seq_len=1024).pages] == [1024, 1024]


def test_the_mean_context_is_over_pages_and_steps() -> None:
    # 0.25 * 920 + 0.75 * 290 = 447.5 positions; 511 steps see 0 to 510 tokens more, 255 in the mean
    assert parsed("2x3=0.25", "base=0.75").mean_context_len == 702


def test_each_page_of_a_mix_alone_is_all_of_a_mix() -> None:
    mix = parsed("2x3=0.25", "base=0.75")
    assert [[(one.label, one.share) for one in alone.pages] for alone in mix.alone] == [[("gundam-2x3", 1)], [("base", 1)]]


def test_shares_that_are_written_with_few_digits_sum_up() -> None:
    assert len(parsed("base=0.1", "2x3=0.2", "3x3=0.7").pages) == 3  # 0.1 + 0.2 + 0.7 is not 1 in floats


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["base"], "mix: got 'base', accepted: PAGE=SHARE with a number, such as a4-200dpi=0.7"),
        (["base=all"], "mix: got 'base=all', accepted: PAGE=SHARE"),
        (["base=nan"], "mix: got 'base=nan', accepted: PAGE=SHARE"),
        (["base=0", "2x3=1"], "mix: got a share of 0 for base, accepted: above 0 and at most 1"),
        (["base=-0.5", "2x3=1.5"], "mix: got a share of -0.5 for base"),
        (["base=inf"], "mix: got a share of inf for base"),
        (["base=0.7", "2x3=0.2"], "mix: got shares that sum to 0.9, accepted: 1"),
        (["base=0.99999"], "mix: got shares that sum to 0.99999, accepted: 1"),
        (["base=0.5", "base=0.5"], "mix: got base 2 times, accepted: each page once"),
        (["2x3=0.5", "gundam-2x3=0.5"], "mix: got gundam-2x3 2 times"),
        (["a5=1"], "mix: got 'a5', accepted: tiny, small, base, large, a grid of 2 to 9 tiles such as 2x3"),
        (["4x4=1"], "mix: got '4x4', accepted: tiny"),
        (["1654x2339=1"], "pixels such as 1654x2339px, or a4-200dpi"),
    ],
)
def test_what_is_no_mix_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parsed(*texts)


def test_a_length_that_a_page_does_not_fit_in_is_refused() -> None:
    with pytest.raises(ValueError, match="seq_len: got 512, accepted: at least 904 for this page"):
        parsed("base=0.5", "2x3=0.5", seq_len=512)
