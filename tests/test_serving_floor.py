"""Floor and prediction of served pages: the work that they are of, and cached or skipped work found by them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.crop_rule import RULES
from analytic.models.registry import load_spec, model_of
from analytic.planning.mix import Mix
from analytic.planning.throughput import service
from analytic.prediction import hardware
from fixtures.serving.device import served_device
from fixtures.serving.floor import served_floor
from fixtures.serving.held import floor_problems
from fixtures.serving.options import execution, parsed
from tests.serving_runs import SLOW, SMALL, answer_at, cell_with, example, floor_of, on_h200, run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_work_of_a_page_is_that_of_every_forward(concurrency: int) -> None:
    """Vision and prefill alone, and a part of each step of the batch: what `walk` gives, forward by forward."""
    cell, steps = cell_with(), 8
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    root = model_of(load_spec("deepseek-ocr-v1-base"), run=run)
    flops = moved = 0.0
    for call in root.walk(cell.shapes[0].page, seq_len=1_097, batch_size=1, decode_steps=0):
        assert call.stage != "decode"
        flops, moved = flops + root.forward_cost().useful_flops, moved + root.forward_cost().fused_bytes
    for call in root.walk(None, seq_len=1_097, batch_size=concurrency, decode_steps=steps):
        if call.stage == "decode":
            flops += root.forward_cost().useful_flops / concurrency
            moved += root.forward_cost().fused_bytes / concurrency
    floor = floor_of(cell, output_tokens=steps + 1, in_flight=concurrency)
    assert floor.work.useful_flops == pytest.approx(flops, rel=1e-4)  # which takes every step at the mean context
    assert floor.work.fused_bytes == pytest.approx(moved, rel=1e-4)
    sheet = hardware.device("h200")
    assert floor.mfu(1.5) == pytest.approx(3 * flops / (2 * sheet.flops_per_s("bfloat16")), rel=1e-4)
    assert floor.mbu(1.5) == pytest.approx(3 * moved / (2 * sheet.bandwidth_bytes_per_s), rel=1e-4)


def test_utilization_is_in_the_file() -> None:
    (cell,) = example()["cells"]
    floor = floor_of(cell_with(), output_tokens=1)
    assert cell["pages_per_s"] == 1.0
    assert (cell["mfu"], cell["mbu"]) == (floor.mfu(1.0), floor.mbu(1.0))
    assert cell["mfu"] == pytest.approx(2 * 5.179e12 / (2 * 989.4e12), rel=1e-3)  # two pages in 2 s


def test_a_first_token_under_the_floor_is_cached_or_skipped_work() -> None:
    cell = cell_with(answer_at(0.0, 1.0))
    floor = floor_of(cell, output_tokens=1)
    (floor_s,) = floor.ttft_s
    assert 1e-3 < floor_s < 1e-1  # some TFLOP on some hundred TFLOP/s
    assert floor_problems([cell], {cell.name: floor}, device="h200") == []
    cell = cell_with(answer_at(0.0, 1.0), answer_at(1.0, floor_s / 2), answer_at(2.0, floor_s))
    (problem,) = floor_problems([cell], {cell.name: floor}, device="h200")
    assert problem.startswith("1920x1080px-c1: cached or skipped work: 1 of 3 first tokens came before the floor of")
    assert "before the floor of vision and prefill on h200" in problem


def test_a_page_served_from_a_cache_is_caught(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device so slow that no server can be: whatever answers has skipped the work."""
    monkeypatch.setattr(hardware, "devices", lambda: (SLOW,))
    code, said, kept = run(started(), *SMALL, "--image-size", "600x400", "--on", "slow", "--probe-cache")
    assert code == 1
    first, tokens = kept["problems"]
    assert first.startswith("600x400px-c1: cached or skipped work: 2 of 2 first tokens")
    assert tokens.startswith("600x400px-c1: token p50 over all answers ")
    assert kept["cells"][0]["floor"]["ttft_s"] > 1e3  # some TFLOP on 1 GFLOP/s
    assert "600x400px, sent twice: first token after" in said
    assert "; under the floor: served from a cache" in said


def test_no_floor_is_held_where_the_tokens_differ(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "devices", lambda: (SLOW,))
    code, _, kept = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9", "--on", "slow")
    assert code == 1
    assert kept["cells"][0]["floor"] is None
    assert not any("cached" in problem for problem in kept["problems"])


def test_only_the_probe_sends_a_page_twice(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    code, _, kept = run(stub, *SMALL, "--image-size", "64x64", "--probe-cache")
    assert code == 0
    assert len(stub.images) == 5  # one of warm-up, two measured, one twice
    assert len(set(stub.images)) == 4
    assert stub.images[3] == stub.images[4]
    assert [probe["page"] for probe in kept["cache_probes"]] == ["64x64px"]


def test_the_floor_is_that_of_each_stage_at_the_batch_in_flight() -> None:
    """Vision and prefill of one page alone, a decode step of all pages in flight: those of a plan for the same device."""
    cell, device = cell_with(), on_h200()
    mix = Mix.of_one(cell.shapes[0].page, seq_len=1_097, new_tokens=9)
    planned = service(mix, device.floor, 16)
    found = floor_of(cell, output_tokens=9, in_flight=16)
    assert (found.stages.vision_s, found.stages.prefill_s) == (planned.vision_s, planned.prefill_s)
    assert found.ttft_s == (found.stages.ttft_s,) == (planned.vision_s + planned.prefill_s,)
    assert found.stages.step_s == found.stages.token_s == planned.step_s
    assert found.stages.pages_per_s == planned.pages_per_s
    assert found.stages.step_s > floor_of(cell, output_tokens=9).stages.step_s  # more experts are touched
    assert found.predicted is not None  # the rates of an H200 are stored
    assert found.predicted.step_s > found.stages.step_s
    unmeasured = served_device(load_spec("deepseek-ocr-v1-base"), execution("bfloat16"), on="b200", rates_file=None)
    assert unmeasured is not None
    assert unmeasured.predicted is None


def test_rates_of_a_device_predict_the_times_of_a_page() -> None:
    spec, run = load_spec("tiny"), execution("float32")
    device = served_device(spec, run, on="xeon-2-threads", rates_file=None)
    assert device is not None
    assert device.predicted is not None
    cell = cell_with()
    found = served_floor(spec, run, device, {cell.shapes[0]: 1.0}, beside_image=4, output_tokens=9, in_flight=4)
    assert found.predicted is not None
    assert found.predicted.vision_s > found.stages.vision_s
    assert found.predicted.prefill_s > found.stages.prefill_s
    planned = service(Mix.of_one(cell.shapes[0].page, seq_len=1_097, new_tokens=9), device.predicted, 4)
    assert found.predicted.token_s == planned.tpot_s
    assert found.predicted.token_s > found.predicted.step_s  # three other pages enter between


def test_the_ceilings_of_a_device_give_every_model_a_floor_and_only_its_own_a_prediction() -> None:
    spec, run = load_spec("deepseek-ocr-v1-base"), execution("float32")
    device = served_device(spec, run, on="xeon-2-threads", rates_file=None)
    assert device is not None
    assert device.predicted is None
    cell = cell_with()
    found = served_floor(spec, run, device, {cell.shapes[0]: 1.0}, beside_image=4, output_tokens=9, in_flight=1)
    assert found.predicted is None
    assert found.stages.vision_s * device.flops_per_s > 5e11  # the global view alone has 0.69 TFLOP


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rates", "RATES", "--dtype", "float32"], "preset: got deepseek-ocr-v1-base, accepted: tiny"),
        (["--on", "xeon-2-threads"], "dtype: got bfloat16, accepted: float32, in which baselines/"),
        (["--on", "xeon-2-threads", "--preset", "tiny"], "dtype: got bfloat16, accepted: float32"),
        (["--rates", "none.json"], "--rates: got none.json, which cannot be read"),
        (["--on", "h200", "--rates", "RATES", "--preset", "tiny", "--dtype", "float32"], "rates: got"),
    ],
)
def test_rates_of_another_model_dtype_or_device_are_refused(arguments: list[str], told: str) -> None:
    stored = Path(__file__).resolve().parent.parent / "baselines" / "xeon-2-threads" / "rates.json"
    given = [str(stored) if word == "RATES" else word for word in arguments]
    with pytest.raises(ValueError, match=re.escape(told)):
        parsed(["--url", "http://127.0.0.1:8000/v1", *given], {})


def test_predicted_times_stand_beside_the_floor(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    tiny = ("--preset", "tiny", "--dtype", "float32", "--on", "xeon-2-threads", "--image-size", "64x64")
    _, said, kept = run(stub, *SMALL, *tiny)
    (cell,) = kept["cells"]
    assert cell["predicted"]["ttft_s"] > cell["floor"]["ttft_s"] > 0
    assert "x predicted" in said
    assert "every operator at the measured rate of its class" in said
    assert kept["device"]["ceilings"] == "measured ceilings in float32"


def test_a_page_of_a_set_is_held_to_the_floor_of_its_own_shape() -> None:
    from fixtures.serving.cell import ServedShape
    from fixtures.serving.page_image import PageSize

    small = PageSize.parsed("64x64")
    cell = cell_with(answer_at(0.0, 1.0), answer_at(1.0, 1.0))
    cell.shapes = (*cell.shapes, ServedShape(size=small, page=small.cut_by(RULES["transformers"])))
    shares = dict.fromkeys(cell.shapes, 0.5)
    found = served_floor(
        load_spec("deepseek-ocr-v1-base"), execution("bfloat16"), on_h200(), shares, beside_image=4, output_tokens=1,
        in_flight=1,
    )  # fmt: skip
    slide_s, small_s = found.ttft_s
    assert small_s < slide_s
    assert found.stages.ttft_s == pytest.approx((slide_s + small_s) / 2)
    between = (small_s + slide_s) / 2
    cell.measured[:] = [answer_at(0.0, between), answer_at(1.0, between)]
    cell.measured[1] = type(cell.measured[1])(
        **{name: getattr(cell.measured[1], name) for name in cell.measured[1].__dataclass_fields__} | {"shape": 1}
    )
    (problem,) = floor_problems([cell], {cell.name: found}, device="h200")
    assert problem.startswith("1920x1080px-c1: 1920x1080px, cached or skipped work: 1 of 1 first tokens")
