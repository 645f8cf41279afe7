"""Charts: the same drawing gives the same bytes, in the page's colours, with text that can not become markup."""

import os
import re
from pathlib import Path

import pytest

from analytic.io.charts import GRID, INK, SERIES, VARIABLES, Curve, curves, figure, inline_svg, legend, write_png


def drawn(label: str = "prefill", **given: object) -> object:
    return curves(
        given.pop("title", "FLOPs"),
        x="length",
        y="GFLOP",
        series=[
            Curve(label=label, x=[256, 512], line=[1.0, 2.0], points=[1.0, 2.1], low=[0.9, None], high=[1.1, None]),
            Curve(label="decode", x=[256, 512], line=[0.1, None], points=None),
        ],
        **given,
    )


def test_the_same_drawing_gives_the_same_bytes() -> None:
    assert inline_svg(drawn(), name="a", description="d") == inline_svg(drawn(), name="a", description="d")


def test_colours_are_the_pages_own() -> None:
    svg = inline_svg(drawn(), name="a", description="d")
    assert not {color for color in VARIABLES if color in svg}
    assert {f"var({VARIABLES[color]})" for color in (INK, GRID, SERIES[0], SERIES[1])} <= set(
        re.findall(r"var\([^)]*\)", svg)
    )
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000", "#ffffff"}


def test_text_of_a_record_stays_text() -> None:
    evil = '</svg><script>alert(1)</script> $\\frac{1}$ _x "&'
    svg = inline_svg(drawn(label=evil, title=evil), name="a", description=evil)
    assert "<script" not in svg
    assert svg.count("</svg>") == 1
    assert "&lt;script&gt;" in svg
    assert r"$\frac{1}$" in svg  # shown, not set as a formula


def test_identifiers_of_two_charts_of_a_page_differ() -> None:
    one, other = (set(re.findall(r'id="([^"]+)"', inline_svg(drawn(), name=name, description="d"))) for name in ("a", "b"))
    assert one
    assert not one & other
    svg = inline_svg(drawn(), name="a", description="d")
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= one


def test_a_chart_brings_no_style_of_its_own_and_no_date() -> None:
    svg = inline_svg(drawn(), name="a", description="d")
    assert "<style" not in svg
    assert "metadata" not in svg
    assert "http" not in svg


def test_a_picture_is_written_whole(tmp_path: Path) -> None:
    write_png(drawn(), tmp_path / "chart.png")
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_two_processes_may_write_one_picture_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "chart.png"
    replace = os.replace

    def after_the_other(source: str, to: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_png(drawn(), target)
        replace(source, to)

    monkeypatch.setattr(os, "replace", after_the_other)
    write_png(drawn(), target)
    assert os.replace is replace  # the other has written in between
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_a_chart_of_nothing_with_a_label_has_no_legend() -> None:
    drawn, axes = figure(size_in=(3.0, 2.0))
    legend(axes)
    assert drawn.legends == []
    axes.plot([0, 1], [0, 1], label="a line")
    legend(axes)
    assert len(drawn.legends) == 1
