"""Records: they fit their schema, are written whole or not at all, and a damaged one is refused."""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.io.run_record import RECORD, RecordError
from fixtures.config.points import Point
from fixtures.machine.environment import environment
from fixtures.records import record
from fixtures.records.table import lines
from fixtures.validation.bench import Bench
from fixtures.validation.comparison import Comparison, Quantity
from fixtures.validation.point_result import Activations, PointResult, collapsed

DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="module")
def results(subject_on: Callable) -> list[PointResult]:
    bench = Bench(subject_on("meta", "sdpa", "grouped_mm", "tiny"), batch_size=1, decode_steps=2)
    bench.prefill(Point(label="32", seq_len=32, page=None))
    bench.decode(Point(label="32", seq_len=32, page=None))
    return bench.results


@pytest.fixture(scope="module")
def built(subject_on: Callable, options_of: Callable) -> Callable[[list[PointResult]], dict[str, Any]]:
    def build(results: list[PointResult]) -> dict[str, Any]:
        return record.build(
            results,
            subject=subject_on("meta", "sdpa", "grouped_mm", "tiny"),
            timer=None,
            verdict=None,
            options=options_of(preset="tiny", device="meta"),
            run_id="20251121-093011-4242",
            arguments=["benchmarks", "--preset", "tiny"],
            now=datetime(2025, 11, 21, 9, 30, 11, tzinfo=UTC),
        )

    return build


def test_a_record_survives_the_way_through_its_file(results: list[PointResult], built: Callable, tmp_path: Path) -> None:
    made = built(results)
    path = record.write(made, tmp_path)
    assert RECORD.read(path) == made
    assert [entry.name for entry in path.parent.iterdir()] == ["record.json"]
    assert [point["verdict"] for point in made["points"]] == ["pass", "pass"]
    assert made["points"][1]["steps"][1]["context_len"] == 33


def wrong(result: PointResult, *, call: str = "", by: int = 1) -> PointResult:
    """The result of a model that does `by` FLOPs more in one router."""
    path = "model.language_model.layers.2.mlp.gate"
    key = Quantity(call=call, path=path, group="matmul", name="executed_flops")
    measured = dict(result.comparison.measured)
    measured[key] += by
    return replace(result, comparison=Comparison(closed_form=result.comparison.closed_form, measured=measured))


def test_one_flop_too_many_fails_and_is_explained(results: list[PointResult], built: Callable) -> None:
    bad = wrong(results[0])
    assert not bad.passes(0.0)
    text = bad.explain(0.0)
    assert "prefill[32]: closed form and measurement differ in 1 quantity" in text
    assert "model.language_model.layers.2.mlp.gate: executed_flops of matmul: closed form 32,768, measured 32,769" in text
    assert bad.failures(0.001) == ()
    made = built([bad])
    assert (made["points"][0]["verdict"], made["points"][0]["failure_count"]) == ("fail", 1)
    assert made["points"][0]["failures"][0]["module"] == "model.language_model.layers.2.mlp.gate"
    assert " -1 " in lines([bad], by_module=False)[1]


def test_errors_of_two_steps_do_not_cancel(results: list[PointResult]) -> None:
    bad = wrong(wrong(results[1], call="step 1", by=1000), call="step 2", by=-1000)
    assert bad.total("measured", "executed_flops") == bad.total("closed_form", "executed_flops")
    assert len(bad.failures(0.0)) == 2
    assert "step 2, model.language_model.layers.2.mlp.gate" in bad.explain(0.0)


def test_activations_beyond_their_promise_fail(results: list[PointResult], built: Callable) -> None:
    bad = replace(results[0], activations=Activations(closed_form_bytes=106_000_000, measured_bytes=100_000_000))
    assert not bad.passes(1.0)
    assert "peak activations: closed form 106,000,000 bytes, measured 100,000,000, accepted: within 5%" in bad.explain(0.0)
    assert built([bad])["points"][0]["verdict"] == "fail"
    near = replace(results[0], activations=Activations(closed_form_bytes=104_000_000, measured_bytes=100_000_000))
    assert near.passes(0.0)


def test_states_are_recorded_once_however_many_calls_saw_them(results: list[PointResult], built: Callable) -> None:
    prefill, decode = built(results)["points"]
    assert decode["compared"]["parameter_bytes"] == prefill["compared"]["parameter_bytes"]
    # 4 layers, K and V of 64 bfloat16 each, for 32 + 2 positions
    assert decode["compared"]["kv_bytes"]["measured"] == 4 * 2 * 64 * 2 * 34


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.update(schema_version="9.0"), "schema_version: got '9.0', accepted: 1.0, 2.0, 3.0"),
        (lambda made: made.update(extra=1), "Additional properties are not allowed"),
        (lambda made: made["points"].clear(), r"\$\.points"),
        (lambda made: made["points"][0]["closed_form"].update(executed_flops=-1), "less than the minimum"),
        (lambda made: made["points"][0]["closed_form"].update(executed_flops=1.5), "is not of type 'integer'"),
        (lambda made: made["points"][0].pop("verdict"), "'verdict' is a required property"),
        (lambda made: made["environment"].update(commit="main"), r"\$\.environment\.commit"),
    ],
)
def test_what_does_not_fit_is_neither_written_nor_read(
    results: list[PointResult],
    built: Callable,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    made = copy.deepcopy(built(results))
    change(made)
    with pytest.raises(RecordError, match=message):
        record.write(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "record.json").write_text(json.dumps(made))
    with pytest.raises(RecordError, match=message):
        RECORD.read(tmp_path / "record.json")


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": NaN}', "[]"])
def test_files_that_are_no_records_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError):
        RECORD.read(path)


def test_an_interrupted_write_leaves_nothing(
    results: list[PointResult], built: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record.write(built(results), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_module_rows_put_the_copies_of_a_layer_together(results: list[PointResult]) -> None:
    rows = {row.module: row for row in results[0].modules()}
    gate = rows["model.language_model.layers.*.mlp.gate"]
    assert gate.modules == 3
    assert gate.closed_form_flops == gate.measured_flops == 3 * 2 * 32 * 64 * 8
    assert collapsed("a.0.b.12") == "a.*.b.*"


def test_the_environment_is_what_runs_here() -> None:
    import platform

    found = environment("cpu")
    assert found["python"] == platform.python_version()
    assert found["libraries"]["torch"] is not None
    assert found["commit"] is None or len(found["commit"]) == 40
    assert found["device"]["threads"] == torch.get_num_threads()
    assert found["device"]["gpu"] is None
    assert environment("meta")["device"] is None


def test_a_record_of_the_first_schema_is_read_as_one_of_the_present(tmp_path: Path) -> None:
    old = json.loads((DATA / "record.v1.json").read_text())
    new = RECORD.read(DATA / "record.v1.json")
    assert (old["schema_version"], new["schema_version"]) == ("1.0", RECORD.version)
    RECORD.check(new, where="the migrated record")
    # v1 compared the model it timed
    assert new["timed"]["model"] == new["model"] == old["model"]
    assert new["timed"]["weights"] == old["weights"]
    assert [one["samples_s"] for one in new["timings"]] == [one["samples_s"] for one in old["timings"]]
    assert new["timings"][0]["first_s"] is None
    assert [point["closed_form"].pop("launches") for point in new["points"]] == [None] * len(old["points"])
    # v5 shows what differs in glue that is not judged: of old, everything was judged
    assert [point.pop("glue_difference_count") for point in new["points"]] == [0] * len(old["points"])
    assert [point.pop("glue_differences") for point in new["points"]] == [[]] * len(old["points"])
    # of old, every benchmark ran all of its calls
    assert [point.pop("reused") for point in new["points"]] == [None] * len(old["points"])
    assert new["framework"] is None
    assert new["points"] == old["points"]
    assert json.loads((DATA / "record.v1.json").read_text()) == old


def test_what_did_not_name_its_backend_ran_operator_by_operator() -> None:
    for version in (1, 2, 3):
        old = RECORD.read(DATA / f"record.v{version}.json")
        assert old["execution"]["backend"] == "eager"
        assert old["timed"] is None or old["timed"]["execution"]["backend"] == "eager"
        assert all(one["predicted_s"] is None for one in old["timings"])


def test_what_an_old_record_says_of_a_mismatch_in_words_is_read_by_field() -> None:
    old = json.loads((DATA / "record.v4.json").read_text())
    old["gate"]["judged"][0] |= {"outcome": "incomparable", "reason": "attention: sdpa against eager; threads: 2 against 8"}
    new = RECORD.current(old, where="an old record")["gate"]["judged"]
    assert new[0]["mismatches"] == [
        {"field": "attention", "stored": "sdpa", "here": "eager"},
        {"field": "threads", "stored": "2", "here": "8"},
    ]
    assert all(one["mismatches"] == [] for one in new if one["outcome"] != "incomparable")


def test_every_schema_ever_written_has_a_golden_file_and_a_way_to_the_present() -> None:
    for version, schema in RECORD.versions.items():
        golden = DATA / f"{schema.partition('.schema')[0]}.json"
        assert json.loads(golden.read_text())["schema_version"] == version
        assert RECORD.read(golden)["schema_version"] == RECORD.version
