"""A refresh of some stages: it measures and replaces these alone, and goes on with its own processes only."""

from pathlib import Path

import pytest

from fixtures.baseline.stored import find
from fixtures.config.stages import STAGE, TIMED_STAGES
from tests.test_refresh import PAGE, SELECTION, FakeSession, refresh, sessions

__all__ = ["sessions"]


def test_stages_are_measured_with_their_parts_and_the_others_stay(sessions: type[FakeSession], tmp_path: Path) -> None:
    assert refresh(tmp_path, *SELECTION) == 0
    (before,) = find("cpu", "tiny", tmp_path / "baselines").timed
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION, "--stages", "vision", "decode") == 0
    assert {name for session in sessions.started for name in session.ran} == {f"vision[{PAGE}]", "decode[1024]"}
    kept, renewed = find("cpu", "tiny", tmp_path / "baselines").timed
    if "vision[gundam-2x1]" in kept.stages:
        kept, renewed = renewed, kept
    of_vision = {f"{stage}[{PAGE}]" for stage in TIMED_STAGES if STAGE[stage].owner == "vision"}
    assert set(renewed.stages) == of_vision | {"decode[1024]"}
    assert set(kept.stages) | set(renewed.stages) == set(before.stages)
    assert "--stages vision decode" in " ".join(renewed.provenance.command)


def test_exact_results_of_other_stages_are_not_measured(sessions: type[FakeSession], tmp_path: Path) -> None:
    assert refresh(tmp_path, *SELECTION, "--stages", "decode") == 0
    assert find("meta", "deepseek-ocr-v1-base", tmp_path / "baselines") is None  # the fake grid has one exact prefill


def test_a_refresh_of_all_does_not_go_on_with_processes_of_some(
    sessions: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "stops", staticmethod(stops_in_the_third))
    assert refresh(tmp_path, *SELECTION, "--stages", "decode") == 130
    monkeypatch.setattr(FakeSession, "stops", staticmethod(lambda process, name: None))
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION) == 0
    assert len(sessions.started) == 8
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION, "--stages", "decode") == 0
    assert len(sessions.started) == 6


def stops_in_the_third(process: int, name: str) -> None:
    if process == 3:
        raise KeyboardInterrupt


def test_an_unknown_stage_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        refresh(tmp_path, *SELECTION, "--stages", "sam")
    assert ended.value.code == 2
    assert "'vision', 'prefill', 'decode', 'end_to_end'" in capsys.readouterr().err
