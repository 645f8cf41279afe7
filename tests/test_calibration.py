"""Calibration: measured here, kept, and measured again when what was kept is damaged."""

import json
from pathlib import Path

import pytest

from fixtures.machine import calibration
from fixtures.machine.calibration import Calibration, CalibrationWarning
from fixtures.microbench import device_rates


def test_a_calibration_is_kept_and_a_damaged_one_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def measure(device: str, dtype: str) -> Calibration:
        made.append(1)
        return Calibration(
            device_name="a device",
            dtype=dtype,
            threads=2,
            gemm_flops_per_s=1e11,
            gemm_spread=0.1,
            copy_bytes_per_s=1e10,
            copy_spread=0.1,
            launch_s=1e-6,
        )

    monkeypatch.setattr(calibration, "measure", measure)
    first = calibration.calibrated("cpu", "float32", folder=tmp_path)
    assert calibration.calibrated("cpu", "float32", folder=tmp_path) == first
    assert len(made) == 1
    (path,) = tmp_path.iterdir()
    for damage in ("{", json.dumps({**json.loads(path.read_text()), "gemm_flops_per_s": -1})):
        path.write_text(damage)
        with pytest.warns(CalibrationWarning, match="measured again"):
            assert calibration.calibrated("cpu", "float32", folder=tmp_path) == first
    assert len(made) == 3


def test_a_calibration_that_cannot_be_read_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "measure", lambda device, dtype: found())
    calibration.kept_at("cpu", "float32", folder=tmp_path).mkdir()
    with pytest.warns(CalibrationWarning, match=r"measured again|measured each time"):
        assert calibration.calibrated("cpu", "float32", folder=tmp_path) == found()


def test_rates_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    device_rates.kept_at("cpu", "float32", "tiny", folder=tmp_path).mkdir()
    with pytest.warns(CalibrationWarning, match="measure again with"):
        assert device_rates.kept("cpu", "float32", "tiny", folder=tmp_path) is None


def test_calibration_measures_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "GEMM_SIDE", {"cpu": 64})
    monkeypatch.setattr(calibration, "COPY_BYTES", {"cpu": 1 << 16})
    found = calibration.measure("cpu", "float32")
    assert found.gemm_flops_per_s > 0
    assert found.copy_bytes_per_s > 0
    assert found.launch_s > 0


def test_calibrating_a_device_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert calibration.main(["tpu"]) == 2
    assert "calibrate: got 'tpu', accepted: cpu" in capsys.readouterr().err


def test_the_earlier_calibration_is_kept_until_there_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "measure", lambda device, dtype: found(gemm=1e11))
    calibration.calibrated("cpu", "float32")
    path = calibration.kept_at("cpu", "float32")

    def interrupted(device: str, dtype: str) -> Calibration:
        assert calibration.stored_calibration(path) == found(gemm=1e11)
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibration.main(["cpu"])
    monkeypatch.setattr(calibration, "measure", lambda device, dtype: found(gemm=2e11))
    assert calibration.main(["cpu"]) == 0
    assert calibration.stored_calibration(path) == found(gemm=2e11)


def found(*, gemm: float = 1e11, gemm_spread: float = 0.1, copy: float = 1e10, copy_spread: float = 0.1) -> Calibration:
    return Calibration(
        device_name="a device",
        dtype="float32",
        threads=2,
        gemm_flops_per_s=gemm,
        gemm_spread=gemm_spread,
        copy_bytes_per_s=copy,
        copy_spread=copy_spread,
        launch_s=1e-6,
    )


def test_a_ceiling_with_a_large_spread_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [found(gemm_spread=0.462), found(gemm=9e10, copy_spread=0.3), found(gemm_spread=0.5)]
    monkeypatch.setattr(calibration, "measure", lambda device, dtype: attempts.pop(0))
    kept = calibration.calibrated("cpu", "float32", folder=tmp_path)
    assert len(attempts) == 1  # the product of the second attempt and the copy of the first are steady
    assert (kept.gemm_flops_per_s, kept.gemm_spread, kept.copy_spread) == (9e10, 0.1, 0.1)
    assert kept.warnings("cpu") == []
    assert calibration.calibrated("cpu", "float32", folder=tmp_path) == kept


def test_a_spread_that_stays_large_is_kept_warned_of_and_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []

    def measure(device: str, dtype: str) -> Calibration:
        made.append(0.9 - 0.1 * len(made))
        return found(copy_spread=made[-1])

    monkeypatch.setattr(calibration, "measure", measure)
    kept = calibration.calibrated("cpu", "float32", folder=tmp_path)
    assert (len(made), kept.copy_spread) == (3, pytest.approx(0.7))  # the steadiest of three attempts
    (line,) = kept.warnings("cpu")
    assert line.startswith("large spread: calibration, copy or sum: 70.0% after 3 attempts; MBU and floors of stages bound")
    again = calibration.calibrated("cpu", "float32", folder=tmp_path)
    assert (len(made), again.copy_spread) == (5, pytest.approx(0.5))  # what is kept counts as the first


def test_of_two_steady_attempts_the_higher_rate_is_the_ceiling() -> None:
    assert found(gemm=2e11, gemm_spread=0.19).better(found(gemm=1e11, gemm_spread=0.01)).gemm_flops_per_s == 2e11
    assert found(gemm=2e11, gemm_spread=0.21).better(found(gemm=1e11, gemm_spread=0.01)).gemm_flops_per_s == 1e11


def test_the_range_of_a_ceiling_is_half_its_spread_to_either_side() -> None:
    low, high = found(gemm=1e12, gemm_spread=0.5).range
    assert (low.flops_per_s, high.flops_per_s) == (8e11, 1.25e12)
