"""A refresh: what it stores and replaces, in how many processes, what survives a kill, and that the gate asks for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.baseline import refresh as refreshing
from fixtures.baseline.command import main
from fixtures.baseline.exact import Block, ExactPoint
from fixtures.baseline.gate import TimedGate
from fixtures.baseline.judgement import Outcome
from fixtures.baseline.key import Key, decodes
from fixtures.baseline.processes import FailedSessionError, SessionProcess, sampled
from fixtures.baseline.sets import Baseline, ExactSet, Provenance, TimedSet
from fixtures.baseline.stored import find
from fixtures.config.points import Point, benchmarks
from fixtures.config.pytest_options import DEFAULTS
from fixtures.config.run_options import RunOptions
from fixtures.config.run_words import words_of
from fixtures.config.stages import STAGE, TIMED_STAGES, BenchmarkId
from fixtures.timing.comparable import Fingerprint
from fixtures.timing.fingerprint import fingerprint
from fixtures.timing.medians import StageNoise
from fixtures.timing.samples import TimedStage
from tests.samples import PLACE, RECORD
from tests.test_baseline import MADE, STORED
from tests.test_gate import timed_of

ROOT = Path(__file__).resolve().parent.parent
NAMES = [f"{stage}[{'gundam-2x1-1024' if STAGE[stage].point == 'page and length' else 'p'}]" for stage in TIMED_STAGES]


# --- keys

PLACES = st.builds(
    Fingerprint,
    device=st.just("cpu"),
    device_name=st.sampled_from(["a CPU", "another CPU"]),
    threads=st.sampled_from([1, 2]),
    model_variant=st.just("tiny"),
    dtype=st.just("float32"),
    attention=st.sampled_from(["sdpa", "eager"]),
    experts=st.sampled_from(["grouped_mm", "batched_mm"]),
    batch_size=st.sampled_from([1, 2]),
    decode_steps=st.sampled_from([2, 16]),
    python=st.just("3.11"),
    torch=st.sampled_from(["2.13.0", "2.14.0"]),
    transformers=st.just("5.24.0"),
    driver=st.none(),
    backend=st.sampled_from(["eager", "compile"]),
    weights=st.sampled_from(["seeded_random", "checkpoint"]),
)
RELEASE_FIELDS = {"python", "torch", "transformers", "driver"}


@given(st.sampled_from(NAMES), PLACES, PLACES)
def test_a_key_is_benchmark_and_way_without_the_releases(name: str, one: Fingerprint, other: Fingerprint) -> None:
    differing = {field.name for field in fields(Fingerprint) if getattr(one, field.name) != getattr(other, field.name)}
    differing -= RELEASE_FIELDS | (set() if decodes(name) else {"decode_steps"})
    mine, theirs = Key.timed(name, one), Key.timed(name, other)
    assert {mismatch.field for mismatch in mine.mismatches(theirs)} == differing
    assert (mine == theirs) is (not differing)


def test_decoded_tokens_are_part_of_the_key_where_tokens_are_decoded() -> None:
    assert {name.partition("[")[0] for name in NAMES if decodes(name)} == {"decode", "end_to_end"}


def noise(number: int) -> StageNoise:
    return StageNoise(
        measurement_version="0" * 8,
        executed_flops=number,
        operator_calls=None,
        peak_bytes=None,
        first_s=(1.0,) * 8,
        medians_s=(1.0 + number,) * 8,
    )


REFRESHES = st.lists(st.tuples(PLACES, st.sets(st.sampled_from(NAMES), min_size=1)), min_size=1, max_size=6)


@settings(max_examples=60)
@given(REFRESHES)
def test_a_refresh_replaces_what_it_measured_and_nothing_else(refreshes: list[tuple[Fingerprint, set[str]]]) -> None:
    expected: dict[Key, StageNoise] = {}
    stored = Baseline.empty("cpu", "tiny")
    for number, (place, names) in enumerate(refreshes):
        stages = {name: noise(number) for name in names}
        stored = stored.with_times(TimedSet(provenance=at(number), fingerprint=place, stages=stages))
        expected |= {Key.timed(name, place): stage for name, stage in stages.items()}
    held = [(one.key(name), stage) for one in stored.timed for name, stage in one.stages.items()]
    assert len(held) == len(expected)
    assert dict(held) == expected
    for key, stage in expected.items():
        found, mismatches = stored.nearest_times(key) or (None, None)
        assert mismatches == []
        assert found is not None
        assert found.stages[key.benchmark] == stage


def at(number: int) -> Provenance:
    return replace(MADE, created=f"2025-11-21T09:30:{number:02d}+00:00")


def exact_set(number: int, *, batch_size: int = 1, **flops: int) -> ExactSet:
    def point(name: str) -> ExactPoint:
        before = STORED.exact[0].points["prefill[64]"]
        value = flops[name]
        block = {"lm_head": Block(modules=1, flops=value, bytes=2_000)}
        return ExactPoint(totals={**before.totals, "executed_flops": value}, blocks=block, operators={"matmul": value})

    points = {f"{name}[64]": point(name) for name in flops}
    return replace(STORED.exact[0], provenance=at(number), batch_size=batch_size, points=points)


def test_an_exact_refresh_of_some_points_keeps_the_others_and_what_a_full_run_has() -> None:
    whole = Baseline.empty("meta", "tiny").with_exact(exact_set(0, prefill=1, decode=2), full=True)
    # decode moved; prefill is equal and stays with its origin
    some = whole.with_exact(exact_set(1, prefill=1, decode=3), full=False)
    assert [(one.provenance, dict.fromkeys(one.points)) for one in some.exact] == [
        (at(0), {"prefill[64]": None}),
        (at(1), {"decode[64]": None}),
    ]
    assert some.full_run == whole.full_run == ("decode[64]", "prefill[64]")
    # another batch is another way, beside the first
    both = some.with_exact(exact_set(2, batch_size=2, prefill=5), full=False)
    assert [one.batch_size for one in both.exact] == [1, 1, 2]
    assert both.with_exact(exact_set(3, prefill=1, decode=3), full=True) == both


def test_equal_points_under_other_releases_move_to_them() -> None:
    old = Baseline.empty("meta", "tiny").with_exact(exact_set(0, prefill=1), full=True)
    run = replace(old.exact[0].execution, framework=replace(old.exact[0].execution.framework, transformers="5.99.0"))
    new = old.with_exact(replace(exact_set(1, prefill=1), execution=run), full=True)
    assert [one.provenance for one in new.exact] == [at(1)]


# --- selections


OPTIONS = st.fixed_dictionaries(
    {"--device": st.sampled_from(["meta", "cpu"]), "--preset": st.just("tiny")},
    optional={
        "--seq-len": st.lists(st.sampled_from(["1024", "1100,1200"]), min_size=1, max_size=2),
        "--crop-grid": st.lists(st.sampled_from(["2x1", "1x2"]), min_size=1, max_size=2),
        "--image-size": st.just(["1654x2339"]),
        "--served-by": st.sampled_from(["vllm", "transformers"]),
        "--max-tiles": st.sampled_from(["4", "6"]),
        "--attention": st.sampled_from(["sdpa", "eager"]),
        "--experts": st.sampled_from(["grouped_mm", "batched_mm"]),
        "--batch-size": st.sampled_from(["1", "2"]),
        "--decode-steps": st.sampled_from(["4", "16"]),
        "--warmup-rounds": st.sampled_from(["0", "2"]),
        "--warmup-synthetic": st.sampled_from(["on", "off"]),
        "--strict-framework": st.booleans(),
        "--time-threshold": st.just("9"),
    },
)


def parsed(words: tuple[str, ...]) -> RunOptions:
    """The options of a command line, as refresh parses it."""
    import argparse

    from fixtures.config.pytest_options import ArgparseGroups, add_options

    parser = argparse.ArgumentParser()
    add_options(ArgparseGroups(parser))
    given_ = vars(parser.parse_args(words))
    return RunOptions.parsed(lambda flag: given_[flag.removeprefix("--").replace("-", "_")])


@settings(max_examples=60)
@given(OPTIONS)
def test_the_words_of_a_run_select_the_same_benchmarks_in_the_same_way(chosen: dict[str, Any]) -> None:
    options = RunOptions.parsed({**DEFAULTS, **chosen}.get)
    again = parsed(words_of(options))
    assert words_of(again) == words_of(options)
    assert benchmarks(again) == benchmarks(options)
    assert (again.execution(), again.batch_size, again.decode_steps) == (
        options.execution(),
        options.batch_size,
        options.decode_steps,
    )


def test_a_profile_is_one_word_and_a_threshold_none() -> None:
    options = RunOptions.parsed({**DEFAULTS, "--profile": "dsocr-standard-v1", "--time-threshold": "9"}.get)
    words = words_of(options, device="meta")
    assert words[-2:] == ("--profile", "dsocr-standard-v1")
    assert "--time-threshold" not in words
    assert benchmarks(parsed(words)) == benchmarks(options)


# --- processes

RECORDED = json.loads(RECORD.read_text())
LENGTH, PAGE = "1024", "gundam-2x1"
GROUPS = (f"vision[{PAGE}]", f"prefill[{LENGTH}]", f"decode[{LENGTH}]", f"end_to_end[{PAGE}-{LENGTH}]")


class FakeSession:
    """A session that answers at once with the times of a stored record; `busy` benchmarks are disturbed in it."""

    started: ClassVar[list["FakeSession"]] = []
    busy: Callable[[int, str], bool] = staticmethod(lambda process, name: False)
    stops: Callable[[int, str], None] = staticmethod(lambda process, name: None)

    def __init__(self, label: str, words: tuple[str, ...], baselines: Path) -> None:
        assert list(Path(baselines).iterdir()) == []
        self.label, self.words, self.ran = label, words, list[str]()
        self.options = parsed(words)
        self.started.append(self)

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def benchmarks(self) -> list[str]:
        return list(GROUPS)

    def run(self, name: str) -> dict[str, Any]:
        number = len(self.started)
        self.stops(number, name)
        self.ran.append(name)
        group = BenchmarkId.parse(name)
        times = []
        for stage in TIMED_STAGES:
            member = BenchmarkId(stage, group.point)
            if STAGE[stage].owner != group.stage:
                continue
            timing = dict(RECORDED["timings"][0])
            reasons = ["somebody else"] if self.busy(number, str(member)) else []
            timing |= {"stage": stage, "point": member.point, "time_s": 1.0 + number / 1000}
            times.append(timing | {"measurement": {"reasons": reasons}})
        run = self.options.execution()
        timed = RECORDED["timed"] | {
            "execution": run.choices(),
            "batch_size": self.options.batch_size,
            "model": {"model_id": "a/model", "model_variant": "tiny"},
        }
        return RECORDED | {"timings": times, "timed": timed, "pages": [], "points": []}


SELECTION = ("--device", "cpu", "--preset", "tiny", "--seq-len", LENGTH)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSession]]:
    """Fake sessions, one exact point, and a clean checkout."""
    set_up(monkeypatch.setattr)
    yield FakeSession
    FakeSession.started.clear()


def set_up(setattr_: Callable[..., None]) -> None:
    small = [("prefill", Point(label="16", seq_len=16, page=None))]
    setattr_("fixtures.config.points.benchmarks", lambda options: small)
    setattr_(refreshing, "require_clean", lambda: None)
    setattr_(refreshing, "SessionProcess", FakeSession)
    FakeSession.started.clear()


def refresh(folder: Path, *words: str) -> int:
    return main(["refresh", *words, "--baseline-dir", str(folder / "baselines"), "--output-dir", str(folder / "out")])


def test_every_time_of_the_selection_is_stored_from_eight_processes(
    sessions: type[FakeSession], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh(tmp_path, *SELECTION) == 0
    said = capsys.readouterr()
    assert len(sessions.started) == 8
    assert all(session.words[:2] == ("--device", "cpu") for session in sessions.started)
    assert "exact: prefill[16] (1 of 1)" in said.err
    assert "process 3 of 8: decode[1024] (3 of 4)" in said.err
    (times,) = find("cpu", "tiny", tmp_path / "baselines").timed
    expected = {f"{stage}[{PAGE}]" for stage in TIMED_STAGES if STAGE[stage].point == "page"}
    expected |= {f"prefill[{LENGTH}]", f"decode[{LENGTH}]", f"first_token[{PAGE}-{LENGTH}]", f"end_to_end[{PAGE}-{LENGTH}]"}
    assert set(times.stages) == expected
    assert times.stages["first_token[gundam-2x1-1024]"].medians_s == tuple(1.0 + number / 1000 for number in range(1, 9))
    assert times.fingerprint.decode_steps == 16
    assert find("meta", "deepseek-ocr-v1-base", tmp_path / "baselines").exact
    assert list((tmp_path / "out").iterdir()) == []


def test_ways_stand_side_by_side_and_a_partial_refresh_leaves_the_others(
    sessions: type[FakeSession], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh(tmp_path, *SELECTION) == 0
    before = find("cpu", "tiny", tmp_path / "baselines")
    for more in (("--backend", "compile"), ("--batch-size", "2")):
        assert refresh(tmp_path, *SELECTION, *more) == 0
    after = find("cpu", "tiny", tmp_path / "baselines")
    assert [(one.fingerprint.backend, one.fingerprint.batch_size) for one in after.timed] == [
        ("compile", 1), ("eager", 1), ("eager", 2),
    ]  # fmt: skip
    assert before.timed[0] in after.timed
    assert "+ decode[1024] (backend compile): " in capsys.readouterr().out


def test_the_gate_asks_for_the_time_of_its_own_way(sessions: type[FakeSession], tmp_path: Path) -> None:
    stored = Baseline.empty("cpu", "tiny")
    for place, seconds in ((PLACE, 1.0), (replace(PLACE, backend="compile"), 0.5), (replace(PLACE, batch_size=2), 2.0)):
        stage = replace(noise(0), medians_s=tuple(seconds * (1 + number / 10_000) for number in range(8)))
        stored = stored.with_times(TimedSet(provenance=MADE, fingerprint=place, stages={"decode[64]": stage}))

    def outcome(place: Fingerprint, time_s: float) -> tuple[Outcome, str]:
        gate = TimedGate(baseline=stored, path=tmp_path, place=place, threshold=0.05, version=lambda stage: "0" * 8)
        timing: TimedStage = timed_of(time_s)
        judged = gate.judge(timing)
        return judged.outcome, judged.reason

    for place, seconds in ((PLACE, 1.0), (replace(PLACE, backend="compile"), 0.5), (replace(PLACE, batch_size=2), 2.0)):
        assert outcome(place, seconds)[0] is Outcome.SAME
        assert outcome(place, seconds * 1.05)[0] is Outcome.SLOWER
    # a way that is not stored is compared with nothing, and the nearest is named
    assert outcome(replace(PLACE, backend="compile", batch_size=2), 0.5) == (
        Outcome.INCOMPARABLE,
        "batch_size: 1 against 2",
    )
    assert outcome(replace(PLACE, torch="2.14.0"), 1.0) == (Outcome.INCOMPARABLE, "torch: 2.13.0 against 2.14.0")


def test_what_is_disturbed_is_timed_in_more_processes_alone(
    sessions: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "busy", staticmethod(lambda process, name: process <= 2 and name == "sam[gundam-2x1]"))
    assert refresh(tmp_path, *SELECTION) == 0
    assert [session.ran for session in sessions.started] == [list(GROUPS)] * 8 + [[GROUPS[0]]] * 2
    (times,) = find("cpu", "tiny", tmp_path / "baselines").timed
    assert times.stages["sam[gundam-2x1]"].medians_s == tuple(1.0 + number / 1000 for number in range(3, 11))


def test_what_stays_disturbed_is_not_stored_named_and_gone_on_with(
    sessions: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeSession, "busy", staticmethod(lambda process, name: process > 5 and name == "decode[1024]"))
    assert refresh(tmp_path, *SELECTION) == 1
    said = capsys.readouterr().err
    assert "baseline: NOT STORED, too few undisturbed processes" in said
    assert "decode[1024]: 5 of 8 processes undisturbed; somebody else" in said
    assert len(sessions.started) == 16
    stored = find("cpu", "tiny", tmp_path / "baselines").timed[0].stages
    assert ("decode[1024]" in stored, "prefill[1024]" in stored) == (False, True)
    sessions.started.clear()
    monkeypatch.setattr(FakeSession, "busy", staticmethod(lambda process, name: False))
    assert refresh(tmp_path, *SELECTION) == 0
    assert [session.ran for session in sessions.started] == [["decode[1024]"]] * 3


def test_a_failed_benchmark_is_no_baseline(
    sessions: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(process: int, name: str) -> None:
        if process == 2:
            raise FailedSessionError(f"process 2 of 8: {name} failed, so nothing was accepted:\nimpossible")

    monkeypatch.setattr(FakeSession, "stops", staticmethod(fails))
    assert refresh(tmp_path, *SELECTION) == 2
    assert "vision[gundam-2x1] failed, so nothing was accepted:\nimpossible" in capsys.readouterr().err
    assert find("cpu", "tiny", tmp_path / "baselines") is None


KILLED = """
import os, signal, sys
from pathlib import Path
from tests import test_refresh as tests

def stops(process, name):
    if (process, name) == (3, tests.GROUPS[1]):
        os.kill(os.getpid(), signal.SIGKILL)

def set_(owner, name, value=None):
    import importlib
    if isinstance(owner, str):
        module, _, attribute = owner.rpartition(".")
        setattr(importlib.import_module(module), attribute, name)
    else:
        setattr(owner, name, value)

tests.set_up(set_)
tests.FakeSession.stops = staticmethod(stops)
tests.refresh(Path(sys.argv[1]), *tests.SELECTION)
"""


def test_killed_in_the_third_process_the_next_refresh_goes_on_with_two(
    sessions: type[FakeSession], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "baselines").exists()
    # another selection has nothing to go on with
    assert refresh(tmp_path, *SELECTION, "--batch-size", "2") == 0
    assert len(sessions.started) == 8
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION) == 0
    said = capsys.readouterr().err
    assert "1 exact result and 2 processes are kept" in said
    assert [session.label for session in sessions.started] == [f"process {number} of 8" for number in range(3, 9)]
    assert said.count("exact: prefill[16]") == 1  # that of the other selection
    assert all(len(stage.medians_s) == 8 for stage in find("cpu", "tiny", tmp_path / "baselines").timed[0].stages.values())


def test_an_interrupted_exact_refresh_goes_on_with_its_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixtures.validation.bench import Bench

    small = [(stage, Point(label="16", seq_len=16, page=None)) for stage in ("prefill", "decode")]
    monkeypatch.setattr("fixtures.config.points.benchmarks", lambda options: small)
    monkeypatch.setattr(refreshing, "require_clean", lambda: None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    words = ("--device", "meta", "--preset", "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "decode", interrupted)
        assert refresh(tmp_path, *words) == 130
    said = capsys.readouterr().err
    assert "1 exact result and 0 processes are kept; the same command goes on with them" in said
    assert "a baseline is written whole, so none was changed" in said
    assert refresh(tmp_path, *words) == 0
    said = capsys.readouterr().err
    assert "exact: prefill[16]" not in said
    assert "exact: decode[16] (2 of 2)" in said
    assert find("meta", "tiny", tmp_path / "baselines").full_run == ("decode[16]", "prefill[16]")


def test_processes_of_another_commit_or_machine_are_not_used(
    sessions: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops(process: int, name: str) -> None:
        if process == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakeSession, "stops", staticmethod(stops))
        assert refresh(tmp_path, *SELECTION) == 130
    (path,) = (tmp_path / "out").iterdir()
    kept = json.loads(path.read_text())
    for process in kept["processes"]:
        process["fingerprint"]["threads"] = 64
    path.write_text(json.dumps(kept))
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION) == 0
    assert "2 processes were timed elsewhere, and are dropped: threads: 64 against 2" in capsys.readouterr().err
    assert len(sessions.started) == 8
    path.write_text(json.dumps(kept | {"commit": "1" * 40}))
    sessions.started.clear()
    assert refresh(tmp_path, *SELECTION) == 0
    assert "is of another commit or other releases, and is replaced" in capsys.readouterr().err
    assert len(sessions.started) == 8


def test_the_options_can_stand_in_a_file(sessions: type[FakeSession], tmp_path: Path) -> None:
    file = tmp_path / "selection"
    file.write_text("--preset\ntiny\n--seq-len\n1024\n--batch-size\n2\n")
    assert refresh(tmp_path, "--device", "cpu", f"@{file}") == 0
    assert {session.options.batch_size for session in sessions.started} == {2}
    assert find("cpu", "tiny", tmp_path / "baselines").newest.command[5:8] == ("--device", "cpu", f"@{file}")


def test_a_process_times_what_a_run_is_judged_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One real session: its fingerprint is that of the gate, so that the run with the same options finds its times."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)  # a worker of xdist times nothing
    options = RunOptions.parsed(
        {**DEFAULTS, "--device": "cpu", "--preset": "tiny", "--seq-len": ["16"], "--decode-steps": "2"}.get
    )
    said: list[str] = []
    with SessionProcess("process 1 of 8", words_of(options), tmp_path) as session:
        process = sampled(session, lambda name: name == "decode[16]", decode_steps=2, progress=said.append)
        record = session.run("prefill[16]")
    assert record is not None
    assert [timing["stage"] for timing in record["timings"]] == ["prefill"]
    assert record["points"] == []  # the refresh has compared them, once for all its processes
    assert said == ["decode[16] (1 of 1)"]
    assert process is not None
    assert list(process.samples) == ["decode[16]"]
    sample = process.samples["decode[16]"]
    assert sample.executed_flops > 0
    assert sample.median_s > 0
    place = fingerprint(options.spec, options.execution(), batch_size=1, decode_steps=2)
    assert process.fingerprint == place
