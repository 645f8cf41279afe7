"""The steps of a qualification: commands that their parsers take, selections that the models have, and what is lacking."""

from dataclasses import replace
from pathlib import Path

import pytest

from analytic.core.execution import usual_dtype
from analytic.io import shell
from analytic.models.registry import load_spec
from fixtures.baseline import stored
from fixtures.config.points import check_stage, check_window
from fixtures.profiling.backends import ways_of
from fixtures.qualify.accepted import accept_baseline, accept_files
from fixtures.qualify.catalogue import COUNTED, NAMES, PROCESS, PROCESSES, StepContext, environment_of, steps_of
from fixtures.qualify.device import slug
from fixtures.qualify.pieces import planned, unplanned
from fixtures.qualify.state import StepState
from fixtures.qualify.step import KnownDevice, QualifyStep
from tests.command_parsers import check
from tests.test_baseline import TIMED

PRESETS = {"cpu": ("tiny", "unlimited-tiny", "ocr-2-tiny"), "cuda": ("deepseek-ocr-v1-base", "deepseek-ocr-2-base")}
ALL = [(device, preset) for device, presets in PRESETS.items() for preset in presets]


def steps(tmp_path: Path, device: str, preset: str) -> dict[str, QualifyStep]:
    context = StepContext(
        device=KnownDevice(kind=device, name="a-device"),
        preset=preset,
        folder=tmp_path / "qualify",
        engines=tmp_path / "engines",
    )
    context.own_baselines.mkdir(parents=True)
    return {step.name: step for step in steps_of(context)}


@pytest.mark.parametrize(("device", "preset"), ALL)
def test_every_command_of_a_step_is_one_that_its_parser_takes(tmp_path: Path, device: str, preset: str) -> None:
    found = steps(tmp_path, device, preset)
    assert tuple(found) == NAMES
    for step in found.values():
        words = step.command if step.command[0] == "pytest" else ("python", "-m", *step.command)
        check(shell.command(*words))
        if step.go_on:
            check(shell.command(*words, *step.go_on))


@pytest.mark.parametrize(("device", "preset"), ALL)
def test_every_stage_and_way_of_a_step_is_one_that_the_model_has(tmp_path: Path, device: str, preset: str) -> None:
    found, spec = steps(tmp_path, device, preset), load_spec(preset)
    for name in ("predictions", "noise", "backends"):
        stages = [word for word in found[name].command if word.endswith("]")]
        assert stages
        for stage in stages:
            check_stage("stage", stage, known=spec.pages)
        check_window("stage", stages, spec=spec, decode_steps=64)
    words = found["backends"].command
    ways = words[words.index("--ways") + 1 : words.index("--stages")]
    for run in ways_of(ways, device=device, dtype=usual_dtype(device)):
        assert run.device == device
        spec.text.require_cache_of("--ways", run)
    assert len(ways) > 2


def test_the_full_size_on_a_gpu_fits_into_two_pieces_of_nine_minutes_but_for_kernels(tmp_path: Path) -> None:
    found = steps(tmp_path, "cuda", "deepseek-ocr-v1-base")
    times = {name: StepState().times(step) for name, step in found.items()}
    wanted = [name for name in NAMES if name not in ("serve", "nsys", "ncu")]
    plan = planned(list(found.values()), times, open_steps=wanted, piece_s=540)
    assert unplanned(wanted, plan, times) == []
    assert max(one.piece for one in plan) == 2
    # the whole takes less than 25 minutes, kernels included
    every = planned(list(found.values()), times, open_steps=[*wanted, "ncu"], piece_s=540)
    assert sum(one.seconds for one in every) < 25 * 60


def test_parts_are_found_in_the_progress_of_the_commands() -> None:
    for line in ("process 3 of 8: vision[gundam-2x1] (1 of 4)", "process 2 of 3: all stages warm, then each stage cold"):
        assert PROCESS.search(line)
    for line in ("process 3 of 8: prefill[1024] (2 of 4)", "exact: vision[base] (1 of 4)"):
        assert not PROCESS.search(line)
    assert COUNTED.search("vision[gundam-2x1] (1 of 11)")
    assert PROCESSES >= 8


def test_what_the_machine_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = steps(tmp_path, "cpu", "tiny")
    assert found["nsys"].lacks == "profiles kernels of a GPU, and the device is a CPU"
    assert "no engine is installed" in str(found["serve"].lacks)
    assert "C++ compiler" in str(found["backends"].lacks)
    assert found["baseline"].lacks is None


def test_an_unusable_home_is_replaced_and_the_commit_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = StepContext(
        device=KnownDevice(kind="cpu", name="a-device"),
        preset="tiny",
        folder=tmp_path / "state",
        engines=tmp_path / "engines",
    )
    monkeypatch.setenv("HOME", "")
    found = environment_of(context, "5" * 40)
    assert found["HOME"] == found["XDG_CACHE_HOME"] == str(tmp_path / "state" / "cache")
    assert found["DSOCR_COMMIT"] == "5" * 40
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "libraries")
    found = environment_of(context, None)
    assert (found["HOME"], found["PYTHONPATH"]) == (str(tmp_path), "libraries")
    assert "DSOCR_COMMIT" not in found


def test_nothing_incomplete_is_accepted(tmp_path: Path) -> None:
    context = StepContext(
        device=KnownDevice(kind="cpu", name="a-device"),
        preset="tiny",
        folder=tmp_path / "state",
        engines=tmp_path / "engines",
    )
    context.accepted.mkdir(parents=True)
    (context.accepted / "rates.json").write_text("{}")
    (context.accepted / "predict_study.json").write_text('{"incomplete": {"reason": "time", "missing": ["a"]}}')
    accept_files(context, tmp_path / "baselines" / "a-device")
    assert [path.name for path in (tmp_path / "baselines" / "a-device").iterdir()] == ["rates.json"]


def test_the_times_of_a_device_stand_beside_those_of_others(tmp_path: Path) -> None:
    context = StepContext(
        device=KnownDevice(kind="cpu", name="a-device"),
        preset="tiny",
        folder=tmp_path / "state",
        engines=tmp_path / "engines",
    )
    accept_baseline(context, tmp_path / "baselines")  # nothing was measured yet
    assert not (tmp_path / "baselines").exists()
    (mine,) = TIMED.timed
    other = replace(mine, fingerprint=replace(mine.fingerprint, device_name="another device"))
    stored.write(replace(TIMED, timed=(other,)), tmp_path / "baselines")
    stored.write(replace(TIMED, timed=(mine,)), context.own_baselines)
    accept_baseline(context, tmp_path / "baselines")
    found = stored.find("cpu", "tiny", tmp_path / "baselines")
    assert found is not None
    assert {one.fingerprint.device_name for one in found.timed} == {"another device", mine.fingerprint.device_name}
    assert {len(one.stages) for one in found.timed} == {len(mine.stages)}


def test_a_device_is_named_after_what_it_reports() -> None:
    assert slug("NVIDIA H100 80GB HBM3", "cuda", 16) == "nvidia-h100-80gb-hbm3"
    assert slug("Intel(R) Xeon(R) Processor", "cpu", 2) == "intel-xeon-2-threads"
    assert slug("Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz", "cpu", 8) == "intel-xeon-platinum-8480c-2-00ghz-8-threads"
