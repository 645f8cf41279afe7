"""Which runs may be compared by their times: the fingerprint of a record, and the rule that decides between two times."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from analytic.io.run_record import RECORD
from fixtures.baseline.judgement import Outcome, decided
from fixtures.timing.comparable import Fingerprint
from tests import samples


@pytest.fixture
def record() -> dict[str, Any]:
    return RECORD.current(json.loads(samples.RECORD.read_text()), where="the sample")


def test_the_fingerprint_of_a_record_is_of_what_was_timed(record: dict[str, Any]) -> None:
    # --decode-steps 4; compared on meta in bfloat16, timed on a CPU in float32
    assert Fingerprint.of_record(record) == Fingerprint(
        device="cpu",
        device_name="Intel(R) Xeon(R) Processor",
        threads=2,
        model_variant="tiny",
        dtype="float32",
        attention="sdpa",
        experts="grouped_mm",
        batch_size=1,
        decode_steps=4,
        python="3.11",
        torch="2.13.0+cpu",
        transformers="5.23.0",
        driver=None,
    )


def test_decoded_tokens_are_the_most_of_any_timing_page_or_point(record: dict[str, Any]) -> None:
    decoding = {"stage": "decode", "units": 5}
    others = [{"stage": "prefill", "units": 99}, {"stage": "decode", "units": None}]
    for timings, pages, points, steps in (
        ([decoding, *others], [], [], 5),
        ([decoding], [{"tokens": 8}], [], 7),  # the first of a page is not decoded
        ([decoding], [{"tokens": 6}], [{"decoded_tokens": 6}], 6),
        (others, [], [], 0),
    ):
        found = Fingerprint.of_record({**record, "timings": timings, "pages": pages, "points": points})
        assert found is not None
        assert found.decode_steps == steps


def test_the_fingerprint_of_a_record_of_a_gpu_has_its_driver(record: dict[str, Any]) -> None:
    record["environment"]["device"]["gpu"] = {"driver": "550.1"}
    record["environment"] |= {"python": "3.12.7", "libraries": {"torch": "2.14.0"}}
    record["timed"]["execution"]["backend"], record["timed"]["weights"] = "compile", "checkpoint"
    found = Fingerprint.of_record(record)
    assert found is not None
    assert (found.driver, found.python, found.torch, found.transformers) == ("550.1", "3.12", "2.14.0", "unknown")
    assert (found.backend, found.weights) == ("compile", "checkpoint")


def test_two_fingerprints_differ_in_releases_and_in_how_and_on_what() -> None:
    other = replace(samples.PLACE, threads=8, torch="2.14.0", driver="550.1")
    assert [str(one) for one in samples.PLACE.mismatches(other)] == [
        "threads: 2 against 8",
        "torch: 2.13.0 against 2.14.0",
        "driver: None against 550.1",
    ]
    assert [one.field for one in samples.PLACE.other_releases(other)] == ["torch", "driver"]
    assert samples.PLACE.mismatches(samples.PLACE) == samples.PLACE.other_releases(samples.PLACE) == []
    everything = replace(samples.PLACE, python="3.12", torch="2", transformers="5", driver="1")
    assert [one.field for one in samples.PLACE.other_releases(everything)] == [
        *("python", "torch", "transformers", "driver")
    ]


@pytest.mark.parametrize(
    ("stage", "steps"), [("decode", 2), ("end_to_end", 2), ("prefill", 0), ("vision", 0), ("first_token", 0)]
)
def test_the_number_of_tokens_is_compared_where_tokens_are_decoded(stage: str, steps: int) -> None:
    assert samples.PLACE.of_stage(stage) == replace(samples.PLACE, decode_steps=steps)


def test_a_fingerprint_is_of_eager_and_random_weights_unless_it_says_so() -> None:
    assert (samples.PLACE.backend, samples.PLACE.weights) == ("eager", "seeded_random")


@pytest.mark.parametrize("without", ["timed", "device"])
def test_a_record_without_times_or_device_has_no_fingerprint(record: dict[str, Any], without: str) -> None:
    (record if without == "timed" else record["environment"])[without] = None
    assert Fingerprint.of_record(record) is None


@pytest.mark.parametrize(
    ("change", "noise", "outcome"),
    [
        (1.03, 0.01, Outcome.SLOWER),  # the line of 5% is half of log(1.05): 2.4%
        (1.02, 0.01, Outcome.SAME),
        (0.96, 0.01, Outcome.FASTER),
        (1.03, 0.03, Outcome.INCONCLUSIVE),  # noise above the line
        (1.30, 0.20, Outcome.SLOWER),  # log(1.3) is 0.262: beyond the noise by more than log(1.05)
        (1.30, 0.22, Outcome.INCONCLUSIVE),
        (1 / 1.30, 0.20, Outcome.FASTER),
        (1.30, math.inf, Outcome.INCONCLUSIVE),
    ],
)
def test_a_time_is_decided_beyond_its_noise(change: float, noise: float, outcome: Outcome) -> None:
    assert decided(math.log(change), reach=noise, threshold=0.05) is outcome
