"""A length past the model's window is refused by every command that takes one, with both numbers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from analytic.__main__ import main
from analytic.core.checks import within_window
from analytic.core.execution import FULL_SIZE
from analytic.models.spec import ModelSpec
from analytic.planning.sweep import evaluate
from analytic.prediction.rates import write
from fixtures.ab_testing import compare_builds, noise
from fixtures.config.run_options import RunOptions
from fixtures.cross_check.static_compute import estimate_static_compute
from fixtures.profiling import backends, decode_window, nsight, predict_study
from fixtures.scaling import options as scaling
from tests.samples import RATES

BASE = "deepseek-ocr-v1-base"
WINDOW = {BASE: 8192, "tiny": 16384}


def said(needed: int, preset: str = BASE) -> str:
    """What a refusal has to say."""
    return rf"needs {needed} positions, accepted: at most {WINDOW[preset]} positions, the window .* of {preset}; choose a"


def test_the_windows_of_the_presets() -> None:
    for preset, window in WINDOW.items():
        assert ModelSpec.from_preset(preset).text.max_position_embeddings == window


def test_both_numbers_are_said() -> None:
    within_window("seq_len", 8192, decoded=0, window=8192, model="m")
    within_window("seq_len", 8000, decoded=192, window=8192, model="m")
    with pytest.raises(ValueError, match=r"^seq_len: got 8193, accepted: at most 8192 positions, the window .* shorter"):
        within_window("seq_len", 8193, decoded=0, window=8192, model="m")
    with pytest.raises(ValueError, match="seq_len: got 8000, which with 193 decoded tokens needs 8193 positions, accepted"):
        within_window("seq_len", 8000, decoded=193, window=8192, model="m")


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["cost", "--no-image", "--seq-len", "1000000"], 1_000_016),
        (["cost", "--no-image", "--seq-len", "8177"], 8193),
        (["cost", "--no-image", "--seq-len", "16370", "--decode-steps", "15", "--preset", "tiny"], 16385),
        (["sweep", "--seq-lens", "256", "8192", "--output-dir", "out"], 8208),
        (["demand", "--seq-lens", "256", "8192"], 8208),
        (["demand", "--decode-steps", "8000"], 8256),
        (["capacity", "--on", "h200", "--image-size", "1654x2339", "--new-tokens", "8192"], 9111),
        (["capacity", "--on", "h200", "--new-tokens", "20000"], 21023),
        (["capacity", "--memory-gb", "24", "--mix", "base=0.5", "3x3=0.5", "--new-tokens", "7000"], 8219),
    ],
)
def test_a_command_without_torch_refuses(refused: Callable[[list[str]], str], arguments: list[str], needed: int) -> None:
    text = refused(arguments)
    assert f"needs {needed} positions, accepted: at most {16384 if 'tiny' in arguments else 8192} positions" in text


def test_a_prediction_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rates.json"
    write(RATES, path)
    assert main(["predict", "--rates", str(path), "--no-image", "--seq-len", "16384"]) == 2
    assert "needs 16400 positions" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["cost", "--no-image", "--seq-len", "8176"],
        ["capacity", "--memory-gb", "24", "--seq-len", "7681"],  # with 512 new tokens: 7681 + 511
        ["demand", "--seq-lens", "8176"],
    ],
)
def test_at_the_window_nothing_is_refused(arguments: list[str]) -> None:
    assert main(arguments) == 0


def test_benchmarks_refuse_for_the_timed_and_for_the_compared_model(options_of: Callable[..., RunOptions]) -> None:
    assert options_of(seq_len=["8176"]).lengths() == (8176,)
    for given, needed, preset in (
        ({"seq_len": ["1000000"]}, 1_000_016, BASE),
        ({"seq_len": ["8177"]}, 8193, BASE),
        ({"decode_steps": "4097"}, 8193, BASE),
        ({"seq_len": ["9000"], "device": "cpu", "preset": "tiny"}, 9016, BASE),  # the full size is compared
        ({"seq_len": ["17000"], "device": "meta", "preset": "tiny"}, 17016, "tiny"),
    ):
        with pytest.raises(ValueError, match=said(needed, preset)):
            options_of(**given)
    with pytest.raises(ValueError, match=r"--context-len-fixed: got 8193, accepted: at most 8192 positions"):
        options_of(context_len_mode="fixed", context_len_fixed="8193")
    assert options_of(seq_len=["9000"], device="meta", preset="tiny").lengths() == (9000,)


def given_window(**given: int) -> SimpleNamespace:
    """The options of a decode window as its parser returns them."""
    usual = {"preset": BASE, "attention": "sdpa", "experts": "grouped_mm", "decode_steps": 16, "batch_size": 1}
    return SimpleNamespace(**usual | given)


@pytest.mark.parametrize(
    "parse",
    [
        lambda: scaling.parsed(["--seq-lens", "256", "8177", "--device", "meta"]),
        lambda: noise.parsed(["--preset", BASE, "decode[8177]"]),
        lambda: compare_builds.parsed(["main", "--preset", BASE, "--stage", "decode[8189]"]),
        lambda: backends.parsed(["--device", "cpu", "--preset", BASE, "--stages", "decode[8129]"]),
        lambda: nsight.parsed("nsys", ["--seq-len", "8177"]),
        lambda: decode_window.checked(
            SimpleNamespace(
                preset=BASE, attention="sdpa", experts="grouped_mm", seq_len=8177, decode_steps=16, batch_size=1
            ),
            device="cpu",
        ),
        lambda: estimate_static_compute(640, 640, 512, context_len=8192),
    ],
    ids=["scaling", "noise", "compare", "backends", "nsys", "decode_window", "static_compute"],
)
def test_a_session_refuses_before_anything_is_built(parse: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=said(8193)):
        parse()


def test_a_study_of_predictions_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_study.main(["--preset", BASE, "prefill[256]", "end_to_end[base-8180]"]) == 2
    assert "STAGE[POINT]: end_to_end[base-8180]: got 8180, which with 16 decoded tokens" in capsys.readouterr().err


def test_a_prefill_needs_no_more_than_its_length() -> None:
    assert noise.parsed(["--preset", BASE, "prefill[8192]", "vision[base]"]).job.stages == ("prefill[8192]", "vision[base]")
    with pytest.raises(ValueError, match=r"prefill\[8193\]: got 8193, accepted: at most 8192 positions"):
        noise.parsed(["--preset", BASE, "prefill[8193]"])


def test_the_closed_form_as_a_library_has_no_window(full_spec: ModelSpec) -> None:
    found = evaluate(full_spec, FULL_SIZE, batch_size=1, new_tokens=1, past_tokens=np.array([100, 100_000]))
    assert found.kv_bytes[1] > found.kv_bytes[0]
