"""A qualification in pieces: the plan, what runs in the time that is left, and what resumes after which end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io import stored
from fixtures.qualify import __main__ as qualify_command
from fixtures.qualify.piece import QualifyPiece, forgotten, measured
from fixtures.qualify.pieces import RESERVE_S, START_S, PlannedStep, next_step, planned, unplanned
from fixtures.qualify.state import BusyError, QualifyState, StepState, held_state, state_at
from fixtures.qualify.step import QualifyStep, StepTimes
from fixtures.qualify.step_process import StepProcess, StepRan

BEGINS = re.compile(r"\((\d+) of \d+\)$")
ENVIRONMENT = json.loads((stored.ROOT / "tests" / "data" / "record.v5.json").read_text())["environment"]
GRACE_S = 0.5


def step(name: str, start_s: float, part_s: float = 0.0, parts: int = 1, **more: Any) -> QualifyStep:
    begins = BEGINS if part_s else None
    made = {"gives": "a number", "command": ("nothing",), "begins": begins} | more
    return QualifyStep(name=name, start_s=start_s, part_s=part_s, parts=parts, **made)


def plan_of(steps: list[QualifyStep], piece_s: float) -> list[PlannedStep]:
    times = {one.name: StepState().times(one) for one in steps}
    return planned(steps, times, open_steps=[one.name for one in steps], piece_s=piece_s)


def test_a_plan_fills_each_piece_in_order_and_divides_what_has_parts() -> None:
    # a piece of 140 s has 100 s for steps: 140 - 25 - 15
    assert RESERVE_S + START_S == 40
    steps = [step("a", 60), step("b", 10, part_s=20, parts=4), step("c", 35), step("d", 5)]
    assert [(one.piece, one.name, one.parts, one.seconds) for one in plan_of(steps, 140)] == [
        (1, "a", 1, 60),
        (1, "b", 1, 30),  # 40 s are left, of which b needs 10 to start
        (1, "d", 1, 5),  # c does not fit, d does
        (2, "b", 3, 70),
        (3, "c", 1, 35),
    ]


def test_a_plan_waits_for_the_results_that_a_step_uses_and_leaves_out_what_never_fits() -> None:
    steps = [step("long", 101), step("uses", 10, after=("long",)), step("b", 10, after=("a",)), step("a", 95)]
    plan = plan_of(steps, 140)
    assert [(one.piece, one.name) for one in plan] == [(1, "a"), (2, "b")]
    times = {one.name: StepState().times(one) for one in steps}
    assert unplanned(["long", "uses", "a", "b"], plan, times) == ["long", "uses"]


def test_nothing_is_started_that_is_not_expected_to_end() -> None:
    steps = [step("a", 60), step("b", 10, part_s=20, parts=4)]
    times = {one.name: StepState().times(one) for one in steps}

    def chosen(left_s: float) -> tuple[str, int] | None:
        found = next_step(steps, times, open_steps=["a", "b"], left_s=left_s)
        return None if found is None else (found[0].name, found[1])

    assert chosen(60) == ("a", 1)
    assert chosen(59.9) == ("b", 2)
    assert chosen(30) == ("b", 1)
    assert chosen(29.9) is None


def test_expected_seconds_are_those_that_were_measured() -> None:
    divided = step("b", 10, part_s=20, parts=4)
    assert StepState().times(divided) == StepTimes(start_s=10, part_s=20, parts=4)
    assert StepState(start_s=3, part_s=7, parts=3).times(divided) == StepTimes(start_s=3, part_s=7, parts=1)


def test_a_run_says_how_long_its_start_and_a_part_of_it_take() -> None:
    divided, whole = step("b", 10, part_s=20, parts=4), step("a", 60)
    ran = StepRan(exit_code=130, seconds=70, begins_s=(12, 32, 56), stopped="time", output=())
    # parts from 12 to 32 to 56 s, and a third that was stopped
    assert measured(divided, ran, finished=False, parts_before=0) == (12, 22, 2)
    assert measured(divided, ran, finished=False, parts_before=1) == (12, 22, 3)
    # all of them: the third ends with the step, (70 - 12) / 3
    assert measured(divided, ran, finished=True, parts_before=1) == (12, pytest.approx(58 / 3), 4)
    assert measured(divided, replace(ran, begins_s=()), finished=False, parts_before=1) == (None, None, 1)
    assert measured(whole, replace(ran, begins_s=()), finished=True, parts_before=0) == (70, None, 1)
    assert measured(whole, replace(ran, begins_s=()), finished=False, parts_before=0) == (None, None, 0)


def stand_in(name: str, folder: Path, kind: str, *rest: str, **more: Any) -> QualifyStep:
    made = {"start_s": 0.5, "leaves": (f"{name}.json",)} | more
    return step(name, command=("tests.qualify_stand_in", kind, str(folder / f"{name}.json"), *rest), **made)


Qualify = Callable[..., QualifyPiece]


@pytest.fixture
def qualify(tmp_path: Path) -> Qualify:
    """Runs a piece of stand-in steps in `tmp_path`, with `seconds` for them."""

    def run(*steps: QualifyStep, seconds: float = 60) -> QualifyPiece:
        with held_state(tmp_path) as path:
            state, _ = state_at(path, device="cpu", preset="tiny", environment=ENVIRONMENT)
            piece = QualifyPiece(
                steps=steps,
                state=state,
                environment=os.environ,
                limit_s=RESERVE_S + START_S + seconds,
                began_s=time.monotonic() - START_S,
                commit=None,
                headline=lambda step, state: f"found {step.name}",
                say=said.append,
                grace_s=GRACE_S,
            )
            piece.run()
        return piece

    said: list[str] = []
    run.said = said  # type: ignore[attr-defined]
    return run


def statuses(piece: QualifyPiece) -> dict[str, str]:
    return {name: found.status for name, found in piece.state.steps.items()}


def test_a_second_call_does_nothing_twice(qualify: Qualify, tmp_path: Path) -> None:
    first, second = stand_in("a", tmp_path, "ok"), stand_in("b", tmp_path, "ok")
    assert statuses(qualify(first, second)) == {"a": "done", "b": "done"}
    again = qualify(first, second)
    assert again.ran == []
    assert [piece.steps for piece in again.state.pieces] == [("a", "b")]
    assert json.loads((tmp_path / "a.json").read_text()) == {"runs": 1}
    assert any("a: done after" in line and "found a" in line for line in qualify.said)  # type: ignore[attr-defined]


def test_a_step_is_measured_again_where_it_is_asked_for(qualify: Qualify, tmp_path: Path) -> None:
    steps = stand_in("a", tmp_path, "ok"), stand_in("b", tmp_path, "ok")
    piece = qualify(*steps)
    forgotten(piece.state, ("a",))
    assert qualify(*steps).ran == ["a"]


def test_a_failing_step_is_recorded_and_stops_no_other(qualify: Qualify, tmp_path: Path) -> None:
    steps = stand_in("a", tmp_path, "fails"), stand_in("uses", tmp_path, "ok", after=("a",)), stand_in("b", tmp_path, "ok")
    piece = qualify(*steps)
    assert statuses(piece) == {"a": "failed", "uses": "unmeasured", "b": "done"}
    failed = piece.state.of("a")
    assert (failed.exit_code, failed.reason) == (7, "exit code 7: what went wrong")
    assert failed.output[-2:] == ("line 39", "what went wrong")
    assert len(failed.output) == 15
    assert piece.state.of("uses").reason == "uses the results of a, which has none"
    assert "line 0\n" in (tmp_path / "a.log").read_text()
    assert qualify(*steps).ran == []


def test_what_the_machine_lacks_is_not_measured_with_the_reason(qualify: Qualify, tmp_path: Path) -> None:
    piece = qualify(stand_in("nsys", tmp_path, "ok", lacks="needs nsys, which is not on PATH"))
    assert (piece.ran, statuses(piece)) == ([], {"nsys": "unmeasured"})
    assert piece.state.of("nsys").reason == "needs nsys, which is not on PATH"


def test_what_fits_into_no_piece_stays_open_with_what_it_needs(qualify: Qualify, tmp_path: Path) -> None:
    piece = qualify(stand_in("long", tmp_path, "ok", start_s=120.0))
    assert (piece.ran, statuses(piece)) == ([], {"long": "open"})
    assert piece.state.of("long").reason == "takes about 2.0 minutes at once, more than a piece has: give more --minutes"


def in_parts(folder: Path, number: int, seconds: float) -> QualifyStep:
    more = {"part_s": 0.2, "parts": number, "go_on": ("--continue",)}
    return stand_in("p", folder, "parts", str(number), str(seconds), **more)


def test_the_limit_is_hard_and_finished_parts_are_kept(qualify: Qualify, tmp_path: Path) -> None:
    # 30 parts are expected to take 6 s and take a minute: what was started in good faith is stopped
    piece = qualify(in_parts(tmp_path, 30, 2.0), seconds=12.0)
    stopped = piece.state.of("p")
    assert stopped.status == "stopped"
    assert 1 <= stopped.parts < 7  # of at least 2 s each
    assert stopped.part_s is not None
    assert stopped.part_s >= 2.0
    kept = json.loads((tmp_path / "p.json").read_text())
    assert kept["done"] == list(range(1, stopped.parts + 1))
    # the next call goes on after them, with expectations as measured
    piece = qualify(in_parts(tmp_path, stopped.parts + 1, 0.1))
    assert statuses(piece) == {"p": "done"}
    log = (tmp_path / "p.log").read_text()
    assert [log.count(f"part ({number} of") for number in range(1, stopped.parts + 1)] == [1] * stopped.parts


def test_a_step_that_ignores_its_interruption_is_killed_with_its_children(qualify: Qualify, tmp_path: Path) -> None:
    piece = qualify(stand_in("s", tmp_path, "stubborn"), seconds=10.0)
    found = piece.state.of("s")
    assert found.exit_code == -signal.SIGKILL
    assert any("s: stopped after" in line and "the time of the piece is used up" in line for line in qualify.said)  # type: ignore[attr-defined]
    assert found.status == "stopped"
    # it needs more than the 10 s that it had, which no piece of this length has
    assert "more than a piece has" in str(found.reason)
    assert found.start_s is not None
    assert found.start_s > 10.0
    (child,) = json.loads((tmp_path / "s.json").read_text())
    assert ended(child)


def ended(process: int, within_s: float = 60) -> bool:
    """Whether a process that is not ours to wait for has ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return True
        if "State:\tZ" in status:
            return True
        time.sleep(0.05)
    return False


RUNS = """
import json, os, sys, time
from pathlib import Path
from fixtures.qualify import __main__ as qualify_command
from fixtures.qualify.piece import QualifyPiece
from fixtures.qualify.state import held_state, state_at
from tests.test_qualify import ENVIRONMENT, in_parts
folder = Path(sys.argv[1])
with held_state(folder) as path:
    state, _ = state_at(path, device="cpu", preset="tiny", environment=ENVIRONMENT)
    QualifyPiece(steps=(in_parts(folder, 600, 0.2),), state=state, environment=os.environ, limit_s=600,
                 began_s=time.monotonic(), commit=None, headline=lambda *_: "", say=print).run()
"""


def test_a_killed_qualification_leaves_no_process_and_resumes(qualify: Qualify, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(stored.ROOT)}
    running = subprocess.Popen([sys.executable, "-c", RUNS, str(tmp_path)], env=environment, cwd=stored.ROOT)
    log, until = tmp_path / "p.log", time.monotonic() + 60
    while time.monotonic() < until and not (log.exists() and "part (3 of" in log.read_text()):
        time.sleep(0.05)
    with pytest.raises(BusyError, match="another process runs this qualification"), held_state(tmp_path):
        pass
    running.kill()
    running.wait()
    assert ended(int((tmp_path / "p.pid").read_text()))
    assert QualifyState.read(tmp_path / "state.json").of("p").status == "running"
    done = json.loads((tmp_path / "p.json").read_text())["done"]  # SIGTERM let it keep what it had
    assert done[:2] == [1, 2]
    piece = qualify(in_parts(tmp_path, done[-1] + 1, 0.01))
    assert statuses(piece) == {"p": "done"}
    assert log.read_text().count("part (1 of") == 1


def test_ctrl_c_ends_the_step_and_keeps_its_parts(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(stored.ROOT)}
    running = subprocess.Popen(
        [sys.executable, "-c", RUNS, str(tmp_path)], env=environment, cwd=stored.ROOT, stderr=subprocess.DEVNULL
    )
    log, until = tmp_path / "p.log", time.monotonic() + 60
    while time.monotonic() < until and not (log.exists() and "part (3 of" in log.read_text()):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=120) != 0
    found = QualifyState.read(tmp_path / "state.json")
    assert (found.of("p").status, found.of("p").reason) == ("stopped", "interrupted (Ctrl-C)")
    assert [piece.steps for piece in found.pieces] == [("p",)]
    assert json.loads((tmp_path / "p.json").read_text())["incomplete"] is not None


def test_other_releases_or_another_device_begin_anew_with_what_is_known_of_the_time(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state, note = state_at(path, device="cpu", preset="tiny", environment=ENVIRONMENT)
    assert note is None
    state.put("a", status="done", start_s=12.0, documents=("a.json",))
    assert state_at(path, device="cpu", preset="tiny", environment=ENVIRONMENT)[0].of("a").status == "done"
    newer = ENVIRONMENT | {"libraries": ENVIRONMENT["libraries"] | {"torch": "2.99.0"}}
    found, note = state_at(path, device="cpu", preset="tiny", environment=newer)
    assert found.of("a") == StepState(start_s=12.0)
    assert note == "everything is measured anew: torch: 2.13.0+cpu then, 2.99.0 now"
    other = ENVIRONMENT | {"device": ENVIRONMENT["device"] | {"threads": 64}}
    assert "threads: 2 then, 64 now" in str(state_at(path, device="cpu", preset="tiny", environment=other)[1])


def test_output_passes_through_and_its_end_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ("tests.qualify_stand_in", "fails", str(tmp_path / "x.json"))
    with StepProcess(command, environment=os.environ, log=tmp_path / "log") as process:
        ran = process.follow(limit_s=30, may_begin=lambda _: None, begins=None)
    assert ran.exit_code == 7
    assert "line 0\nline 1\n" in capfd.readouterr().err
    assert ran.output[-1] == "what went wrong"


def test_benchmarks_find_a_folder_of_baselines_and_an_empty_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(piece: QualifyPiece) -> None:
        (step,) = (one for one in piece.steps if one.name == "exact")
        folder = Path(step.command[step.command.index("--baseline-dir") + 1])
        assert folder.is_dir()
        seen.append(str(folder))

    monkeypatch.setattr(QualifyPiece, "run", run)
    monkeypatch.setattr(qualify_command, "require_commit", lambda options: None)
    words = ["--device", "cpu", "--output-dir", str(tmp_path / "results"), "--baseline-dir", str(tmp_path / "accepted")]
    assert qualify_command.main(words) == qualify_command.GO_ON
    assert len(seen) == 1
    assert not Path(seen[0]).exists()
