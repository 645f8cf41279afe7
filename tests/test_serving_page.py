"""The page of a served run, made from its document alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.render import as_html, as_markdown
from fixtures.evidence.section import Standing
from fixtures.evidence.study import Card
from fixtures.serving import served_table
from fixtures.serving.serve_evidence import STUDY, page_of, subject_of
from fixtures.serving.served_charts import parts_of
from fixtures.serving.served_run import cell_json
from tests.serving_runs import KEY, SMALL, answer_at, cell_with, example, floor_of, run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures


def over_levels(*levels: int) -> dict[str, Any]:
    """A document with a cell for each number in flight, whose answers take a second each."""
    document = example()
    document["cells"] = []
    for level in levels:
        answers = [answer_at(0.01 * at + at // level, 1.0, ttft_s=0.5, tokens=11) for at in range(5 * level)]
        cell = cell_with(*answers, concurrency=level)
        document["cells"].append(cell_json(cell, floor_of(cell, output_tokens=11, in_flight=level)))
    document["problems"], document["incomplete"] = [], None
    STUDY.document.check(json.loads(json.dumps(document)), where="the example")
    return document


def test_times_and_pages_are_drawn_over_the_load_with_the_floor() -> None:
    page = page_of(over_levels(1, 2, 4))
    (load,) = (section for section in page.sections if section.key == "load")
    assert [chart.description.partition(".")[0] for chart in load.charts] == [
        "TTFT in flight",
        "Token in flight",
        "Pages/s in flight",
    ]
    assert all("floor as a line" in chart.svg for chart in load.charts)
    assert "500 at 1, 500 at 4" in load.charts[0].description
    assert "Where a page&#39;s time goes" in as_html(page)


def test_token_times_that_cannot_be_drawn_are_named() -> None:
    run = over_levels(1, 2)
    for cell in run["cells"]:
        cell["token"] |= {"p50_s": 0.0}
    (load,) = (section for section in page_of(run).sections if section.key == "load")
    assert [chart.description.partition(".")[0] for chart in load.charts] == ["TTFT in flight", "Pages/s in flight"]
    assert load.words[-1] == "Token times are not drawn: their medians are zero, since tokens arrive several at once."


def test_times_and_throughput_are_tables_of_their_own_and_hold_every_column() -> None:
    run = over_levels(1, 2)
    (figures,) = (section for section in page_of(run).sections if section.key == "figures")
    times, throughput = (table.columns for table in figures.tables)
    assert times[:2] == throughput[:2] == ("page", "load")
    assert throughput[2:] == ("mean in flight", "pages/s", "of bound", "tokens/s", "MFU", "MBU")
    columns = ["mean in flight" if name == "mean" else name for name in served_table.rows(run)[0]]
    assert sorted([*times, *throughput[2:]]) == sorted(columns)
    assert all(len(row) == len(table.columns) for table in figures.tables for row in table.rows)


def test_one_load_is_in_no_chart_over_loads() -> None:
    assert "load" not in [section.key for section in page_of(over_levels(2)).sections]


def test_the_parts_of_a_page_are_its_floors_and_what_comes_on_top() -> None:
    (cell,) = over_levels(2)["cells"]
    parts = parts_of(cell, 11)
    assert parts is not None
    assert sum(parts.values()) == pytest.approx(1.0)
    floor = cell["floor"]
    assert parts["vision, floor"] == floor["vision_s"]
    assert parts["decode, floor"] == pytest.approx(10 * floor["step_s"])
    assert parts["rest of TTFT"] == pytest.approx(0.5 - floor["ttft_s"])
    assert parts_of(cell | {"floor": None}, 11) == {"TTFT": 0.5, "decode": 0.5}
    assert parts_of(cell | {"ttft": None}, 11) is None


@pytest.mark.parametrize(
    ("changes", "standing", "told"),
    [
        ({}, Standing.MEASURED, "no baseline says whether that is slow."),
        ({"device": None}, Standing.MEASURED, "no floor was held, since no device was named: add --on DEVICE."),
        ({"problems": ["a", "b"]}, Standing.FAILED, "FAILED: 2 problems in 10 requests."),
        ({"incomplete": {"reason": "stop", "missing": ["x"]}}, Standing.INCOMPLETE, "First tokens take"),
    ],
)
def test_the_verdict_says_what_was_held(changes: dict[str, Any], standing: Standing, told: str) -> None:
    page = page_of(over_levels(2) | changes)
    assert page.standing is standing
    assert told in page.verdict[0]


def test_a_run_keeps_its_page_and_a_card_and_no_key(started: Callable[..., Stub], run: Callable, tmp_path: Path) -> None:
    prompt = ("--prompt", f"say {KEY}")
    code, said, _ = run(started(), *SMALL, "--image-size", "64x64", *prompt, OPENAI_API_KEY=KEY)
    assert code == 0, said
    folder = tmp_path / "latest-serve"
    card = Card.read(folder)
    assert (card.kind, card.standing, card.model) == ("serve", Standing.MEASURED, "deepseek-ocr-v1-base")
    assert card.ways == ("closed loop", "pages cut as transformers does, at most 9 tiles")
    texts = [path.read_text() for path in folder.iterdir()]
    assert len(texts) == 4
    assert not any(KEY in text for text in texts)
    assert "say ***" in (folder / "report.html").read_text()


def test_a_page_whose_tokens_differ_is_marked() -> None:
    document = over_levels(2)
    document["cells"][0]["measured"][0]["prompt_tokens"] = 487
    page = page_of(document)
    (tokens,) = (section for section in page.sections if section.key == "tokens")
    assert tokens.tables[0].rows == (("1920x1080px", "1920x1080", "4x2", "1,093", "483, 1,093"),)
    assert tokens.tables[0].marked == {0}
    assert "483, 1,093" in as_markdown(page)


def test_a_time_below_its_floor_is_not_divided_and_makes_no_headline() -> None:
    run = over_levels(1)
    (cell,) = run["cells"]
    floor = cell["floor"]
    early = cell | {"ttft": cell["ttft"] | {"p50_s": floor["ttft_s"] / 2}}
    parts = parts_of(early, 11)
    assert parts is not None
    assert [*parts] == ["TTFT", "decode, floor", "rest of decode"]
    assert [*(parts_of(cell | {"total": cell["total"] | {"p50_s": cell["ttft"]["p50_s"]}}, 11) or {})][-1] == "decode"
    assert len(page_of(run).figures) == 3
    for wrong in (early, cell | {"bursts": True}, cell | {"pages_per_s": 2 * floor["pages_per_s"]}):
        assert page_of(run | {"cells": [wrong]}).figures == ()


def test_a_cell_without_a_load_is_refused_by_name() -> None:
    cell = over_levels(1)["cells"][0]
    assert served_table.load_of(cell) == "1 in flight"
    assert served_table.load_of(cell | {"concurrency": None, "rate_per_s": 0.5}) == "0.5/s"
    with pytest.raises(ValueError, match=r"cells: .*: got neither concurrency nor rate_per_s, accepted: one of them"):
        served_table.load_of(cell | {"concurrency": None, "rate_per_s": None})


def test_the_subject_names_both_loops() -> None:
    document = example()
    cell = cell_json(cell_with(answer_at(0.0, 1.0), concurrency=None, rate_per_s=1.0), None)
    document["cells"].append(cell)
    assert subject_of(document).ways[:2] == ("closed loop", "open loop")
