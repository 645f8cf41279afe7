"""Runs joined into one: every point once, where it is from, and what is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.io import stored
from analytic.io.run_record import RECORD
from fixtures.baseline.run_verdict import Verdict
from fixtures.distributed import merge as command
from fixtures.distributed.merged import MergeError, Source, merge, of_one_run
from fixtures.distributed.merged_environment import joined_environment
from fixtures.distributed.merged_run import MERGED, read_run
from fixtures.records import record
from fixtures.records.recorded_point import RecordedPoint

DATA = Path(__file__).resolve().parent / "data"
OTHER_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def whole() -> dict[str, Any]:
    return RECORD.read(DATA / "record.v5.json")


def only(whole: dict[str, Any], *stages: str, run_id: str = "20261121-100000-1", timed: bool = False) -> dict[str, Any]:
    """A run of some stages of `whole`, as another runner records it."""
    part = copy.deepcopy(whole) | {"run_id": run_id}
    names = {f"{one['stage']}[{one['point']}]" for one in part["points"] if one["stage"] in stages}
    part["points"] = [one for one in part["points"] if one["stage"] in stages]
    part["timings"] = [one for one in part["timings"] if timed and one["stage"] in stages]
    part["gate"]["judged"] = [one for one in part["gate"]["judged"] if one["benchmark"] in names]
    if not timed:
        part |= {"timed": None, "ceilings": None, "pages": []}
        part["environment"]["device"] = None
    return part


def kept(made: dict[str, Any], folder: Path) -> Path:
    return record.write(made, folder).parent


def sources(*records: dict[str, Any]) -> list[Source]:
    return [Source(record=made, where=f"run {number}") for number, made in enumerate(records, start=1)]


def names(merged: Any) -> list[str]:
    return [one.name for one in merged.points]


def test_runs_of_separate_runners_become_one_folder(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kept(only(whole, "decode", "vision"), tmp_path)
    second = kept(only(whole, "prefill", "decode", run_id="20261121-100000-2"), tmp_path)
    assert command.main([str(first), str(second), "--output-dir", str(tmp_path / "out")]) == 1  # prefill is not as accepted
    printed = capsys.readouterr().out
    assert "3 points of 2 runs" in printed
    assert "measured by more than one run, equal in every exact quantity: 1 point\n" in printed
    assert "baseline: FAILED: " in printed
    assert "**1 of 6 benchmarks differ from the baseline: prefill[1024] more work" in printed
    (folder,) = (path.parent for path in (tmp_path / "out").glob("2*/merged.json"))
    joined = RECORD.read(folder / "record.json")
    assert [(one["stage"], one["point"]) for one in joined["points"]] == [
        ("vision", "gundam-2x1"),
        ("prefill", "1024"),
        ("decode", "1024"),
    ]
    by_stage = {one["stage"]: one for one in whole["points"]}
    assert all(one == by_stage[one["stage"]] for one in joined["points"])
    index = MERGED.read(folder / "merged.json")
    assert [(one["benchmark"], one["source"], one["also"]) for one in index["points"]] == [
        ("vision[gundam-2x1]", 0, []),
        ("prefill[1024]", 1, []),
        ("decode[1024]", 0, [1]),
    ]
    assert [one["run_id"] for one in index["sources"]] == ["20261121-100000-1", "20261121-100000-2"]
    for one, given in zip(index["sources"], (first, second), strict=True):
        assert RECORD.read(folder / one["file"]) == RECORD.read(given / "record.json")
        assert one["from"] == str(given / "record.json")
    assert {"report.html", "report.md"} <= {path.name for path in folder.iterdir()}


def test_a_run_given_twice_is_counted_once_and_a_record_that_is_a_folder_is_named(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(kept(only(whole, "decode", "vision"), tmp_path))
    (tmp_path / "broken" / "record.json").mkdir(parents=True)
    command.main([run, run, str(tmp_path / "broken"), "--output-dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "2 points of 1 run\n" in printed
    assert "measured by more than one run" not in printed
    assert f"counted once: {run}/record.json is the same run as {run}/record.json\n" in printed
    assert f"left out Is a directory: {tmp_path}/broken/record.json\n" in printed


def test_a_merged_run_is_merged_again_from_its_sources(whole: dict[str, Any], tmp_path: Path) -> None:
    parts = [
        kept(only(whole, stage, run_id=f"20261121-100000-{number}"), tmp_path)
        for number, stage in enumerate(("vision", "decode", "end_to_end"), start=1)
    ]
    assert command.main([str(parts[0]), str(parts[1]), "--output-dir", str(tmp_path / "half")]) == 0
    (half,) = (path.parent for path in (tmp_path / "half").glob("2*/merged.json"))
    found = merge(source for folder in (half, parts[2]) for source in read_run(folder))
    assert [source.record["run_id"][-1] for source in found.sources] == ["1", "2", "3"]
    assert names(found) == ["vision[gundam-2x1]", "decode[1024]", "end_to_end[gundam-2x1-1024]"]


@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        (lambda point: point["closed_form"].update(fused_bytes=7), "closed_form.fused_bytes"),
        (lambda point: point["compared"]["kv_bytes"].update(measured=7), "compared.kv_bytes.measured"),
        (lambda point: point["steps"][1].update(measured_flops=7), "steps."),
        (lambda point: point["modules"][2].update(measured_bytes=7), "modules."),
        (
            lambda point: point["compared"].update(new_tokens={"closed_form": 4, "measured": 4}),
            "compared.new_tokens.closed_form: nothing in",
        ),
        (lambda point: point.update(seq_len=1025), "seq_len: 1,024 in"),
    ],
)
def test_runs_that_disagree_in_an_exact_quantity_are_refused(
    whole: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    quantity: str,
) -> None:
    first, other = only(whole, "decode"), only(whole, "vision", "decode", run_id="20261121-100000-2")
    change(other["points"][1])
    folders = [kept(first, tmp_path), kept(other, tmp_path)]
    assert command.main([*map(str, folders), "--output-dir", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"  decode[1024]: {quantity}" in said
    assert all(f" in {folder / 'record.json'}" in said for folder in folders)
    assert "nothing was written" in said
    assert not (tmp_path / "out").exists()


def test_a_conflict_shows_both_values(whole: dict[str, Any]) -> None:
    other = only(whole, "prefill")
    other["points"][0]["compared"]["executed_flops"]["measured"] += 1
    flops = whole["points"][1]["compared"]["executed_flops"]["measured"]
    with pytest.raises(MergeError) as error:
        merge(sources(only(whole, "prefill"), other))
    line = f"  prefill[1024]: compared.executed_flops.measured: {flops:,} in run 1, {flops + 1:,} in run 2"
    assert line in str(error.value)


def test_a_measured_peak_is_near_and_not_exact(whole: dict[str, Any]) -> None:
    other = only(whole, "prefill")
    other["points"][0]["activations"]["measured_bytes"] += 1
    assert names(merge(sources(only(whole, "prefill"), other))) == ["prefill[1024]"]


def test_points_of_another_batch_or_more_tokens_are_other_points(whole: dict[str, Any]) -> None:
    other = only(whole, "decode")
    other["points"][0]["batch_size"] = 2
    longer = only(whole, "decode")
    longer["points"][0]["decoded_tokens"] += 1
    assert names(merge(sources(only(whole, "decode"), other, longer))) == ["decode[1024]"] * 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "model",
            {"model_id": "dsocr-bench/tiny", "model_variant": "tiny"},
            "model.model_id: got deepseek-ai/DeepSeek-OCR in",
        ),
        ("execution", "eager", "execution.attention: got sdpa in run 1, eager in run 2"),
        ("max_relative_error", 0.5, "max_relative_error: got 0"),
    ],
)
def test_runs_of_other_models_or_in_other_ways_are_refused_by_name(
    whole: dict[str, Any], field: str, value: Any, message: str
) -> None:
    other = only(whole, "decode")
    other[field] = {**other[field], "attention": value} if field == "execution" else value
    with pytest.raises(MergeError, match=message):
        merge(sources(only(whole, "prefill"), other))


def test_the_earliest_attempt_stands_whatever_came_first(whole: dict[str, Any]) -> None:
    late, early = sources(only(whole, "decode"), only(whole, "decode"))
    late = Source(record=late.record, where="late", attempts={"decode[1024]": 2})
    (point,) = merge([late, early]).points
    assert (point.source, point.attempt, point.also) == (1, 1, (0,))


def test_points_come_by_stage_and_then_in_the_order_asked_for(whole: dict[str, Any]) -> None:
    many = only(whole, "vision")
    labels = ("gundam-3x3", "gundam-2x1", "gundam-1x2")
    many["points"] = [{**many["points"][0], "point": label} for label in labels]
    found = merge(sources(only(whole, "decode"), many), order=[f"vision[{label}]" for label in reversed(labels)])
    assert names(found) == [*(f"vision[{label}]" for label in reversed(labels)), "decode[1024]"]


def test_times_of_one_place_stand_in_the_record(whole: dict[str, Any]) -> None:
    parts = [only(whole, stage, timed=True) for stage in ("prefill", "decode")]
    found = merge(sources(*parts, only(whole, "vision"))).record(
        run_id="20261121-100000-9", created="2026-11-22T10:00:00+00:00"
    )
    RECORD.check(found, where="the test")
    assert [one["stage"] for one in found["timings"]] == ["prefill", "decode"]
    assert (found["timed"], found["ceilings"]) == (whole["timed"], whole["ceilings"])
    assert found["environment"] == whole["environment"]


def test_times_of_several_places_stay_with_their_runs(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = only(whole, "decode", timed=True), only(whole, "decode", timed=True, run_id="20261121-100000-2")
    there["environment"]["device"] |= {"name": "another CPU", "threads": 8}
    there["environment"] |= {"commit": OTHER_COMMIT, "python": "3.12.1"}
    assert command.main([*(str(kept(one, tmp_path)) for one in (here, there)), "--output-dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "another CPU" in printed
    assert "times from several places do not fit in one record" in printed
    assert f"the runs' environments differ in commit: {whole['environment']['commit']} and {OTHER_COMMIT}" in printed
    (path,) = (tmp_path / "out").glob("2*/merged.json")
    index, joined = json.loads(path.read_text()), RECORD.read(path.parent / "record.json")
    assert (index["times_in_record"], [one["source"] for one in index["timings"]]) == (False, [0, 1])
    assert (joined["timings"], joined["timed"], joined["environment"]["device"]) == ([], None, None)
    assert [len(RECORD.read(path.parent / one["file"])["timings"]) for one in index["sources"]] == [1, 1]


def test_environments_that_differ_stand_side_by_side() -> None:
    one = {"python": "3.11.7", "libraries": {"torch": "2.13.0"}, "commit": "a" * 40, "cpu_count": 2, "device": None}
    other = {"python": "3.12.1", "libraries": {"torch": "2.14.0"}, "commit": "b" * 40, "cpu_count": 8, "device": None}
    assert joined_environment([one, one], one_place=True) == one
    assert joined_environment([one, other], one_place=True) == {
        "python": "3.11.7 and 3.12.1",
        "libraries": {"torch": "2.13.0 and 2.14.0"},
        "commit": None,
        "cpu_count": None,
        "device": None,
    }


def test_what_one_run_missed_and_another_measured_is_not_missing(whole: dict[str, Any]) -> None:
    short = only(whole, "decode")
    for name in ("prefill[1024]", "prefill[4096]"):
        judged = {"benchmark": name, "outcome": "missing", "reason": "gone", "exact": None, "timed": None}
        judged["mismatches"] = []
        short["gate"]["judged"].append(judged)
    verdict = merge(sources(short, only(whole, "prefill"))).verdict
    assert [one.benchmark for one in verdict.judged if one.outcome == "missing"] == ["prefill[4096]"]


def test_a_whole_run_fails_for_what_no_run_measured(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(only(whole, "vision"), tmp_path)
    assert command.main([str(folder), "--output-dir", str(tmp_path / "part")]) == 0
    assert command.main([str(folder), "--output-dir", str(tmp_path / "whole"), "--whole"]) == 1
    assert "50 missing" in capsys.readouterr().out


def test_what_could_not_be_judged_fails_where_a_baseline_is_required(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = str(kept(only(whole, "decode"), tmp_path))
    assert command.main([folder, "--output-dir", str(tmp_path / "lenient")]) == 0
    assert command.main([folder, "--output-dir", str(tmp_path / "strict"), "--require-baseline"]) == 1


def test_records_of_one_process_are_its_record_again(whole: dict[str, Any]) -> None:
    parts = [only(whole, stage, timed=True) for stage in ("decode", "vision")]
    found = of_one_run(parts)
    RECORD.check(found, where="the test")
    assert [one["stage"] for one in found["points"]] == ["decode", "vision"]
    one, other = (Verdict.from_record(part) for part in parts)
    joined = Verdict.from_record(found)
    assert one is not None
    assert other is not None
    assert joined is not None
    assert joined.judged == (*one.judged, *other.judged)


def test_every_exact_number_of_a_point_is_compared(whole: dict[str, Any]) -> None:
    point = whole["points"][2]
    held = dict(RecordedPoint.of(point).quantities())
    numbers = len(point["closed_form"]) + 2 * len(point["compared"])
    numbers += sum(map(len, point["steps"])) + sum(map(len, point["modules"]))
    assert len(held) == numbers + 2  # length and page
    assert held["steps.1.context_len"] == point["steps"][0]["context_len"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "RUN_DIR: got nowhere, accepted: the folder of a run; it does not exist"),
        (["schemas"], "RUN_DIR: got schemas, accepted: the folder of a run; it has no record.json"),
    ],
)
def test_what_is_no_run_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(stored.ROOT)
    assert command.main([*arguments, "--output-dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path), "--output-dir", "/proc/nowhere"]) == 2
    assert "--output-dir: got /proc/nowhere, accepted: a writable folder" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{", "[" * 100_000, '{"schema_version": "5.0", "max_relative_error": 1e999}'])
def test_a_damaged_run_is_named_and_left_out_and_fails_the_merge(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    good = kept({**only(whole, "vision"), "gate": None}, tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text(damage)
    out = ["--output-dir", str(tmp_path / "out")]
    assert command.main([str(good), str(tmp_path / "bad"), *out]) == 1
    assert "FAILED: left out" in (printed := capsys.readouterr().out)
    assert f"{tmp_path}/bad/record.json: not valid JSON" in printed
    (folder,) = (path.parent for path in (tmp_path / "out").glob("2*/merged.json"))
    index = MERGED.read(folder / "merged.json")
    assert len(index["sources"]) == 1
    assert "bad/record.json: not valid JSON" in index["left_out"][0]
    assert command.main([str(good), "--output-dir", str(tmp_path / "alone")]) == 0  # it is the damaged run that fails
    (path,) = (tmp_path / "alone").glob("2*/merged.json")
    assert MERGED.read(path)["left_out"] == []


def test_runs_of_which_none_can_be_read_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "record.json").write_text("{")
    assert command.main([str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 2
    assert "record.json: not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_fails_a_merge_and_leaves_its_result(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    folder = kept(only(whole, "vision"), tmp_path)
    monkeypatch.setattr("fixtures.distributed.merged_run.os.rename", full)
    assert command.main([str(folder), "--output-dir", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "vision" in printed
    assert "NOT WRITTEN: the merged run, whose result is printed here: No space left on device" in printed
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_write_leaves_no_folder(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    folder = kept(only(whole, "vision"), tmp_path)
    monkeypatch.setattr("fixtures.distributed.merged_run.os.rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main([str(folder), "--output-dir", str(tmp_path / "out")])
    assert list((tmp_path / "out").iterdir()) == []
