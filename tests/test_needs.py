"""What a session needs is checked before anything is installed or imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.ab_testing import compare_builds, gate_study, noise
from fixtures.baseline import command as baselines
from fixtures.config import needs
from fixtures.config.needs import has_driver, missing

ROOT = Path(__file__).resolve().parent.parent


def test_a_driver_is_known_by_its_device_files(tmp_path: Path) -> None:
    assert not has_driver(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert has_driver(tmp_path)


def test_the_first_thing_that_is_missing_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "has_driver", lambda: False)
    assert (missing("gpu", "nsys") or "").startswith("needs a GPU, and no GPU driver is installed here: run it")
    monkeypatch.setattr(needs, "has_driver", lambda: True)
    said = missing("gpu", "nsys")
    assert said == (
        "needs nsys, which is not on PATH: install NVIDIA Nsight Systems, or add the folder of its nsys to PATH"
    )
    (tmp_path / "nsys").touch(mode=0o755)
    assert missing("gpu", "nsys") is None
    assert missing() is None


def test_an_unknown_need_is_refused() -> None:
    with pytest.raises(ValueError, match="needs: got 'gcc', accepted: gpu, nsys, ncu, actionlint"):
        missing("gcc")


def test_the_check_needs_nothing_that_is_not_in_the_standard_library() -> None:
    """nox runs it in an environment that is still empty."""
    done = subprocess.run(
        (sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import fixtures.config.needs"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(has_driver(), reason="there is a GPU's driver, and the sessions would run")
@pytest.mark.parametrize("session", [["bench_gpu"], ["nsys"], ["ncu"], ["calibrate", "--", "cuda"]])
def test_a_gpu_session_ends_in_one_sentence_before_it_installs(session: list[str]) -> None:
    command = (sys.executable, "-m", "nox", "--no-venv", "-s", *session)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if "aborted" in line]
    assert f"Session {session[0]} aborted: needs a GPU, and no GPU driver is installed here: run it on a machine" in said


def test_the_commands_that_time_refuse_cuda_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "has_driver", lambda: False)
    for command, arguments in (
        (gate_study.main, ["--device", "cuda"]),
        (noise.main, ["--device", "cuda"]),
        (compare_builds.main, ["HEAD", "--device", "cuda"]),
        (baselines.main, ["refresh", "--device", "cuda"]),
    ):
        assert command(arguments) == 2
        said = capsys.readouterr().err
        assert "--device: got cuda, which needs a GPU, and no GPU driver is installed here" in said
        assert len(said.splitlines()) == 1
