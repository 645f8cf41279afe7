"""Predicted time: each operator at the rate of its class, launches added or hidden; rates survive their file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic import rates as stored_rates
from analytic.cost import CostNode
from analytic.execution import Execution
from analytic.model import DeepseekOCRModel
from analytic.op import Op
from analytic.ops import linear, movement, pointwise
from analytic.predict import predict
from analytic.rates import FLOP_CLASSES, RateCurve, Rates, ShapeClass
from analytic.spec import ModelSpec
from analytic.workload import MODES
from fixtures import predict_study
from fixtures.predict_study import Case, lines, names

TINY = ModelSpec.from_preset("tiny")
CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")


def flat(rate: float) -> RateCurve:
    return RateCurve((1.0,), (rate,))


def rates(*, launch_s: float = 1e-6, overlapped: bool = False) -> Rates:
    """1 GFLOP/s in every product, 1 GB/s in every copy."""
    return Rates(
        device_name="a device",
        model_variant="tiny",
        dtype="float32",
        threads=1,
        launch_s=launch_s,
        overlapped=overlapped,
        attention={16: flat(1e9)},
        curves={kind: flat(1e9) for kind in ShapeClass if kind is not ShapeClass.ATTENTION},
    )


def node(*ops: Op, layer: str = "Linear", copies: tuple[str, ...] = ()) -> CostNode:
    return CostNode(
        name="x",
        layer=layer,
        ops=ops,
        parameter_bytes=0,
        fused_bytes=0,
        held_bytes=0,
        kv_bytes=0,
        children=(),
        copies=copies,
    )


def test_a_product_takes_the_longer_of_its_flops_and_its_bytes() -> None:
    # 2 * 1000 * 64 * 32 FLOPs at 1 GFLOP/s: 4.096 ms; (64,000 + 2,048 + 32,000) * 4 bytes at 1 GB/s: 0.392 ms
    op = linear(tokens=1000, width_in=64, width_out=32, bias=False, b=4)
    assert predict([node(op)], TINY, rates()).time_s == pytest.approx(4.096e-3 + 1e-6)
    fast = replace(rates(), curves=dict(rates().curves) | {ShapeClass.PRODUCT: flat(1e12)})
    assert predict([node(op)], TINY, fast).time_s == pytest.approx(0.392192e-3 + 1e-6)


def test_a_products_rate_is_that_of_the_length_of_its_sums() -> None:
    op = linear(tokens=1000, width_in=64, width_out=32, bias=False, b=4)
    curve = RateCurve((64.0, 128.0), (1e9, 8e9))
    known = replace(rates(launch_s=0), curves=dict(rates().curves) | {ShapeClass.PRODUCT: curve})
    assert predict([node(op)], TINY, known).time_s == pytest.approx(4.096e-3)


def test_copies_of_a_layer_and_their_launches_add_up() -> None:
    op = movement(launches=3, read=500, written=500)
    one = predict([node(op)], TINY, rates())
    assert (one.launches, one.launch_s) == (3, pytest.approx(3e-6))
    assert one.time_s == pytest.approx(1e-6 + 3e-6)
    many = predict([node(op, copies=("0", "1", "2"))], TINY, rates())
    assert many.launches == 9
    assert many.time_s == pytest.approx(3 * one.time_s)


def test_launches_are_hidden_where_the_device_works_meanwhile() -> None:
    # 1 us of work under 3 us of launches, and the other way round
    short, long = movement(launches=3, read=500, written=500), movement(launches=1, read=50_000, written=50_000)
    assert predict([node(short, long)], TINY, rates(overlapped=True)).time_s == pytest.approx(3e-6 + 100e-6)


def test_some_layers_operators_are_a_class_of_their_own() -> None:
    op = pointwise(launches=1, flops=1, read=500, written=500, live=0)
    found = {
        layer: set(predict([node(op, layer=layer)], TINY, rates()).work_s)
        for layer in ("LayerNorm", "Activation", "SamMLP")
    }
    assert found == {"LayerNorm": {ShapeClass.NORM}, "Activation": {ShapeClass.ACTIVATION}, "SamMLP": {ShapeClass.STREAM}}


def test_every_stage_of_the_model_is_predicted_and_only_what_lies_below_a_path() -> None:
    root = DeepseekOCRModel.from_spec(TINY, run=CPU)
    root.start_vision(workload=MODES["base"])
    whole = predict([root.tree()], TINY, rates())
    sam = predict([root.tree()], TINY, rates(), below="model.vision_tower.sam_encoder")
    assert 0 < sam.time_s < whole.time_s
    assert whole.launches == int(root.forward_cost().launches)
    assert whole.time_s == pytest.approx(whole.launch_s + sum(whole.work_s.values()))
    root.start_prefill(64, 1)
    prefill = predict([root.tree()], TINY, rates())
    assert {ShapeClass.PRODUCT, ShapeClass.GROUPED, ShapeClass.ATTENTION} <= set(prefill.work_s)


@given(size=st.floats(1, 1e9))
def test_a_curve_stays_between_its_neighbours(size: float) -> None:
    curve = RateCurve((10.0, 1000.0, 1e6), (5.0, 50.0, 20.0))
    assert 5.0 <= curve.at(size) <= 50.0 + 1e-9


def test_a_curve_is_a_power_law_between_its_points_and_flat_beyond() -> None:
    curve = RateCurve((10.0, 1000.0), (5.0, 50.0))
    assert curve.at(100) == pytest.approx((5 * 50) ** 0.5)
    assert (curve.at(1), curve.at(10), curve.at(1e9)) == (5.0, pytest.approx(5.0), 50.0)


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
    path.write_text(json.dumps(json.loads(path.read_text()) | {"launch_s": 0}))
    with pytest.raises(ValueError, match=r"rates.json: does not fit .*launch_s"):
        stored_rates.read(path)


def test_the_study_says_median_and_worst_and_what_lies_below_the_floor() -> None:
    def case(point: str, predicted: float, measured: float) -> Case:
        return Case(
            stage="prefill", point=point, floor_s=0.5, predicted_s=predicted, measured_s=measured, launches=1, launch_s=0.1
        )

    said = lines([case("1", 1.1, 1.0), case("2", 0.8, 1.0), case("3", 0.4, 0.4)])
    assert "all: median absolute error 10.0%, worst -20.0% at prefill[2]" in said
    assert said[-1] == "floor <= measured: NOT at prefill[3]"
    assert {name.partition("[")[0] for name in names()} >= {"vision", "sam", "clip", "projector", "prefill", "decode"}


def test_input_that_can_not_be_used_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_study.main(["--device", "meta", "--output-dir", str(tmp_path)]) == 2
    assert "device: got 'meta', accepted: cpu, cuda" in capsys.readouterr().err
    assert predict_study.main(["--preset", "huge", "--output-dir", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_microbenchmarks_measure_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures import microbench

    monkeypatch.setattr(microbench, "ROUND_S", 1e-5)
    monkeypatch.setattr(microbench, "ROUNDS", 1)
    monkeypatch.setattr(microbench, "BYTES", (1 << 14, 1 << 15, 1 << 16))
    monkeypatch.setattr(microbench, "CONTEXTS", (16, 32))
    monkeypatch.setattr(microbench, "ROWS", {"cpu": 64})
    monkeypatch.setattr(microbench, "SUMS", (16, 32))
    said: list[str] = []
    found = microbench.measure(TINY, device="cpu", dtype="float32", progress=said.append)
    assert set(found.curves) == set(ShapeClass) - {ShapeClass.ATTENTION}
    assert set(found.attention) == {16}
    assert all(rate > 0 for curve in found.curves.values() for rate in curve.rates)
    assert found.launch_s > 0
    assert len(said) == len(found.curves) + 1
    assert set(FLOP_CLASSES) <= set(ShapeClass)
