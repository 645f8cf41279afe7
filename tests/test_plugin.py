"""`pytest benchmarks` as a user calls it: points, ids, table, record, and refusals with exit code 4."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.timing.operator_profile import OperatorProfile
from tests import fresh_process
from tests.configs import transformers_of

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return fresh_process.run("pytest", "-p", "no:cacheprovider", ROOT / "benchmarks", *arguments, cwd=cwd)


def collected(*arguments: str) -> list[str]:
    done = run("--collect-only", "-q", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def test_a_length_alone_runs_what_concerns_it() -> None:
    assert collected("--seq-len", "1024") == [
        "decode[1024]",
        "end_to_end[gundam-2x1-1024]",
        "prefill[1024]",
        "vision[gundam-2x1]",
    ]


def test_the_default_grid_has_every_length_grid_mode_and_page() -> None:
    ids = collected()
    for stage in ("prefill", "decode"):
        assert [name for name in ids if name.startswith(stage)] == [
            f"{stage}[{length}]" for length in (256, 512, 1024, 2048, 4096)
        ]
    assert "vision[gundam-2x3]" in ids
    assert sum(name.startswith("vision[gundam-") for name in ids) == 22
    assert {f"vision[{mode}]" for mode in ("tiny", "small", "base", "large", "a4-200dpi", "tall-receipt")} <= set(ids)
    assert [name for name in ids if name.startswith("end_to_end")] == [  # 256 is too short for the default page
        f"end_to_end[gundam-2x1-{length}]" for length in (512, 1024, 2048, 4096)
    ]


def test_lengths_may_be_lists_and_pages_sizes() -> None:
    ids = collected("--seq-len", "300,400", "--seq-len", "2048", "--image-size", "600x400")
    assert [name for name in ids if name.startswith(("prefill", "vision"))] == [
        "prefill[300]",
        "prefill[400]",
        "prefill[2048]",
        "vision[600x400px]",
    ]


def test_a_profile_fixes_length_and_page() -> None:
    assert collected("--profile", "dsocr-standard-v1") == [
        "decode[512]",
        "end_to_end[dsocr-standard-v1-512]",
        "prefill[512]",
        "vision[dsocr-standard-v1]",
    ]


def test_a_run_ends_with_a_table_and_a_record(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--seq-len", "512", "--decode-steps", "2", "--by-module")
    done = run(*arguments, "--output-dir", str(tmp_path / "out"), cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "tiny on meta, bfloat16, attention sdpa, experts grouped_mm, batch 1" in done.stdout
    assert "model.language_model.layers.*.self_attn.q_proj" in done.stdout
    (path,) = (tmp_path / "out").rglob("record.json")
    assert f"record: {path}" in done.stdout
    found = json.loads(path.read_text())
    assert [point["stage"] for point in found["points"]] == ["vision", "prefill", "decode", "end_to_end"]
    for point in found["points"]:
        assert point["verdict"] == "pass"
        for pair in point["compared"].values():
            assert pair["closed_form"] == pair["measured"]


def test_exact_quantities_are_those_of_the_full_size_whatever_is_timed(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--seq-len", "64", "--device", "cpu", "--decode-steps", "2", "-k", "prefill")
    done = run(*arguments, "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.rglob("record.json")
    found = json.loads(path.read_text())
    assert (found["model"]["model_variant"], found["execution"]["device"]) == ("deepseek-ocr-v1-base", "meta")
    assert (found["timed"]["model"]["model_variant"], found["timed"]["execution"]["device"]) == ("tiny", "cpu")
    assert found["points"][0]["compared"]["parameter_bytes"]["measured"] > 1e9
    assert "deepseek-ocr-v1-base on meta, bfloat16" in done.stdout
    assert "tiny on cpu, float32, attention sdpa, experts grouped_mm, batch 1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seq-len", "0"], "--seq-len: got 0, accepted: a whole number of at least 1"),
        (["--seq-len", "-5"], "--seq-len: got -5"),
        (
            ["--seq-len", "1000000"],
            "--seq-len: got 1000000, which with 16 decoded tokens needs 1000016 positions, accepted",
        ),
        (["--seq-len", "long"], "--seq-len: got 'long', accepted: a whole number"),
        (["--seq-len", "903", "--crop-grid", "2x3"], "--seq-len: got 903, accepted: at least 904 for this page"),
        (["--crop-grid", "0x3"], "--crop-grid: got '0x3'"),
        (["--crop-grid", "4x4"], "--crop-grid: got 4x4 (16 tiles), accepted: WxH with 2 to 9 tiles"),
        (["--crop-grid", "2-3"], "--crop-grid: got '2-3'"),
        (["--image-size", "big"], "--image-size: got 'big'"),
        (["--preset", "huge"], "--preset: got 'huge', accepted: deepseek-ocr"),
        (["--profile", "mine"], "--profile: got 'mine', accepted: dsocr-a4-v1"),
        (
            ["--profile", "dsocr-standard-v1", "--seq-len", "600"],
            "--profile: got dsocr-standard-v1, which fixes length and page",
        ),
        (["--device", "tpu"], "--device: got 'tpu', accepted: auto, cpu, cuda, meta"),
        (["--decode-steps", "0"], "--decode-steps: got 0"),
        (["--batch-size", "two"], "--batch-size: got 'two'"),
        (["--max-relative-error", "-1"], "--max-relative-error: got '-1', accepted: a number of at least 0"),
        (["--checkpoint", "nowhere", "--device", "cpu"], "--checkpoint: got nowhere, accepted: a folder"),
        (["--checkpoint", ".", "--device", "cpu"], "--checkpoint: got ., accepted: a folder with config.json and"),
        (["--context-len-mode", "fixed"], "context_len_fixed: got None with context_len_mode 'fixed', accepted: a length"),
        (["--context-len-fixed", "9"], "context_len_fixed: got 9 with context_len_mode 'auto'"),
        (["--warmup-synthetic", "maybe"], "--warmup-synthetic: got 'maybe', accepted: on, off"),
        (["--warmup-rounds", "-1"], "--warmup-rounds: got -1, accepted: a whole number of at least 0"),
        (["--baseline-dir", "nowhere"], "--baseline-dir: got nowhere, accepted: a folder; it does not exist"),
        (["--time-threshold", "0"], "--time-threshold: got '0', accepted: a number above 0, in percent"),
        (["--report-format", "pdf"], "--report-format: got 'pdf', accepted: text, github"),
        (["--output-dir", "/proc/nowhere"], "--output-dir: got /proc/nowhere, accepted: a writable folder"),
    ],
)
def test_bad_input_is_named_exits_with_4_and_writes_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    where = () if "--output-dir" in arguments else ("--output-dir", str(tmp_path / "out"))
    done = run("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *arguments, *where, cwd=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert message in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("models/deepseek_ocr/presets/tiny.json", ["--preset", "tiny"]),
        ("data/profiles/dsocr-base-v1.json", ["--profile", "dsocr-base-v1"]),
    ],
)
def test_a_damaged_preset_or_profile_is_named_and_exits_with_4(tmp_path: Path, name: str, arguments: list[str]) -> None:
    for folder in ("analytic", "benchmarks", "fixtures", "schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    damaged = tmp_path / "analytic" / name
    damaged.write_text(damaged.read_text().replace('"schema_version": "1.0",', ""))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "benchmarks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"{name}: schema_version: got None, accepted: 1.0" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_page_that_does_not_fit_a_default_length_is_said(tmp_path: Path) -> None:
    where = ("--output-dir", str(tmp_path))
    done = run("--preset", "tiny", "--crop-grid", "3x3", "--decode-steps", "1", "-k", "vision and not part", *where)
    assert done.returncode == 0, done.stdout
    assert "no end_to_end[1024]: page gundam-3x3 needs at least 1204 positions" in done.stdout


def test_a_timed_run_shows_and_records_times(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--seq-len", "96", "--device", "cpu", "--decode-steps", "2", "--batch-size", "2")
    # of the parts clip, which stays far from the ceilings also where these are measured in a busy moment
    done = run(*arguments, "-k", "prefill or decode or clip", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "a large product reaches" in done.stdout
    (path,) = tmp_path.rglob("record.json")
    found = json.loads(path.read_text())
    assert {timing["stage"] for timing in found["timings"]} == {"clip", "prefill", "decode"}
    for timing in found["timings"]:
        peak = found["ceilings"]["calibration"]["gemm_flops_per_s"]
        assert timing["mfu_executed"]["measured"] == timing["mfu_executed_flops"] / (timing["time_s"] * peak)
        assert timing["mfu_executed"]["datasheet"] is None or found["ceilings"]["datasheet"] is not None
        assert timing["measured_flops"] == timing["units"] * timing["executed_flops"]
        assert timing["first_s"] > 0
        assert timing["peak_bytes"] > 0
        assert timing["energy_j"] is None
    decode = next(timing for timing in found["timings"] if timing["stage"] == "decode")
    # a batch of two in each of two steps, in each of the tiny preset's three MoE layers
    assert [layer["tokens"] for layer in decode["routed_experts"]] == [[2, 2]] * 3
    for layer in decode["routed_experts"]:
        assert all(2 <= unique <= 4 for unique in layer["unique_experts"])
        assert layer["bound_unique_experts"] == [4, 4]
    assert "experts touched per layer and step" in done.stdout


def test_a_page_is_summed_up_and_profiled(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--profile", "dsocr-base-v1", "--device", "cpu", "--decode-steps", "2")
    only = ("-k", "end_to_end or first_token or prefill or decode or vision and not part")
    done = run(
        *arguments, *only, "--torch-profile", "--analytic-hooks", "--warmup-synthetic", "off", "--output-dir", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.rglob("record.json")
    (page,) = json.loads(path.read_text())["pages"]
    assert page["tokens"] == 3
    assert page["tokens_per_s"] == 3 / page["page_s"]
    assert page["whole_mfu_executed"] > 0
    assert "ms per token" in done.stdout
    traces = sorted(one.name for one in (path.parent / "profile").iterdir())
    label = page["point"]
    assert [name for name in traces if name.startswith("end_to_end")] == [
        f"end_to_end-{label}.operators.json",
        f"end_to_end-{label}.operators.txt",
        f"end_to_end-{label}.trace.json",
    ]
    timings = json.loads(path.read_text())["timings"]
    kept = {timing["stage"]: OperatorProfile.read(path.parent / timing["profile"]) for timing in timings}
    assert {(profile.stage, profile.point) for profile in kept.values()} == {
        (timing["stage"], timing["point"]) for timing in timings
    }
    # the head runs once for the prompt and once for each of the two tokens
    calls = {(one.module, one.operator): one.calls for one in kept["end_to_end"].operators}
    assert calls["lm_head", "aten::mm"] == 3
    trace = json.loads((path.parent / "profile" / f"end_to_end-{label}.trace.json").read_text())
    assert any(event.get("name") == "aten::mm" for event in trace["traceEvents"])
    steps = json.loads((path.parent / "shadow" / label / "decoder_steps.json").read_text())["steps"]
    # the tiny preset's four layers and the head, in a prefill and two decoded tokens
    assert len(steps) == 3 * (4 + 1)


SHORT_OF_MEMORY = '''
"""128 positions ask for more memory than any machine has; torch raises its own error."""
import torch
from fixtures.timing.timer import Timer

time = Timer.time


def timed(self, benchmark, label, *arguments, **named):
    if label == "128":
        torch.empty(1 << 50)
    return time(self, benchmark, label, *arguments, **named)


Timer.time = timed
'''


def test_a_benchmark_without_memory_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "short_of_memory.py").write_text(SHORT_OF_MEMORY)
    arguments = ["--preset", "tiny", "--device", "cpu", "--seq-len", "64,128", "-k", "prefill", "--decode-steps", "1"]
    environment = fresh_process.outside_pytest()
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = fresh_process.run(
        *("pytest", "-p", "no:cacheprovider", "-p", "short_of_memory", ROOT / "benchmarks", *arguments),
        *("--output-dir", tmp_path / "out"),
        environment=environment,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "prefill[128]: out of memory: " in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    (path,) = tmp_path.rglob("record.json")
    assert [one["point"] for one in json.loads(path.read_text())["timings"]] == ["64"]


def test_a_damaged_cache_is_said_and_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.machine import calibration
    from fixtures.microbench import device_rates

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in (calibration.kept_at("cpu", "float32"), device_rates.kept_at("cpu", "float32", "tiny")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{")
    arguments = ("--preset", "tiny", "--seq-len", "64", "--device", "cpu", "--benchmark-disable", "-k", "decode")
    done = run(*arguments, "--decode-steps", "2", "--output-dir", str(tmp_path / "results"))
    assert done.returncode == 0, done.stdout
    assert "not valid JSON" in done.stdout
    assert "; measured again" in done.stdout
    assert "measure again with `nox -s predict_study -- --device cpu --preset tiny`" in done.stdout


def test_timing_can_be_switched_off(tmp_path: Path) -> None:
    arguments = ("--preset", "tiny", "--seq-len", "64", "--device", "cpu", "--benchmark-disable", "-k", "prefill or decode")
    done = run(*arguments, "--decode-steps", "2", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.rglob("record.json")
    assert json.loads(path.read_text())["timings"] == []


def test_meta_has_no_times_and_says_so(tmp_path: Path) -> None:
    done = run("--preset", "tiny", "--seq-len", "64", "-k", "prefill", "--output-dir", str(tmp_path), "--device", "meta")
    assert "no times on meta: add --device cpu --preset tiny" in done.stdout
    (path,) = tmp_path.rglob("record.json")
    assert (json.loads(path.read_text())["timings"], json.loads(path.read_text())["ceilings"]) == ([], None)


def test_a_length_without_a_page_is_said(tmp_path: Path) -> None:
    done = run("--preset", "tiny", "--seq-len", "64", "--decode-steps", "1", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "no end_to_end[64]: page gundam-2x1 needs at least 484 positions" in done.stdout


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        arguments, code = ["--device", "cuda", "--preset", "tiny", "--seq-len", "32", "-k", "prefill"], 0
    else:
        arguments, code = ["--device", "cuda"], 4
    done = run(*arguments, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == code
    assert code == 0 or "torch sees no CUDA device here; accepted: auto, cpu or meta" in done.stderr
    assert code == 0 or list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "other").mkdir()
    save_file({"model.norm.weight": torch.ones(64)}, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "other" / "config.json").write_text(json.dumps(transformers_of("tiny")))
    done = run(
        "--preset", "tiny", "--device", "cpu", "--seq-len", "32", "--checkpoint", str(tmp_path / "other"),
        "--output-dir", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 4, done.stdout
    assert "holds another model than tiny" in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_the_options_in_one_group_with_defaults() -> None:
    done = run("--help")
    section = done.stdout.partition("DeepSeek-OCR cost benchmarks:")[2].partition("\n\n")[0]
    for option in ("--seq-len", "--crop-grid", "--image-size", "--profile", "--preset", "--device", "--checkpoint"):
        assert option in section
    for option in ("--decode-steps", "--batch-size", "--max-relative-error", "--output-dir", "--by-module"):
        assert option in section
    assert section.count("(default:") == len(re.findall(r"^  --", section, re.MULTILINE))


@pytest.mark.parametrize("file_name", sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py")))
def test_collecting_a_benchmark_imports_nothing_heavy(file_name: str) -> None:
    script = (
        "import sys, pytest\n"
        "code = pytest.main(['-p', 'no:cacheprovider', '-q', '--collect-only', sys.argv[1]])\n"
        "assert code == 0, code\n"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules"
    )
    target = str(ROOT / "benchmarks" / file_name)
    done = subprocess.run([sys.executable, "-c", script, target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
