"""A session that ends early, by a signal, by -x or on a full disk, in a process of its own: what is kept and said."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.distributed import merge
from fixtures.report import run
from tests import fresh_process

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = """
import os, resource, signal
import pytest

def prefill(bench, agrees, length_point):
    agrees(bench.prefill(length_point))

def decode(bench, agrees, length_point):
    seq_len = length_point.seq_len
    {body}
    agrees(bench.decode(length_point))
"""
OPTIONS = ("--preset", "tiny", "--seq-len", "16,32,64", "--decode-steps", "1", "--output-dir", "out", "bench_small.py")


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A session over prefill and decode at three lengths, where decode begins with `body`; its files go to out/."""

    def ended(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "bench_small.py").write_text(BENCHMARKS.format(body=body))
        plugins = ("-p", "no:cacheprovider", "-p", "fixtures.plugin.hooks")
        command = ["pytest", *plugins, "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, *(arguments or OPTIONS)]
        environment = fresh_process.outside_pytest() | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = fresh_process.run(*command, cwd=tmp_path, environment=environment)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return ended


def record_in(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob("20*/record.json")
    return path, json.loads(path.read_text())


def test_an_interrupted_session_keeps_what_is_finished_and_says_how_to_go_on(
    session: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = session("seq_len == 32 and os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "INCOMPLETE: interrupted (Ctrl-C); missing: decode[32], decode[64]\n" in done.stdout
    assert "baseline: incomplete, not passed: 4 new so far\n" in done.stdout
    assert "1 exact result not run (decode[32]): the run ended in the middle of it" in done.stdout
    assert "1 exact result not run (decode[64]): the run ended before it" in done.stdout
    path, found = record_in(tmp_path / "out")
    assert found["incomplete"] == {"reason": "interrupted (Ctrl-C)", "missing": ["decode[32]", "decode[64]"]}
    assert [point["point"] for point in found["points"] if point["stage"] == "decode"] == ["16"]
    page = (path.parent / "report.html").read_text()
    assert ": incomplete</title>" in page
    assert "INCOMPLETE: interrupted (Ctrl-C); missing: decode[32], decode[64]." in page
    assert not run.read(path.parent).passes
    assert "1 run, 1 incomplete." in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "latest").resolve() == path.parent

    assert merge.main([str(path.parent), "--output-dir", str(tmp_path / "alone")]) == 1
    assert "INCOMPLETE: interrupted (Ctrl-C); missing: decode[32], decode[64]" in capsys.readouterr().out
    assert f"then join the two with `nox -s merge -- {path.parent.relative_to(tmp_path)} RUN_DIR`" in done.stdout
    (command,) = re.findall("measure the rest with `pytest ([^`]+)`", done.stdout)
    arguments = shlex.split(command)
    assert arguments[:2] == ["bench_small.py::decode[32]", "bench_small.py::decode[64]"]
    arguments[arguments.index("out")] = "rest"
    done = session("", *arguments)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout
    rest, _ = record_in(tmp_path / "rest")
    assert merge.main([str(path.parent), str(rest.parent), "--output-dir", str(tmp_path / "joined")]) == 0
    _, joined = record_in(tmp_path / "joined")
    assert (joined["incomplete"], len(joined["points"])) == (None, 6)


def test_a_terminated_session_without_a_result_says_so_and_exits_as_terminated(session: Callable, tmp_path: Path) -> None:
    done = session("os.kill(os.getpid(), signal.SIGTERM)", *OPTIONS, "-k", "decode")
    assert done.returncode == 143, done.stdout + done.stderr
    assert "INCOMPLETE: terminated (SIGTERM); missing: decode[16], decode[32], decode[64]\n" in done.stdout
    assert "measure the rest with `pytest bench_small.py -p no:cacheprovider" in done.stdout
    assert not (tmp_path / "out").exists()


def test_what_an_error_or_minus_x_leaves_unmeasured_is_missing(session: Callable, tmp_path: Path) -> None:
    body = "if seq_len == 16: raise MemoryError\n    if seq_len == 32: pytest.fail('enough')"
    done = session(body, *OPTIONS, "--maxfail", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "decode[16]: out of memory: no more is known" in done.stdout
    _, found = record_in(tmp_path / "out")
    assert found["incomplete"] == {"reason": "stopping after 2 failures", "missing": ["decode[16]", "decode[64]"]}


@pytest.mark.parametrize(
    ("loses", "reason"),
    [
        ("os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", "No space left on device"),
        ("ends = os.pipe(); os.dup2(ends[1], 1); os.close(ends[0]); os.close(ends[1])", "Broken pipe"),
    ],
)
def test_a_run_that_loses_its_standard_output_goes_on_and_is_recorded(
    session: Callable, tmp_path: Path, loses: str, reason: str
) -> None:
    done = session(f"if seq_len == 16: {loses}", *OPTIONS, "-k", "decode", "-s")
    assert done.returncode == 1, done.stdout + done.stderr
    path, found = record_in(tmp_path / "out")
    said = f"pytest benchmarks: standard output: {reason}; the run goes on without it and is recorded in "
    assert done.stderr == f"{said}{path.parent.relative_to(tmp_path)}; Ctrl-C ends it\n"
    assert ([point["point"] for point in found["points"]], found["incomplete"]) == (["16", "32", "64"], None)
    assert (path.parent / "report.html").exists()
    assert (tmp_path / "out" / "latest").resolve() == path.parent


NOTHING = "NOT WRITTEN: record, page and `latest`: File too large (out); what was measured is printed above"
ONLY_RECORD = "NOT WRITTEN: page, index.html or `latest`: File too large (out); free some space"


@pytest.mark.parametrize(
    ("limit", "said", "left"), [(7_000, NOTHING, set()), (30_000, ONLY_RECORD, {"record.json", "report.md"})]
)
def test_a_full_disk_takes_nothing_from_what_is_printed(
    session: Callable, tmp_path: Path, limit: int, said: str, left: set[str]
) -> None:
    """A limit on the size of files stands for the disk: writing fails in the same place, half way."""
    done = session(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))", *OPTIONS, "-k", "decode and 16")
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert re.search(r"decode +16 \+1 +[\d.]+ +[\d.]+ +0 ", done.stdout)
    assert "baseline: nothing was judged: 1 new" in done.stdout
    assert "1 passed" in done.stdout
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == left
