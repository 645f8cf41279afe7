"""What is between, what is disturbed and what a ceiling leaves open, in the record, the table and the pages."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from analytic.io.run_record import RECORD as DOCUMENT
from analytic.io.run_record import RecordError
from analytic.prediction.roofline import Ceilings
from fixtures.evidence.index import index_of
from fixtures.evidence.listed import listed_record
from fixtures.evidence.render import as_html
from fixtures.evidence.section import Page
from fixtures.machine.calibration import Calibration
from fixtures.records import table
from fixtures.report.pair import page_of_pair
from fixtures.report.run import run_of
from fixtures.report.sections import page_of
from fixtures.timing.coherence import RecordedBetween, betweens
from fixtures.timing.settle import marked
from tests.samples import MODEL_PARTS, RECORD
from tests.test_trust import NAMES, TOKENS, measured
from tests.test_trust import run_of as timings_of

REASON = "other processes used 1.90 of 2 CPUs, 2 of which it needs"
CALIBRATION = Calibration(
    device_name="a CPU",
    dtype="float32",
    threads=2,
    gemm_flops_per_s=1e12,
    gemm_spread=0.05,
    copy_bytes_per_s=1e10,
    copy_spread=0.462,
    launch_s=1e-6,
)


def stored(*, disturbed: str | None = None) -> dict[str, Any]:
    """A record whose timings carry their trust; the stage `disturbed` has been disturbed."""
    loaded: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    loaded["gate"] = None
    times = {}
    for timing in loaded["timings"]:
        reasons = [REASON] if timing["stage"] == disturbed else []
        timing["measurement"] = {
            "value": timing["time_s"],
            "unit": "s/token" if timing["stage"] == "decode" else "s/call",
            "source": "timed",
            "error": 0.001,
            "trust": "disturbed" if reasons else "trusted",
            "reasons": reasons,
            "repeats": 2 if reasons else 0,
        }
        times[timing["stage"]] = timing
    loaded["between"] = [
        {
            "whole": f"vision[{times['vision']['point']}]",
            "parts": [
                {"benchmark": f"{stage}[{times[stage]['point']}]", "count": 1} for stage in ("sam", "clip", "projector")
            ],
            "between": {**times["vision"]["measurement"], "value": 0.008, "source": "difference"},
        }
    ]
    return loaded


def test_a_record_carries_trust_and_what_is_between_and_gives_them_back() -> None:
    loaded = stored(disturbed="decode")
    DOCUMENT.check(loaded, where="a record")
    run = run_of(loaded)
    assert run.disturbed == {"decode[1024]": (REASON,)}
    assert [str(between.whole) for between in run.between] == ["vision[gundam-2x1]"]
    found = betweens(measured(timings_of()), tokens=TOKENS, model_parts=MODEL_PARTS)[0]
    again = RecordedBetween.of(json.loads(json.dumps(found.as_json())))
    assert again.measurement == found.measurement
    assert again.parts == tuple((part.benchmark, part.count) for part in found.parts)
    loaded["timings"][0]["measurement"]["trust"] = "perhaps"
    with pytest.raises(RecordError, match="perhaps"):
        DOCUMENT.check(loaded, where="a record")


def test_a_record_without_trust_is_read() -> None:
    run = run_of(json.loads(RECORD.read_text(encoding="utf-8")))
    assert (run.disturbed, run.between) == ({}, ())


def text_of(page: Page) -> str:
    """The text of a page, and of what stands in its charts."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", as_html(page)))


def test_a_page_marks_a_disturbed_time_wherever_it_draws_it() -> None:
    quiet, busy = (text_of(page_of(run_of(stored(disturbed=stage)))) for stage in (None, "decode"))
    assert "isturbed" not in quiet
    assert "Disturbed: 4 of 4 points agree" in busy
    assert f"decode[1024] {REASON}" in busy
    assert "each further token" in busy
    assert "gundam-2x1-1024 (disturbed) Where the time goes" in busy  # the bar of the page in the chart of time
    described = as_html(page_of(run_of(stored(disturbed="decode"))))
    assert described.count("; disturbed, not to be relied on: decode[1024]") >= 2  # shares of time, roofline
    assert "Roofline, hollow: disturbed" in busy
    assert "vision[gundam-2x1] sam[gundam-2x1], clip[gundam-2x1], projector[gundam-2x1] 8.000 ±1.000 call" in busy
    assert ": disturbed</title>" in as_html(page_of(run_of(stored(disturbed="decode"))))
    assert ": passed</title>" in as_html(page_of(run_of(stored())))


def test_two_runs_and_the_index_say_what_is_disturbed() -> None:
    quiet, busy = run_of(stored()), run_of(stored(disturbed="decode"))
    assert "Disturbed, and not judged: decode[1024]." in text_of(page_of_pair(quiet, busy))
    row = listed_record("folder", stored(disturbed="decode"))
    assert row.result == "disturbed: 1 time not trusted"
    assert listed_record("folder", stored()).result == "passed"
    assert {point.benchmark.stage for point in row.points if not point.trusted} == {"decode"}  # no line goes through it
    assert index_of([row]).verdict == ("The latest, folder: disturbed: 1 time not trusted.", "1 run, 1 disturbed.")


def timer_of(*, disturbed: bool) -> SimpleNamespace:
    """A timer whose timings are settled, against a calibration whose copies spread widely."""
    seen = (REASON,) if disturbed else ()
    timings = {
        timing.benchmark: replace(
            timing,
            seen=seen if timing.stage == "decode" else (),
            measured=Ceilings(flops_per_s=1e12, bytes_per_s=1e10),
            measured_range=CALIBRATION.range,
        )
        for timing in timings_of()
    }
    run = SimpleNamespace(device="cpu", dtype="float32", attention="sdpa", experts="grouped_mm", backend="eager")
    settled = marked(timings, tokens=TOKENS, model_parts=MODEL_PARTS)
    return SimpleNamespace(
        calibration=CALIBRATION,
        peaks=None,
        timed=settled,
        between=betweens(measured(settled), tokens=TOKENS, model_parts=MODEL_PARTS),
        subject=SimpleNamespace(spec=SimpleNamespace(model_variant="tiny"), run=run),
        batch_size=1,
    )


def test_the_table_has_a_row_between_and_marks_what_is_not_trusted() -> None:
    quiet, busy = (table.time_lines(timer_of(disturbed=disturbed), decode_steps=TOKENS) for disturbed in (False, True))
    rows = [line.split() for line in quiet if line.startswith("between ")]
    assert [row[:3] for row in rows] == [
        ["between", str(NAMES["vision"]), "8.000"],
        ["between", str(NAMES["first_token"]), "10.000"],
        ["between", str(NAMES["end_to_end"]), "4.400"],
    ]
    assert not any("!" in line for line in quiet)
    (decode,) = (line for line in busy if line.startswith("decode "))
    assert "5.600!" in decode
    assert table.DISTURBED_LEGEND in busy
    assert [line.split()[2] for line in busy if line.startswith("between ")] == ["8.000", "10.000", "4.400!"]


def test_the_spread_of_a_ceiling_is_shown_and_carried_into_what_is_computed_from_it() -> None:
    lines = table.time_lines(timer_of(disturbed=False), decode_steps=TOKENS)
    assert any("GFLOP/s (spread 5.0%)" in line and "GB/s (spread 46.2%)" in line for line in lines)
    assert any(line.startswith("large spread: calibration, copy or sum: 46.2%") for line in lines)
    (sam,) = (line.split() for line in lines if line.startswith("sam "))
    mfu, useful, mbu = sam[6:9]
    assert (mfu[-1], useful[-1], mbu[-1]) != ("?", "?", "?")
    assert mbu.endswith("?")  # 1.231 x 1.231: the highest MBU is half again the lowest
    assert not mfu.endswith("?")  # 1.025 x 1.025
    assert table.UNCERTAIN_LEGEND in lines


def test_ranges_by_hand() -> None:
    # 8000 FLOPs and 600 bytes in 150 ms; ceilings of 1e12 FLOP/s within 2.5% and 1e10 bytes/s within 23.1%
    sam = next(timing for timing in timer_of(disturbed=False).timed if timing.stage == "sam")
    ranges = sam.ranges()
    assert ranges is not None
    assert ranges["mbu"] == pytest.approx((600 / (0.15 * 1.231e10), 600 * 1.231 / (0.15 * 1e10)))
    assert ranges["floor_s"] == pytest.approx((600 / 1.231e10, 600 * 1.231 / 1e10))  # bound by bytes
    recorded = sam.as_json()["ranges"]
    assert recorded["mfu_executed"] == pytest.approx([8_000 / (0.15 * 1.025e12), 8_000 * 1.025 / (0.15 * 1e12)])


def test_a_page_shows_the_range_of_what_is_uncertain() -> None:
    loaded = stored()
    for timing in loaded["timings"]:
        timing["ranges"] = {"mfu_executed": [0.5, 0.55], "mbu": [0.1, 0.2], "floor_s": None}
    DOCUMENT.check(loaded, where="a record")
    text = text_of(page_of(run_of(loaded)))
    assert "10.0 to 20.0%" in text
    assert "50.0 to" not in text
