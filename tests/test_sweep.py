"""Many points in one call: equal to one at a time, and written as files that fit their schema."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analytic.core.execution import FULL_SIZE
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES, SWEPT_PAGES, gundam, parse_page
from analytic.models.spec import ModelSpec
from analytic.planning import sweep


def test_an_evaluation_in_chunks_is_one_evaluation(full_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.arange(1, 41).reshape(8, 5)
    whole = sweep.evaluate(full_spec, FULL_SIZE, batch_size=2, new_tokens=lengths, past_tokens=0)
    monkeypatch.setattr(sweep, "CHUNK", 7)
    pieces = sweep.evaluate(full_spec, FULL_SIZE, batch_size=2, new_tokens=lengths, past_tokens=0)
    for name, value in whole.as_dict().items():
        assert value.shape == lengths.shape, name
        assert np.array_equal(value, pieces.as_dict()[name]), name


def test_scaling_is_the_stateful_root_at_every_length(full_spec: ModelSpec) -> None:
    scaled = sweep.scaling(full_spec, FULL_SIZE, seq_lens=[256, 1024], decode_steps=3, batch_size=2)
    root = DeepseekOCRModel.from_spec(full_spec)
    for point in scaled["points"]:
        root.start_prefill(point["seq_len_prefill"], 2)
        cost = {**root.forward_cost().as_dict(), "operand_bytes": root.tree().operand_bytes()}
        assert point["prefill"] == {name: cost[name] for name in sweep.PREFILL}
        cache = root.start_decode()
        flops = moved = operands = peak = 0
        for _ in range(3):
            flops += root.forward_tensor_core_flops()
            moved += root.forward_cal_io()
            operands += root.tree().operand_bytes()
            peak = max(peak, root.forward_memory_activation())
            cache = root.decode_one_token()
        assert point["decode"]["executed_flops_per_token"] == flops // 3
        assert point["decode"]["eager_bytes_per_token"] == moved // 3
        assert point["decode"]["operand_bytes_per_token"] == operands // 3
        assert point["decode"]["activation_bytes_per_token"] == peak
        assert point["decode"]["kv_bytes_final"] == cache.kv_bytes


def test_pages_are_the_stateful_root_on_each(full_spec: ModelSpec) -> None:
    pages = [MODES["base"], gundam(CropGrid.parse("2x3"))]
    scaled = sweep.scaling(full_spec, FULL_SIZE, seq_lens=[8], decode_steps=1, batch_size=2, pages=pages)
    root = DeepseekOCRModel.from_spec(full_spec)
    for page, crop in zip(pages, scaled["crops"], strict=True):
        root.start_vision(page, batch_size=2)
        cost = {**root.forward_cost().as_dict(), "operand_bytes": root.tree().operand_bytes()}
        assert crop["vision"] == {name: cost[name] for name in sweep.PREFILL}
    assert [(crop["page"], crop["crop_grid"], crop["views"]) for crop in scaled["crops"]] == [
        ("base", None, 1),
        ("gundam-2x3", "2x3", 7),
    ]
    sweep.SCALING.check(scaled, where="the sweep")


def test_operands_are_what_operators_move_with_every_expert(full_spec: ModelSpec) -> None:
    def decoder(tokens: int) -> Decoder:
        shape = DecoderShape(batch=1, new_tokens=tokens, past_tokens=0)
        return Decoder(spec=full_spec.text, shape=shape, logits="last", run=FULL_SIZE)

    # 4096 tokens with 6 of 64 experts each leave none untouched; one leaves 58 of 64 in each of 11 layers
    all_experts, few = decoder(4096), decoder(1)
    assert all_experts.tree("").operand_bytes() == all_experts.forward_cost().eager_bytes
    untouched = 11 * 58 * 3 * 1280 * 896 * 2
    assert few.tree("").operand_bytes() - few.forward_cost().eager_bytes == untouched


def test_swept_pages_have_every_number_of_views() -> None:
    assert [parse_page("page", text).num_views for text in SWEPT_PAGES] == [1, *range(3, 11)]


def test_a_file_of_the_first_version_is_still_one(tiny_spec: ModelSpec) -> None:
    scaled = sweep.scaling(tiny_spec, FULL_SIZE, seq_lens=[8], decode_steps=1)
    older = {name: value for name, value in scaled.items() if name != "crops"} | {"schema_version": "1.0"}
    for point in older["points"]:
        del point["prefill"]["operand_bytes"], point["decode"]["operand_bytes_per_token"]
    assert sweep.SCALING.current(older, where="an older sweep") == older
    with pytest.raises(ValueError, match="does not fit schemas/analytic_scaling"):
        sweep.SCALING.check({**older, "schema_version": "1.1"}, where="the sweep")


def test_files_fit_the_schema_and_hold_the_same(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    scaled = sweep.scaling(tiny_spec, FULL_SIZE, seq_lens=[1, 64], decode_steps=2)
    json_path, csv_path = sweep.write(scaled, tmp_path / "new" / "folder")
    assert json.loads(json_path.read_text()) == scaled
    sweep.SCALING.check(scaled, where="the sweep")
    table = pd.read_csv(csv_path)
    assert list(table["seq_len_prefill"]) == [1, 64]
    assert table["prefill_executed_flops"][1] == scaled["points"][1]["prefill"]["executed_flops"]
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["analytic_scaling.csv", "analytic_scaling.json"]


def test_an_object_that_does_not_fit_is_not_written(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    scaled = sweep.scaling(tiny_spec, FULL_SIZE, seq_lens=[8], decode_steps=1)
    scaled["points"][0]["prefill"]["executed_flops"] = -1
    with pytest.raises(ValueError, match="executed_flops: -1 is less than the minimum"):
        sweep.write(scaled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_can_not_be_replaced_leave_nothing_behind(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    scaled = sweep.scaling(tiny_spec, FULL_SIZE, seq_lens=[8], decode_steps=1)
    (tmp_path / "analytic_scaling.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        sweep.write(scaled, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["analytic_scaling.csv"]
    with pytest.raises(OSError, match="too long"):
        sweep.write(scaled, tmp_path / "new" / ("x" * 300))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("batch", "new", "past"),
    [(0, 1, 0), (1, [3, 0], 0), (1, 1, -1), (1, 2.5, 0), (1, [1.5], 0), (True, 1, 0), (1, [1 << 40], 0)],
)
def test_points_that_are_none_are_refused(full_spec: ModelSpec, batch: int, new: int, past: int) -> None:
    with pytest.raises(ValueError, match=r"(batch_size|new_tokens|past_tokens): got .*accepted: (a )?whole number"):
        sweep.evaluate(full_spec, FULL_SIZE, batch_size=batch, new_tokens=new, past_tokens=past)


@pytest.mark.parametrize(("batch", "new", "past"), [(256, 10**6, 0), (1, 10**8, 0), (10**6, 1, 10**9)])
def test_points_beyond_64_bits_are_refused(full_spec: ModelSpec, batch: int, new: int, past: int) -> None:
    with pytest.raises(ValueError, match=r"batch_size x tokens: got .*accepted: points whose counts fit 64 bits"):
        sweep.evaluate(full_spec, FULL_SIZE, batch_size=batch, new_tokens=[new], past_tokens=past)


def test_the_largest_point_that_is_taken_does_not_overflow(full_spec: ModelSpec) -> None:
    for run in (FULL_SIZE, replace(FULL_SIZE, attention="eager", experts="batched_mm", dtype="float32")):
        for batch, new, past in ((64, 10**5, 0), (1, 2 * 10**6, 0), (10**6, 1, 10**6)):
            arrays = sweep.evaluate(full_spec, run, batch_size=batch, new_tokens=[new], past_tokens=past).as_dict()
            shape = DecoderShape(batch=batch, new_tokens=new, past_tokens=past)
            exact = Decoder(spec=full_spec.text, shape=shape, logits="last", run=run).forward_cost().as_dict()
            assert {name: int(value[0]) for name, value in arrays.items()} == exact
