"""The table of stages, and the one way in which a benchmark is named and read back."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.models.registry import families
from fixtures.config.points import vision_points
from fixtures.config.run_options import RunOptions
from fixtures.config.stages import PARTS, STAGE, STAGES, TIMED_STAGES, BenchmarkId

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("text", "page", "length"),
    [
        ("vision[gundam-2x1]", "gundam-2x1", ""),
        ("sam[a4-200dpi]", "a4-200dpi", ""),
        ("decode[1024]", "", "1024"),
        ("end_to_end[gundam-2x1-1024]", "gundam-2x1", "1024"),
        ("first_token[600x400px-300]", "600x400px", "300"),
    ],
)
def test_a_benchmark_is_read_back_as_it_is_named(text: str, page: str, length: str) -> None:
    found = BenchmarkId.parse(text)
    assert str(found) == text
    assert (found.page, found.length) == (page, length)


def test_the_stages_of_one_page_have_its_parts_as_their_points() -> None:
    whole = BenchmarkId("end_to_end", "gundam-2x1-1024")
    assert [str(whole.of(stage)) for stage in ("vision", "clip", "prefill", "first_token")] == [
        "vision[gundam-2x1]",
        "clip[gundam-2x1]",
        "prefill[1024]",
        "first_token[gundam-2x1-1024]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decode", r"stage: got 'decode', accepted: a stage and its point, such as decode\[1024\]"),
        ("decode[1024", r"stage: got 'decode\[1024'"),
        ("", "stage: got '', accepted: vision, sam"),
        ("encode[3]", "stage: got 'encode', accepted: vision, sam, clip, projector, "),
    ],
)
def test_a_name_that_is_no_benchmark_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkId.parse(text)


def test_a_page_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'base', accepted: a page and a length, such as gundam-2x1-1024"):
        _ = BenchmarkId.parse("end_to_end[base]").length


def test_every_row_belongs_to_a_stage_that_is_compared() -> None:
    assert {stage.owner for stage in STAGE.values()} == set(STAGES)
    assert set(PARTS) == {part.name for family in families() for part in family.parts}
    assert set(STAGES) <= set(TIMED_STAGES)


def test_names_are_made_and_read_in_one_place() -> None:
    made = re.compile(r"\}\[\{|partition\(\"\[\"\)|removesuffix\(\"\]\"\)")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("benchmarks", "fixtures")
        for path in (ROOT / folder).rglob("*.py")
        if made.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"fixtures/config/stages.py", "fixtures/config/points.py"}


def test_pages_given_by_their_size_are_cut_by_the_rule_and_named_after_it(options_of: Callable[..., RunOptions]) -> None:
    given = options_of(served_by="vllm", image_size=["2048x2048"], seq_len=["1300"])
    (point,) = vision_points(given)
    assert (point.label, str(point.page.grid)) == ("2048x2048px-vllm", "2x2")
    labels = [point.label for point in vision_points(options_of(served_by="vllm"))]
    assert {"slide-16x9-vllm", "gundam-2x3", "base"} <= set(labels)
    assert not {"gundam-3x3", "slide-16x9"} & set(labels)
    assert {"slide-16x9", "gundam-3x3"} <= {point.label for point in vision_points(options_of())}
    with pytest.raises(ValueError, match="--crop-grid: got 3x3"):
        options_of(max_tiles="6", crop_grid=["3x3"])
    with pytest.raises(ValueError, match=r"--profile: got 2x3 \(6 tiles\), accepted: at most 4 tiles, as vllm-max4 cuts"):
        options_of(served_by="vllm", max_tiles="4", profile="dsocr-a4-v1")
    assert vision_points(options_of(served_by="vllm", profile="dsocr-a4-v1"))[0].page.num_views == 7
    with pytest.raises(ValueError, match="--served-by: got 'sglang', accepted: transformers, vllm"):
        options_of(served_by="sglang")
    with pytest.raises(ValueError, match="--max-tiles: got 12, accepted: 2 to 9"):
        options_of(max_tiles="12")
