"""Fresh processes: what they say, how far the same build is from itself, and what happens when one dies."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.io import stored
from analytic.prediction.rates import RATES
from fixtures.ab_testing import noise
from fixtures.ab_testing.conversation import WorkerError
from fixtures.ab_testing.noise import lines
from fixtures.ab_testing.worker_process import HERE, WorkerProcess, runs_for
from fixtures.config.job import Job
from fixtures.config.stages import TIMED_STAGES
from fixtures.evidence.card import Card
from fixtures.evidence.section import Standing
from fixtures.model.timed_calls import Calls
from fixtures.timing.fingerprint import measurement_version
from fixtures.timing.medians import Noise, StageNoise, log_spread
from fixtures.validation.counted_call import counted
from fixtures.worker import Worker
from tests.samples import JOB, PLACE


def test_a_study_of_two_processes_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert noise.main(["--processes", "2", "--decode-steps", "2", "--output-dir", str(tmp_path), "decode[16]"]) == 0
    printed = capsys.readouterr()
    assert "process 2 of 2" in printed.err
    folder = (tmp_path / "latest-noise").resolve()
    assert f"written to {folder}/noise.json" in printed.out
    found = Noise.read(folder / "noise.json")
    assert list(found.stages) == ["decode[16]"]
    stage = found.stages["decode[16]"]
    assert (len(stage.medians_s), len(stage.first_s)) == (2, 2)
    assert stage.measurement_version == measurement_version("decode")
    assert f"{stage.median_s * 1e3:,.3f}" in printed.out
    assert found.fingerprint.model_variant == "tiny"
    card = Card.read(folder)
    standing = Standing.DISTURBED if found.disturbed else Standing.MEASURED  # the machine of these tests may be busy
    assert (card.kind, card.model, card.standing) == ("noise", "tiny", standing)
    spread = f"{log_spread(stage.medians_s):.2%}"
    assert (
        f"2 fresh processes of the same build; the medians of decode[16] spread most, by {spread}."
        in (folder / "report.html").read_text()
    )


def test_a_worker_times_rounds_of_one_unit() -> None:
    with WorkerProcess(HERE, replace(JOB, stages=("decode[16]", "prefill[16]"))) as worker:
        greeting = worker.greeting()
        assert greeting["stages"]["decode[16]"]["restored"]
        assert runs_for(greeting["stages"]["decode[16]"]) == 1
        assert runs_for({"restored": False, "run_s": 0.003}) == 7  # 20 ms
        for name in ("decode[16]", "prefill[16]"):
            found = worker.round(name, runs=1)
            assert found.time_s > 0
            assert (found.wall_s, found.throttled) == (None, False)
        assert worker.watch() == ()  # nothing was watched before
        assert all(isinstance(reason, str) for reason in worker.watch())
        amount = worker.count("decode[16]")
        assert sum(work.flops for work in amount.blocks.values()) == amount.executed_flops > 0
        assert sum(work.calls for work in amount.blocks.values()) == amount.operator_calls > 0


def test_the_extra_tokens_of_a_job_are_real_work() -> None:
    flops = []
    for tokens in (0, 1):
        worker = Worker(replace(JOB, extra_tokens=tokens))
        call = worker._stages["decode[16]"].call
        assert call.units == 2
        flops.append(counted(call, worker._subject).executed_flops)
    assert 1.49 < flops[1] / flops[0] < 1.51  # three tokens for two, on an almost equal context


def test_a_job_survives_its_command_line() -> None:
    assert Job.parsed(JOB.arguments()) == JOB
    assert not any("backend" in one for one in JOB.arguments())  # a worker of an earlier commit knows no backends
    compiled = replace(JOB, backend="compile")
    assert Job.parsed(compiled.arguments()) == compiled
    assert compiled.execution.static_cache


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (replace(JOB, stages=("decode[long]",)), "seq_len: got 'long', accepted: a whole number"),
        (replace(JOB, stages=("dream[16]",)), "stage: got 'dream', accepted: vision, sam"),
        (replace(JOB, stages=("decode",)), "stage: got 'decode', accepted: a stage and its point"),
        (replace(JOB, stages=("vision[cover]",)), "page: got 'cover', accepted: tiny, small"),
    ],
)
def test_a_job_that_can_not_be_done_is_said_by_the_worker(job: Job, message: str) -> None:
    with WorkerProcess(HERE, job) as worker, pytest.raises(WorkerError) as error:
        worker.greeting()
    assert message in str(error.value)


def test_a_worker_that_dies_is_named_with_its_last_words() -> None:
    with WorkerProcess(HERE, JOB) as worker:
        worker.greeting()
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerError, match="this checkout: the worker ended with code -9"):
            worker.round("decode[16]", runs=1)


def test_spread_is_that_of_logarithms() -> None:
    assert log_spread((1.0, math.e)) == pytest.approx(math.sqrt(0.5))
    steady = StageNoise(
        measurement_version="0" * 8,
        executed_flops=1,
        operator_calls=1,
        peak_bytes=1,
        first_s=(2.0, 8.0),
        medians_s=(1.0, 1.0),
    )
    (_, _, row, *_) = lines(Noise(created="now", commit=None, dirty=None, fingerprint=PLACE, stages={"decode[16]": steady}))
    # cold: half the distance of the logarithms, times the square root of two
    assert row.split() == [
        "decode[16]",
        "1,000.000",
        "0.00%",
        "+0.0%",
        "+0.0%",
        "5,000.000",
        f"{math.log(4) / math.sqrt(2):.2%}",
    ]


def test_fingerprints_name_what_differs() -> None:
    other = replace(PLACE, threads=8, torch="2.14.0")
    assert PLACE.mismatches(PLACE) == []
    assert [str(one) for one in PLACE.mismatches(other)] == ["threads: 2 against 8", "torch: 2.13.0 against 2.14.0"]


def test_the_version_of_a_measurement_follows_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {stage: measurement_version(stage) for stage in TIMED_STAGES}
    assert versions["sam"] == versions["clip"]
    assert len({versions[stage] for stage in ("vision", "sam", "prefill", "decode", "first_token", "end_to_end")}) == 6

    def prefill(self: Calls, seq_len: int) -> None:
        """Another docstring is the same body; this is another body."""

    from fixtures.timing import fingerprint

    monkeypatch.setitem(fingerprint.BODIES, "prefill", (prefill,))
    assert measurement_version("prefill") != versions["prefill"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "1"], "--processes: got 1, accepted: a whole number of at least 2"),
        (["--device", "meta"], "--device: got 'meta', accepted: cpu, cuda"),
        (["--preset", "huge"], "--preset: got 'huge', accepted: deepseek-ocr"),
        (["--output-dir", "/proc/nowhere"], "--output-dir: got /proc/nowhere, accepted: a writable folder"),
    ],
)
def test_a_study_that_can_not_be_made_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert noise.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{", json.dumps({"schema_version": "1.0"})])
def test_a_damaged_study_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "noise.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=r"noise\.json") as refused:
        Noise.read(path)
    assert "git checkout" not in str(refused.value)  # git does not know it


def test_a_damaged_file_of_the_project_can_be_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rates.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"rates\.json: not valid JSON .*; create it again$"):
        RATES.read(path)
    monkeypatch.setattr(stored, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"restore it with `git checkout -- .*rates\.json` if git tracks it"):
        RATES.read(path)
