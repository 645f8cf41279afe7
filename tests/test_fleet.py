"""Benchmarks on many workers: who does what, what happens when one is gone, and that the run is that of one process."""

import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analytic.io import stored
from analytic.io.ending import EarlyEnd, Incomplete
from analytic.io.run_record import RECORD
from fixtures.ab_testing.conversation import Conversation, WorkerError
from fixtures.config.points import Point, benchmarks
from fixtures.distributed import __main__ as fleet
from fixtures.distributed.merged import MergeError
from fixtures.distributed.merged_run import MERGED
from fixtures.distributed.options import DistributedOptions
from fixtures.distributed.tasks import (
    Done,
    FleetError,
    Scheduler,
    Task,
    TaskFinished,
    Tasks,
    WorkerEvent,
    WorkerLost,
    WorkerReady,
)
from fixtures.plugin.worker_session import by_benchmark
from fixtures.validation.bench import Bench

DATA = Path(__file__).resolve().parent / "data"
SMALL = ("--preset", "tiny", "--device", "meta", "--seq-len", "64,500", "--decode-steps", "2")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is optional: pip install -e '.[fleet]'")


class Scripted:
    """A pool whose workers do as the script says: what becomes of a start, and of the attempts at a benchmark."""

    def __init__(self, *, starts: Sequence[str] = (), lost: dict[str, int] | None = None) -> None:
        self._starts, self._lost = deque(starts), dict(lost or {})
        self._news: deque[WorkerEvent] = deque()
        self.hired = 0
        self.asked: list[tuple[int, str]] = []

    def start_worker(self) -> int:
        worker, self.hired = self.hired, self.hired + 1
        fate = self._starts.popleft() if self._starts else ""
        self._news.append(
            WorkerLost(worker=worker, reason=fate) if fate else WorkerReady(worker=worker, name=f"worker {worker + 1}")
        )
        return worker

    def ask(self, worker: int, benchmark: str) -> None:
        self.asked.append((worker, benchmark))
        left = self._lost.get(benchmark, 0)
        if left:
            self._lost[benchmark] = left - 1
            self._news.append(WorkerLost(worker=worker, reason="killed"))
        else:
            self._news.append(TaskFinished(worker=worker, record={"of": benchmark}, failures=()))

    def poll(self, timeout_s: float) -> Sequence[WorkerEvent]:
        return [self._news.popleft()] if self._news else []


def schedule(pool: Scripted, tasks: Tasks, *, workers: int = 2) -> tuple[Scheduler, list[str]]:
    said: list[str] = []
    return Scheduler(pool, tasks, workers=workers, say=said.append), said


def test_every_benchmark_is_done_once_in_the_order_it_is_taken() -> None:
    pool, tasks = Scripted(), Tasks(["a", "b", "c"])
    work, said = schedule(pool, tasks)
    done = work.work()
    assert sorted(one.task.benchmark for one in done) == ["a", "b", "c"]
    assert [name for _, name in pool.asked] == ["a", "b", "c"]
    assert pool.hired == 2
    assert said[-1].startswith("3 of 3: ")
    assert (tasks.losses, tasks.given_up) == ([], [])


def test_no_more_workers_are_started_than_there_is_work() -> None:
    pool = Scripted()
    schedule(pool, Tasks(["a"]), workers=8)[0].work()
    assert pool.hired == 1


def test_a_lost_benchmark_is_run_again_before_the_others_by_a_new_worker() -> None:
    pool, tasks = Scripted(lost={"a": 1}), Tasks(["a", "b", "c"])
    work, said = schedule(pool, tasks, workers=1)
    done = {one.task.benchmark: one for one in work.work()}
    assert pool.asked == [(0, "a"), (1, "a"), (1, "b"), (1, "c")]
    assert done["a"].task.attempt == 2
    assert [(one.benchmark, one.attempt, one.worker, one.reason) for one in tasks.losses] == [
        ("a", 1, "worker 1", "killed")
    ]
    assert "worker 1 was lost (killed): a is retried, attempt 2" in said
    assert fleet.loss_lines(tasks) == [
        "workers lost: 1; benchmarks retried: 1",
        "  a: attempt 1 was lost with worker 1: killed",
    ]


def test_a_benchmark_that_ends_every_worker_is_given_up_and_the_others_are_done() -> None:
    pool, tasks = Scripted(lost={"a": 9}), Tasks(["a", "b"], most_attempts=2)
    work, said = schedule(pool, tasks)
    assert [one.task.benchmark for one in work.work()] == ["b"]
    assert (tasks.given_up, [one.attempt for one in tasks.losses]) == (["a"], [1, 2])
    assert "worker 2 was lost (killed): a is given up after 2 attempts" in said or "a is given up" in " ".join(said)


def test_a_fleet_whose_first_worker_does_not_start_ends_with_its_words() -> None:
    with pytest.raises(FleetError, match="ERROR: --preset: got 'tin'"):
        schedule(Scripted(starts=["ERROR: --preset: got 'tin'"] * 2), Tasks(["a"]))[0].work()


def test_what_nobody_comes_for_is_given_up_and_what_is_done_is_kept() -> None:
    pool, tasks = Scripted(starts=["", *["no such node"] * 9], lost={"b": 1}), Tasks(["a", "b"])
    work, said = schedule(pool, tasks, workers=1)
    assert [one.task.benchmark for one in work.work()] == ["a"]
    assert tasks.given_up == ["b"]
    assert pool.hired == 4
    assert "no worker starts; given up: 1 benchmark" in said


def test_a_fleet_that_nobody_joins_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.distributed.tasks.START_S", 0.0)
    pool = Scripted()
    monkeypatch.setattr(pool, "start_worker", lambda: 0)
    with pytest.raises(FleetError, match="no worker started within 0 s"):
        schedule(pool, Tasks(["a"]), workers=1)[0].work()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seq-len", "0"], "--seq-len: got 0, accepted: a whole number"),
        (["--workers", "0"], "--workers: got 0, accepted: a whole number of at least 1"),
        (["--attempts", "0"], "--attempts: got 0, accepted: a whole number of at least 1"),
        (["--gpus-per-worker", "2", "--device", "meta"], "--gpus-per-worker: got 2, accepted: 0, 1"),
        (["--device", "cuda", "--gpus-per-worker", "0", "--address", "x"], "--gpus-per-worker: got 0 for device cuda"),
        (
            ["--device", "meta", "--accelerator-type", "H200"],
            "--accelerator-type: got a GPU type for workers without a GPU",
        ),
        (["--device", "cpu", "--preset", "tiny", "--workers", "2"], "--workers: got 2 for device cpu on this machine"),
        (["--torch-profile"], "--torch-profile: writes files on the worker"),
        (["--output-dir", "/proc/nowhere"], "--output-dir: got /proc/nowhere, accepted: a writable folder"),
    ],
)
def test_a_fleet_that_can_not_be_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_without_ray_one_sentence_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert fleet.main(["--device", "meta", "--output-dir", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "fleet: Ray, which places the workers, is not installed: `pip install -e '.[fleet]'`"
    assert not (tmp_path / "out").exists()


def test_the_options_of_a_run_are_forwarded_with_the_device_that_was_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stored.ROOT)
    asked = DistributedOptions.parsed(["--workers", "3", "--seq-len=64", "--baseline-dir", "baselines", "--device", "meta"])
    assert asked.workers == 3
    assert asked.forwarded[-4:] == ("--device", "meta", "--baseline-dir", str(stored.ROOT / "baselines"))
    assert "--workers" not in asked.forwarded
    assert [f"{stage}[{point.label}]" for stage, point in benchmarks(asked.options)] == [
        "vision[gundam-2x1]",
        "prefill[64]",
        "decode[64]",
    ]


@pytest.mark.parametrize(
    ("arguments", "device", "gpus"),
    [
        ([], "meta", 0),
        (["--gpus-per-worker", "0"], "meta", 0),
        (["--gpus-per-worker", "1"], "cuda", 1),
        (["--accelerator-type", "H200"], "cuda", 1),
        (["--device", "cuda"], "cuda", 1),
        (["--device", "cpu", "--preset", "tiny", "--checkpoint", "weights"], "cpu", 0),
        (["--device", "meta", "--gpus-per-worker", "1"], "meta", 1),
    ],
)
def test_the_devices_of_a_cluster_are_settled_without_looking_for_them_here(
    arguments: list[str], device: str, gpus: int
) -> None:
    asked = DistributedOptions.parsed(["--address", "auto", *arguments])
    assert (asked.device, asked.gpus_per_worker) == (device, gpus)
    last = len(asked.forwarded) - 1 - asked.forwarded[::-1].index("--device")
    assert asked.forwarded[last + 1] == device


def test_workers_take_a_core_a_gpu_or_a_whole_node() -> None:
    resources = {"CPU": 20.0, "GPU": 3.0, "accelerator_type:H200": 1.0, "accelerator_type:A100": 1.0}
    nodes = [8, 8, 4]
    meta = DistributedOptions.parsed(["--address", "auto"])
    assert fleet.placing(meta, resources, nodes) == (20, {"num_cpus": 1, "num_gpus": 0})
    assert fleet.placing(replace(meta, workers=2), resources, nodes)[0] == 2
    cuda = DistributedOptions.parsed(["--address", "auto", "--accelerator-type", "H200"])
    assert fleet.placing(cuda, resources, nodes) == (3, {"num_cpus": 1, "num_gpus": 1, "accelerator_type": "H200"})
    cpu = DistributedOptions.parsed(["--address", "auto", "--device", "cpu", "--preset", "tiny"])
    assert fleet.placing(cpu, resources, nodes) == (2, {"num_cpus": 8, "num_gpus": 0})
    with pytest.raises(ValueError, match="--accelerator-type: got 'B300', accepted: A100, H200"):
        fleet.placing(replace(cuda, accelerator_type="B300"), resources, nodes)
    with pytest.raises(ValueError, match="--gpus-per-worker: got 1, but the cluster has no GPU"):
        fleet.placing(cuda, {"CPU": 8.0}, [8])


def done(stage: str, *, worker: str = "worker 1", attempt: int = 1, failures: Sequence[str] = ()) -> Done:
    """A benchmark of the stored record, as a worker gives it."""
    made = RECORD.read(DATA / "record.v5.json")
    made["points"] = [one for one in made["points"] if one["stage"] == stage]
    name = f"{stage}[{made['points'][0]['point']}]"
    made["timings"], made["pages"], made["timed"], made["ceilings"] = [], [], None, None
    made["gate"]["judged"] = [one for one in made["gate"]["judged"] if one["benchmark"] == name and one["timed"] is None]
    made["run_id"] = f"20261121-100000-{worker[-1]}"
    return Done(task=Task(benchmark=name, attempt=attempt), worker=worker, record=made, failures=failures)


ASKED = ("--seq-len", "1024", "--device", "meta")


def test_what_workers_did_is_one_run_in_the_order_of_one_process() -> None:
    found = fleet.joined(
        DistributedOptions.parsed(list(ASKED)),
        [done("decode", worker="worker 2", attempt=2), done("prefill"), done("vision", worker="worker 2")],
    )
    assert [(one.name, one.source, one.attempt) for one in found.points] == [
        ("vision[gundam-2x1]", 0, 1),
        ("prefill[1024]", 1, 1),
        ("decode[1024]", 0, 2),
    ]
    assert [source.where for source in found.sources] == ["worker 2", "worker 1"]


def test_workers_that_disagree_are_refused_by_name() -> None:
    other = done("prefill", worker="worker 2", attempt=2)
    assert other.record is not None
    wrong = copy.deepcopy(dict(other.record))
    wrong["points"][0]["compared"]["read_bytes"]["measured"] = 5
    with pytest.raises(
        MergeError, match=r"prefill\[1024\]: compared.read_bytes.measured: [\d,]+ in worker 1, 5 in worker 2"
    ):
        fleet.joined(DistributedOptions.parsed(list(ASKED)), [done("prefill"), replace(other, record=wrong)])


def test_a_fleet_ends_as_a_run_does_and_fails_for_what_was_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, tasks = DistributedOptions.parsed([*ASKED, "--output-dir", str(tmp_path)]), Tasks([])
    results = [done("vision", attempt=2), done("decode", worker="worker 2", failures=["decode[1024]: out of memory"])]
    tasks.lost(Task(benchmark="vision[gundam-2x1]", attempt=1), worker="worker 3", reason="killed")
    tasks.lost(Task(benchmark="prefill[1024]", attempt=3), worker="worker 4", reason="killed")
    assert fleet.conclude(asked, results, tasks, workers=2, took_s=1.5, command=["nox"]) == 1
    printed = capsys.readouterr().out
    assert "decode[1024]: out of memory" in printed
    assert "prefill[1024]: given up, every worker that ran it was lost" in printed
    assert "workers lost: 2; benchmarks retried: 1" in printed
    (path,) = tmp_path.glob("2*/merged.json")
    index = MERGED.read(path)
    assert [one["benchmark"] for one in index["losses"]] == ["vision[gundam-2x1]", "prefill[1024]"]
    assert [one["attempt"] for one in index["points"]] == [2, 1]


def test_an_interrupted_fleet_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Scheduler):
        def work(self) -> list[Done]:
            self.done += [done("vision"), done("prefill")]
            raise KeyboardInterrupt

    asked, early = DistributedOptions.parsed([*ASKED, "--output-dir", str(tmp_path)]), EarlyEnd()
    found = fleet.work(Interrupted(None, Tasks([]), workers=1, say=print), asked, early)
    assert early.incomplete == Incomplete(
        reason="interrupted (Ctrl-C)", missing=("decode[1024]", "end_to_end[gundam-2x1-1024]")
    )
    assert fleet.conclude(
        asked, found, Tasks([]), workers=1, took_s=1.0, command=["nox"], incomplete=early.incomplete
    ) == 1  # fmt: skip
    assert "INCOMPLETE: interrupted (Ctrl-C); missing: decode[1024], end_to_end" in capsys.readouterr().out
    (path,) = tmp_path.glob("2*/record.json")
    assert RECORD.read(path)["incomplete"] == early.incomplete.as_json()
    command = (
        "pytest benchmarks --seq-len 1024 --device meta --device meta -k 'decode[1024] or end_to_end[gundam-2x1-1024]'"
    )
    assert fleet.rest(DistributedOptions.parsed(list(ASKED)), early.missing) == command


def test_a_fleet_that_measured_nothing_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = replace(done("vision", failures=["vision[gundam-2x1]: boom"]), record=None)
    asked = DistributedOptions.parsed([*ASKED, "--output-dir", str(tmp_path / "out")])
    assert fleet.conclude(asked, [nothing], Tasks([]), workers=1, took_s=1.0, command=["nox"]) == 1
    assert capsys.readouterr().out == "nothing was measured\nvision[gundam-2x1]: boom\n"
    assert not (tmp_path / "out").exists()


def conversation(*arguments: str) -> Conversation:
    command = [sys.executable, "-m", "fixtures.plugin.worker_session", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return Conversation("a worker", command, root=stored.ROOT, environment=environment)


def test_a_process_of_another_checkout_finds_the_libraries_and_not_this_checkout(tmp_path: Path) -> None:
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "a_library.py").write_text("")
    path = os.pathsep.join((str(stored.ROOT), str(tmp_path / "libraries"), f"{stored.ROOT}/"))
    command = [sys.executable, "-c", "import a_library, json, sys; print(json.dumps({'path': sys.path}))"]
    with Conversation("a worker", command, root=tmp_path, environment={**os.environ, "PYTHONPATH": path}) as process:
        found = process.ask({})["path"]
    assert found[1:3] == [str(tmp_path), str(tmp_path / "libraries")]
    assert str(stored.ROOT) not in {str(Path(one).resolve()) for one in found[1:3]}


def small_points(subject_on: Callable[..., Any], options_of: Callable[..., Any]) -> list[dict[str, Any]]:
    """What one process finds at the points of SMALL."""
    options = options_of(preset="tiny", device="meta", seq_len=["64,500"], decode_steps="2")
    bench = Bench(subject_on("meta", "sdpa", "grouped_mm", "tiny"), batch_size=1, decode_steps=2)
    return [getattr(bench, stage)(point).as_json(0.0) for stage, point in benchmarks(options)]


def test_a_worker_finds_what_one_process_finds_and_judges_it(
    subject_on: Callable[..., Any], options_of: Callable[..., Any]
) -> None:
    arguments = ("--preset", "tiny", "--device", "meta", "--seq-len", "64", "--decode-steps", "2")
    with conversation(*arguments) as worker:
        greeting = worker.ask({"greet": True})
        assert sorted(greeting["benchmarks"]) == ["decode[64]", "prefill[64]", "vision[gundam-2x1]"]
        answers = {name: worker.ask({"benchmark": name}) for name in ("decode[64]", "prefill[64]")}
    bench = Bench(subject_on("meta", "sdpa", "grouped_mm", "tiny"), batch_size=1, decode_steps=2)
    point = Point(label="64", seq_len=64, page=None)
    for stage in ("decode", "prefill"):
        answer = answers[f"{stage}[64]"]
        assert answer["failures"] == []
        RECORD.check(answer["record"], where="the answer")
        # which benchmark a call was first run for depends on the process
        alone = json.loads(json.dumps(getattr(bench, stage)(point).as_json(0.0))) | {"reused": None}
        assert [one | {"reused": None} for one in answer["record"]["points"]] == [alone]
        assert [one["benchmark"] for one in answer["record"]["gate"]["judged"]] == [f"{stage}[64]"]
        assert answer["record"]["run_id"] == greeting["run_id"]
        assert answer["record"]["command"] == ["pytest", "benchmarks", *arguments]


def test_parts_and_first_tokens_are_run_with_the_benchmark_they_belong_to() -> None:
    def item(function: str, **params: object) -> SimpleNamespace:
        return SimpleNamespace(originalname=function, callspec=SimpleNamespace(params=params))

    page, length = Point(label="small-512", seq_len=512, page=None), Point(label="small", seq_len=None, page=None)
    first, whole = item("first_token", page_point=page), item("end_to_end", page_point=page)
    sam, vision = item("part", vision_point=length, name="sam"), item("vision", vision_point=length)
    found = by_benchmark([first, whole, sam, vision, item("end_to_end", page_point="no page fits")])
    assert found == {"end_to_end[small-512]": [whole, first], "vision[small]": [vision, sam]}


def test_a_worker_that_can_not_start_says_why() -> None:
    with (
        conversation("--preset", "tin") as worker,
        pytest.raises(WorkerError, match="--preset: got 'tin', accepted: deepseek"),
    ):
        worker.ask({"greet": True})


@needs_ray
def test_a_worker_killed_in_the_middle_is_replaced_and_the_run_is_that_of_one_process(
    tmp_path: Path, subject_on: Callable[..., Any], options_of: Callable[..., Any]
) -> None:
    command = [
        sys.executable,
        "-m",
        "fixtures.distributed",
        "--workers",
        "2",
        *SMALL,
        "--output-dir",
        str(tmp_path / "out"),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    killed = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=stored.ROOT, env=environment
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if not killed and line.endswith("is ready\n"):  # from here on it imports what it runs the first benchmark with
                killed = line.partition("(pid ")[2].partition(" ")[0]
                os.kill(int(killed), signal.SIGKILL)
        printed = process.stdout.read()
    assert process.returncode == 0, printed
    assert "workers lost: 1; benchmarks retried: 1" in printed
    assert f"(pid {killed} on " in printed
    (folder,) = (path.parent for path in (tmp_path / "out").glob("2*/merged.json"))
    index = MERGED.read(folder / "merged.json")
    (loss,) = index["losses"]
    assert {one["benchmark"]: one["attempt"] for one in index["points"]}[loss["benchmark"]] == 2
    alone = json.loads(json.dumps(small_points(subject_on, options_of)))
    assert RECORD.read(folder / "record.json")["points"] == alone


@needs_ray
def test_a_terminated_fleet_keeps_what_is_done_and_leaves_no_worker(tmp_path: Path) -> None:
    options = ["--workers", "1", "--preset", "tiny", "--seq-len", "64,500,1000", "--decode-steps", "2"]
    command = [sys.executable, "-m", "fixtures.distributed", *options, "--output-dir", str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=stored.ROOT, env=environment
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("1 of "):  # the first benchmark is done
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143, said
    assert "fleet: INCOMPLETE: terminated (SIGTERM); missing: " in said[-1]
    (path,) = tmp_path.glob("2*/record.json")
    found = RECORD.read(path)
    assert (len(found["points"]), found["incomplete"]["reason"]) == (1, "terminated (SIGTERM)")
    until = time.monotonic() + 30
    while (left := running(str(tmp_path))) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def running(word: str) -> list[str]:
    """The commands with `word` of the processes that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            found.append(path.read_text().replace("\0", " "))
    return [command for command in found if word in command]


@needs_ray
def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fixtures.distributed",
        *SMALL,
        "--address",
        "127.0.0.1:1",
        "--output-dir",
        str(tmp_path),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=stored.ROOT, check=False)
    assert finished.returncode == 2
    assert "--address: got '127.0.0.1:1', accepted: the address of a running Ray cluster" in finished.stderr
