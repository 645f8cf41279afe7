"""A scaling run as a user starts it: its files, its exit code, what is refused; and how its stages are timed."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analytic.io import charts
from analytic.io.ending import EarlyEnd, ended
from analytic.io.schemas import SCHEMAS
from analytic.models.deepseek_ocr.workload import MODES
from analytic.planning import demand, sweep
from fixtures.config.points import Point
from fixtures.evidence.card import CARD_FILE, Card
from fixtures.evidence.section import Standing
from fixtures.model.timed_calls import Call
from fixtures.scaling import comparison, timed
from fixtures.scaling.__main__ import main
from fixtures.scaling.alignment import MEASURED
from fixtures.scaling.options import parsed
from fixtures.timing.intervals import median_interval
from fixtures.timing.samples import DisturbedTimingError
from fixtures.validation.bench import Bench
from tests.samples import COST

SMALL = [
    "--device",
    "meta",
    "--preset",
    "tiny",
    "--seq-lens",
    "16",
    "700",
    "--crop-grids",
    "base",
    "2x1",
    "--decode-steps",
    "2",
]
DOCUMENTS = {
    "analytic_scaling.json": sweep.SCALING,
    "measured_scaling.json": MEASURED,
    "scaling_comparison.json": comparison.COMPARISON,
    "serving_demand.json": demand.DEMAND,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the tiny preset on meta, which is made anew where it was not there."""
    output = tmp_path_factory.mktemp("results") / "new"
    assert main([*SMALL, "--output-dir", str(output)]) == 0
    return made_in(output)


def made_in(output_dir: Path) -> Path:
    """The folder of the one run in there."""
    return (output_dir / "latest-scaling").resolve()


def test_a_run_writes_every_file_in_one_folder(folder: Path) -> None:
    assert folder.name.startswith("scaling-")
    for name, document in DOCUMENTS.items():
        document.read(folder / name)
    pictures = {path.stem for path in folder.glob("*.png")}
    for quantity in ("flops", "bytes", "memory", "intensity"):
        assert {f"{quantity}_by_length", f"{quantity}_by_views"} <= pictures
    assert {
        f"demand_{one}_{rate}" for one in ("first_token_by_views", "token_by_length") for rate in ("flops", "bytes")
    } < pictures
    assert not any(name.startswith("time") for name in pictures)  # meta has none
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG"), path
        assert f"({path.name})" in (folder / "scaling_comparison.md").read_text()
    rest = {path.name for path in folder.iterdir()} - {f"{name}.png" for name in pictures}
    page = {"report.html", "report.md", CARD_FILE}
    assert rest == {*DOCUMENTS, *page, "analytic_scaling.csv", "scaling.csv", "scaling_comparison.md"}
    card = Card.read(folder)
    assert (card.kind, card.standing, card.model) == ("scaling", Standing.PASSED, "tiny")
    assert card.headline.startswith("Closed form and measurement agree: FLOPs are equal at every point (4)")
    assert (folder / "report.html").read_text().count("<svg") == 4  # FLOPs, bytes, activations and cache against length


def test_the_real_model_does_what_the_closed_form_says(folder: Path) -> None:
    found = json.loads((folder / "scaling_comparison.json").read_text())
    assert found["agrees"]
    exact = [one for one in found["differences"] if one["quantity"] != "activation_bytes"]
    assert {(one["stage"], one["point"]) for one in exact} == {
        ("prefill", "16"),
        ("decode", "16"),
        ("prefill", "700"),
        ("decode", "700"),
        ("vision", "base"),
        ("vision", "gundam-2x1"),
    }
    assert {one["relative_error"] for one in exact} == {0}
    assert all(one["measured"] > 0 for one in found["differences"])
    table = pd.read_csv(folder / "scaling.csv")
    assert list(table["point"]) == ["16", "700", "base", "gundam-2x1"]
    assert (table["closed_form_prefill_executed_flops"].dropna() == table["measured_prefill_executed_flops"].dropna()).all()


def test_two_files_are_compared_without_the_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "analytic_scaling.json"), str(folder / "measured_scaling.json")]
    assert main(["--compare", *files, "--output-dir", str(tmp_path)]) == 0
    again = made_in(tmp_path)
    same = "scaling_comparison.json"
    assert (again / same).read_bytes() == (folder / same).read_bytes()
    printed = capsys.readouterr().out
    assert "Nothing to do" in printed
    assert str(again / same) in printed


def test_a_difference_fails_and_is_written_all_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = json.loads((folder / "measured_scaling.json").read_text())
    measured["points"][1]["prefill"]["executed_flops"] += 2
    path = tmp_path / "other.json"
    path.write_text(json.dumps(measured))
    files = [str(folder / "analytic_scaling.json"), str(path)]
    assert main(["--compare", *files, "--output-dir", str(tmp_path / "out")]) == 1
    assert "`pytest benchmarks --seq-len 700" in capsys.readouterr().out
    made = made_in(tmp_path / "out")
    assert not json.loads((made / "scaling_comparison.json").read_text())["agrees"]
    assert Card.read(made).standing is Standing.FAILED
    assert '<tr class="bad">' in (made / "report.html").read_text()


def test_a_single_length_is_told_without_curves(folder: Path, tmp_path: Path) -> None:
    files = []
    for name in ("analytic_scaling.json", "measured_scaling.json"):
        loaded = json.loads((folder / name).read_text())
        files.append(str(tmp_path / name))
        Path(files[-1]).write_text(json.dumps({**loaded, "points": loaded["points"][:1], "crops": []}))
    assert main(["--compare", *files, "--output-dir", str(tmp_path / "out")]) == 0
    made = made_in(tmp_path / "out")
    assert not list(made.glob("*.png"))
    assert "## Pictures" not in (made / "scaling_comparison.md").read_text()


def test_an_interruption_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: Any) -> None:
    def interrupted(drawn: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(charts, "write_png", interrupted)
    files = [str(folder / "analytic_scaling.json"), str(folder / "measured_scaling.json")]
    assert ended("scaling", main, ["--compare", *files, "--output-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("scaling: interrupted (Ctrl-C); nothing more was written\n")
    assert list(tmp_path.iterdir()) == []


def test_points_counted_before_an_interruption_are_kept_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def interrupted(self: Bench, point: Point) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "vision", interrupted)
    arguments = ["--preset", "tiny", "--device", "meta", "--decode-steps", "1", "--seq-lens", "16", "--crop-grids", "tiny"]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 130
    assert "scaling: INCOMPLETE: interrupted (Ctrl-C); missing: page tiny; measure what" in capsys.readouterr().err
    made = made_in(tmp_path)
    measured = MEASURED.read(made / "measured_scaling.json")
    assert measured["incomplete"] == {"reason": "interrupted (Ctrl-C)", "missing": ["page tiny"]}
    assert ([one["seq_len_prefill"] for one in measured["points"]], measured["crops"]) == ([16], [])
    assert json.loads((made / "scaling_comparison.json").read_text())["agrees"]
    assert Card.read(made).standing is Standing.INCOMPLETE
    assert Card.read(made).headline == "INCOMPLETE: interrupted (Ctrl-C); missing: page tiny."
    assert (
        (made / "scaling_comparison.md").read_text().startswith("**INCOMPLETE: interrupted (Ctrl-C); missing: page tiny.**")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seq-lens", "0"], "--seq-lens: got 0, accepted: a whole number of at least 1"),
        (["--decode-steps", "0"], "--decode-steps: got 0"),
        (["--batch-size", "0"], "--batch-size: got 0"),
        (["--crop-grids", "2x3", "4x4"], "--crop-grids: got 4x4 (16 tiles), accepted: WxH"),
        (["--device", "tpu"], "--device: got 'tpu', accepted: auto, cpu, cuda, meta"),
        (["--preset", "huge"], "--preset: got 'huge', accepted: deepseek-ocr"),
        (["--attention", "flash"], "--attention: got 'flash', accepted: sdpa, eager"),
        (["--threshold", "0"], "--threshold: got 0.0, accepted: percent above 0"),
        (["--threshold", "-1"], "--threshold: got -1"),
        (["--first-token-s", "-1"], "--first-token-s: got -1.0, accepted: seconds above zero"),
        (["--token-s", "0"], "--token-s: got 0.0"),
        (["--output-dir", ""], "--output-dir: got '', accepted: a folder"),
        (["--output-dir", "/proc/nowhere"], "--output-dir: got /proc/nowhere, accepted: a writable folder"),
        (["--seq-lens", "8000", "--batch-size", "2000000000"], "fit 64 bits"),
        (["--compare", "there.json", "nowhere.json"], "there.json"),
    ],
)
def test_what_can_not_be_done_is_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--device", "meta", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema_version": "1.0"}', "does not fit schemas/measured_scaling.v1.schema.json"),
    ],
)
def test_a_damaged_file_is_named(
    damage: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(damage)
    analytic = str(folder / "analytic_scaling.json")
    assert main(["--compare", analytic, str(path), "--output-dir", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{path}: " in said
    assert message in said


def test_what_is_timed_follows_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, arguments, expected in (
        (False, [], ("cpu", "tiny", "deepseek-ocr-v1-base")),
        (False, ["--preset", "deepseek-ocr-v1-base"], ("cpu", "deepseek-ocr-v1-base", "deepseek-ocr-v1-base")),
        (False, ["--device", "meta"], ("meta", "deepseek-ocr-v1-base", "deepseek-ocr-v1-base")),
        (False, ["--device", "meta", "--preset", "tiny"], ("meta", "tiny", "tiny")),
        (True, [], ("cuda", "deepseek-ocr-v1-base", "deepseek-ocr-v1-base")),
        (True, ["--device", "cpu"], ("cpu", "tiny", "deepseek-ocr-v1-base")),
    ):
        monkeypatch.setattr("fixtures.config.run_options._has_cuda", lambda cuda=cuda: cuda)
        options = parsed(arguments).options
        found = options.execution().device, options.spec.model_variant, options.exact_spec.model_variant
        assert found == expected, arguments


def test_neither_help_nor_errors_nor_comparing_import_torch(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from fixtures.scaling.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    files = [str(folder / "analytic_scaling.json"), str(folder / "measured_scaling.json")]
    for arguments in (["--help"], ["--seq-lens", "0"], ["--compare", *files, "--output-dir", str(tmp_path)]):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_stages_are_timed_with_their_work_checked(options_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "BUDGET_S", 0.01)
    monkeypatch.setattr(timed, "LONGEST_S", 600.0)  # a round may be long where other processes run
    said: list[str] = []
    options = options_of(device="cpu", preset="tiny", decode_steps="2")
    found = timed.timed(options, seq_lens=(16,), pages=(MODES["tiny"],), progress=said.append, early=EarlyEnd())
    assert [f"{one['stage']}[{one['point']}]" for one in found["stages"]] == ["prefill[16]", "decode[16]", "vision[tiny]"]
    assert said == [*(line for line in said if line.endswith("timed on cpu")), *found["disturbances"]]
    assert len(said) == 3 + len(found["disturbances"])
    for one in found["stages"]:
        assert one["low_s"] <= one["time_s"] <= one["high_s"]
        assert len(one["samples_s"]) >= timed.FEWEST_ROUNDS
        assert one["measured_flops"] == one["executed_flops"]
        assert one["peak_bytes"] > 0
    assert [one["units"] for one in found["stages"]] == [1, 2, 1]
    schema = json.loads((SCHEMAS / MEASURED.versions[MEASURED.version]).read_text())
    accepted = {**schema["properties"]["timed"], "$defs": schema["$defs"]}
    from jsonschema import Draft202012Validator

    assert list(Draft202012Validator(accepted).iter_errors(found)) == []


def test_what_the_device_has_no_memory_for_is_left_out(options_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(call: Call, model: Any, clock: Any) -> Any:
        if call.stage == "prefill":
            raise torch.OutOfMemoryError("too large")
        raise RuntimeError("something else")

    monkeypatch.setattr(timed, "rounds", too_large)
    said: list[str] = []
    options = options_of(device="cpu", preset="tiny", decode_steps="1")
    with pytest.raises(RuntimeError, match="something else"):
        timed.timed(options, seq_lens=(8,), pages=(), progress=said.append, early=EarlyEnd())
    assert "prefill[8]: not timed, out of memory" in said


def test_rounds_restore_and_leave_out_the_first_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    model = torch.nn.Linear(1, 1)
    call = Call(
        stage="decode",
        run=lambda: seen.append("run"),
        restore=lambda: seen.append("restore"),
        units=4,
        cost=COST,
        mfu_cost=COST,
        trees=(),
    )
    monkeypatch.setattr(timed, "first_runs", lambda call, model: (8.0, 0.4))
    readings = iter(range(100))
    samples = timed.rounds(call, model, lambda: float(next(readings)))
    assert seen == ["run", "restore"] * timed.FEWEST_ROUNDS  # two of 0.4 s would fill a second
    assert samples.samples_s == (0.25,) * timed.FEWEST_ROUNDS  # a second of the clock a round, four units
    assert samples.first_s == 2.0
    assert samples.wall_samples_s is None
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(DisturbedTimingError, match="forward hook"):
        timed.rounds(replace(call), model, lambda: 0.0)


def missed(number: int, k: int) -> float:
    """How often fewer than k of `number` samples fall on one side of their median."""
    return 2 * sum(math.comb(number, below) for below in range(k)) / 2**number


@given(number=st.integers(6, 40))
def test_the_interval_is_the_narrowest_pair_that_is_sure_enough(number: int) -> None:
    found = median_interval(tuple(float(value) for value in reversed(range(1, number + 1))))
    assert found.low_s + found.high_s == number + 1  # the k-th smallest and the k-th largest
    k = int(found.low_s)
    assert missed(number, k) <= 0.05 < missed(number, k + 1)
    assert found.confidence == pytest.approx(1 - missed(number, k))


@pytest.mark.parametrize(
    ("number", "low", "high", "confidence"),
    [
        (40, 14.0, 27.0, 1 - 0.0385),  # as tables of the sign test have it
        (6, 1.0, 6.0, 1 - 2 / 64),
        (5, 1.0, 5.0, 1 - 2 / 32),  # the whole range, and not as sure as asked
        (3, 1.0, 3.0, 0.75),
        (2, 1.0, 2.0, 0.5),
    ],
)
def test_intervals_of_known_size(number: int, low: float, high: float, confidence: float) -> None:
    found = median_interval(tuple(map(float, range(1, number + 1))))
    assert (found.low_s, found.high_s) == (low, high)
    assert found.confidence == pytest.approx(confidence, abs=1e-4)


@pytest.mark.parametrize(("run_s", "rounds"), [(0.4, 6), (1.2, 5), (30.0, 3)])
def test_long_rounds_are_few(run_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "first_runs", lambda call, model: (run_s, run_s))
    call = Call(stage="prefill", run=lambda: None, cost=COST, mfu_cost=COST, trees=())
    readings = iter(range(100))
    assert len(timed.rounds(call, torch.nn.Linear(1, 1), lambda: float(next(readings))).samples_s) == rounds


def test_what_disturbed_the_processors_is_told_with_the_times(options_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "BUDGET_S", 0.01)
    monkeypatch.setattr(timed, "LONGEST_S", 0.1)
    busy = ("other processes used 1.90 of 2 CPUs, 2 of which it needs",)
    monkeypatch.setattr("fixtures.machine.cpu_watch.CpuWatch.found", lambda self: busy)
    options = options_of(device="cpu", preset="tiny", decode_steps="2")
    found = timed.timed(options, seq_lens=(8,), pages=(), progress=lambda _: None, early=EarlyEnd())
    assert found["disturbances"] == [f"disturbed: prefill[8], decode[8]: {busy[0]}"]
