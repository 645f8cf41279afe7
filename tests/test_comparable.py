"""Which runs may be compared by their times: the fingerprint of a record, and the rule that decides between two times."""

import json
import math
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
