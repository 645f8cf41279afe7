"""Times over the runs of a folder: lines through comparable times only, every point once, and nothing cut."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from analytic.io.json_text import parsed, read_text
from fixtures.evidence.index import index_of, runs_in, write_index
from fixtures.evidence.listed import Listed, listed_record
from fixtures.evidence.section import Standing, Tone
from fixtures.evidence.trend import trend_section, trends_of
from fixtures.evidence.trend_points import lines_of
from tests.mixed_runs import COMPILED_TIMES, mixed_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("results")
    mixed_runs(found)
    return found


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Listed]:
    return [
        listed_record(run.name, parsed(read_text(run / "record.json")), merged=(run / "merged.json").exists())
        for run in runs_in(folder)
    ]


def lines(rows: list[Listed]) -> list[tuple[str, int, int]]:
    """Way, trusted and untrusted points of every line through the decodes."""
    found = lines_of([point for row in rows for point in row.points], fewest=3)
    return sorted(
        (
            f"{line.conditions.place.threads} {line.conditions.place.backend} {line.conditions.version}",
            len(line.trusted),
            len(line.points) - len(line.trusted),
        )
        for line in found
        if line.benchmark.stage == "decode"
    )


def test_of_forty_mixed_runs_only_comparable_times_share_a_line(rows: list[Listed]) -> None:
    assert len(rows) == 40
    # eager: 8 + 5 + 1, and one whose counts fail; the times of the merged run are those of its parts
    assert lines(rows) == [
        ("2 compile 1a2b3c4d", 8, 0),
        ("2 eager 0badcafe", 4, 0),
        ("2 eager 1a2b3c4d", 15, 3),
        ("96 eager 1a2b3c4d", 8, 0),
    ]


def test_no_line_holds_two_ways(rows: list[Listed]) -> None:
    for line in lines_of([point for row in rows for point in row.points], fewest=3):
        times = [point.time_s for point in line.trusted]
        assert max(times) / min(times) < 1.2 < COMPILED_TIMES


def test_no_measurement_is_drawn_twice(rows: list[Listed]) -> None:
    merged = [row for row in rows if row.what.startswith("merged run")]
    assert [len(row.points) for row in merged] == [8]
    drawn = lines_of([point for row in rows for point in row.points], fewest=3)
    assert merged[0].folder not in {point.folder for line in drawn for point in line.points}
    times = Counter((line.benchmark, point.samples_s) for line in drawn for point in line.points)
    assert set(times.values()) == {1}


def test_a_merged_run_whose_parts_are_elsewhere_is_drawn(rows: list[Listed]) -> None:
    merged = next(row for row in rows if row.what.startswith("merged run"))
    parts = {point.samples_s for point in merged.points}
    alone = [row for row in rows if row is merged or not parts & {point.samples_s for point in row.points}]
    assert len(alone) == 38  # the merged run holds times of two others
    drawn = lines_of([point for row in alone for point in row.points], fewest=3)
    assert merged.folder in {point.folder for line in drawn for point in line.points}


def test_a_record_without_a_device_is_listed_but_not_drawn(rows: list[Listed]) -> None:
    (old,) = [row for row in rows if "batch" not in row.way]
    assert (old.standing, old.points) == (Standing.PASSED, ())


def test_the_colour_of_a_row_is_that_of_its_runs_heading(folder: Path, rows: list[Listed]) -> None:
    from fixtures.report.run import read
    from fixtures.report.sections import page_of

    page = index_of(rows)
    (table,) = next(section for section in page.sections if section.key == "runs").tables
    for number in (0, next(n for n, row in enumerate(rows) if row.standing is Standing.FAILED), 30):
        headed = page_of(read(folder / rows[number].folder))
        assert rows[number].standing is headed.standing
        assert table.tones.get(number, Tone.GOOD) is headed.standing.tone
    assert Counter(table.tones.values()) == {Tone.BAD: 1, Tone.DOUBTFUL: 3}


TEXT = re.compile(r'<text style="([^"]*)"([^>]*)>([^<]*)</text>')


def ends(style: str, attributes: str, text: str) -> tuple[float, float, float]:
    """Left and right end of a text of an SVG, and its baseline, in its units."""
    size = float(re.findall(r"font:? ?(?:-size: )?([\d.]+)px", style)[0])
    anchor = (re.findall(r"text-anchor: (\w+)", style) or ["start"])[0]
    placed = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", attributes)
    x, y = placed.groups() if placed else re.search(r'x="([-\d.]+)" y="([-\d.]+)"', attributes).groups()  # type: ignore[union-attr]
    path = TextPath((0, 0), text.replace("&#8230;", "x"), size=size, prop=FontProperties(family="DejaVu Sans"))
    width = path.get_extents().width
    left = float(x) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, left + width, float(y)


def test_no_text_of_a_chart_leaves_it(rows: list[Listed]) -> None:
    section = trend_section([point for row in rows for point in row.points])
    assert section is not None
    assert len(section.charts) == 4
    for chart in section.charts:
        (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart.svg)
        width, height = map(float, box)
        texts = TEXT.findall(chart.svg)
        assert len(texts) == chart.svg.count("<text") > 20
        for text in texts:
            left, right, baseline = ends(*text)
            assert -0.5 <= left < right <= width + 0.5, text
            assert 0 < baseline < height, text


def test_labels_of_dates_do_not_run_into_each_other(rows: list[Listed]) -> None:
    section = trend_section([point for row in rows for point in row.points])
    assert section is not None
    for chart in section.charts:
        dates = sorted(ends(*text) for text in TEXT.findall(chart.svg) if re.fullmatch(r"\d{4}-\d\d-\d\d", text[2]))
        assert len(dates) in (2, 3)
        assert all(one[1] + 3 < other[0] for one, other in pairwise(dates))


def test_a_chart_says_device_way_releases_dates_and_commits(rows: list[Listed]) -> None:
    trends = trends_of([point for row in rows for point in row.points])
    section = trend_section([point for row in rows for point in row.points])
    assert section is not None
    assert [len(trend.lines) for trend in trends] == [8, 8, 8, 8]
    said = [chart.caption for chart in section.charts]
    assert said[0].startswith(
        "tiny on Intel(R) Xeon(R) Processor (cpu, 2 threads): eager/sdpa/grouped_mm, float32, batch 1; torch 2.13.0"
    )
    assert sum("compile/sdpa" in text for text in said) == sum("earlier version" in text for text in said) == 1
    last = trends[0].runs[-1]
    assert last.created[:10] in section.charts[0].svg
    assert last.commit[:7] in section.charts[0].svg
    latest = next(line for line in trends[0].lines if line.benchmark.stage == "end_to_end").trusted[-1]
    assert f">{latest.time_s * 1e3:,.0f} ms</text>" in section.charts[0].svg


def test_the_index_of_forty_runs_is_written(folder: Path) -> None:
    text = write_index(folder).read_text()
    assert text.count("report.html") == 40
    assert "40 runs, 1 FAILED, 3 disturbed." in text
