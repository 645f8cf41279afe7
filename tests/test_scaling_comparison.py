"""Two files of a sweep against each other: hand arithmetic, what is not aligned, what is too much and what to do then."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from analytic.core.execution import FULL_SIZE
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import MODES, gundam
from analytic.models.spec import ModelSpec
from analytic.planning import sweep
from fixtures.scaling import comparison
from fixtures.scaling import text as told
from fixtures.scaling.alignment import MEASURED, MisalignedError, compare
from fixtures.scaling.comparison import ScalingComparison
from fixtures.scaling.rows import frame
from fixtures.scaling.scaling_evidence import page_of
from tests.samples import measured_like, timed_like

ANALYTIC = sweep.scaling(
    ModelSpec.from_preset("tiny"),
    FULL_SIZE,
    seq_lens=[8, 16, 24],
    decode_steps=2,
    pages=[MODES["base"], gundam(CropGrid.parse("2x1"))],
)


def compared(
    change: Callable[[dict[str, Any], dict[str, Any]], None] = lambda analytic, measured: None,
    *,
    timed: dict[str, Any] | None = None,
    threshold: float = 0.05,
) -> ScalingComparison:
    """The comparison after `change` of a closed form and a measurement that are equal; both sides fit their schemas."""
    analytic = copy.deepcopy(ANALYTIC)
    measured = measured_like(copy.deepcopy(ANALYTIC), timed=timed)
    change(analytic, measured)
    sweep.SCALING.check(analytic, where="the closed form")
    MEASURED.check(measured, where="the measurement")
    return compare(analytic, measured, threshold=threshold)


def test_equal_sides_agree_and_there_is_nothing_to_do() -> None:
    found = compared()
    assert found.agrees
    assert {one.relative_error for one in found.differences} == {0.0}
    assert len(found.differences) == 3 * (4 + 4) + 2 * 3  # four quantities of prefill and decode, three of vision
    assert "FLOPs are equal at every point (5)" in told.recommendation(found)
    assert "Nothing to do" in told.recommendation(found)


def test_differences_are_relative_to_what_was_measured() -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        for ours, theirs, closed_form in zip(analytic["points"], measured["points"], (1_000, 1_100, 800), strict=True):
            ours["prefill"]["operand_bytes"], theirs["prefill"]["operand_bytes"] = closed_form, 1_000
        analytic["points"][2]["decode"]["kv_bytes_final"] = 600
        measured["points"][2]["decode"]["kv_bytes_final"] = 800

    found = compared(change)
    spreads = {(one.stage, one.quantity): one for one in found.spreads()}
    moved = spreads["prefill", "operand_bytes"]  # 0, 100 and 200 of 1000
    assert (moved.mean, moved.median, moved.largest, moved.at) == (pytest.approx(0.1), 0.1, 0.2, "24")
    kv = spreads["decode", "kv_bytes"]
    assert (kv.mean, kv.median, kv.largest) == (pytest.approx(0.25 / 3), 0.0, 0.25)
    largest = found.largest()
    assert (largest.stage, largest.quantity, largest.place.label) == ("decode", "kv_bytes", "24")


def test_points_are_aligned_by_length_and_page_whatever_their_order() -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        measured["points"].reverse()
        measured["crops"].reverse()

    assert compared(change).agrees


def test_what_was_not_measured_at_all_is_no_number_in_the_file() -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        measured["points"][0]["prefill"]["kv_bytes"] = 0

    found = compared(change)
    written = found.as_json(told.recommendation(found))
    comparison.COMPARISON.check(written, where="the comparison")
    (one,) = (one for one in written["differences"] if one["quantity"] == "kv_bytes" and not one["measured"])
    assert (one["point"], one["relative_error"]) == ("8", None)
    spread = next(one for one in written["spreads"] if (one["stage"], one["quantity"]) == ("prefill", "kv_bytes"))
    assert (spread["mean"], spread["median"], spread["largest"]) == (None, 0.0, None)
    assert not found.agrees


def drop_length(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    del measured["points"][1]


def drop_both(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    del analytic["points"][0], analytic["crops"][1], measured["points"][2]


def other_views(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    measured["crops"][1]["views"] = 5


def twice(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    measured["points"].append(measured["points"][0])


def other_model(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    measured["model"]["model_variant"] = "huge"
    measured["execution"]["attention"] = "eager"
    measured["batch_size"] = 2


def first_version(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
    analytic["schema_version"] = "1.0"
    del analytic["crops"]
    for point in analytic["points"]:
        del point["prefill"]["operand_bytes"], point["decode"]["operand_bytes_per_token"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_length, r"points: 16 only in the closed form; accepted: the same points on both sides"),
        (drop_both, r"points: 24 only in the closed form; 8, gundam-2x1 only in the measurement"),
        (other_views, r"gundam-2x1 only in the closed form; gundam-2x1 only in the measurement"),
        (twice, r"points: 8 twice in the measured file, accepted: once"),
        (other_model, r"model_variant: tiny against huge; attention: sdpa against eager; batch_size: 1 against 2"),
        (first_version, r"schema_version: got 1\.0 of the closed form, which has no operand_bytes, accepted: 1\.1"),
    ],
)
def test_files_that_are_not_about_the_same_are_refused(change: Any, message: str) -> None:
    with pytest.raises(MisalignedError, match=message):
        compared(change)


def test_a_timing_of_a_point_that_was_not_counted_is_refused() -> None:
    with pytest.raises(MisalignedError, match=r"timed but not counted: prefill\[32\]"):
        compared(timed=timed_like({"point": "32"}))


def test_one_flop_is_too_much() -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        measured["crops"][1]["vision"]["executed_flops"] += 1
        measured["points"][0]["prefill"]["operand_bytes"] += 1  # within the threshold

    found = compared(change)
    assert not found.agrees
    (one,) = found.beyond()
    assert (one.stage, one.place.label, one.quantity) == ("vision", "gundam-2x1", "executed_flops")
    said = told.recommendation(found)
    assert f"closed form {one.closed_form:,}, measured {one.closed_form + 1:,}" in said
    command = "`pytest benchmarks --decode-steps 2 --device meta --preset tiny -k 'vision[gundam-2x1]' --by-module`"
    assert command in said


def test_more_than_the_threshold_is_too_much_flops_first() -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        for point, factor in zip(analytic["points"], (1.04, 1.06, 1.5), strict=True):
            point["prefill"]["kv_bytes"] = int(1000 * factor)
        for point in measured["points"]:
            point["prefill"]["kv_bytes"] = 1000
        analytic["points"][0]["decode"]["executed_flops_per_token"] -= 1

    found = compared(change)
    assert [(one.quantity, one.place.label) for one in found.beyond()] == [
        ("executed_flops", "8"),
        ("kv_bytes", "24"),
        ("kv_bytes", "16"),
    ]
    assert told.recommendation(found).startswith("FLOPs of decode[8]: ")
    assert "KV of prefill[24]: closed form 1,500, measured 1,000 (50.000%)" in told.recommendation(found)
    assert len(compared(change, threshold=0.1).beyond()) == 2
    assert len(compared(change, threshold=0.03).beyond()) == 4


@pytest.mark.parametrize(("gap", "agrees"), [(65_536, True), (65_537, False)])
def test_activations_may_miss_tensors_of_no_weight(gap: int, *, agrees: bool) -> None:
    def change(analytic: dict[str, Any], measured: dict[str, Any]) -> None:
        analytic["points"][0]["prefill"]["activation_bytes"] = 100 + gap
        measured["points"][0]["prefill"]["activation_bytes"] = 100

    found = compared(change)
    assert found.agrees == agrees
    if agrees:
        assert "only activations differ by more than 5.0%, by at most 65,536 bytes" in told.recommendation(found)


def test_utilization_is_work_over_time_and_ceiling() -> None:
    (one,) = compared(timed=timed_like({})).timed
    # 8e9 FLOPs in 20 ms are 4e11 of 1e12 a second, 1e9 bytes 5e10 of 1e11; the bytes take 10 ms, the FLOPs 8
    near = one.calibrated
    assert near.mfu_executed == pytest.approx(0.4)
    assert near.mfu_useful == pytest.approx(0.3)
    assert near.mbu == pytest.approx(0.5)
    assert near.floor_s == pytest.approx(0.010)
    assert near.time_over_floor == pytest.approx(2.0)
    assert (one.datasheet.mfu_executed, one.datasheet.floor_s, one.datasheet.time_over_floor) == (None, None, None)


def test_a_datasheet_is_reckoned_with_where_it_is_known() -> None:
    timed = timed_like({})
    timed["ceilings"] |= {"datasheet": "h200", "datasheet_flops_per_s": 2e12, "datasheet_bytes_per_s": None}
    found = compared(timed=timed)
    assert found.timed[0].datasheet.mfu_executed == pytest.approx(0.2)
    assert found.timed[0].datasheet.mbu is None
    assert found.timed[0].datasheet.floor_s == pytest.approx(0.004)
    assert "sheet MFU" in "\n".join(told.lines(found))
    assert "sheet MFU" not in "\n".join(told.lines(compared(timed=timed_like({}))))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"problems": ["prefill[8]: MFU of 1.50"]}, "timing is implausible: prefill[8]: MFU of 1.50"),
        ({"measured_flops": 7_999_999_999}, "prefill[8]: 7,999,999,999 FLOPs ran where the closed form has 8,000,000,000"),
    ],
)
def test_a_timing_that_can_not_be_believed_is_no_agreement(stage: dict[str, Any], said: str) -> None:
    found = compared(timed=timed_like(stage))
    assert not found.agrees
    assert said in told.recommendation(found)


def test_what_is_written_fits_its_schema_and_says_what_was_timed() -> None:
    timed = timed_like(
        {}, {"stage": "decode", "point": "16", "interval_confidence": 0.75}, {"stage": "vision", "point": "base"}
    )
    timed["out_of_memory"] = ["vision[gundam-2x1]"]
    timed["disturbances"] = ["disturbed: clocks were held down: prefill[8]"]
    found = compared(timed=timed)
    written = found.as_json(told.recommendation(found))
    comparison.COMPARISON.check(written, where="the comparison")
    assert [(one["stage"], one["point"], one["seq_len_prefill"], one["views"]) for one in written["timed"]] == [
        ("prefill", "8", 8, None),
        ("decode", "16", 16, None),
        ("vision", "base", None, 1),
    ]
    assert written["timed"][0]["flops_per_s"] == pytest.approx(4e11)
    page = told.markdown(found, None, {"time.png": "a picture"})
    for text in (
        "tiny on a CPU",
        "19.000 to 22.000",
        "vision[gundam-2x1]",
        "![a picture](time.png)",
        "| 40.000% | 50.000% |",
    ):
        assert text in page
    assert "nothing was timed" in "\n".join(told.lines(compared()))


def test_the_table_has_one_row_a_point_with_both_sides() -> None:
    analytic, measured = copy.deepcopy(ANALYTIC), measured_like(ANALYTIC, timed=timed_like({}))
    table = frame(analytic, measured, compare(analytic, measured, threshold=0.05))
    assert list(table["point"]) == ["8", "16", "24", "base", "gundam-2x1"]
    assert list(table["views"].dropna()) == [1, 3]
    first, page = table.iloc[0], table.iloc[4]
    assert first["closed_form_prefill_executed_flops"] == ANALYTIC["points"][0]["prefill"]["executed_flops"]
    assert first["measured_decode_operand_bytes_per_token"] == ANALYTIC["points"][0]["decode"]["operand_bytes_per_token"]
    assert first["relative_error_prefill_kv_bytes"] == 0
    assert first["timed_prefill_calibrated_mbu"] == pytest.approx(0.5)
    assert page["measured_vision_activation_bytes"] == ANALYTIC["crops"][1]["vision"]["activation_bytes"]
    assert page[["measured_prefill_executed_flops", "timed_prefill_time_s"]].isna().all()


def test_times_of_no_device_are_refused() -> None:
    found = compared(timed=timed_like({}))
    written = found.as_json(told.recommendation(found)) | {"incomplete": None}
    assert any(section.key == "times" for section in page_of(written).sections)
    with pytest.raises(ValueError, match="timed_device: got null, accepted: that of the times, of which there are 1"):
        page_of(written | {"timed_device": None})
