"""Predicted time: each operator at the rate of its class, the host between them; rates survive their file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic.__main__ import main
from analytic.cli import predict as predict_command
from analytic.core.attention import AttentionShape, products
from analytic.core.cost import CostNode
from analytic.core.execution import Attention, Execution, Experts
from analytic.core.layer import module
from analytic.core.op import Op
from analytic.core.ops import broadcast_sum, linear, movement
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.spec import ModelSpec
from analytic.prediction import rates as stored_rates
from analytic.prediction.predict import op_times, predict
from analytic.prediction.rates import ClassRates, RateCurve, Rates

TINY = ModelSpec.from_preset("tiny")
CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")


def flat(rate: float, *, start_s: float = 0.0) -> ClassRates:
    return ClassRates(start_s=start_s, curves={0: RateCurve((1.0,), (rate,))})


def rates(*, host_s: float = 1e-6, overlapped: bool = False, **special: ClassRates) -> Rates:
    """1 GFLOP/s in every product, 1 GB/s in every copy, no start; `special` by class."""
    return Rates(
        device_name="a device",
        model_variant="tiny",
        dtype="float32",
        threads=1,
        flops_per_s=1e12,
        bytes_per_s=1e11,
        host_s=host_s,
        overlapped=overlapped,
        cache_bytes=1 << 40,
        classes={name: special.get(str(name), flat(1e9)) for name in ShapeClass},
    )


def node(*ops: Op, copies: tuple[str, ...] = ()) -> CostNode:
    return module("x", "Linear", ops=ops, copies=copies)


def test_a_product_takes_the_longer_of_its_flops_and_its_bytes() -> None:
    # 2 * 1000 * 64 * 32 FLOPs at 1 GFLOP/s: 4.096 ms; (64,000 + 2,048 + 32,000) * 4 bytes at 1 GB/s: 0.392 ms
    op = linear(tokens=1000, width_in=64, width_out=32, bias=False, b=4)
    assert predict([node(op)], rates()).time_s == pytest.approx(4.096e-3 + 1e-6)
    assert predict([node(op)], rates(product=flat(1e12))).time_s == pytest.approx(0.392192e-3 + 1e-6)


def test_a_products_rate_is_that_of_its_rows_and_the_length_of_its_sums() -> None:
    op = linear(tokens=1000, width_in=64, width_out=32, bias=False, b=4)
    curves = {10: RateCurve((64.0, 128.0), (1e7, 8e7)), 1000: RateCurve((64.0, 128.0), (1e8, 8e8))}
    known = rates(host_s=0, product=ClassRates(start_s=2e-6, curves=curves))
    assert predict([node(op)], known).time_s == pytest.approx(40.96e-3 + 2e-6)
    fewer = linear(tokens=100, width_in=64, width_out=32, bias=False, b=4)  # between the two, a power law
    assert predict([node(fewer)], known).time_s == pytest.approx(4.096e-4 / 10**-1.5 + 2e-6, rel=1e-3)


def test_weights_that_do_not_stay_in_the_cache_are_read_from_memory() -> None:
    near_and_far = ClassRates(start_s=0.0, curves={0: RateCurve((1e4, 1e6), (1e12, 1e9))})
    op = linear(tokens=1, width_in=64, width_out=32, bias=False, b=4)  # 8,192 bytes of weights
    known = rates(host_s=0, product=flat(1e15), write=flat(1e15), read=near_and_far)
    assert predict([node(op)], known).time_s == pytest.approx((8192 + 256) / 1e12, rel=1e-3)
    assert predict([node(op)], replace(known, cache_bytes=8191)).time_s == pytest.approx(8192 / 1e9, rel=1e-3)


def test_copies_of_a_layer_and_the_host_between_operators_add_up() -> None:
    op = movement(launches=3, read=500, written=500)
    one = predict([node(op)], rates(movement=flat(1e9, start_s=2e-6)))
    assert (one.launches, one.host_s) == (3, pytest.approx(3e-6))
    assert one.time_s == pytest.approx(1e-6 + 3 * 2e-6 + 3e-6)
    many = predict([node(op, copies=("0", "1", "2"))], rates(movement=flat(1e9, start_s=2e-6)))
    assert many.launches == 9
    assert many.time_s == pytest.approx(3 * one.time_s)


def test_the_longer_of_host_and_device_counts_where_the_device_works_meanwhile() -> None:
    # 3 us of host over 1 us of work, a third of it after the last launch; one launch over 100 us of work, issued after 4 us
    short, long = movement(launches=3, read=500, written=500), movement(launches=1, read=50_000, written=50_000)
    assert predict([node(short)], rates(overlapped=True)).time_s == pytest.approx(3e-6 + 1e-6 / 3)
    assert predict([node(short, long)], rates(overlapped=True)).time_s == pytest.approx(104e-6)
    # the device is still busy with the long one while 3 us of host pass
    assert predict([node(long, short)], rates(overlapped=True)).time_s == pytest.approx(102e-6)


def test_a_host_that_waits_for_the_device_issues_nothing_meanwhile() -> None:
    # 1 us of host, 100 us of work, of which the host sees the end; then 3 us of host
    waits = movement(launches=1, read=50_000, written=50_000, waits=1)
    short = movement(launches=3, read=500, written=500)
    found = predict([node(waits, short)], rates(overlapped=True))
    assert found.time_s == pytest.approx(101e-6 + 3e-6 + 1e-6 / 3)
    assert found.host_s == pytest.approx(4e-6)
    # where host and device take turns, there is nothing to wait for: 4 us and 101 us
    assert predict([node(waits, short)], rates()).time_s == pytest.approx(105e-6)


def test_the_host_takes_the_time_that_its_class_takes_to_issue() -> None:
    quick = replace(flat(1e15), issue_s=2e-6)
    op = movement(launches=3, read=500, written=500)
    known = replace(rates(host_s=9e-6, overlapped=True, movement=quick), python_s=5e-6)
    assert predict([node(op)], known).host_s == pytest.approx(3 * 7e-6)
    assert predict([node(op)], replace(known, python_s=None)).host_s == pytest.approx(3 * 9e-6)
    assert predict([node(linear(tokens=1, width_in=8, width_out=8, bias=False, b=4))], known).host_s == pytest.approx(9e-6)


def test_what_one_call_hides_does_not_hide_another() -> None:
    # a call that waits for its host for 3 us, and one whose device works for 100 us: one after the other
    short, long = movement(launches=3, read=500, written=500), movement(launches=1, read=50_000, written=50_000)
    found = predict([node(short), node(long)], rates(overlapped=True))
    assert found.time_s == pytest.approx(3e-6 + 1e-6 / 3 + 101e-6)
    assert found.host_s == pytest.approx(4e-6)


@pytest.mark.parametrize("shape_class", [ShapeClass.SINGLE_QUERY, ShapeClass.CAUSAL_ATTENTION])
def test_attention_is_sized_by_the_positions_it_looks_at(shape_class: ShapeClass) -> None:
    shape = AttentionShape(groups=4, queries=40, keys=100, head_dim=16, useful_pairs=1)
    op = products(shape, CPU, fused=shape_class)
    known = ClassRates(start_s=0.0, curves={16: RateCurve((99.0, 100.0, 101.0), (1e3, 1e6, 1e3))})
    found = next(op_times(node(op), rates(**{str(shape_class): known})))
    assert found.work_s == pytest.approx(4 * 4 * 40 * 100 * 16 / 1e6)


def test_a_broadcast_is_sized_by_what_it_writes_and_by_its_innermost_axis() -> None:
    op = broadcast_sum(outer=5, side=14, b=4, live=0)  # 5 * 14 * 14 * 4 = 3,920 bytes
    curves = {7: RateCurve((1.0,), (1e3,)), 14: RateCurve((3919.0, 3920.0, 3921.0), (1e3, 1e6, 1e3))}
    known = rates(host_s=0, broadcast=ClassRates(start_s=0.0, curves=curves))
    assert predict([node(op)], known).time_s == pytest.approx(3920 / 1e6)


def test_products_of_two_lengths_of_sums_have_a_rate_each() -> None:
    shape = AttentionShape(groups=4, queries=40, keys=100, head_dim=16, useful_pairs=1)
    op = products(shape, replace(CPU, attention="eager"), fused=ShapeClass.ATTENTION)
    curves = {40: RateCurve((16.0, 100.0), (1e6, 2e6))}
    known = rates(host_s=0, product=ClassRates(start_s=0.0, curves=curves), read=flat(1e15), write=flat(1e15))
    half = 2 * 4 * 40 * 100 * 16
    assert predict([node(op)], known).time_s == pytest.approx(half / 1e6 + half / 2e6)


def test_every_stage_of_the_model_is_predicted_and_only_what_lies_below_a_path() -> None:
    root = DeepseekOCRModel.from_spec(TINY, run=CPU)
    root.start_vision(workload=MODES["base"])
    whole = predict([root.tree()], rates())
    sam = predict([root.tree()], rates(), below="model.vision_tower.sam_encoder")
    assert 0 < sam.time_s < whole.time_s
    assert whole.launches == int(root.forward_cost().launches)
    assert whole.time_s == pytest.approx(whole.host_s + sum(whole.device_s.values()))
    root.start_prefill(64, 1)
    prefill = predict([root.tree()], rates())
    used = set(whole.device_s) | set(prefill.device_s)
    assert set(ShapeClass) - used == {ShapeClass.READ, ShapeClass.SINGLE_QUERY}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
def test_every_kernel_of_the_model_is_predicted(attention: Attention, experts: Experts) -> None:
    run = Execution(device="cpu", attention=attention, experts=experts, dtype="float32")
    root = DeepseekOCRModel.from_spec(TINY, run=run)
    root.start_prefill(64, 2)
    root.start_decode()
    found = predict([root.tree()], rates())
    assert found.time_s > 0
    assert (ShapeClass.SINGLE_QUERY in found.device_s) == (attention == "sdpa")
    # the weights that are copied out for every row are a copy; scores and masks of unfused attention are pointwise
    layers = ("LlamaFlashAttention2", "RoutedExperts")
    classes = {one.op.rate_class for one in op_times(root.tree(), rates()) if one.layer in layers}
    assert (ShapeClass.ROUTING in classes) == (experts == "grouped_mm")
    assert {ShapeClass.ROTARY, ShapeClass.JOIN} <= classes


@given(size=st.floats(1, 1e9))
def test_a_curve_stays_between_its_neighbours(size: float) -> None:
    curve = RateCurve((10.0, 1000.0, 1e6), (5.0, 50.0, 20.0))
    assert 5.0 <= curve.at(size) <= 50.0 + 1e-9


def test_a_curve_is_a_power_law_between_its_points_and_flat_beyond() -> None:
    curve = RateCurve((10.0, 1000.0), (5.0, 50.0))
    assert curve.at(100) == pytest.approx((5 * 50) ** 0.5)
    assert (curve.at(1), curve.at(10), curve.at(1e9)) == (5.0, pytest.approx(5.0), 50.0)


def test_sizes_that_a_float_does_not_tell_apart_have_a_rate() -> None:
    curve = RateCurve((10**20, 10**20 + 2), (5.0, 50.0))  # whole numbers, as JSON has them
    assert curve.at(10**20 + 1) == 50.0


@pytest.mark.parametrize(
    ("sizes", "given_rates"), [((), ()), ((1.0,), (1.0, 2.0)), ((2.0, 1.0), (1.0, 1.0)), ((1.0,), (0.0,))]
)
def test_curves_that_can_not_be_are_refused(sizes: tuple[float, ...], given_rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="accepted"):
        RateCurve(sizes, given_rates)


def test_rates_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rates.json"
    stored_rates.write(rates(), path)
    assert stored_rates.read(path) == rates()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host_s": -1}))
    with pytest.raises(ValueError, match=r"rates.json: does not fit .*host_s"):
        stored_rates.read(path)


def test_rates_without_a_class_are_refused() -> None:
    classes = {name: flat(1e9) for name in ShapeClass if name is not ShapeClass.MASK}
    with pytest.raises(ValueError, match="classes: got none for mask"):
        replace(rates(), classes=classes)


def test_the_command_says_floor_and_prediction_of_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rates.json"
    stored_rates.write(rates(), path)
    page = ["--crop-grid", "2x1", "--seq-len", "1024"]
    assert main(["predict", "--rates", str(path), *page]) == 0
    said = capsys.readouterr().out
    assert said.startswith("tiny, float32, attention sdpa, experts grouped_mm, on a device, 1 threads; gundam-2x1, 1,024 ")
    assert main(["predict", "--rates", str(path), *page, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert list(stages) == ["vision", "prefill", "decode"]
    for stage in stages.values():
        assert 0 < stage["floor_s"] < stage["predicted_s"]
        assert stage["predicted_s"] == pytest.approx(stage["host_s"] + sum(stage["device_s"].values()))
        assert f"{stage['predicted_s'] * 1e3:,.3f}" in said


def test_the_command_refuses_what_it_has_no_rates_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_command, "FOLDER", tmp_path)
    stored_rates.write(rates(), tmp_path / "known" / "rates.json")
    assert main(["predict", "--on", "h9000", "--no-image", "--seq-len", "64"]) == 2
    assert "on: got 'h9000', accepted: known, the devices with stored rates" in capsys.readouterr().err
    assert main(["predict", "--on", "known", "--no-image", "--seq-len", "64"]) == 0
    assert main(["predict", "--on", "known", "--crop-grid", "2x1"]) == 0
    assert "500 positions" in capsys.readouterr().out  # 483 of the image, BOS and a prompt of 16
    assert main(["predict", "--on", "known", "--crop-grid", "2x1", "--seq-len", "64"]) == 2
    assert "seq_len" in capsys.readouterr().err
