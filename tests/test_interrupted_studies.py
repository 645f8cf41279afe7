"""Studies that are ended before their end: what is finished is kept and continued, and no process outlives them."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io import stored
from analytic.io.ending import EarlyEnd, Incomplete
from analytic.prediction import rates as stored_rates
from fixtures.ab_testing import noise
from fixtures.ab_testing.worker_process import Amount, Round
from fixtures.baseline import command as baselines
from fixtures.baseline import refresh
from fixtures.config.job import Job
from fixtures.drift import __main__ as drift
from fixtures.evidence.card import Card
from fixtures.evidence.section import Standing
from fixtures.microbench import device_rates
from fixtures.profiling import backends, predict_study, ranking
from fixtures.timing.medians import Noise
from tests.samples import JOB, PLACE, RATES

ROOT = Path(__file__).resolve().parent.parent


def in_group(group: int) -> list[str]:
    """The commands of the processes of a group that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            *_, fields = (folder / "stat").read_text().rpartition(")")
            state, _, its_group, *_ = fields.split()
            if int(its_group) == group and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.parametrize(
    ("send", "number", "code"),
    [
        (os.kill, signal.SIGTERM, 143),  # to the study alone, as a scheduler does
        (os.kill, signal.SIGKILL, -signal.SIGKILL),
        (os.killpg, signal.SIGINT, 130),  # to all processes, as a terminal does
    ],
)
def test_no_process_outlives_a_study(tmp_path: Path, send: Callable[[int, int], None], number: int, code: int) -> None:
    command = [sys.executable, "-m", "fixtures.ab_testing.noise", "--processes", "2", "decode[16]"]
    process = subprocess.Popen(
        [*command, "--output-dir", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert "process 1 of 2" in process.stderr.readline()
        until = time.monotonic() + 60
        while not any("fixtures.worker" in one for one in in_group(process.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        send(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code
        reasons = {143: "terminated (SIGTERM)", 130: "interrupted (Ctrl-C)"}
        assert said == (f"noise: {reasons[code]}; no process was kept\n" if code in reasons else "")
        while in_group(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert in_group(process.pid) == []
        assert list(tmp_path.iterdir()) == []
    finally:
        for left in (process.pid,) if in_group(process.pid) else ():
            os.killpg(left, signal.SIGKILL)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Workers that answer at once, of which all after the first `good` raise `error`. A process of a study has two."""

    def set_up(good: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        left = iter(range(good))

        class Answering:
            def __init__(self, build: object, job: Job) -> None:
                self.job = job

            def __enter__(self) -> "Answering":
                return self

            def __exit__(self, *exc: object) -> None:
                pass

            def greeting(self) -> dict[str, Any]:
                if next(left, None) is None:
                    raise error
                stage = {"first_s": 0.5, "run_s": 1.0, "restored": True, "measurement_version": "0" * 8}
                return {"fingerprint": asdict(PLACE), "stages": dict.fromkeys(self.job.stages, stage)}

            def round(self, stage: str, *, runs: int) -> Round:
                return Round(time_s=0.25, wall_s=None, throttled=False)

            def watch(self) -> tuple[str, ...]:
                return ()

            def count(self, stage: str) -> Amount:
                return Amount(executed_flops=1, operator_calls=1, peak_bytes=1, blocks={})

        monkeypatch.setattr(noise, "WorkerProcess", Answering)
        monkeypatch.setattr(noise, "is_dirty", lambda **_: False)

    return set_up


def test_finished_processes_are_kept_and_continued(
    workers: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--processes", "3", "--output-dir", str(tmp_path), "decode[16]"]
    workers(good=3)  # a process, and half of the next
    assert noise.main(arguments) == 130
    path = (tmp_path / "latest-noise").resolve() / "noise.json"
    assert (
        f"noise: interrupted (Ctrl-C); 1 of 3 processes are kept in {path}, marked incomplete; go on with "
        f"`nox -s noise -- {shlex.join([*arguments, '--continue'])}`"
    ) in capsys.readouterr().err
    found = Noise.read(path)
    assert found.incomplete == Incomplete(reason="interrupted (Ctrl-C)", missing=("process 2", "process 3"))
    assert (found.processes, found.stages["decode[16]"].first_s) == (1, (0.5,))
    assert "0.00%" not in "\n".join(noise.lines(found))  # one process has no spread
    assert Card.read(path.parent).standing is Standing.INCOMPLETE
    before = path.read_bytes()

    workers(good=4)
    assert noise.main([*arguments, "--continue"]) == 0
    printed = capsys.readouterr()
    assert ("process 1 of 3" in printed.err, "process 2 of 3" in printed.err) == (False, True)
    assert path.read_bytes() == before  # what was kept stays as it was
    found = Noise.read(tmp_path / "latest-noise" / "noise.json")
    assert (found.incomplete, found.processes) == (None, 3)
    assert "2 studies, 1 incomplete." in (tmp_path / "index.html").read_text()
    assert noise.main([*arguments, "--continue"]) == 2
    assert "is complete; measure again without --continue" in capsys.readouterr().err


def test_what_can_not_be_continued_says_why(
    workers: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--processes", "3", "--output-dir", str(tmp_path), "decode[16]"]
    assert noise.main([*arguments, "--continue"]) == 2
    assert "one that an interrupted study has left" in capsys.readouterr().err
    workers(good=2, error=MemoryError)
    assert noise.main(arguments) == 1
    assert "noise: out of memory; 1 of 3 processes are kept" in capsys.readouterr().err
    assert noise.main([*arguments, "prefill[16]", "--continue"]) == 2
    assert (
        "--continue: got stages decode[16] prefill[16], accepted: those of the file, decode[16]" in capsys.readouterr().err
    )
    monkeypatch.setattr(noise, "this_commit", lambda: "1" * 40)
    assert noise.main([*arguments, "--continue"]) == 2
    assert "is not of this commit" in capsys.readouterr().err


def test_a_full_disk_leaves_the_table(
    workers: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    workers(good=4)
    monkeypatch.setattr(stored, "write_at_once", full)
    assert noise.main(["--processes", "2", "--output-dir", str(tmp_path), "decode[16]"]) == 1
    printed = capsys.readouterr()
    assert re.search(r"decode\[16\] +250\.000 +0\.00%", printed.out)
    assert "noise: the file of times could not be written: No space left on device; free some space" in printed.err


def test_an_incomplete_study_is_no_baseline(
    workers: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "require_clean", lambda: None)
    arguments = ["--processes", "8", "--output-dir", str(tmp_path), "decode[16]"]
    stored = ["refresh", "--device", "cpu", "--preset", "tiny", "--baseline-dir", str(tmp_path / "baselines")]
    stored += ["--noise", str(tmp_path / "latest-noise" / "noise.json")]
    workers(good=7 * 2)
    assert noise.main(arguments) == 130
    assert baselines.main(stored) == 2
    assert "is incomplete (interrupted (Ctrl-C); missing: process 8), which is no baseline" in capsys.readouterr().err
    workers(good=2)
    assert noise.main([*arguments, "--continue"]) == 0
    assert baselines.main(stored) == 0
    (path,) = (tmp_path / "baselines").rglob("tiny.json")
    assert len(json.loads(path.read_text())["timed"][0]["stages"]["decode[16]"]["medians_s"]) == 8


def test_a_disturbed_process_of_a_study_is_said_and_kept(
    workers: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(good=4)
    busy = iter([(), ("other processes used 1.90 of 2 CPUs",), (), ()])
    monkeypatch.setattr(noise.WorkerProcess, "watch", lambda self: next(busy))
    assert noise.main(["--processes", "2", "--output-dir", str(tmp_path), "decode[16]"]) == 0
    line = "disturbed: decode[16] in 1 of 2 processes: other processes used 1.90 of 2 CPUs"
    assert line in capsys.readouterr().out.splitlines()
    found = Noise.read(tmp_path / "latest-noise" / "noise.json")
    assert found.disturbed == {"decode[16]": ("other processes used 1.90 of 2 CPUs",)}
    assert noise.joined(noise.apart(found)).disturbed == found.disturbed
    card = Card.read(tmp_path / "latest-noise")
    assert (card.standing, card.headline) == (Standing.DISTURBED, "Disturbed, and no baseline: decode[16].")


def test_stages_ranked_before_an_interruption_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixtures.profiling.variants import StageVariants, VariantStudy

    ranked = VariantStudy.stage

    def second_interrupted(self: VariantStudy, name: str) -> StageVariants:
        if name == "decode[16]":
            raise KeyboardInterrupt
        return ranked(self, name)

    monkeypatch.setattr(VariantStudy, "stage", second_interrupted)
    arguments = ["--device", "cpu", "--output-dir", str(tmp_path), "--decode-steps", "2", "--ways", "eager/sdpa/grouped_mm"]
    assert backends.main([*arguments, "--stages", "prefill[16]", "decode[16]"]) == 130
    printed = capsys.readouterr()
    assert "prefill[16]: floor" in printed.out
    assert (
        "INCOMPLETE: interrupted (Ctrl-C); missing: decode[16]; measure the rest with `nox -s backends -- " in printed.err
    )
    assert "--stages 'decode[16]'`" in printed.err
    (path,) = tmp_path.rglob("backends.json")
    kept = ranking.BACKENDS.read(path)
    assert [stage["stage"] for stage in kept["stages"]] == ["prefill[16]"]
    assert kept["incomplete"] == {"reason": "interrupted (Ctrl-C)", "missing": ["decode[16]"]}


def test_stages_predicted_before_an_interruption_are_kept_and_are_no_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.5])

    def measured_s(*_: object) -> float:
        found = next(times, None)
        if found is None:
            raise MemoryError
        return found

    monkeypatch.setattr(predict_study, "_measured_s", measured_s)
    monkeypatch.setattr(device_rates, "measure", lambda *_, **__: RATES)
    out = tmp_path / "cpu"
    arguments = ["--output-dir", str(tmp_path / "results"), "--accept", str(out), "--decode-steps", "1"]
    assert predict_study.main([*arguments, "prefill[16]", "decode[16]"]) == 1
    said = capsys.readouterr().err
    assert "predict_study: INCOMPLETE: out of memory; missing: decode[16]; measure the rest with" in said
    assert "--decode-steps 1 'decode[16]'`" in said
    kept = predict_study.PREDICT_STUDY.read(out / "predict_study.json")
    of_study = tmp_path / "results" / "latest-predict_study"
    assert (of_study / "predict_study.json").read_text() == (out / "predict_study.json").read_text()
    assert (of_study / "rates.json").read_text() == (out / "rates.json").read_text()
    assert Card.read(of_study).standing is Standing.INCOMPLETE
    assert [case["stage"] for case in kept["cases"]] == ["prefill"]
    assert baselines.main(["check", "--baseline-dir", str(tmp_path)]) == 1
    assert "predict_study.json: is incomplete (out of memory; missing: decode[16])" in capsys.readouterr().err


def test_a_study_of_predictions_goes_on_with_its_rates_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.5])

    def measured_s(*_: object) -> float:
        found = next(times, None)
        if found is None:
            raise MemoryError
        return found

    monkeypatch.setattr(predict_study, "_measured_s", measured_s)
    monkeypatch.setattr(device_rates, "measure", lambda *_, **__: pytest.fail("the rates are known"))
    stored_rates.write(RATES, tmp_path / "rates.json")
    arguments = ["--output-dir", str(tmp_path / "results"), "--decode-steps", "1"]
    stages = ["prefill[16]", "decode[16]"]
    assert predict_study.main([*arguments, "--continue", *stages]) == 2
    assert "--continue: got no study of this model and way" in capsys.readouterr().err
    assert predict_study.main([*arguments, "--rates", str(tmp_path / "rates.json"), *stages]) == 1
    times = iter([0.25])  # of the one that is left
    assert predict_study.main([*arguments, "--continue", *stages]) == 0
    kept = predict_study.PREDICT_STUDY.read(tmp_path / "results" / "latest-predict_study" / "predict_study.json")
    assert [(case["stage"], case["measured_s"]) for case in kept["cases"]] == [("prefill", 0.5), ("decode", 0.25)]
    assert kept["incomplete"] is None
    assert predict_study.main([*arguments, "--continue", *stages]) == 2
    assert "is complete; measure again without --continue" in capsys.readouterr().err


def test_rates_of_another_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_rates.write(replace(RATES, model_variant="another"), tmp_path / "rates.json")
    assert predict_study.main(["--output-dir", str(tmp_path), "--rates", str(tmp_path / "rates.json"), "decode[16]"]) == 2
    assert "--rates: got those of another in float32, accepted: tiny in float32" in capsys.readouterr().err


def test_times_of_a_drift_that_ended_early_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fixtures.ab_testing.compare_builds.compare", interrupted)
    early = EarlyEnd()
    assert drift.timed(JOB, Path(sys.executable), Path(sys.executable), early) == {}
    assert early.incomplete == Incomplete(reason="interrupted (Ctrl-C)", missing=("time of decode[16]",))
    assert early.exit_code("drift", otherwise=0, go_on="run again") == 130
