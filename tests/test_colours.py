"""A colour has one meaning in the charts of a page."""

import re
from pathlib import Path

import pytest

from analytic.io.charts import SERIES, VARIABLES
from analytic.io.run_record import RECORD as RECORD_KIND
from fixtures.report.blocks import NAMES
from fixtures.report.charts import memory, roofline, shares, time_shares, under_the_roof
from fixtures.report.colours import WORDS, colour_of
from fixtures.report.run import run_of

STYLE = Path(__file__).resolve().parent.parent / "fixtures" / "evidence" / "templates" / "style.css"
RECORD = Path(__file__).resolve().parent / "data" / "record.v5.json"


def test_every_meaning_has_a_colour_of_its_own() -> None:
    assert len({colour_of(word) for word in WORDS}) == len(WORDS) <= len(SERIES)
    assert colour_of(NAMES[0]) == colour_of(NAMES[0].lower())  # a part of a page that is a block as well


def test_an_unknown_meaning_is_no_colour() -> None:
    with pytest.raises(ValueError, match="not in"):
        colour_of("no such part")


def test_light_and_dark_have_every_colour() -> None:
    declared = re.findall(r"(--c\d+): #[0-9a-f]{6};", STYLE.read_text(encoding="utf-8"))
    assert sorted(declared) == sorted(2 * [VARIABLES[colour] for colour in SERIES])


def test_the_numbers_beside_the_roofline_are_those_of_its_points() -> None:
    run = run_of(RECORD_KIND.read(RECORD))
    table = under_the_roof(run)
    assert table is not None
    assert run.ceilings is not None
    timing = next(timing for timing in run.timings if timing.stage == "decode")
    row = next(row for row in table.rows if row[0].startswith("decode "))
    at = timing.flops / timing.fused_bytes
    assert row[1] == "bytes"
    assert float(row[2]) == pytest.approx(at, rel=0.01)
    assert float(row[4].replace(",", "")) == pytest.approx(at * run.ceilings.bytes_per_s / 1e9, rel=0.01)
    assert float(row[5].rstrip("%")) == pytest.approx(
        100 * timing.flops / timing.time_s / (at * run.ceilings.bytes_per_s), rel=0.01
    )


def test_the_charts_of_a_page_draw_a_part_in_the_colour_of_its_block() -> None:
    run = run_of(RECORD_KIND.read(RECORD))
    drawn = [shares(run.points, "flops"), time_shares(run), roofline(run), memory(run, run.points)]
    found = [chart.svg for chart in drawn if chart is not None]
    assert len(found) == len(drawn)
    part = VARIABLES[colour_of(NAMES[0])]
    assert all(f"var({part})" in svg for svg in found[:3])
    assert f"var({part})" not in found[3]
