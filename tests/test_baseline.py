"""Stored baselines: the way through the file, every kind of damage, interruption, and the commands on them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.core.execution import FULL_SIZE
from analytic.framework import Framework, installed
from fixtures.baseline import noise_file
from fixtures.baseline import refresh as baselines
from fixtures.baseline.command import main
from fixtures.baseline.exact import Block, ExactPoint, changes
from fixtures.baseline.lines import difference_lines, show_lines
from fixtures.baseline.refresh import RefusedError, require_clean
from fixtures.baseline.sets import Baseline, ExactSet, Provenance, TimedSet
from fixtures.baseline.stored import BaselineError, find, path_of, read, text_of, write
from fixtures.config.points import Point
from fixtures.timing.medians import Noise, StageNoise
from tests.samples import PLACE

ROOT = Path(__file__).resolve().parent.parent
TOTALS = dict.fromkeys(
    (
        "executed_flops", "counter_flops", "cuda_core_flops", "read_bytes", "written_bytes", "parameters",
        "parameter_bytes", "kv_bytes", "image_tokens", "useful_flops", "eager_bytes", "fused_bytes", "weight_bytes",
        "touched_weight_bytes", "activation_bytes",
    ),
    1_000,
)  # fmt: skip
POINT = ExactPoint(
    totals=TOTALS, blocks={"lm_head": Block(modules=1, flops=1_000, bytes=2_000)}, operators={"matmul": 1_000}
)
MADE = Provenance(
    created="2025-11-21T09:30:11+00:00",
    commit="0" * 40,
    command=("nox", "-s", "baseline"),
    python="3.11",
    libraries={name: getattr(installed(), name) for name in ("transformers", "torch")},
)
STORED = Baseline(
    model_variant="tiny",
    device="meta",
    full_run=("prefill[64]",),
    exact=(ExactSet(provenance=MADE, execution=FULL_SIZE, batch_size=1, decode_steps=16, points={"prefill[64]": POINT}),),
    timed=(),
)
TIMES = Noise(
    created="2025-11-21T09:30:11+00:00",
    commit="0" * 40,
    dirty=False,
    fingerprint=PLACE,
    stages={
        "decode[64]": StageNoise(
            measurement_version="0" * 8,
            executed_flops=10,
            operator_calls=10,
            peak_bytes=10,
            first_s=(2.0,) * 8,
            medians_s=(1.0,) * 8,
        )
    },
)
TIMED = replace(
    STORED,
    device="cpu",
    full_run=(),
    exact=(),
    timed=(TimedSet(provenance=MADE, fingerprint=PLACE, stages=TIMES.stages),),
)


def with_points(points: dict[str, ExactPoint]) -> Baseline:
    return replace(STORED, exact=(replace(STORED.exact[0], points=points),))


@pytest.mark.parametrize("made", [STORED, TIMED], ids=["exact", "timed"])
def test_a_baseline_survives_the_way_through_its_file(made: Baseline, tmp_path: Path) -> None:
    path = write(made, tmp_path)
    assert path == path_of(made.device, "tiny", tmp_path)
    assert read(path) == find(made.device, "tiny", tmp_path) == made
    assert find("cuda", "tiny", tmp_path) is None
    assert [one.name for one in path.parent.iterdir()] == ["tiny.json"]


def test_the_file_is_sorted_stable_and_reads_line_by_line() -> None:
    other = replace(POINT, totals={**TOTALS, "executed_flops": 2_000})
    two = {"prefill[64]": POINT, "decode[64]": other}
    texts = [text_of(with_points(points)) for points in (two, dict(reversed(two.items())))]
    assert texts[0] == texts[1]
    assert '"lm_head": [1, 1000, 2000]' in texts[0]
    moved = text_of(with_points({**two, "prefill[64]": other}))
    changed = [line for line, was in zip(moved.splitlines(), texts[0].splitlines(), strict=True) if line != was]
    assert [line.strip() for line in changed] == ['"executed_flops": 2000,']


def test_a_baseline_of_the_first_schema_is_read_without_the_number_of_parameters(tmp_path: Path) -> None:
    path = write(STORED, tmp_path)
    loaded = earlier(json.loads(path.read_text()), "1.0")
    del loaded["exact"]["points"]["prefill[64]"]["totals"]["parameters"]
    path.write_text(json.dumps(loaded))
    old = read(path)
    assert "parameters" not in old.exact[0].points["prefill[64]"].totals
    assert old.exact[0].execution.framework == Framework.of(**RELEASES)
    assert changes(old.exact[0].points["prefill[64]"], POINT) == []  # what it does not hold is not compared
    write(old, tmp_path)
    assert read(path) == old


RELEASES = {"transformers": "5.23.0", "torch": "2.13.0"}


def earlier(loaded: dict[str, Any], version: str) -> dict[str, Any]:
    """A baseline of one set as schemas 1 and 2 have it: one way a file, with its provenance at the top."""
    (one,) = loaded["exact"] or loaded["timed"]
    provenance = one.pop("provenance") | {"libraries": RELEASES}
    exact, timed = (one, None) if loaded["exact"] else (None, TIMES.as_json() | one)
    kept = {name: loaded[name] for name in ("model_variant", "device")}
    return {"schema_version": version, **kept, "provenance": provenance, "exact": exact, "timed": timed}


@pytest.mark.parametrize("made", [STORED, TIMED], ids=["exact", "timed"])
def test_a_baseline_of_the_second_schema_is_one_set_of_a_full_run(made: Baseline, tmp_path: Path) -> None:
    path = write(made, tmp_path)
    path.write_text(json.dumps(earlier(json.loads(path.read_text()), "2.0")))
    old = read(path)
    (one,) = (*old.exact, *old.timed)
    assert one.provenance == replace(MADE, libraries=RELEASES)
    assert old.full_run == made.full_run
    assert [stored.points for stored in old.exact] == [stored.points for stored in made.exact]
    assert [stored.stages for stored in old.timed] == [stored.stages for stored in made.timed]


def damaged(text: str, kind: str) -> str:
    loaded = json.loads(text)
    if kind == "truncated":
        return text[: len(text) // 2]
    if kind == "newer schema":
        return json.dumps(loaded | {"schema_version": "9.0"})
    if kind == "no release":
        loaded["exact"][0]["provenance"]["libraries"] = {}
        return json.dumps(loaded)
    if kind == "another model":
        return json.dumps(loaded | {"model_variant": "huge"})
    if kind == "NaN":
        return text.replace('"executed_flops": 1000', '"executed_flops": NaN')
    if kind == "negative":
        return text.replace('"executed_flops": 1000', '"executed_flops": -1')
    if kind == "edited":
        return text.replace('"executed_flops": 1000', '"executed_flops": 1001')
    if kind == "empty":
        return ""
    return "[]"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "not valid JSON"),
        ("newer schema", "schema_version: got '9.0', accepted: 1.0, 2.0, 3.0"),
        ("no release", "provenance.libraries: transformers: got version 'None', accepted: a release such as"),
        ("another model", "got a baseline of huge on meta, accepted: tiny on meta"),
        ("NaN", "got NaN, accepted: a number of at most 1e+30"),
        ("negative", "executed_flops: -1 is less than the minimum of 0"),
        ("edited", "prefill[64] is inconsistent, as if edited by hand: executed_flops is 1,001, its parts sum to 1,000"),
        ("empty", "not valid JSON"),
        ("list", "got an array, accepted: an object"),
    ],
)
def test_a_damaged_baseline_is_named_refused_and_left_alone(tmp_path: Path, kind: str, message: str) -> None:
    path = write(STORED, tmp_path)
    text = damaged(path.read_text(), kind)
    path.write_text(text)
    with pytest.raises(BaselineError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "nox -s baseline -- refresh" in str(error.value)
    assert path.read_text() == text


def test_times_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = write(TIMED, tmp_path)
    path.write_text(path.read_text().replace('"medians_s": [1.0,', '"medians_s": [-1.0,'))
    with pytest.raises(BaselineError, match="less than or equal to the minimum"):
        read(path)


def test_killed_in_the_middle_of_a_refresh_the_old_baseline_is_intact(tmp_path: Path) -> None:
    path = write(STORED, tmp_path)
    before = path.read_bytes()
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fixtures.baseline.stored import write\n"
        "from tests.test_baseline import STORED\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write(STORED, Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert find("meta", "tiny", tmp_path) == STORED


def test_two_writers_and_a_reader_meet_no_torn_file(tmp_path: Path) -> None:
    other = replace(STORED, exact=(replace(STORED.exact[0], decode_steps=99),))
    path = write(STORED, tmp_path)
    stop = threading.Event()

    def writing(made: Baseline) -> None:
        while not stop.is_set():
            write(made, tmp_path)

    writers = [threading.Thread(target=writing, args=(made,)) for made in (STORED, other)]
    for writer in writers:
        writer.start()
    try:
        seen = {read(path).exact[0].decode_steps for _ in range(200)}
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert seen <= {16, 99}
    assert [one.name for one in path.parent.iterdir()] == ["tiny.json"]


def test_a_difference_says_what_moved_and_why() -> None:
    work = {**TOTALS, "executed_flops": 1_100, "kv_bytes": 2_000}
    points = {
        "prefill[64]": ExactPoint(
            totals=work, blocks={"lm_head": Block(modules=1, flops=1_100, bytes=2_000)}, operators={}
        ),
        "prefill[65]": POINT,
    }
    new = with_points(points)
    assert difference_lines(STORED, STORED) == ["nothing changed"]
    found = difference_lines(STORED, new)
    assert found[:2] == ["+ prefill[65]: new", "prefill[64]: moved in work and memory"]
    assert "    kv_bytes: 1,000 -> 2,000 (+100.00%)" in found
    assert "    in lm_head: 1,000 -> 1,100 flops" in found
    assert difference_lines(new, STORED)[0] == "- prefill[65]: gone"
    assert difference_lines(None, STORED)[0] == "no previous baseline"


def test_times_that_moved_are_told_from_work_that_moved() -> None:
    stage = replace(TIMES.stages["decode[64]"], medians_s=(1.1,) * 8, executed_flops=11)
    new = replace(TIMED, timed=(replace(TIMED.timed[0], stages={"decode[64]": stage}),))
    assert difference_lines(TIMED, new) == [
        "decode[64] (decode_steps 2): time 1,000.000 ms -> 1,100.000 ms (+10.0%); the work changed too"
    ]
    elsewhere = replace(TIMED, timed=(replace(TIMED.timed[0], fingerprint=replace(PLACE, torch="2.14.0")),))
    assert difference_lines(TIMED, elsewhere)[0] == "not comparable with the old times: torch: 2.13.0 against 2.14.0"


def test_a_baseline_is_shown() -> None:
    shown = "\n".join(show_lines(STORED))
    assert "tiny on meta, of commit 000000000000, 2025-11-21T09:30:11+00:00, by `nox -s baseline`" in shown
    assert "prefill[64]" in shown
    assert "decode[64]" in "\n".join(show_lines(TIMED))


def run(folder: Path, command: str, *arguments: str) -> int:
    return main([command, "--baseline-dir", str(folder), *arguments])


def test_check_names_every_file_that_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "check") == 2  # nothing there
    write(STORED, tmp_path)
    assert run(tmp_path, "check") == 0
    write(TIMED, tmp_path).write_text("{")
    assert run(tmp_path, "check") == 1
    printed = capsys.readouterr()
    assert "meta/tiny.json: good" in printed.out
    assert "cpu/tiny.json: not valid JSON" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--preset", "tiny"], "create it with `nox -s baseline -- refresh --device meta --preset tiny --base"),
        (["show", "--preset", "tiny", "--device", "cpu"], "refresh --device cpu --preset tiny --baseline-dir"),
        (["show", "--device", "cuda"], "refresh --device cuda --baseline-dir"),
        (["show", "--device", "tpu"], "--device: got 'tpu', accepted: meta, cpu, cuda"),
        (["show", "--preset", "huge"], "--preset: got 'huge'"),
        (["diff", "no-such-ref"], "REF: got 'no-such-ref', accepted: a commit"),
        (["refresh", "--noise", "x.json", "--device", "meta"], "--noise: got a file for device meta"),
        (["refresh", "--noise", "x.json", "--device", "cpu", "--seq-len", "64"], "accepted: alone with --device, --preset"),
        (["refresh", "--require-baseline"], "--require-baseline: has no effect here: a refresh judges nothing"),
        (["refresh", "--time-threshold", "3"], "--time-threshold: has no effect here: a refresh judges nothing"),
        (["refresh", "--max-relative-error", "1"], "accepts no difference between closed form and measurement"),
        (["refresh", "--by-module"], "--by-module: has no effect here: a refresh stores results and writes no run"),
        (["refresh", "--report-format", "github"], "--report-format: has no effect here"),
        (["refresh", "--device", "cpu", "--torch-profile"], "--torch-profile: has no effect here"),
        (["refresh", "--device", "cpu", "--analytic-hooks"], "--analytic-hooks: has no effect here"),
        (["refresh", "--device", "meta", "--backend", "compile"], "--backend: got compile on device meta"),
        (["refresh", "--device", "cpu", "--seq-len", "none"], "--seq-len: got 'none'"),
    ],
)
def test_a_command_that_can_not_be_done_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(baselines, "require_clean", lambda: None)
    assert run(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_dirty_tree_and_no_tree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, message in (([" M fixtures/validation/bench.py"], "the tree is dirty"), (None, "not a git checkout")):
        monkeypatch.setattr(baselines, "uncommitted", lambda found=found, **_: found)
        with pytest.raises(RefusedError, match=message):
            require_clean()
    monkeypatch.setattr(baselines, "uncommitted", lambda **_: [])
    require_clean()


@pytest.fixture
def two_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh measures two points of the tiny preset."""
    from fixtures.config import points

    small = [("prefill", Point(label="16", seq_len=16, page=None)), ("decode", Point(label="16", seq_len=16, page=None))]
    monkeypatch.setattr(points, "benchmarks", lambda options: small)
    monkeypatch.setattr(baselines, "require_clean", lambda: None)


def test_refresh_measures_prints_and_replaces(tmp_path: Path, two_points: None, capsys: pytest.CaptureFixture[str]) -> None:
    write(STORED, tmp_path)
    arguments = ("--device", "meta", "--preset", "tiny", "--output-dir", str(tmp_path / "out"))
    assert run(tmp_path, "refresh", *arguments) == 0
    printed = capsys.readouterr()
    assert "exact: decode[16] (2 of 2)" in printed.err
    assert "+ prefill[16]: new" in printed.out
    found = find("meta", "tiny", tmp_path)
    assert found.full_run == ("decode[16]", "prefill[16]")
    # what was not measured is left where it is
    assert [(one.provenance.created, list(one.points)) for one in found.exact] == [
        (MADE.created, ["prefill[64]"]),
        (found.newest.created, ["decode[16]", "prefill[16]"]),
    ]
    assert found.newest.command == (
        *("nox", "-s", "baseline", "--", "refresh", "--baseline-dir", str(tmp_path)),
        *arguments,
    )
    text = path_of("meta", "tiny", tmp_path).read_text()
    assert run(tmp_path, "refresh", *arguments) == 0
    assert "unchanged" in capsys.readouterr().out
    assert path_of("meta", "tiny", tmp_path).read_text() == text
    assert list((tmp_path / "out").iterdir()) == []  # what is stored is not kept besides


def test_refresh_refuses_where_closed_form_and_measurement_disagree(
    tmp_path: Path, two_points: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(STORED, tmp_path)
    before = path_of("meta", "tiny", tmp_path).read_bytes()
    from fixtures.validation.point_result import PointResult

    monkeypatch.setattr(PointResult, "passes", lambda self, accepted: False)
    monkeypatch.setattr(PointResult, "explain", lambda self, accepted: "decode[16]: closed form 1, measured 2")
    arguments = ("--device", "meta", "--preset", "tiny", "--output-dir", str(tmp_path / "out"))
    assert run(tmp_path, "refresh", *arguments) == 2
    assert "closed form and measurement disagree" in capsys.readouterr().err
    assert path_of("meta", "tiny", tmp_path).read_bytes() == before


def test_refresh_takes_the_times_of_a_noise_study_of_this_commit(
    tmp_path: Path, two_points: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "noise.json"
    arguments = ["refresh", "--device", "cpu", "--preset", "tiny", "--noise", str(path)]
    assert run(tmp_path, *arguments) == 2
    assert f"--noise: got {path}, accepted: the file of a `nox -s noise` run; it cannot" in capsys.readouterr().err
    path.write_text(json.dumps(TIMES.as_json()))
    assert run(tmp_path, *arguments) == 2
    assert "was not measured on this commit" in capsys.readouterr().err
    monkeypatch.setattr(noise_file, "this_commit", lambda: "0" * 40)
    assert run(tmp_path, *arguments) == 0
    assert find("cpu", "tiny", tmp_path).timed[0].stages == TIMES.stages
    assert run(tmp_path, *arguments[:3], "--noise", str(path)) == 2
    assert "got times of tiny on cpu, accepted: deepseek-ocr-v1-base on cpu" in capsys.readouterr().err
    path.write_text(json.dumps(replace(TIMES, disturbed={"decode[64]": ("somebody else",)}).as_json()))
    assert run(tmp_path, *arguments) == 2
    assert "was disturbed (decode[64]: somebody else), and a disturbed time is no baseline" in capsys.readouterr().err
    compiled = TIMES.as_json()
    compiled["fingerprint"]["backend"] = "compile"
    for stage in compiled["stages"].values():
        stage["peak_bytes"] = None  # compiled graphs do not say it on a CPU
    path.write_text(json.dumps(compiled))
    assert run(tmp_path, *arguments) == 0
    # another way stands beside the first
    assert [one.fingerprint.backend for one in find("cpu", "tiny", tmp_path).timed] == ["compile", "eager"]


def test_the_stored_baseline_of_the_project_is_good_and_of_every_default_point(options_of: Callable) -> None:
    from fixtures.config.points import benchmarks

    stored = find("meta", "deepseek-ocr-v1-base")
    asked = {f"{stage}[{point.label}]" for stage, point in benchmarks(options_of(device="meta"))}
    assert {name for one in stored.exact for name in one.points} == set(stored.full_run) == asked
    assert os.path.getsize(path_of("meta", "deepseek-ocr-v1-base")) < 300_000
