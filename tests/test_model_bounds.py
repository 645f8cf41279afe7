"""What the dimensions of a model, a page and a count may be: exactly at each bound, and one beyond it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analytic.core.checks import MOST, listed, whole, whole_numbers
from analytic.core.execution import FULL_SIZE
from analytic.models import registry
from analytic.models.deepseek_ocr.crop_rule import TRANSFORMERS, CropGrid, crop_grid_for, grids_of, parse_pair
from analytic.models.deepseek_ocr.hf_config import layer_numbers, two_widths
from analytic.models.deepseek_ocr.hf_reading import shown
from analytic.models.deepseek_ocr.hf_writing import ENGINE_FILES, vendor_config
from analytic.models.deepseek_ocr.sam import ImageEncoderViT
from analytic.models.deepseek_ocr.vision import MlpProjector, VitModel
from analytic.models.deepseek_ocr.workload import MODES, PAGE_SIZES, PAGES, TokenLayout, VisionWorkload
from analytic.models.spec import ModelSpec, divides
from analytic.models.unlimited_ocr.text_spec import SlidingTextSpec
from tests.configs import changed, spec_of, transformers_of, vendors

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
TEXT, SAM = SPEC.text, SPEC.sam


def accepted(made: Callable[[], object]) -> bool:
    """Whether something can be made, or is refused."""
    try:
        made()
    except ValueError:
        return False
    return True


# --- counts


@pytest.mark.parametrize(
    ("got", "fine"),
    [(0, False), (1, True), (MOST, True), (MOST + 1, False), (True, False), (1.0, False), ("1", False), (None, False)],
)
def test_a_count_is_a_whole_number_from_one_on(got: object, fine: bool) -> None:
    assert accepted(lambda: whole("count", got)) is fine
    assert accepted(lambda: whole_numbers("count", got)) is fine


def test_a_count_is_refused_with_the_bound_that_it_breaks() -> None:
    with pytest.raises(ValueError, match=r"^count: got 2, accepted: a whole number of at least 3$"):
        whole("count", 2, least=3)
    with pytest.raises(ValueError, match=r"^count: got 9, accepted: a whole number of at least 3 and at most 8$"):
        whole("count", 9, least=3, most=8)
    whole("count", 3, least=3, most=8)
    whole("count", 8, least=3, most=8)


@pytest.mark.parametrize(
    ("got", "wrong"),
    [([], None), ([2, MOST], None), ([5, 1], 1), ([2, MOST + 1], MOST + 1), ([1, MOST + 1], 1)],
)
def test_an_array_of_counts_is_refused_by_its_least_and_its_largest(got: list[int], wrong: int | None) -> None:
    array = np.array(got, dtype=np.int64)
    if wrong is None:
        whole_numbers("count", array, least=2)
    else:
        with pytest.raises(ValueError, match=rf"^count: got {wrong}, accepted: whole numbers of at least 2 and at most"):
            whole_numbers("count", array, least=2)


@pytest.mark.parametrize("dtype", [np.int32, np.int16, np.uint8])
def test_an_array_of_short_numbers_is_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="accepted: int64, which the counts need"):
        whole_numbers("count", np.array([1], dtype=dtype))


def test_accepted_values_are_listed_as_a_sentence_has_them() -> None:
    assert [listed(values) for values in (("a",), ("a", "b"), ("a", "b", "c"))] == ["a", "a or b", "a, b or c"]


# --- dimensions


@pytest.mark.parametrize(("numbers", "fine"), [((0,), True), ((0, 11), True), ((12,), False), ((-1,), False), ((), True)])
def test_layers_with_global_attention_are_layers_of_sam(numbers: tuple[int, ...], fine: bool) -> None:
    assert SAM.num_layers == 12
    assert accepted(lambda: replace(SAM, global_attn_indexes=numbers)) is fine


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"num_kv_heads": 5}, False),
        ({"num_kv_heads": 20}, False),
        ({"num_heads": 20, "num_kv_heads": 20}, True),
        ({"num_heads": 7, "num_kv_heads": 7}, False),  # does not divide 1280
        ({"num_dense_layers": 0}, True),
        ({"num_dense_layers": 12}, True),
        ({"num_dense_layers": 13}, False),
        ({"num_dense_layers": -1}, False),
        ({"num_experts_per_tok": 1}, True),
        ({"num_experts_per_tok": 64}, True),
        ({"num_experts_per_tok": 65}, False),
        ({"num_experts_per_tok": 0}, False),
        ({"n_shared_experts": 0}, False),
    ],
)
def test_dimensions_of_the_decoder_at_their_bounds(change: dict[str, int], fine: bool) -> None:
    assert accepted(lambda: replace(TEXT, **change)) is fine


def test_dimensions_that_follow_from_others() -> None:
    assert (TEXT.head_dim, TEXT.num_moe_layers) == (128, 11)  # 1280 / 10, 12 - 1
    assert (SAM.head_dim, SAM.native_grid) == (64, 64)  # 768 / 12, 1024 / 16
    assert accepted(lambda: divides("parts", 4, 12))
    assert not accepted(lambda: divides("parts", 5, 12))


@pytest.mark.parametrize(("token", "fine"), [(0, True), (TEXT.vocab_size - 1, True), (TEXT.vocab_size, False), (-1, False)])
def test_the_placeholder_of_an_image_is_in_the_vocabulary(token: int, fine: bool) -> None:
    assert accepted(lambda: replace(SPEC, image_token_id=token)) is fine


@pytest.mark.parametrize(
    ("window", "steps", "mean"),
    [
        (None, 0, 0.0),
        (None, 1, 0.0),
        (None, 5, 2.0),  # 0, 1, 2, 3, 4
        (4, 3, 1.0),  # 0, 1, 2
        (4, 4, 1.5),  # 0, 1, 2, 3
        (4, 6, 2.0),  # 0, 1, 2, 3, 3, 3: the own position and three before it
        (4, 0, 0.0),
    ],
)
def test_the_mean_step_attends_to_those_decoded_before_it(window: int | None, steps: int, mean: float) -> None:
    sliding = registry.load_spec("unlimited-ocr-base").text
    assert isinstance(sliding, SlidingTextSpec)
    assert (TEXT if window is None else replace(sliding, window=window)).mean_decoded(steps) == mean


@pytest.mark.parametrize(("window", "fine"), [(1, False), (2, True)])
def test_a_window_has_the_position_of_the_step_and_one_before_it_at_least(window: int, fine: bool) -> None:
    sliding = registry.load_spec("unlimited-ocr-base").text
    assert accepted(lambda: replace(sliding, window=window)) is fine


# --- configs


@pytest.mark.parametrize("token", [-1, 1.5])
def test_the_placeholder_in_a_config_is_the_number_of_a_token(token: object) -> None:
    config = transformers_of("deepseek-ocr-v1-base")
    assert spec_of(changed(config, ("image_token_id",), 0)).image_token_id == 0
    with pytest.raises(ValueError, match=rf"^image_token_id: got {token}, accepted: a whole number of at least 0"):
        spec_of(changed(config, ("image_token_id",), token))


def test_the_vendors_config_that_is_written_is_read_as_the_same_model() -> None:
    for spec in (SPEC, replace(SPEC, image_token_id=7)):
        assert spec_of(vendor_config(spec)) == replace(spec, model_id="m", model_variant="v")
    narrow = replace(SPEC, sam=replace(SAM, downsample_channels=(256, 1024)))  # the second is that of the features
    assert vendor_config(narrow)["projector_config"]["input_dim"] == 2048


@pytest.mark.parametrize(
    ("given", "numbers"), [([5, 2, 8], [2, 5, 8]), (7, [7]), ([0], [0]), ([], []), ([2, 2], None), ([-1], None)]
)
def test_numbers_of_layers_are_whole_and_stated_once(given: object, numbers: list[int] | None) -> None:
    if numbers is None:
        assert not accepted(lambda: layer_numbers("path", given))
    else:
        assert layer_numbers("path", given) == numbers


@pytest.mark.parametrize(
    ("given", "fine"), [([512, 1024], True), ([512], False), ([512, 1024, 2048], False), ([0, 1024], False), (512, False)]
)
def test_widths_of_the_two_convolutions_are_two(given: object, fine: bool) -> None:
    assert accepted(lambda: two_widths("path", given)) is fine


@pytest.mark.parametrize(("change", "fine"), [(0, True), (1, False), (-1, False)])
def test_the_projector_takes_what_both_encoders_give(change: int, fine: bool) -> None:
    for name, size in (("input_dim", 2048), ("n_embed", 1280)):  # 1024 + 1024, and the decoder's width
        config = changed(vendors(), ("projector_config", name), size + change)
        assert accepted(lambda config=config: spec_of(config)) is fine


def test_a_wrong_value_is_shown_up_to_80_characters() -> None:
    assert shown("a" * 78) == f"'{'a' * 78}'"  # 80 with its quotes
    assert shown("a" * 79) == f"'{'a' * 76}..."
    assert len(shown("a" * 79)) == 80


# --- pages


def test_pages_by_name_have_the_size_of_what_they_are() -> None:
    def a4(dots_per_inch: int) -> tuple[int, int]:
        return round(210 / 25.4 * dots_per_inch), round(297 / 25.4 * dots_per_inch)

    assert {name: PAGE_SIZES[name] for name in PAGE_SIZES} == {
        "a4-200dpi": a4(200),
        "a4-landscape": a4(200)[::-1],
        "letter-200dpi": (int(8.5 * 200), 11 * 200),
        "book-spread": (2 * a4(150)[0], a4(150)[1]),  # two pages beside each other
        "slide-16x9": (16 * 120, 9 * 120),
        "slide-4x3": (4 * 400, 3 * 400),
        "newspaper": (2_500, 3_900),
        "tall-receipt": (600, 4 * 600),
        "wide-banner": (6 * 500, 500),
        "exam-paper": (1_440, round(1_440 * 297 / 210)),
        "thumbnail": (600, 400),  # fits one tile
    }


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("2x3", (2, 3)),
        ("1x1", (1, 1)),
        (" 10X2 ", (10, 2)),
        *((text, None) for text in ("0x1", "1x0", "x1", "1x", "11", "-1x2", "1.5x2", "1x2x3", "", "x", "²x1", "1x²")),
    ],
)
def test_a_pair_is_two_whole_numbers_above_zero(text: str, pair: tuple[int, int] | None) -> None:
    if pair is None:
        with pytest.raises(ValueError, match=r"^size: got '.*', accepted: WxH in positive whole numbers, such as 2x3$"):
            parse_pair("size", text, example="2x3")
    else:
        assert parse_pair("size", text, example="2x3") == pair


def test_a_grid_has_two_tiles_at_least() -> None:
    with pytest.raises(ValueError, match=r"got 1x1 \(1 tiles\), accepted: WxH with 2 tiles or more"):
        CropGrid(columns=1, rows=1)
    assert [str(grid) for grid in grids_of(2)] == ["1x2", "2x1"]
    assert [str(grid) for grid in grids_of(4)] == ["1x2", "2x1", "1x3", "3x1", "1x4", "2x2", "4x1"]


@pytest.mark.parametrize(("most", "fine"), [(1, False), (2, True), (9, True), (10, False), (True, False), (4.0, False)])
def test_a_rule_has_two_tiles_at_least_and_no_more_than_its_family(most: Any, fine: bool) -> None:
    assert accepted(lambda: replace(TRANSFORMERS, max_tiles=most)) is fine


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (640, 640, None),
        (641, 640, "2x2"),  # nearest to 1.0016, and more than half of 4 tiles is not needed where no other is as near
        (640, 641, "2x2"),
        (1_357, 1_357, "2x2"),  # 1,841,449 pixels; half of nine tiles are 1,843,200
        (1_358, 1_358, "3x3"),  # 1,844,164
        (905, 1_810, "1x2"),  # 1,638,050; half of eight tiles are 1,638,400
        (906, 1_812, "2x4"),  # 1,641,672
        (6_000, 100, "9x1"),
    ],
)
def test_a_page_is_cut_by_its_shape_and_on_a_tie_by_its_pixels(width: int, height: int, grid: str | None) -> None:
    found = crop_grid_for(width, height)
    assert (None if found is None else str(found)) == grid


def test_tokens_of_a_page_by_hand() -> None:
    # 16 rows of 16 and a newline, and a separator; of 2 x 3 tiles of 10: 30 rows of 20 and a newline
    page = VisionWorkload(base_size=1024, image_size=640, grid=CropGrid(columns=2, rows=3))
    assert (page.global_tokens, page.newline_rows, page.local_tokens, page.image_tokens) == (273, 30, 630, 903)
    assert page.num_views == 7
    assert [(group.side_px, group.count) for group in page.view_groups] == [(1024, 1), (640, 6)]
    assert (MODES["tiny"].image_tokens, MODES["tiny"].local_tokens, MODES["tiny"].newline_rows) == (73, 0, 0)


@pytest.mark.parametrize(("size", "fine"), [(64, True), (63, False), (65, False), (0, False)])
def test_sides_of_views_are_whole_tokens(size: int, fine: bool) -> None:
    assert accepted(lambda: VisionWorkload(base_size=size, image_size=640, grid=None)) is fine
    assert accepted(lambda: VisionWorkload(base_size=1024, image_size=size, grid=None)) is fine


@pytest.mark.parametrize(("seq_len", "text"), [(73, None), (74, 0), (75, 1)])
def test_a_sequence_holds_the_image_and_one_token_more(seq_len: int, text: int | None) -> None:
    if text is None:
        with pytest.raises(ValueError, match=r"accepted: at least 74 for this page \(tiny: 73 image tokens and 1 BOS\)"):
            TokenLayout.of(seq_len, MODES["tiny"])
    else:
        layout = TokenLayout.of(seq_len, MODES["tiny"])
        assert (layout.image_tokens, layout.bos_tokens, layout.text_tokens) == (73, 1, text)
    assert TokenLayout.of(1, None).text_tokens == 0


def test_parts_of_vision_are_those_of_the_shapes_that_they_are_given() -> None:
    parts = {part.name: part for part in registry.family_of(SPEC).parts}
    costs = {
        "sam": ((2, 3, 640, 640), ImageEncoderViT(spec=SAM, views=2, side_px=640, run=FULL_SIZE)),
        "clip": ((2, 1024, 10, 10), VitModel(spec=SPEC.clip, views=2, side=10, run=FULL_SIZE)),
        "projector": ((2, 100, 2048), MlpProjector(width_in=2048, width_out=1280, tokens=200, run=FULL_SIZE)),
    }
    for name, (shape, layer) in costs.items():
        assert parts[name].layer(SPEC, shape, FULL_SIZE) == layer


def test_the_processors_of_engines_make_the_tokens_of_a_view() -> None:
    # rows of 1,024 px in patches, downsampled; a newline for each row, and the separator
    for processor in (ENGINE_FILES.vendor_processor, ENGINE_FILES.transformers_processor):
        side = 1024 // (processor["patch_size"] * processor["downsample_ratio"])
        assert side * (side + 1) + 1 == PAGES.mode("base").image_tokens == 273
