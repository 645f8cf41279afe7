"""`nox -s explain`: the cause of a slower run is named, on a terminal, in a document and on a page."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.card import Card
from fixtures.evidence.section import Standing, Tone
from fixtures.explain.__main__ import main
from fixtures.explain.explain_evidence import page_of
from fixtures.explain.explain_text import WIDTH, lines
from fixtures.explain.explanation import EXPLANATION, explained
from fixtures.report.run import run_of
from fixtures.timing.operator_profile import HOST, OperatorProfile
from tests.explained_runs import BEFORE, HEAD, MLP, decode_of, module, operator, profile, profiled, recorded, slower


@pytest.fixture
def record() -> dict[str, Any]:
    return recorded()


def document_of(first: dict[str, Any], second: dict[str, Any], folders: tuple[Path, Path]) -> dict[str, Any]:
    found = explained(folders, (run_of(first), run_of(second)))
    return EXPLANATION.parse(EXPLANATION.text(found, where="here"), where="here")


def stage(document: Mapping[str, Any], name: str = "decode[1024]") -> dict[str, Any]:
    (found,) = (one for one in document["stages"] if one["benchmark"] == name)
    return found


NOWHERE = (Path("first"), Path("second"))


def twice_the_launches(decode: dict[str, Any]) -> None:
    decode["operator_calls"] *= 2


def more_work(decode: dict[str, Any]) -> None:
    decode["measured_flops"] *= 2
    decode["measured_bytes"] *= 2


@pytest.mark.parametrize(
    ("factor", "change", "cause"),
    [
        (1.5, lambda decode: None, "lower efficiency: the same work takes longer"),
        (1.9, more_work, "more work (FLOPs +100.0%, bytes +100.0%)"),
        (1.1, twice_the_launches, "more launches (245 to 490)"),
        (0.5, lambda decode: None, "higher efficiency: the same work takes less time"),
    ],
)
def test_the_cause_of_a_change_is_named(
    record: dict[str, Any], factor: float, change: Callable[[dict[str, Any]], None], cause: str
) -> None:
    second = slower(record, factor)
    change(decode_of(second))
    found = stage(document_of(record, second, NOWHERE))
    assert found["cause"].startswith(cause)
    assert sum(found["parts_s"].values()) == pytest.approx(found["second_s"] - found["first_s"])


def test_a_slower_device_is_the_ceiling(record: dict[str, Any]) -> None:
    second = slower(record, 2.0)
    for name, factor in (("gemm_flops_per_s", 0.5), ("copy_bytes_per_s", 0.5), ("launch_s", 2.0)):
        second["ceilings"]["calibration"][name] *= factor
    found = document_of(record, second, NOWHERE)
    assert stage(found)["cause"] == "a slower device by calibration"
    assert stage(found)["parts_s"]["ceiling"] == pytest.approx(stage(found)["second_s"] / 2)
    assert not any("same calibration" in words for words in found["remarks"])
    assert any("same calibration" in words for words in document_of(record, record, NOWHERE)["remarks"])


def test_added_work_that_is_cheaper_than_the_rest_is_said(record: dict[str, Any]) -> None:
    second = slower(record, 1.2)
    more_work(decode_of(second))
    assert "takes less time than the average of the stage" in stage(document_of(record, second, NOWHERE))["cause"]


def test_bytes_are_those_of_the_closed_form_where_one_run_did_not_count_them(record: dict[str, Any]) -> None:
    second = slower(record, 1.5)
    decode_of(second)["measured_bytes"] = None
    found = stage(document_of(record, second, NOWHERE))
    assert found["bytes_are"] == "closed form"
    assert found["amounts"]["bytes"] == [decode_of(record)["fused_bytes"]] * 2
    assert found["parts_s"]["bytes"] == 0


def test_runs_on_two_devices_are_split_and_not_judged(record: dict[str, Any]) -> None:
    second = slower(record, 1.5)
    second["environment"]["device"]["name"] = "another CPU"
    found = document_of(record, second, NOWHERE)
    assert found["standing"] == "measured"
    assert stage(found)["said"] == "not comparable"
    assert stage(found)["tone"] == "plain"
    assert stage(found)["reach"] is None
    assert stage(found)["parts_s"]["efficiency"] > 0
    assert "device_name: Intel(R) Xeon(R) Processor against another CPU" in "\n".join(lines(found)).replace("\n  ", " ")


def test_runs_without_times_are_explained_by_their_work(record: dict[str, Any]) -> None:
    record |= {"timings": [], "timed": None, "ceilings": None, "pages": []}
    second = copy.deepcopy(record)
    second["points"][1]["compared"]["executed_flops"]["measured"] += 1
    found = document_of(record, second, NOWHERE)
    assert found["stages"] == []
    assert found["verdict"][1] == "Work: 1 of 4 shared points differ in FLOPs, bytes and cache: prefill[1024]."
    assert page_of(found).sections == ()


def both_profiled(
    record: dict[str, Any], tmp_path: Path, after: OperatorProfile, *, before: OperatorProfile = BEFORE
) -> dict[str, Any]:
    """The explanation of two runs whose profiles are `before` and `after`, the second by half slower."""
    folders = (tmp_path / "first", tmp_path / "second")
    second = profiled(slower(record, 1.5), folders[1], after)
    return document_of(profiled(record, folders[0], before), second, folders)


def test_work_that_was_added_to_one_module_is_found_there(record: dict[str, Any], tmp_path: Path) -> None:
    # the products of the MLP twice: its FLOPs double, and so does its time; the head stays
    after = profile(
        operator(MLP, "aten::mm", 2e-3, calls=2),
        operator(HEAD, "aten::mm", 1e-3),
        operator(MLP, "aten::silu", 2e-4),
        mlp_flops=2e6,
    )
    found = stage(both_profiled(record, tmp_path, after))
    assert found["cause"].startswith("more work")
    assert found["cause"].endswith(f"most in aten::mm of {MLP}")
    parts, row = found["profile"]["parts_s"], found["profile"]["moved"][0]
    assert parts["flops"] + parts["bytes"] > 0.9 * 0.99e-3
    assert sum(parts.values()) == pytest.approx(0.9 * 1.1e-3)  # of the shortest rounds
    assert (row["operator"], row["change_s"], row["calls"]) == ("aten::mm", pytest.approx(0.9e-3), [1, 2])
    assert [row["closed_form"]["flops"], *(one["flops"] for one in row["work"])] == [1e6, 1e6, 2e6]


def test_the_same_work_that_takes_longer_is_efficiency_of_its_module(record: dict[str, Any], tmp_path: Path) -> None:
    after = profile(
        operator(MLP, "aten::mm", 1e-3),
        operator(HEAD, "aten::mm", 1e-3),
        operator(MLP, "aten::silu", 1e-4),
        operator(HEAD, HOST, 2e-3),
    )
    found = stage(both_profiled(record, tmp_path, after))
    assert found["cause"] == f"lower efficiency: the same work takes longer; most in {HOST} of {HEAD}"
    assert found["profile"]["parts_s"]["efficiency"] == pytest.approx(0.9 * 2e-3)  # of the shortest round


def test_what_a_module_does_between_its_projections_belongs_to_its_block(record: dict[str, Any], tmp_path: Path) -> None:
    # twice the products of a projection, and the host's time around them, which no operator of the MLP itself has
    up = f"{MLP}.up_proj"
    first = (operator(up, "aten::mm", 1e-3), operator(MLP, HOST, 1e-3))
    second = (operator(up, "aten::mm", 2e-3, calls=2), operator(MLP, HOST, 2e-3))
    work = [(module(up, flops, 1e6), module(MLP, 0.0, 0.0)) for flops in (1e6, 2e6)]
    before, after = (
        replace(BEFORE, operators=operators, modules=modules)
        for operators, modules in zip((first, second), work, strict=True)
    )
    found = stage(both_profiled(record, tmp_path, after, before=before))["profile"]
    assert found["parts_s"]["flops"] + found["parts_s"]["bytes"] > 0.9 * 1.8e-3


def test_extra_and_missing_operators_are_named(record: dict[str, Any], tmp_path: Path) -> None:
    after = profile(operator(MLP, "aten::mm", 1e-3), operator(HEAD, "aten::mm", 1e-3), operator(HEAD, "aten::copy_", 1e-3))
    document = both_profiled(record, tmp_path, after)
    found = stage(document)["profile"]
    assert (found["extra"], found["missing"]) == ([f"{HEAD}: aten::copy_"], [f"{MLP}: aten::silu"])
    text = "\n".join(lines(document))
    assert f"  extra: {HEAD}: aten::copy_" in text
    assert f"  missing: {MLP}: aten::silu" in text


def test_operators_whose_rounds_overlap_come_after_those_that_moved(record: dict[str, Any], tmp_path: Path) -> None:
    # rounds of 0.9 to 1.1 ms and 1.035 to 1.265 ms overlap, though the change is larger than that of silu
    after = profile(operator(MLP, "aten::mm", 1.15e-3), operator(HEAD, "aten::mm", 1e-3), operator(MLP, "aten::silu", 2e-4))
    moved = stage(both_profiled(record, tmp_path, after))["profile"]["moved"]
    assert [(row["operator"], row["apart"]) for row in moved] == [("aten::silu", True), ("aten::mm", False)]


def test_a_profile_that_is_missing_or_damaged_is_said(record: dict[str, Any], tmp_path: Path) -> None:
    folders = (tmp_path / "first", tmp_path / "second")
    first = profiled(copy.deepcopy(record), folders[0], BEFORE)
    assert stage(document_of(first, record, folders))["profile_note"] == "only the first was profiled"
    second = profiled(copy.deepcopy(record), folders[1], BEFORE)
    (folders[1] / "profile" / "decode-1024.operators.json").write_text("{")
    assert "not valid JSON" in stage(document_of(first, second, folders))["profile_note"]
    assert stage(document_of(first, second, folders))["profile"] is None


def test_the_page_has_the_colours_of_the_judgement(record: dict[str, Any], tmp_path: Path) -> None:
    after = profile(operator(MLP, "aten::mm", 1e-3), operator(HEAD, "aten::mm", 3e-3), operator(MLP, "aten::silu", 5e-5))
    page = page_of(both_profiled(record, tmp_path, after))
    assert page.standing is Standing.WORSE
    causes, parts, operators = page.sections
    assert parts.tables[0].tones == causes.tables[0].tones
    tones = dict(zip((row[0] for row in causes.tables[0].rows), causes.tables[0].tones.values(), strict=True))
    assert tones.pop("decode[1024]") is Tone.BAD
    assert set(tones.values()) == {Tone.PLAIN}
    assert operators.tables[0].tones == {0: Tone.BAD, 1: Tone.GOOD}
    assert operators.title == "decode[1024] by operator"


def put(folder: Path, record: dict[str, Any], run_id: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record | {"run_id": run_id}))
    return folder


def test_the_command_prints_and_keeps_the_explanation(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        put(tmp_path / "a", record, "20270101-000000-1"),
        put(tmp_path / "b", slower(record, 1.5), "20270102-000000-2"),
    )
    assert main([str(first), str(second), "--output-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Slower: 1 of 8 times, +50.0%; 7 within the noise.\n")
    assert "decode[1024]: +50.0% (noise ±8.3%), slower: lower efficiency: the same work takes longer" in said
    assert max(map(len, said.splitlines()[:-1])) <= WIDTH
    folder = (tmp_path / "out" / "latest-explain").resolve()
    card = Card.read(folder)
    assert (card.kind, card.standing, card.headline) == ("explain", Standing.WORSE, said.splitlines()[0])
    assert (card.model, card.device) == ("tiny", "Intel(R) Xeon(R) Processor")
    assert EXPLANATION.read(folder / "explanation.json")["standing"] == "worse"
    assert "Why 20270102-000000-2 differs from 20270101-000000-1" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "record.json").unlink(), "got no record.json in it, accepted: the folder of one run"),
        (lambda folder: (folder / "record.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(
    record: dict[str, Any],
    damage: Callable[[Path], object],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = put(tmp_path / "a", record, "20270101-000000-1"), put(tmp_path / "b", record, "20270102-000000-2")
    damage(second)
    assert main([str(first), str(second), "--output-dir", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert main([str(first), str(tmp_path / "none"), "--output-dir", str(tmp_path / "out")]) == 2
    assert "RUN_B: got" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_run_is_not_enough() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["results/latest"])
    assert stopped.value.code == 2
