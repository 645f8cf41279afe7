"""A decode window under a profiler: the window on the CPU, and the profilers by stand-ins for their output."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.spec import ModelSpec
from fixtures.config import needs
from fixtures.model import annotation
from fixtures.profiling import decode_window, nsight
from fixtures.profiling.decode_window import SAID, DecodeWindowOptions, Window
from fixtures.profiling.kernels import FUSED, READ, TENSOR_ACTIVE, TENSOR_FLOPS, TIME, WRITTEN, from_ncu
from fixtures.profiling.nsight import KERNELS, Captured, command, lines, main
from tests.test_kernels import NSYS, ncu_table

ASKED = DecodeWindowOptions(
    preset="deepseek-ocr-v1-base",
    device="cuda",
    attention="sdpa",
    experts="grouped_mm",
    batch_size=1,
    seq_len=1024,
    decode_steps=2,
)
WINDOW = Window(
    asked=ASKED,
    device_name="NVIDIA H100 80GB HBM3",
    dtype="bfloat16",
    executed_flops=2_000_000,
    eager_bytes=20_000_000,
    fused_bytes=10_000_000,
    time_s=0.030,
    warnings=("disturbed: 1 other process ran on the GPU: decode_window",),
)
SPOKEN = f"Collecting data...\n{SAID}{json.dumps(decode_window.asdict(WINDOW))}\nGenerated: a report\n"


def test_a_window_runs_once_inside_its_range_and_says_what_it_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges: list[tuple[str, str]] = []
    monkeypatch.setattr(annotation.nvtx, "push_range", lambda name, domain: ranges.append((name, domain)))
    monkeypatch.setattr(annotation.nvtx, "pop_range", lambda domain: ranges.append(("end", domain)))
    given = ["--device", "cpu", "--preset", "tiny", "--seq-len", "32", "--decode-steps", "3", "--json"]
    assert decode_window.main(given) == 0
    window = Window.printed(capsys.readouterr().out)
    assert window is not None
    assert ranges == [("decode_window", "dsocr"), ("decode", "dsocr"), ("end", "dsocr"), ("end", "dsocr")]
    assert window.asked == DecodeWindowOptions(
        preset="tiny",
        device="cpu",
        attention="sdpa",
        experts="grouped_mm",
        batch_size=1,
        seq_len=32,
        decode_steps=3,
    )
    root = DeepseekOCRModel.from_spec(ModelSpec.from_preset("tiny"), run=decode_window.execution(window.asked))
    root.start_prefill(32, 1)
    root.start_decode()
    flops = moved = 0
    for _ in range(3):
        flops, moved = flops + root.forward_cost().executed_flops, moved + root.forward_cost().eager_bytes
        root.decode_one_token()
    assert (window.executed_flops, window.eager_bytes) == (flops, moved)
    assert window.fused_bytes < window.eager_bytes
    assert window.time_s > 0
    assert window.warnings == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--device", "meta"], "--device: got 'meta', accepted: cpu, cuda"),
        (["--decode-steps", "0"], "--decode-steps: got 0, accepted: a whole number of at least 1"),
        (["--preset", "huge"], "--preset: got 'huge'"),
        (["--attention", "flash"], "--attention: got 'flash', accepted: sdpa, eager"),
    ],
)
def test_a_window_that_can_not_be_is_refused(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert decode_window.main(["--device", "cpu", *given]) == 2
    assert message in capsys.readouterr().err


def test_the_profilers_are_held_to_the_range_of_the_window() -> None:
    nsys = command("nsys", Path("/out/window.nsys-rep"))
    assert nsys[:2] == ("nsys", "profile")
    assert {"--capture-range=nvtx", "--nvtx-capture=decode_window@dsocr", "--output=/out/window"} <= set(nsys)
    ncu = command("ncu", Path("/out/kernels.csv"))
    assert ncu[ncu.index("--nvtx-include") + 1] == "dsocr@decode_window/"  # the slash: a range that is pushed and popped
    assert ncu[ncu.index("--log-file") + 1] == "/out/kernels.csv"
    assert ncu[ncu.index("--print-units") + 1] == "base"
    assert {TIME, READ, WRITTEN} <= set(ncu[ncu.index("--metrics") + 1].split(","))


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Stand-ins for a GPU and both profilers, which write what they would; the commands they were called with."""
    calls: list[tuple[str, ...]] = []
    gemm = {"name": "gemm", TIME: "4,000", READ: "12,000,000", TENSOR_FLOPS: "1,000", TENSOR_ACTIVE: "2.5"}
    norm = {"name": "x" * 80, TIME: "1,000", READ: "1,000", WRITTEN: "1,000", FUSED: "99,000,000"}

    def stand_in(*call: str) -> str:
        calls.append(call)
        if call[:2] == ("nsys", "stats"):
            return NSYS
        for one, following in zip(call, (*call[1:], ""), strict=True):
            if one.startswith("--output="):
                Path(f"{one.removeprefix('--output=')}.nsys-rep").touch()
            if one == "--log-file":
                Path(following).write_text(ncu_table(gemm, norm))
        return SPOKEN

    monkeypatch.setattr(nsight, "_run", stand_in)
    monkeypatch.setattr(nsight, "missing", lambda *needed: None)
    return calls


def test_nsys_prints_top_kernels_and_keeps_all(
    profiler: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nsys", "--decode-steps", "2", "--output-dir", str(tmp_path)]) == 0
    assert "--decode-steps=2" in profiler[0]
    assert profiler[1][-1].endswith("window.nsys-rep")
    (path,) = tmp_path.glob("nsys-*/kernels.json")
    kept = KERNELS.read(path)
    assert [kernel["name"] for kernel in kept["kernels"]] == ["gemm", "void norm<float, 4>(const float *, int)"]
    assert (kept["tool"], kept["dram_bytes"], kept["kernels"][0]["bound"]) == ("nsys", None, None)
    assert kept["time_s"] == pytest.approx(10e-6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "deepseek-ocr-v1-base on NVIDIA H100 80GB HBM3, bfloat16, attention sdpa, experts grouped_mm, batch 1: "
        "2 tokens after 1024, under nsys"
    )
    assert printed[2].split() == ["gemm", "1", "0.006", "60.0%", "-", "-", "-", "-", "-"]
    assert "3 launches, 0.010 ms in kernels; 30.000 ms by the wall clock, outside the range" in printed
    assert "disturbed: 1 other process ran on the GPU: decode_window" in printed
    assert printed[-1] == f"written to {path}"


def test_ncu_classes_kernels_and_sets_dram_beside_the_closed_form(
    profiler: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ncu", "--output-dir", str(tmp_path)]) == 0
    assert "--decode-steps=1" in profiler[0]
    (path,) = tmp_path.glob("ncu-*/kernels.json")
    kept = KERNELS.read(path)
    assert [kernel["bound"] for kernel in kept["kernels"]] == ["memory", "compute"]
    assert (kept["dram_bytes"], kept["datasheet"]) == (12_002_000, "h100-sxm")
    printed = capsys.readouterr().out.splitlines()
    # 12 MB in 4 us are 3,000 GB/s; at 3,350 GB/s they take 3.58 us of the 4
    assert printed[2].split() == ["gemm", "1", "0.004", "80.0%", "12.0", "3,000", "2.5%", "90%", "memory"]
    assert printed[3].startswith("x" * 53 + "...  ")
    assert "DRAM 0.012 GB; closed form 0.020 GB eager (0.60 of it), 0.010 GB fused (1.20 times)" in printed


def test_a_gpu_without_a_datasheet_bounds_nothing_and_says_so() -> None:
    captured = Captured(
        tool="ncu",
        window=replace(WINDOW, device_name="Some GPU"),
        kernels=from_ncu(ncu_table({"name": "k", TIME: "9"})),
    )
    assert captured.as_json()["datasheet"] is None
    assert "no bound: no datasheet of Some GPU is known; add it to analytic/data/hardware.json" in lines(captured)


def test_what_fails_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "has_driver", lambda: False)
    assert main(["ncu", "--output-dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("ncu: needs a GPU, and no GPU driver is installed here")
    assert main(["gdb"]) == 2
    assert "nsight: got 'gdb', accepted: nsys or ncu" in capsys.readouterr().err
    assert main(["ncu", "--seq-len", "0"]) == 2
    assert "ncu: --seq-len: got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo ==ERROR== ERR_NVGPUCTRPERM; exit 1",
            "ncu failed with code 1: ==ERROR== ERR_NVGPUCTRPERM; let this user read",
        ),
        ("exit 0", "ncu: the window printed no result: no output"),
        (f"echo '{SAID}{json.dumps(decode_window.asdict(WINDOW))}'", "ncu: captured nothing of the range decode_window"),
    ],
)
def test_a_profiler_that_fails_leaves_nothing_and_is_quoted(
    script: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "bin" / "ncu"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setattr(needs, "has_driver", lambda: True)
    assert main(["ncu", "--output-dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
