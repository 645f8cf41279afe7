"""Calibration: measured here, kept, and measured again when what was kept is damaged."""

import json
from pathlib import Path

import pytest

from fixtures.machine import calibration
from fixtures.machine.calibration import Calibration, CalibrationWarning


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
