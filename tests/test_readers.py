"""Every kind of stored JSON, damaged: reading gives a value or a ValueError that names the file, and nothing else."""

import copy
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytic.core.execution import FULL_SIZE, Execution
from analytic.io import stored
from analytic.io.documents import Document
from analytic.io.run_record import RECORD
from analytic.io.schemas import SCHEMAS
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.family import PRESET
from analytic.models.deepseek_ocr.workload import gundam
from analytic.models.deepseek_ocr.workload_profile import OCRWorkloadProfile
from analytic.models.registry import family_of
from analytic.models.spec import ModelSpec
from analytic.models.unlimited_ocr.family import UNLIMITED_PRESET
from analytic.planning import sweep
from analytic.planning.mix import Mix
from analytic.planning.plan import plan
from analytic.planning.plan_request import PlanRequest
from analytic.planning.recorded_times import recorded_times
from analytic.planning.side_by_side import DEVICES
from analytic.planning.variants import VARIANTS
from analytic.planning.variants import beside as variants_beside
from analytic.prediction import hardware, rates
from analytic.prediction.hardware import HARDWARE
from fixtures.baseline import stored as baselines
from fixtures.baseline.kept import KeptRefresh, kept_in
from fixtures.baseline.processes import SampledProcess, StageSample
from fixtures.distributed.merged import Source, merge
from fixtures.distributed.merged_run import Origin, read_run, write
from fixtures.evidence.card import Card
from fixtures.evidence.index import index_of, write_index
from fixtures.evidence.listed import listed_record
from fixtures.evidence.render import as_html
from fixtures.explain.explain_evidence import page_of as as_page
from fixtures.explain.explanation import EXPLANATION
from fixtures.history.stored import read_history
from fixtures.machine import calibration
from fixtures.peers.peer_results import PEERS_STUDY
from fixtures.peers.peers_evidence import page_of as peers_page
from fixtures.profiling.predict_study import PREDICT_STUDY
from fixtures.proof.fault_results import FAULTS, FaultResults
from fixtures.qualify.qualification import QUALIFY
from fixtures.qualify.qualify_evidence import page_of as qualified_page
from fixtures.qualify.state import QualifyState
from fixtures.records import table
from fixtures.report.run import run_of
from fixtures.report.sections import page_of
from fixtures.scaling.alignment import MEASURED, MisalignedError, compare
from fixtures.serving.served_baseline import ServedBaseline
from fixtures.serving.served_run import SERVING
from fixtures.timing.medians import Noise, log_spread
from fixtures.timing.operator_profile import OperatorProfile
from tests.explained_runs import BEFORE, explanation_of_two
from tests.history_runs import history_example
from tests.qualified import example as qualified
from tests.qualified import state as qualify_state
from tests.samples import PLACE, measured_like, timed_like
from tests.serving_runs import baseline_example as served_baseline
from tests.serving_runs import example as serving_example
from tests.test_baseline import STORED, TIMED, TIMES
from tests.test_faults import CLEAN as FAULT_EXAMPLE
from tests.test_faults import results as fault_results
from tests.test_peers import EXAMPLE as PEERS_EXAMPLE
from tests.test_peers import document as peers_document

DATA = Path(__file__).resolve().parent / "data"
ROOT = stored.ROOT
TINY_CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of file: a valid one, its place in a folder, and all that reads it."""

    example: Callable[[], Any]
    place: str
    readers: tuple[Callable[[Path], object], ...]


def loaded(path: Path) -> Callable[[], Any]:
    return lambda: json.loads(path.read_text(encoding="utf-8"))


def points(path: Path) -> object:
    """The points of a record as the table and the merge see them."""
    merged = merge([Source(record=RECORD.read(path), where=str(path))])
    return table.lines(merged.recorded, by_module=True)


def page(path: Path) -> object:
    run = run_of(RECORD.read(path))
    return [timing.mfu for timing in run.timings], run.stage("decode")


def planned(path: Path) -> object:
    mix = Mix.of_one(None, seq_len=1024, new_tokens=8)
    times = recorded_times(path, mix, ModelSpec.from_preset("tiny"), TINY_CPU, device=None)
    return times.prefill_s(mix.pages[0])


def scaled() -> dict[str, Any]:
    spec = ModelSpec.from_preset("tiny")
    return sweep.scaling(spec, FULL_SIZE, seq_lens=[8, 16], decode_steps=2, pages=[gundam(CropGrid.parse("2x1"))])


def measured() -> dict[str, Any]:
    return measured_like(scaled(), timed=timed_like({}, {"stage": "decode", "point": "16"}))


def compared(path: Path) -> object:
    """A comparison with the measured side at `path`."""
    value = MEASURED.read(path)
    try:
        return compare(scaled(), value, threshold=0.05).as_json("nothing")
    except MisalignedError:
        return None  # it is about two files, and names what differs


@cache
def merged_text() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = RECORD.read(DATA / "record.v5.json")
        made = write(merge([Source(record=record, where="a run")]), Origin.here("nox"), Path(folder))
        return (made / "merged.json").read_text()


def from_folder(path: Path) -> object:
    """A merged run: merged.json beside the record that it refers to."""
    source = path.parent / "sources" / "1" / "record.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text((DATA / "record.v5.json").read_text())
    return read_run(path.parent)


def preset(path: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "path_of", lambda *_, **__: path)
        return ModelSpec.from_preset("changed")


def profile(path: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "path_of", lambda *_, **__: path)
        return OCRWorkloadProfile.from_stored("changed")


def variants() -> Any:
    specs = tuple(ModelSpec.from_preset(name) for name in ("tiny", "ocr-2-tiny"))
    run = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    pages = {"prompt_tokens": 16, "new_tokens": 2, "device": hardware.device("h200")}
    return variants_beside(specs, run, lambda spec: spec.pages.mode("base"), **pages).as_json()


def cached(path: Path) -> object:
    """The calibration in the user's cache: a damaged one is measured again, with a warning that names it."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(calibration, "kept_at", lambda *_, **__: path)
        patch.setattr(calibration, "measure", lambda *_: pytest.fail("a damaged calibration was not said"))
        try:
            return calibration.calibrated("cpu", "float32")
        except calibration.CalibrationWarning as warning:
            raise ValueError(str(warning)) from warning


def spreads(path: Path) -> object:
    return [log_spread(stage.medians_s) for stage in Noise.read(path).stages.values()]


def predicted(path: Path) -> object:
    found = rates.read(path)
    return [
        kind.at(size, second_size=beside) for kind in found.classes.values() for size in (1, 64, 1e9) for beside in (0, 64)
    ]


def beside() -> dict[str, Any]:
    service = {
        "pages_in_flight": 8,
        "pages_per_s": 3.5,
        "tokens_per_s": 1792.0,
        "first_token_s": 0.004,
        "tpot_s": 0.002,
        "bound_by": "decode",
        "kwh_per_million_pages": 55.5,
        "cost_per_million_pages": None,
    }
    return {
        "schema_version": "1.0",
        "model": {"model_id": "dsocr-bench/tiny", "model_variant": "tiny"},
        "execution": {"attention": "sdpa", "experts": "grouped_mm", "dtype": "bfloat16"},
        "crop_rule": {"served_by": "vllm", "max_tiles": 6},
        "new_tokens": 512,
        "pages": [{"page": "gundam-2x3", "share": 1.0, "seq_len": 1024}],
        "batch_size": 1,
        "decode_steps": 16,
        "source": "floor",
        "devices": [
            {
                "device": "h200",
                "memory_bytes": 141_000_000_000,
                "bandwidth_bytes_per_s": 4_800_000_000_000,
                "board_power_w": 700,
                "price_per_hour": None,
                "pages_fit": 8,
                "left_out": None,
                "services": {"floor": service, "predicted": None, "measured": None},
                "stages": [
                    {
                        "stage": "prefill",
                        "floor_s": 0.001,
                        "predicted_s": None,
                        "measured_s": None,
                        "bound_by": "bytes",
                        "mfu": None,
                        "mbu": None,
                        "watts": None,
                    }
                ],
            }
        ],
    }


def card() -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "kind": "noise",
        "title": "Noise between processes",
        "created": "2026-11-26T07:30:00+00:00",
        "commit": "0" * 40,
        "dirty": False,
        "command": ["nox", "-s", "noise", "--"],
        "model": "tiny",
        "device": "a device",
        "ways": ["eager/sdpa/grouped_mm, float32, batch 1"],
        "standing": "measured",
        "headline": "6 stages in 10 processes.",
        "document": "noise.json",
        "page": "report.html",
    }


def refresh_file() -> Any:
    sample = StageSample(
        executed_flops=1, operator_calls=None, peak_bytes=None, first_s=1.0, median_s=1.0, reasons=("somebody else",)
    )
    kept = KeptRefresh(path=Path("refresh.json"), words=("--device", "cpu"))
    kept.points["prefill[64]"] = STORED.exact[0].points["prefill[64]"]
    kept.processes.append(SampledProcess(fingerprint=PLACE, samples={"decode[64]": sample}))
    return kept.as_json()


def going_on(path: Path) -> object:
    return kept_in(path)


RECORDS = [f"record.v{number}" for number in range(1, 6)]
KINDS = {
    **{
        f"record.v{number}": Kind(
            example=loaded(DATA / f"record.v{number}.json"), place="record.json", readers=(points, page)
        )
        for number in range(1, 6)
    },
    "times": Kind(example=loaded(DATA / "record.v5.json"), place="record.json", readers=(planned,)),
    "baseline, exact": Kind(
        example=lambda: json.loads(baselines.text_of(STORED)), place="meta/tiny.json", readers=(baselines.read,)
    ),
    "baseline, timed": Kind(
        example=lambda: json.loads(baselines.text_of(TIMED)), place="cpu/tiny.json", readers=(baselines.read,)
    ),
    "refresh": Kind(example=refresh_file, place="refresh-cpu-tiny-01234567.json", readers=(going_on,)),
    "accepted baseline": Kind(
        example=loaded(ROOT / "baselines" / "meta" / "deepseek-ocr-v1-base.json"),
        place="meta/deepseek-ocr-v1-base.json",
        readers=(baselines.read,),
    ),
    "noise": Kind(example=lambda: json.loads(json.dumps(TIMES.as_json())), place="noise.json", readers=(spreads,)),
    "rates": Kind(
        example=loaded(ROOT / "baselines" / "xeon-2-threads" / "rates.json"), place="rates.json", readers=(predicted,)
    ),
    "study": Kind(
        example=loaded(ROOT / "baselines" / "xeon-2-threads" / "predict_study.json"),
        place="predict_study.json",
        readers=(PREDICT_STUDY.read,),
    ),
    "merged": Kind(example=lambda: json.loads(merged_text()), place="merged.json", readers=(from_folder,)),
    "measured sweep": Kind(example=measured, place="measured_scaling.json", readers=(compared,)),
    "preset": Kind(
        example=loaded(stored.path_of("presets", "tiny", field="preset")),
        place="deepseek_ocr/presets/changed.json",
        readers=(preset, PRESET.read),
    ),
    "preset of Unlimited-OCR": Kind(
        example=loaded(stored.path_of("presets", "unlimited-tiny", field="preset")),
        place="unlimited_ocr/presets/changed.json",
        readers=(preset, UNLIMITED_PRESET.read),
    ),
    "preset of DeepSeek-OCR-2": Kind(
        example=loaded(stored.path_of("presets", "ocr-2-tiny", field="preset")),
        place="deepseek_ocr2/presets/changed.json",
        readers=(preset, family_of(ModelSpec.from_preset("ocr-2-tiny")).presets.read),
    ),
    "variants": Kind(example=variants, place="variants.json", readers=(VARIANTS.read,)),
    "profile": Kind(
        example=loaded(stored.path_of("profiles", "dsocr-standard-v1", field="profile")),
        place="profiles/changed.json",
        readers=(profile,),
    ),
    "card": Kind(example=card, place="noise-1/study.json", readers=(lambda path: Card.read(path.parent),)),
    "serving baseline": Kind(example=served_baseline, place="served.json", readers=(ServedBaseline.read,)),
    "devices": Kind(example=beside, place="devices.json", readers=(DEVICES.read,)),
    "operator_profile": Kind(
        example=lambda: json.loads(json.dumps(BEFORE.as_json())),
        place="operator_profile.json",
        readers=(OperatorProfile.read,),
    ),
    "explanation": Kind(
        example=explanation_of_two, place="explanation.json", readers=(lambda path: as_page(EXPLANATION.read(path)),)
    ),
    "history": Kind(example=history_example, place="history.json", readers=(read_history,)),
    "serving": Kind(example=serving_example, place="serving.json", readers=(SERVING.read,)),
    "qualify": Kind(
        example=qualified, place="qualify.json", readers=(lambda path: as_html(qualified_page(QUALIFY.read(path))),)
    ),
    "state of a qualification": Kind(
        example=lambda: json.loads(json.dumps(qualify_state(Path("state.json")).as_json())),
        place="state.json",
        readers=(QualifyState.read,),
    ),
    "peers": Kind(
        example=lambda: peers_document(*PEERS_EXAMPLE),
        place="peers.json",
        readers=(lambda path: peers_page(PEERS_STUDY.read(path)),),
    ),
    "faults": Kind(
        example=lambda: fault_results(FAULT_EXAMPLE).as_json(),
        place="faults.json",
        readers=(lambda path: FaultResults.of(FAULTS.read(path)),),
    ),
    "hardware": Kind(example=loaded(stored.DATA / "hardware.json"), place="hardware.json", readers=(HARDWARE.read,)),
}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value in `value` stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inside for place in places(item, (*at, key)))]


ODD = (
    None, True, 0, -1, 1, 2, 3.5, -0.0, 1e-300, 1e-15, 1e9, 1e15, 1e24, 1e29, 1e308, 10**24, 10**40, float("nan"),
    float("inf"), "", "x", "1x1", "5.23.0", "\ud800", "\x00", [], {}, [[]], [0, 0], {"a": 1},
)  # fmt: skip
"""What stands in the place of a value."""
REMOVED = object()


def changed(value: Any, at: tuple[Any, ...], new: object) -> Any:
    """A copy of `value` with `new` at a place, or without the place."""
    if not at:
        return {} if new is REMOVED else new
    found = copy.deepcopy(value)
    holder = found
    for key in at[:-1]:
        holder = holder[key]
    if new is REMOVED:
        del holder[at[-1]]
    else:
        holder[at[-1]] = new
    return found


@cache
def example(name: str) -> Any:
    return KINDS[name].example()


@pytest.mark.parametrize("name", KINDS)
def test_an_example_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / KINDS[name].place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(example(name)))
    for reader in KINDS[name].readers:
        reader(path)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_named(name: str, tmp_path: Path, data: st.DataObject) -> None:
    kind, value = KINDS[name], example(name)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(places(value)))
        value = changed(value, at, data.draw(st.sampled_from((*ODD, REMOVED))))
    path = tmp_path / kind.place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    for reader in kind.readers:
        try:
            reader(path)
        except ValueError as error:
            said = str(error)
        else:
            continue
        assert any(name in said for name in (str(path), "preset changed: ", "profile changed: "))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_index_has_a_row_for_every_damaged_record(data: st.DataObject) -> None:
    value = example(data.draw(st.sampled_from(RECORDS)))
    at = data.draw(st.sampled_from(places(value)))
    value = changed(value, at, data.draw(st.sampled_from((*ODD, REMOVED))))
    index_of([listed_record("a run", value)])


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"a":' * 100_000, "\xff", "null", '{"schema_version": 1e999}'])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_document_is_named(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / KINDS[name].place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="latin-1")
    for reader in KINDS[name].readers:
        with pytest.raises(ValueError, match=str(path)):
            reader(path)


def test_every_kind_of_document_is_declared_once_and_has_a_schema() -> None:
    """What a schema describes is read and written by one Document, and by nothing else."""
    declared: list[str] = []
    for folder in ("analytic", "fixtures"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            declared += re.findall(r'Final = Document\(\s*name="(\w+)"', text)
            if path.name not in ("json_text.py", "schemas.py"):
                assert not re.search(r"\bjson\.loads?\(", text), f"{path}: JSON is read by analytic.io.json_text"
    kinds = {path.name.partition(".")[0] for path in SCHEMAS.glob("*.schema.json")}
    assert sorted(declared) == sorted(kinds)
    assert all(Document(name=name).version for name in kinds)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e308", "NaN", "9" * 400])
@pytest.mark.parametrize("name", sorted(set(KINDS) - {"card"}))  # a card holds no number
def test_a_number_beyond_any_measure_is_refused_by_key(name: str, number: str, tmp_path: Path) -> None:
    kind, value = KINDS[name], example(name)
    at = next(at for at in places(value) if type(value_at(value, at)) in (int, float))
    path = tmp_path / kind.place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(changed(value, at, "HERE")).replace('"HERE"', number))
    for reader in kind.readers:
        with pytest.raises(ValueError, match=rf"{path}: .*{re.escape(str(at[-1]))}.*: got {number[:6]}"):
            reader(path)


def value_at(value: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        value = value[key]
    return value


EXTREMES = {"time": (1.1e-15, 1e9), "flops": (1, 10**23), "bytes": (1, 10**23), "rate": (1.1e-15, 1e24)}


def stretched(value: Any, place: int, name: str = "") -> Any:
    """`value` with every time, rate and amount of work at the least or the most that a schema accepts."""
    if isinstance(value, dict):
        return {
            key: stretched(item, place, name if key in ("datasheet", "measured") else key) for key, item in value.items()
        }
    if isinstance(value, list):
        return [stretched(item, place, name) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    kind = "rate" if name.endswith("_per_s") else "time" if name.endswith("_s") else name.rpartition("_")[2]
    return EXTREMES[kind][place] if kind in EXTREMES else value


@pytest.mark.parametrize("place", [0, 1], ids=["least", "most"])
def test_the_most_absurd_numbers_that_are_accepted_end_in_a_page_and_an_index(tmp_path: Path, place: int) -> None:
    value = stretched(example("record.v5"), place)
    for number in range(3):
        RECORD.write(tmp_path / f"2026112{number}-000000-1" / "record.json", value)
    text = as_html(page_of(run_of(RECORD.current(value, where="a record"))))
    assert "<html" in text
    assert "20261121-000000-1" in write_index(tmp_path).read_text()


@pytest.mark.parametrize("place", [0, 1], ids=["least", "most"])
def test_the_most_absurd_times_that_are_accepted_end_in_a_plan(tmp_path: Path, place: int) -> None:
    path = tmp_path / "record.json"
    RECORD.write(path, stretched(example("record.v5"), place))
    spec, mix = ModelSpec.from_preset("tiny"), Mix.of_one(gundam(CropGrid.parse("2x1")), seq_len=1024, new_tokens=17)
    times = recorded_times(path, mix, spec, TINY_CPU, device=None)
    found = plan(spec, TINY_CPU, mix, device=None, memory_bytes=10**11, times=times, asked=PlanRequest(price_per_hour=3.0))
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))
