"""The command that measures and stores the rates of a device."""

from pathlib import Path
from typing import Any

import pytest

from analytic.prediction import rates
from fixtures.microbench import device_rates
from fixtures.microbench.__main__ import main
from tests.samples import RATES


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What was measured, in place of which RATES are found; the cache is one of this test."""
    asked: list[tuple[Any, ...]] = []

    def measure(spec: Any, *, device: str, dtype: str, progress: Any) -> rates.Rates:
        asked.append((spec.model_variant, device, dtype))
        return RATES

    monkeypatch.setattr(device_rates, "measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_rates_are_printed_kept_and_accepted(
    measured: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "accepted").mkdir()
    assert main(["--accept", str(tmp_path / "accepted")]) == 0
    assert measured == [("tiny", "cpu", "float32")]
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines()[: len(RATES.classes)]] == list(RATES.classes)
    assert f"the host: {RATES.host_s * 1e6:,.2f} us for each operator of transformers" in out
    (kept,) = (tmp_path / "cache").rglob("*.json")
    assert rates.read(kept) == rates.read(tmp_path / "accepted" / "rates.json") == RATES
    assert f"kept in {kept}" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "meta"], "--device: got 'meta', accepted: cpu, cuda"),
        (["--preset", "huge"], "--preset: got 'huge', accepted: "),
        (["--accept", "/dev/null/folder"], "/dev/null/folder"),
    ],
)
def test_an_unusable_option_is_named_before_anything_is_measured(
    measured: list[tuple[Any, ...]], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("microbench: ")
    assert said in error
    assert measured == []
