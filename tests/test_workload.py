"""Crop grids, views, tokens and layouts, from the shape of a page alone."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic.io import stored
from analytic.io.schemas import SCHEMAS
from analytic.models.deepseek_ocr.crop_rule import (
    ALL_GRIDS,
    RULES,
    CropGrid,
    CropRule,
    crop_grid_for,
    crop_rule,
    split_label,
)
from analytic.models.deepseek_ocr.workload import MODES, TokenLayout, VisionWorkload, gundam, page_of
from analytic.models.deepseek_ocr.workload_profile import OCRWorkloadProfile


def expected(rule: Callable[..., tuple[int, int]], width: int, height: int, most: int) -> tuple[int, int] | None:
    return rule((height, width), (640, 640), 2, most) if max(width, height) > 640 else None


def found(width: int, height: int, most: int) -> tuple[int, int] | None:
    grid = crop_grid_for(width, height, rule=crop_rule(None, most))
    return None if grid is None else (grid.columns, grid.rows)


@pytest.mark.parametrize("most", [9, 6, 2])
def test_the_crop_rule_is_transformers_rule_on_random_sizes(real_rule: Callable, most: int) -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        width, height = rng.randint(1, 6000), rng.randint(1, 6000)
        assert found(width, height, most) == expected(real_rule, width, height, most), (width, height)


@pytest.mark.parametrize("most", [9, 6, 2])
def test_the_crop_rule_is_transformers_rule_on_every_boundary(real_rule: Callable, most: int) -> None:
    ratios = sorted({grid.columns / grid.rows for grid in ALL_GRIDS})
    sizes = {(640, 640), (641, 640), (640, 641), (641, 641), (639, 640), (1, 641), (641, 1)}
    for height in (400, 640, 641, 905, 906, 1280, 1281, 1567, 1568, 1920, 2715):
        for low, high in pairwise(ratios):  # half way between two ratios both are as near
            middle = (low + high) / 2 * height
            sizes |= {(int(middle) + off, height) for off in (-1, 0, 1, 2)}
        for grid in ALL_GRIDS:  # the exact ratio, where grids of the same shape tie and the area decides
            sizes |= {(height * grid.columns // grid.rows + off, height) for off in (-1, 0, 1)}
    for grid in ALL_GRIDS:  # the area at which the larger grid of a tie takes over
        side = int((0.5 * 640 * 640 * grid.tiles * grid.rows / grid.columns) ** 0.5)
        sizes |= {(side * grid.columns // grid.rows + a, side + b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
        sizes |= {(k * grid.columns, k * grid.rows) for k in (100, 320, 321, 452, 453, 640, 641, 1000)}
    for width, height in sizes:
        if width > 0 and height > 0:
            assert found(width, height, most) == expected(real_rule, width, height, most), (width, height)


def test_vllm_cuts_a_page_into_at_most_six_tiles_and_several_images_not_at_all() -> None:
    # 1920x1080 as vLLM 0.32 served it: 2x1, 273 + 210 = 483 image tokens; transformers: 4x2, 273 + 820 = 1,093
    sizes = {"vllm": ("2x1", 483), "transformers": ("4x2", 1093)}
    for name, (grid, tokens) in sizes.items():
        page = VisionWorkload.from_image(1920, 1080, rule=RULES[name])
        assert (str(page.grid), page.image_tokens) == (grid, tokens)
    assert VisionWorkload.from_image(1920, 1080, rule=RULES["vllm"], images=2).grid is None
    assert str(VisionWorkload.from_image(1920, 1080, images=2).grid) == "4x2"


@pytest.mark.parametrize("name", ["slide-16x9", "1920x1080px"])
@pytest.mark.parametrize(
    "rule", [RULES["transformers"], RULES["vllm"], crop_rule(None, 4), crop_rule("vllm", 4)], ids=lambda rule: rule.name
)
def test_the_label_of_a_size_names_its_rule_and_is_read_back(name: str, rule: CropRule) -> None:
    page = VisionWorkload.from_image(1920, 1080, rule=rule)
    assert page_of(f"{name}{rule.suffix}") == page
    assert split_label(f"{name}{rule.suffix}") == (name, rule)


def test_a_grid_that_the_rule_never_chooses_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop grid: got 3x3 \(9 tiles\), accepted: at most 6 tiles, as vllm cuts"):
        RULES["vllm"].require(CropGrid.parse("3x3"))
    with pytest.raises(ValueError, match="max_tiles: got 10, accepted: 2 to 9"):
        crop_rule(None, 10)
    with pytest.raises(ValueError, match="served_by: got 'sglang', accepted: transformers, vllm"):
        crop_rule("sglang", None)


def test_there_are_22_grids() -> None:
    assert len(ALL_GRIDS) == len(set(ALL_GRIDS)) == 22
    assert {grid.tiles for grid in ALL_GRIDS} == set(range(2, 10))


def test_tokens_of_a_known_grid() -> None:
    # global 16 * 17 + 1 = 273; local (10 * 2 + 1) * 10 * 3 = 630
    page = gundam(CropGrid.parse("2x3"))
    assert (page.global_tokens, page.local_tokens, page.image_tokens, page.num_views) == (273, 630, 903, 7)


@pytest.mark.parametrize(("mode", "tokens"), [("tiny", 73), ("small", 111), ("base", 273), ("large", 421)])
def test_tokens_of_the_modes_without_crops(mode: str, tokens: int) -> None:
    # q (q + 1) + 1 with q = size / 64
    assert MODES[mode].image_tokens == tokens
    assert MODES[mode].num_views == 1


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_any_page_has_one_global_view_and_its_tiles(width: int, height: int) -> None:
    page = VisionWorkload.from_image(width, height)
    tiles = 0 if page.grid is None else page.grid.tiles
    assert page.num_views == 1 + tiles
    assert page.image_tokens == 273 + (0 if page.grid is None else 10 * page.grid.rows * (10 * page.grid.columns + 1))


@given(st.integers(1, 5000))
def test_a_layout_fills_the_sequence(seq_len: int) -> None:
    page = gundam(CropGrid.parse("2x1"))
    if seq_len < 484:
        with pytest.raises(ValueError, match=r"seq_len: got \d+, accepted: at least 484 for this page"):
            TokenLayout.of(seq_len, page)
        return
    layout = TokenLayout.of(seq_len, page)
    assert layout.image_tokens + layout.bos_tokens + layout.text_tokens == seq_len
    assert (layout.image_tokens, layout.bos_tokens) == (483, 1)


def test_the_standard_profile_is_the_notes_workload() -> None:
    # 512 = 273 + 210 image positions of grid 2x1, one BOS and 28 of text
    profile = OCRWorkloadProfile.from_stored("dsocr-standard-v1")
    assert profile.layout == TokenLayout(seq_len=512, image_tokens=483, bos_tokens=1, text_tokens=28)
    assert (profile.base_size, profile.image_size, profile.crop_mode) == (1024, 640, True)
    assert (str(profile.crop_grid), profile.decoding, profile.max_new_tokens) == ("2x1", "greedy", 512)


@pytest.mark.parametrize("folder", ["presets", "profiles"])
def test_every_stored_file_loads_under_its_own_name(folder: str) -> None:
    from analytic.models.spec import ModelSpec

    for name in stored.names(folder):
        if folder == "presets":
            assert ModelSpec.from_preset(name).model_variant == name
        else:
            assert OCRWorkloadProfile.from_stored(name).profile_id == name


@pytest.mark.parametrize("text", ["0x3", "4x4", "2-3", "2x", "x3", "2x3x1", "-2x3", "1x1", "", "two", "²x3"])
def test_grids_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"crop grid: got .*accepted: WxH"):
        gundam(CropGrid.parse(text))


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (1.5, 3), (True, 4)])
def test_images_without_pixels_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"image (width|height): got .*accepted: a whole number of at least 1"):
        crop_grid_for(*size)


def test_a_profile_whose_image_does_not_fit_is_refused() -> None:
    profile = OCRWorkloadProfile.from_stored("dsocr-standard-v1")
    with pytest.raises(ValueError, match="at least 484"):
        replace(profile, seq_len=300)
    with pytest.raises(ValueError, match="crop_mode is false"):
        replace(profile, crop_mode=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:40], "not valid JSON"),
        (lambda text: text.replace('"seq_len": 512', '"seq_len": "many"'), r"\$\.seq_len: 'many' is not of type"),
        (lambda text: text.replace('"seq_len": 512,', ""), "'seq_len' is a required property"),
        (lambda text: text.replace('"decoding"', '"deciding"'), "Additional properties are not allowed"),
        (lambda text: text.replace("2x1", "0x1"), r"\$\.crop_grid"),
    ],
)
def test_a_damaged_profile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str], message: str
) -> None:
    text = (stored.DATA / "profiles" / "dsocr-standard-v1.json").read_text()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "broken.json").write_text(damage(text))
    monkeypatch.setattr(stored, "DATA", tmp_path)
    with pytest.raises(ValueError, match=message):
        OCRWorkloadProfile.from_stored("broken")


def test_schemas_are_valid_and_have_a_version_of_their_own() -> None:
    from jsonschema import Draft202012Validator

    identifiers = set()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        Draft202012Validator.check_schema(schema)
        name, version, *_ = path.name.split(".")
        assert schema["$id"].startswith(f"urn:dsocr-bench:{name}:{version.removeprefix('v')}.")
        identifiers.add(schema["$id"])
    assert len(identifiers) == len(list(SCHEMAS.glob("*.json")))
