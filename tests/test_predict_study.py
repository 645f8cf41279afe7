"""The study of predictions, and the microbenchmarks that it predicts from."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from analytic.core.op import OpKind
from analytic.core.shape_class import ShapeClass
from analytic.models.spec import ModelSpec
from fixtures.machine import calibration
from fixtures.microbench import bench as microbench
from fixtures.microbench import device_rates, operator_catalogue
from fixtures.microbench.bench import OperatorBench, Sample, Tally, beyond_s
from fixtures.profiling import predict_study
from fixtures.profiling.predict_study import names
from fixtures.profiling.studied_stage import StudiedStage, lines
from tests.test_predict import rates


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Microbenchmarks of the smallest shapes, each run once."""
    monkeypatch.setattr(microbench, "ROUND_S", 1e-5)
    monkeypatch.setattr(microbench, "ROUNDS", 1)
    monkeypatch.setattr(microbench, "APART_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(operator_catalogue, "BYTES", (1 << 14, 1 << 15, 1 << 16))
    monkeypatch.setattr(operator_catalogue, "CONTEXTS", (16, 32))
    monkeypatch.setattr(operator_catalogue, "ROWS", (1, 64))
    monkeypatch.setattr(operator_catalogue, "SUMS", (16, 32))
    monkeypatch.setattr(operator_catalogue, "CHANNELS", (4, 8))
    monkeypatch.setattr(operator_catalogue, "SIDES", (4, 8))
    monkeypatch.setattr(operator_catalogue, "MOST_SCORES", 1 << 10)


def test_microbenchmarks_measure_every_class(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(calibration.GEMM_SIDE, "cpu", 64)
    monkeypatch.setitem(calibration.COPY_BYTES, "cpu", 1 << 16)
    said: list[str] = []
    found = device_rates.measure(ModelSpec.from_preset("tiny"), device="cpu", dtype="float32", progress=said.append)
    assert set(found.classes) == set(ShapeClass)
    assert set(found.classes[ShapeClass.ATTENTION].curves) == {16}
    assert set(found.classes[ShapeClass.PRODUCT].curves) == {1, 64}
    assert found.host_s > 0
    assert len(said) == len(ShapeClass) + 1


def test_a_call_is_counted_by_the_conventions_of_the_ledger() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    found = OperatorBench("cpu", "float32").count(lambda: (left @ right) + 1)
    assert (found.launches, found.flops) == (2, 2 * 3 * 5 * 7)
    assert found.moved_bytes == 4 * (15 + 35 + 21) + 4 * (21 + 21)
    assert found.by_kind == {OpKind.MATMUL: 1, OpKind.POINTWISE: 1}


def test_operands_of_calls_in_turn_lie_apart(quick: None) -> None:
    made: list[torch.Tensor] = []

    def make() -> Callable[[], torch.Tensor]:
        made.append(torch.ones(1 << 10))
        mine = made[-1]
        return lambda: mine + 1

    OperatorBench("cpu", "float32").sample(make)
    assert len(made) == (1 << 16) // (2 * 4 << 10)  # as many as fill what has to lie between two uses


def test_work_is_what_a_time_has_beyond_its_starts() -> None:
    assert beyond_s(Sample(time_s=10e-6, tally=Tally(launches=3)), 2e-6) == pytest.approx(4e-6)
    assert beyond_s(Sample(time_s=10e-6, tally=Tally(launches=9)), 2e-6) == pytest.approx(1e-6)


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass


@pytest.mark.parametrize("captures", [True, False])
def test_on_cuda_a_graph_of_calls_is_timed_or_what_can_not_be_captured_itself(
    captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for CUDA's streams and graphs."""
    replays, calls = [], []

    class Graph:
        def replay(self) -> None:
            replays.append(1)

    @contextlib.contextmanager
    def graph(_: Graph) -> Iterator[None]:
        yield
        if not captures:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    bench = OperatorBench("cuda", "float32")
    monkeypatch.setattr(bench, "seconds", lambda call: (call(), 16.0)[1])
    found = bench.sample(lambda: lambda: calls.append(1))
    warm_and_captured = 1 + 3 + microbench.CAPTURED
    assert (found.time_s, len(replays), len(calls)) == (
        (16.0 / microbench.CAPTURED, 1, warm_and_captured) if captures else (16.0, 0, warm_and_captured + 1)
    )


def test_on_cuda_an_operator_is_also_issued_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the clock: 6 us for two operators; a CPU, which does them in the host's time, issues nothing."""
    one = torch.ones(2)
    monkeypatch.setattr(OperatorBench, "seconds", lambda self, call: (call(), 6e-6)[1])
    assert OperatorBench("cuda", "float32").issue_s(lambda: lambda: (one + 1) * 2) == pytest.approx(3e-6)
    assert OperatorBench("cpu", "float32").issue_s(lambda: lambda: (one + 1) * 2) is None


def test_rates_are_kept_beside_the_calibration(tmp_path: Path) -> None:
    from analytic.prediction import rates as stored_rates

    path = device_rates.kept_at("cpu", "float32", "tiny", folder=tmp_path)
    assert device_rates.kept("cpu", "float32", "tiny", folder=tmp_path) is None
    stored_rates.write(rates(), path)
    assert device_rates.kept("cpu", "float32", "tiny", folder=tmp_path) == rates()
    path.write_text("{")
    with pytest.warns(calibration.CalibrationWarning, match="predict_study"):
        assert device_rates.kept("cpu", "float32", "tiny", folder=tmp_path) is None


def test_a_cache_that_can_not_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "rates.json"
    with pytest.warns(calibration.CalibrationWarning, match="measured each time; XDG_CACHE_HOME"):
        assert not calibration.keep(path, lambda: path.write_text("kept"))
    assert calibration.keep(tmp_path / "new" / "one", lambda: None)


def test_the_study_says_median_and_worst_and_what_lies_below_the_floor() -> None:
    def case(point: str, predicted: float, measured: float) -> StudiedStage:
        return StudiedStage(
            stage="prefill", point=point, floor_s=0.5, predicted_s=predicted, measured_s=measured, launches=1, host_s=0.1
        )

    said = lines([case("1", 1.1, 1.0), case("2", 0.8, 1.0), case("3", 0.4, 0.4)])
    assert "all: median absolute error 10.0%, worst -20.0% at prefill[2]" in said
    assert said[-1] == "floor <= measured: NOT at prefill[3]"
    assert {name.partition("[")[0] for name in names("tiny")} >= {"vision", "sam", "clip", "projector", "prefill", "decode"}


def test_input_that_can_not_be_used_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_study.main(["--device", "meta", "--output-dir", str(tmp_path)]) == 2
    assert "--device: got 'meta', accepted: cpu, cuda" in capsys.readouterr().err
    assert predict_study.main(["--preset", "huge", "--output-dir", str(tmp_path)]) == 2
    capsys.readouterr()
    for arguments, message in (
        (["decode[foo]"], "STAGE[POINT]: decode[foo]: seq_len: got 'foo', accepted: a whole number"),
        (["nope[3]"], "STAGE[POINT]: got 'nope', accepted: vision, sam"),
        (["first_token[256]"], "STAGE[POINT]: first_token[256]: got '256', accepted: a page and a length"),
        (["end_to_end[gundam-2x1-64]"], "STAGE[POINT]: end_to_end[gundam-2x1-64]: seq_len: got 64"),
        (["decode[64]", "--decode-steps", "0"], "--decode-steps: got 0, accepted: a whole number"),
    ):
        assert predict_study.main([*arguments, "--output-dir", str(tmp_path)]) == 2  # before anything is measured
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
