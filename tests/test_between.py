"""What is between the parts of a whole, by hand: seconds, intervals and units, and where parts contradict their whole."""

import pytest

from fixtures.config.stages import BenchmarkId
from fixtures.timing.coherence import Between, Part, RecordedBetween, betweens, contradicting, groups
from fixtures.timing.measurement import Measurement
from tests.samples import MODEL_PARTS

PAGE, LENGTH = "gundam-2x1", "1024"
BOTH = f"{PAGE}-{LENGTH}"
SAM, CLIP, VISION = (BenchmarkId(stage, PAGE) for stage in ("sam", "clip", "vision"))
PREFILL, DECODE = (BenchmarkId(stage, LENGTH) for stage in ("prefill", "decode"))
FIRST, WHOLE = (BenchmarkId(stage, BOTH) for stage in ("first_token", "end_to_end"))


def took(
    value: float, error: float | None = None, *, reasons: tuple[str, ...] = (), repeats: int = 0, unit: str = "s/call"
) -> Measurement:
    return Measurement(value=value, unit=unit, source="timed", error=error, reasons=reasons, repeats=repeats)


def one_part(benchmark: BenchmarkId, value: float, error: float | None = None, *, count: int = 1) -> Part:
    return Part(benchmark=benchmark, count=count, time=took(value, error))


def between(
    whole: Measurement, *parts: Part, benchmark: BenchmarkId = FIRST, complete: bool = True, units: int = 1
) -> Between:
    return Between(whole=benchmark, time=whole, parts=parts, complete=complete, units=units)


# --- the difference


def test_a_part_takes_its_time_as_often_as_it_runs() -> None:
    tokens = one_part(DECODE, 0.5, 0.25, count=16)
    assert (tokens.time_s, tokens.error_s) == (8.0, 4.0)
    assert one_part(DECODE, 0.5, count=16).error_s == 0.0


def test_the_difference_is_divided_by_the_tokens_and_so_is_its_interval() -> None:
    found = between(
        took(20.0, 3.0), one_part(FIRST, 8.0, 0.0), one_part(DECODE, 2.0, 1.0, count=4), benchmark=WHOLE, units=4
    )
    assert found.parts_s == 16.0  # 8 + 4 x 2
    assert found.error_s == 5.0  # sqrt(3^2 + 0^2 + (4 x 1)^2)
    assert found.members == (WHOLE, FIRST, DECODE)
    # (20 - 16) / 4 and 5 / 4
    assert found.measurement == Measurement(value=1.0, unit="s/token", source="difference", error=1.25)
    assert between(took(20.0), one_part(FIRST, 8.0)).measurement.error == 0.0


@pytest.mark.parametrize(
    ("whole", "timed", "tokens", "unit"),
    [
        (FIRST, (VISION, PREFILL), 16, "s/call"),
        (WHOLE, (FIRST, DECODE), 16, "s/token"),
        (WHOLE, (FIRST, DECODE), 1, "s/token"),  # a page of a single further token
        (WHOLE, (FIRST,), 16, "s/token"),  # decode was not timed: what is left is still of 16 tokens
        (WHOLE, (DECODE,), 2, "s/token"),
    ],
)
def test_what_is_between_is_per_token_where_tokens_are_decoded(
    whole: BenchmarkId, timed: tuple[BenchmarkId, ...], tokens: int, unit: str
) -> None:
    times = {whole: took(64.0), **dict.fromkeys(timed, took(2.0))}
    (found,) = betweens(times, tokens=tokens, model_parts=MODEL_PARTS)
    seconds = sum(2.0 * (tokens if name is DECODE else 1) for name in timed)
    assert found.measurement.unit == unit
    assert found.measurement.value == (64.0 - seconds) / (tokens if whole is WHOLE else 1)
    assert found.complete is (len(timed) == 2)


def test_what_is_between_is_trusted_no_more_than_its_times() -> None:
    one = Part(benchmark=VISION, count=1, time=took(1.0, reasons=("steal", "clock")))
    two = Part(benchmark=PREFILL, count=1, time=took(1.0, reasons=("clock", "swap"), repeats=9))
    found = between(took(3.0, reasons=("clock",), repeats=2), one, two).measurement
    assert found.reasons == ("clock", "steal", "swap")  # each once, those of the whole first
    assert found.repeats == 2  # of the whole


def test_a_whole_without_timed_parts_has_nothing_between() -> None:
    assert betweens({WHOLE: took(1.0), SAM: took(1.0)}, tokens=4, model_parts=MODEL_PARTS) == []
    # a part of other models is not missed
    (vision,) = betweens({VISION: took(1.0), SAM: took(0.5)}, tokens=4, model_parts=("sam",))
    assert vision.complete
    (vision,) = betweens({VISION: took(1.0), SAM: took(0.5)}, tokens=4, model_parts=MODEL_PARTS)
    assert not vision.complete
    assert [one.count for one in vision.parts] == [1]


def test_what_is_between_survives_the_way_through_a_record() -> None:
    found = between(took(20.0, 3.0), one_part(FIRST, 8.0), one_part(DECODE, 2.0, count=4), benchmark=WHOLE, units=4)
    stored = found.as_json()
    assert stored["whole"] == f"end_to_end[{BOTH}]"
    assert stored["parts"] == [
        {"benchmark": f"first_token[{BOTH}]", "count": 1},
        {"benchmark": "decode[1024]", "count": 4},
    ]
    read = RecordedBetween.of(stored)
    assert read == RecordedBetween(whole=WHOLE, parts=((FIRST, 1), (DECODE, 4)), measurement=found.measurement)


# --- contradictions


@pytest.mark.parametrize(
    ("parts_s", "error", "contradicts"),
    [
        (11.0, None, False),  # a tenth of the whole longer
        (11.001, None, True),
        (11.5, 0.5, False),  # and the noise
        (11.501, 0.5, True),
        (5.0, None, False),  # as much between them as they take
        (4.999, None, True),
        (4.75, 0.5, False),
        (4.749, 0.5, True),
        (10.0, None, False),
    ],
)
def test_parts_contradict_their_whole_beyond_drift_and_noise(
    parts_s: float, error: float | None, contradicts: bool
) -> None:
    found = between(took(10.0, error), one_part(VISION, parts_s - 1.0), one_part(PREFILL, 1.0))
    assert (found.contradiction() is not None) is contradicts


def test_the_parts_of_which_one_is_missing_may_be_as_short_as_they_are() -> None:
    assert between(took(10.0), one_part(VISION, 1.0), complete=False).contradiction() is None
    assert between(took(10.0), one_part(VISION, 1.0), complete=True).contradiction() is not None
    assert between(took(10.0), one_part(VISION, 12.0), complete=False).contradiction() is not None


def test_a_contradiction_is_said_in_milliseconds() -> None:
    assert between(took(1.0), one_part(VISION, 0.9), one_part(PREFILL, 0.6125)).contradiction() == (
        "first_token[gundam-2x1-1024] takes 1,000.000 ms, its parts alone 1,512.500 ms "
        "(vision[gundam-2x1] 900.000 ms, prefill[1024] 612.500 ms)"
    )
    # of 1 s, 0.25 are left for four tokens
    page = between(took(1.0), one_part(FIRST, 0.75), one_part(DECODE, 1.5, count=4), benchmark=WHOLE, units=4)
    assert page.contradiction() == (
        "end_to_end[gundam-2x1-1024] takes 1,000.000 ms, its parts alone 6,750.000 ms "
        "(first_token[gundam-2x1-1024] 750.000 ms, 4 x decode[1024] 1,500.000 ms); "
        "a token takes 1,500.000 ms alone, 62.500 ms inside"
    )


def test_a_token_inside_a_page_takes_no_less_than_nothing() -> None:
    page = between(took(1.0), one_part(FIRST, 1.5), one_part(DECODE, 0.25, count=4), benchmark=WHOLE, units=4)
    assert (page.contradiction() or "").endswith("; a token takes 250.000 ms alone, 0.000 ms inside")
    alone = between(took(1.0), one_part(DECODE, 1.0, count=4), benchmark=WHOLE, units=4, complete=False)
    assert (alone.contradiction() or "").endswith("(4 x decode[1024] 1,000.000 ms)")


def test_a_timing_is_marked_with_every_contradiction_that_it_takes_part_in() -> None:
    vision = between(took(1.0), one_part(SAM, 2.0), benchmark=VISION, complete=False)
    first = between(took(0.5), one_part(VISION, 1.0), one_part(PREFILL, 1.0))
    fine = between(took(1.0), one_part(PREFILL, 0.75), complete=False)
    found = contradicting([vision, first, fine])
    assert found == {
        VISION: (vision.contradiction(), first.contradiction()),
        SAM: (vision.contradiction(),),
        FIRST: (first.contradiction(),),
        PREFILL: (first.contradiction(),),
    }
    assert contradicting([fine]) == {}


# --- groups to be repeated


def test_timings_are_repeated_together_if_a_chain_of_links_ties_them() -> None:
    links = [(VISION, SAM, CLIP), (FIRST, VISION, PREFILL)]
    assert groups(links, [PREFILL, SAM]) == [[PREFILL], [SAM]]  # vision, which ties them, is not wanted
    assert groups(links, [PREFILL, SAM, VISION, PREFILL]) == [[VISION, SAM, PREFILL]]  # each once, in display order
    assert groups(links, [DECODE, CLIP, SAM]) == [[DECODE], [SAM, CLIP]]
    assert groups([], [DECODE, SAM]) == [[DECODE], [SAM]]
    assert groups(links, []) == []
    other = BenchmarkId("sam", "base")
    assert groups([(SAM, other)], [SAM, other]) == [[other, SAM]]  # of one stage by their points
