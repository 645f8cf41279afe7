"""The pages of a history: what got worse first, steps with their causes, disturbed runs apart, devices side by side."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.render import as_html, as_markdown
from fixtures.evidence.section import Standing, Table, Tone
from fixtures.history.document import History, Label, SeriesVerdict
from fixtures.history.drawn_series import LETTERS, WIDTH, chart, sparkline, step_words
from fixtures.history.history_page import page_names, page_of, pages_of
from fixtures.history.stored import HISTORY, as_json
from fixtures.history.svg import width_of
from tests.shown_histories import FASTER, H100, L40S, SLOWER, STEADY, history, records, series, step


def stored(made: History) -> Mapping[str, Any]:
    """The document of `made`, as it is read."""
    return HISTORY.parse(json.dumps(as_json(made)), where="history.json")


def table_of(made: History, key: str) -> Table:
    return next(section for section in page_of(stored(made)).sections if section.key == key).tables[0]


def texts(svg: str) -> list[tuple[float, float, str, str]]:
    """x, y, words and colour of every text."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" style="fill: var\((--\w+)\)[^"]*">([^<]*)</text>', svg)
    return [(float(x), float(y), words, colour) for x, y, colour, words in found]


def test_every_benchmark_is_a_row_with_its_picture_and_the_link_to_its_page() -> None:
    table = table_of(history(), "benchmarks")
    assert [row[0] for row in table.rows] == ["decode[1024]", "vision[gundam-2x1]", "prefill[1024]"]
    assert [table.tones.get(number) for number in range(3)] == [Tone.BAD, Tone.GOOD, None]
    assert table.links == ("benchmark-decode-1024.html", "benchmark-vision-gundam-2x1.html", "benchmark-prefill-1024.html")
    assert table.rows[0][1].startswith("slower: efficiency +8.0% on 2026-08-12 at ")
    assert len(table.pictures) == 3
    html = as_html(page_of(stored(history())))
    assert html.count("<svg") == 3
    assert '<a href="benchmark-decode-1024.html">decode[1024]</a>' in html


def test_what_all_series_share_stands_once_and_not_in_every_row() -> None:
    (words, *_) = next(one for one in page_of(stored(history())).sections if one.key == "benchmarks").words
    assert words == f"All on {H100}, deepseek-ocr-v1-base, eager/sdpa/grouped_mm, bfloat16, batch 1."
    assert table_of(history(), "benchmarks").columns == ("benchmark", "verdict", "runs", "now", "change")
    both = history(SLOWER, replace(SLOWER, way=replace(SLOWER.way, device_name=L40S)))
    assert "device" in table_of(both, "benchmarks").columns


def test_every_page_is_written_and_none_has_the_name_of_another() -> None:
    made = history(*(replace(STEADY, benchmark=name, name=name) for name in ("a[1-2]", "a[1 2]", "a[1_2]", "b")))
    names = page_names(made)
    assert list(names) == ["a[1-2]", "a[1 2]", "a[1_2]", "b"]
    assert len(set(names.values())) == 4
    assert [name for name, _ in pages_of(stored(made))] == list(names.values())
    assert all(re.fullmatch(r"benchmark-[a-z0-9-]+", name) for name in names.values())


def test_a_disturbed_run_is_a_ring_at_the_edge_and_no_part_of_the_line() -> None:
    made = records(60)
    small, large = sparkline(SLOWER, made).svg, chart(SLOWER, made, caption="").svg
    rings = re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)" r="[\d.]+" style="fill: var\(--paper\)', large)
    assert len(rings) == small.count("fill: var(--paper)") == 2
    dots = re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)" r="[\d.]+" style="fill: var\(--c0\)', large)
    assert len(dots) == 58
    # half as much again as the others: above all of them, and not above the picture
    assert max(map(float, rings)) <= min(map(float, dots))
    drawn = re.findall(r'<polyline points="([^"]*)" style="fill: none; stroke: var\(--c0\)', small)
    assert sum(len(line.split()) for line in drawn) == 58
    assert "other processes used 40% of the CPU" in large


def test_a_step_is_coloured_by_what_it_does_and_dashed_by_its_cause() -> None:
    made = history(
        replace(SLOWER, steps=(*SLOWER.steps[:2], step(41, Label.EFFICIENCY, 0.9), step(45, Label.NOISE, 1.2, worse=False)))
    )
    svg = chart(made.series[0], made.records, caption="").svg
    found = {words: colour for _, _, words, colour in texts(svg)}
    assert found["environment: torch"] == found["noise +20.0%"] == "--ink"
    assert (found["work +5.0%"], found["efficiency -10.0%"]) == ("--bad", "--good")
    lines = re.findall(r"stroke: var\((--\w+)\); stroke-width: 1.4(?:; stroke-dasharray: ([\d ]+))?", svg)
    assert lines == [("--faint", "4 3"), ("--bad", ""), ("--good", ""), ("--faint", "1 3")]


def test_no_words_of_steps_overlap_or_leave_the_picture() -> None:
    steps = [step(at, label, 1.05) for at, label in zip((1, 2, 3, 30, 31, 57, 58, 59), [Label.EFFICIENCY] * 8, strict=True)]
    made = history(series("decode[1024]", SeriesVerdict.SLOWER, steps=steps))
    svg = chart(made.series[0], made.records, caption="").svg
    words = [(x, y) for x, y, text, _ in texts(svg) if text.startswith("efficiency")]
    assert len(words) == 8
    reach = width_of("efficiency +5.0%", LETTERS)
    assert all(x >= 0 and x + reach <= WIDTH and y > LETTERS for x, y in words)
    for lane in {y for _, y in words}:
        assert all(right - left > reach for left, right in pairwise(sorted(x for x, y in words if y == lane)))
    dates = [(x, width_of(text, LETTERS)) for x, _, text, _ in texts(svg) if re.fullmatch(r"2026-\d\d-\d\d", text)]
    assert len(dates) >= 2
    assert all(right - left > wide for (left, wide), (right, _) in pairwise(sorted(dates)))
    assert all(x - wide / 2 >= 0 and x + wide / 2 <= WIDTH for x, wide in dates)


def test_pictures_have_only_colours_that_the_page_has_in_light_and_dark() -> None:
    made = history()
    for one in made.series:
        for svg in (sparkline(one, made.records).svg, chart(one, made.records, caption="").svg):
            assert not re.search(r"#[0-9a-fA-F]{3}", svg)
            assert {"--paper", *re.findall(r"var\((--[\w]+)\)", svg)} <= {
                "--paper",
                "--ink",
                "--faint",
                "--grid",
                "--good",
                "--bad",
                "--c0",
            }


def test_steps_are_listed_newest_first_with_cause_commits_and_what_moved() -> None:
    table = table_of(history(), "steps")
    assert [row[:2] for row in table.rows] == [
        ("vision[gundam-2x1]", "efficiency -20.0%"),
        ("decode[1024]", "efficiency +8.0%"),
        ("decode[1024]", "work +5.0%"),
        ("decode[1024]", "environment: torch"),
    ]
    assert table.rows[2][2:] == (
        "5.0% more FLOPs; model.language_model.layers.*.mlp: 1,200 MFLOP to 1,260 MFLOP",
        "0000000..1111111",
        "2026-08-11",
    )
    assert table.tones == {}
    failed = history(fail_on=(Label.WORK,), standing=Standing.FAILED, failed_by=((0, 1),))
    assert table_of(failed, "steps").tones == {2: Tone.BAD}


def test_the_page_of_a_benchmark_has_its_steps_with_intervals_and_the_command_that_would_settle_them() -> None:
    pages = dict(pages_of(stored(history())))
    page = pages["benchmark-decode-1024"]
    assert (page.standing, page.above) == (Standing.WORSE, "report.html")
    assert page.verdict == ("Slower by 8.0%: 58 of 60 runs are judged; five further runs would show a slowdown of 2.3%.",)
    steps = next(section for section in page.sections if section.key == "steps-0")
    assert steps.verbatim == ("nox -s compare -- 000000000000 --stage 'decode[1024]'",)
    assert steps.tables[0].rows[1] == (
        "work +5.0%",
        "5.0% more FLOPs; model.language_model.layers.*.mlp: 1,200 MFLOP to 1,260 MFLOP; beside the work +0.1%",
        "0000000..1111111",
        "2026-08-11",
        "+4.0% to +6.0%",
        "12.0 ms to 12.6 ms",
    )
    environment = next(section for section in page.sections if section.key == "environment-0")
    assert environment.tables[0].columns == ("since", "commit", "torch")  # transformers is the same all along
    html = as_html(page)
    assert '<a href="report.html">Overview</a>' in html
    assert "model.<wbr>language_model.<wbr>layers.<wbr>*.<wbr>mlp" in html
    assert "<wbr>" not in as_markdown(page)
    assert pages["benchmark-prefill-1024"].standing is Standing.SAME


def test_several_devices_stand_side_by_side() -> None:
    on_l40s = series("decode[1024]", SeriesVerdict.STEADY, device=L40S)
    made = history(SLOWER, FASTER, on_l40s)
    table = table_of(made, "devices")
    assert table.columns == ("benchmark", H100, L40S)
    assert [row[0] for row in table.rows] == ["decode[1024]", "vision[gundam-2x1]"]
    assert (table.rows[0][1].split(", ")[1], table.rows[0][2].split(", ")[1]) == ("slower +8.0%", "steady")
    assert table.rows[1][2] == "-"
    page = dict(pages_of(stored(made)))["benchmark-decode-1024"]
    times = next(section for section in page.sections if section.key == "times")
    assert [chart.caption.split(";")[0] for chart in times.charts] == [f"decode[1024]: {H100}", f"decode[1024]: {L40S}"]
    assert page.verdict[0].startswith(f"Slower by 8.0% on {H100}")
    assert all("side by side" not in section.title for section in page_of(stored(history())).sections)


def test_what_is_left_out_is_named_with_its_reason() -> None:
    assert table_of(history(), "left-out").rows == (("old/record.json", "damaged", "it is no JSON"),)


def test_a_history_of_one_run_or_of_none_has_a_page() -> None:
    one = history(
        replace(series("decode[64]", SeriesVerdict.TOO_FEW, nights=1), judged="1 run, at least 12 are needed"), nights=1
    )
    assert "1 run, at least 12 are needed" in as_html(page_of(stored(one)))
    assert len(list(pages_of(stored(one)))) == 1
    none = replace(history(), series=(), records=())
    assert [section.key for section in page_of(stored(none)).sections] == ["left-out", "made"]


def test_a_page_of_ten_thousand_runs_stays_small() -> None:
    nights = 10_000
    many = series("decode[64]", SeriesVerdict.STEADY, nights=nights)
    svg = chart(many, records(nights), caption="").svg
    assert svg.count("<circle") == nights
    assert len(svg) < 150 * nights
    assert "<title>" not in svg


@pytest.mark.parametrize("label", list(Label))
def test_a_step_without_times_has_words(label: Label) -> None:
    assert step_words(step(3, label, None)) == str(label)


def test_words_of_a_record_are_escaped() -> None:
    named = series("decode[<b>&]", SeriesVerdict.STEADY, disturbed=(3,))
    named = replace(named, disturbed={3: ("<script>alert(1)</script>",)})
    for _, page in pages_of(stored(history(named))):
        html = as_html(page)
        assert "<script>alert" not in html
        assert "decode[<b>" not in html
        assert "&lt;script&gt;" in html


def test_the_pages_of_a_kept_history_are_made_again_from_its_document(tmp_path: Path) -> None:
    from fixtures.evidence.study import Subject, keep, write_page_again
    from fixtures.history.history_evidence import STUDY

    subject = Subject(model="tiny", device="a CPU", ways=())
    kept = keep(STUDY, as_json(history()), subject, output_dir=tmp_path, arguments=["results"])
    before = {path.name: path.read_bytes() for path in kept.folder.glob("*.html")}
    assert sorted(before) == [
        "benchmark-decode-1024.html",
        "benchmark-prefill-1024.html",
        "benchmark-vision-gundam-2x1.html",
        "report.html",
    ]
    for name in before:
        (kept.folder / name).unlink()
    write_page_again(STUDY, kept.folder)
    assert {path.name: path.read_bytes() for path in kept.folder.glob("*.html")} == before
