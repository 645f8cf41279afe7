"""Times to plan with: a datasheet's, predicted, or a record's; each says what it is and refuses what it is not of."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.core.execution import Execution
from analytic.io import stored
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix
from analytic.planning.recorded_times import RecordedTimes, recorded_choices, recorded_times
from analytic.planning.throughput import service
from analytic.planning.times import floor_times, predicted_times
from analytic.prediction import hardware
from analytic.prediction.rates import ClassRates, RateCurve
from tests.samples import RATES, RECORD

TINY = ModelSpec.from_preset("tiny")
RUN = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="float32")


def mix_of(*texts: str, seq_len: int = 1024) -> Mix:
    return Mix.parsed(texts, seq_len=seq_len, prompt_tokens=0, new_tokens=33)


def read(path: Path, mix: Mix, **other: Any) -> RecordedTimes:
    return recorded_times(path, mix, other.get("spec", TINY), other.get("run", RUN), device=other.get("device"))


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """A factory of copies of the record with something changed."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        change(record)
        (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
        return tmp_path

    return make


def test_a_record_gives_its_medians() -> None:
    mix = mix_of("2x1=1")
    times, stored = read(RECORD, mix), json.loads(RECORD.read_text(encoding="utf-8"))
    medians = {f"{one['stage']}[{one['point']}]": one["time_s"] for one in stored["timings"]}
    assert times.vision_s(mix.pages[0]) == medians["vision[gundam-2x1]"]
    assert times.prefill_s(mix.pages[0]) == medians["prefill[1024]"]
    assert times.step_s(mix, 1) == medians["decode[1024]"]
    assert "measured, medians of" in times.description
    assert "the mean of the first" in times.description


def test_a_page_is_found_by_its_views_too() -> None:
    times = read(RECORD, mix := mix_of("1200x600px=1"))  # cut 2x1
    assert times.vision_s(mix.pages[0]) == read(RECORD, mix_of("2x1=1")).vision_s(mix_of("2x1=1").pages[0])


def test_a_batch_is_kept_together(changed: Callable[..., Path]) -> None:
    folder, mix = changed(lambda record: record["timed"].update(batch_size=4)), mix_of("2x1=1")
    times, alone = read(folder, mix), service(mix, read(RECORD, mix), 1)
    assert service(mix, times, 4).pages_per_s == pytest.approx(4 * alone.pages_per_s)
    with pytest.raises(ValueError, match="pages: got 5, accepted: 4, the batch that was measured"):
        times.step_s(mix, 5)


def test_what_was_not_timed_is_named_with_the_command_that_times_it() -> None:
    with pytest.raises(ValueError, match="did not time") as refused:
        read(RECORD, mix_of("2x1=0.5", "base=0.5", seq_len=512))
    message = str(refused.value)
    assert "did not time vision[base], prefill[512], decode[512], accepted" in message
    common = "`pytest benchmarks --device cpu --preset tiny --batch-size 1"
    assert f"{common} -k 'vision[gundam-2x1] or vision[base]'`" in message
    assert f"{common} --seq-len 512 -k 'prefill or decode'`" in message


def test_a_record_that_names_its_backend_says_so() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert ", eager, batch 1;" in RecordedTimes(record, file="record.json").description
    record["timed"]["execution"]["backend"] = "compile"
    assert ", compile, batch 1;" in RecordedTimes(record, file="record.json").description


def test_a_stage_that_was_timed_twice_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(lambda record: record["timings"].append(record["timings"][0]))
    with pytest.raises(ValueError, match=r"which timed decode\[1024\] more than once"):
        read(folder, mix_of("2x1=1"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"spec": ModelSpec.from_preset("deepseek-ocr-v1-base")}, "preset: got deepseek-ocr-v1-base, accepted: tiny"),
        ({"run": replace(RUN, dtype="bfloat16")}, "dtype: got bfloat16, accepted: float32"),
        ({"run": replace(RUN, attention="eager")}, "attention: got eager, accepted: sdpa"),
        ({"device": "h200"}, "accepted: measurements on h200; or give the memory of that device with --memory-gb"),
    ],
)
def test_a_record_of_something_else_is_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(RECORD, mix_of("2x1=1"), **other)


def test_a_file_that_is_no_record_is_refused(changed: Callable[..., Path], tmp_path: Path) -> None:
    mix = mix_of("2x1=1")
    with pytest.raises(ValueError, match=r"accepted: a record\.json, or the folder of a run that has one"):
        read(tmp_path / "nowhere", mix)
    with pytest.raises(ValueError, match=r"does not fit schemas/record\.v5\.schema\.json: \$\.timings\[0\]"):
        read(changed(lambda record: record["timings"][0].update(time_s=-1)), mix)
    with pytest.raises(ValueError, match=r"schema_version: got '99\.0', accepted: 1\.0, 2\.0"):
        read(changed(lambda record: record.update(schema_version="99.0")), mix)
    with pytest.raises(ValueError, match="which has no times, accepted: a record of a run with --device cpu or cuda"):
        read(changed(lambda record: record.update(timed=None)), mix)
    on_meta = changed(lambda record: record.update(timed=None, execution=record["execution"] | {"device": "meta"}))
    with pytest.raises(ValueError, match="a run on meta that counted and timed nothing, accepted: the record of a run"):
        recorded_choices(on_meta)
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"record: .*record\.json: not valid JSON"):
        read(tmp_path, mix)


@pytest.mark.parametrize("version", [1, 2])
def test_the_times_of_an_earlier_record_are_read(version: int) -> None:
    mix = Mix.of_one(None, seq_len=64, new_tokens=8)
    assert read(RECORD.with_name(f"record.v{version}.json"), mix).step_s(mix, 1) > 0


def test_predicted_times_say_whose_rates_they_are_from() -> None:
    times, mix = predicted_times(TINY, RUN, RATES, file="rates.json", device="h200"), mix_of("2x1=1")
    assert "NVIDIA H200 (rates.json)" in times.description
    slower = ClassRates(start_s=0.0, curves={0: RateCurve((1.0,), (1e10,))})
    slow = replace(RATES, classes=dict.fromkeys(RATES.classes, slower))
    slower = predicted_times(TINY, RUN, slow, file="rates.json", device=None)
    assert slower.vision_s(mix.pages[0]) > times.vision_s(mix.pages[0])
    assert slower.step_s(mix, 4) > times.step_s(mix, 4) > times.step_s(mix, 1)


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"model_variant": "deepseek-ocr-v1-base"}, None, "preset: got tiny, accepted: deepseek-ocr-v1-base"),
        ({"dtype": "bfloat16"}, None, "dtype: got float32, accepted: bfloat16"),
        ({}, "h100-sxm", "rates: got rates.json, measured on NVIDIA H200, accepted: measurements on h100-sxm"),
        ({"device_name": "a CPU"}, "h200", "rates: got rates.json, measured on a CPU"),
    ],
)
def test_rates_of_something_else_are_refused(changes: dict[str, Any], device: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        predicted_times(TINY, RUN, replace(RATES, **changes), file="rates.json", device=device)


def test_a_device_without_a_unit_for_the_dtype_has_no_floor() -> None:
    with pytest.raises(ValueError, match="dtype: got bfloat16, which t4 has no unit for, accepted: float16, float32"):
        floor_times(TINY, replace(RUN, dtype="bfloat16"), hardware.device("t4"))
    assert "a lower bound" in floor_times(TINY, RUN, hardware.device("t4")).description


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("baselines/nvidia-h200/qualify.json", "qualify"),
        ("baselines/nvidia-h200/rates.json", "rates"),
        ("baselines/cuda/deepseek-ocr-v1-base.json", "baseline"),
        ("tests/data/examples/noise.json", "noise"),
    ],
)
def test_another_document_of_the_project_is_named_by_its_kind(file: str, kind: str) -> None:
    path = stored.ROOT / file
    message = (
        f"record: got {path}, a file of kind {kind}, accepted: the record of a run that was timed on a device, such as"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        recorded_choices(path)
