"""A checkpoint folder is checked by its config.json and by how its tensors are stored, before any weight is read."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.models.spec import ModelSpec
from fixtures.config.checkpoint import CheckpointError, check_checkpoint
from fixtures.config.run_options import RunOptions
from tests.configs import Config, changed, transformers_of, vendors
from tests.test_plugin import run

BF16 = {"model.norm.weight": "BF16", "model.vision_model.embeddings.position_ids": "I64"}
TEXT = "language_config"


def written(folder: Path, config: Config | str | None, tensors: dict[str, str] | None = None) -> Path:
    """A folder with a config and the header of a safetensors file, without weights."""
    folder.mkdir(exist_ok=True)
    header = {name: {"dtype": dtype, "shape": [], "data_offsets": [0, 0]} for name, dtype in (tensors or BF16).items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model-00001-of-00001.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return folder


def test_the_vendors_own_folder_is_that_of_the_preset(full_spec: ModelSpec, tmp_path: Path) -> None:
    check_checkpoint(written(tmp_path, vendors()), full_spec)
    check_checkpoint(written(tmp_path, transformers_of("deepseek-ocr-v1-base")), full_spec)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"it has no config.json, which says what the weights are: copy the model's"),
        ("{", r"config.json: .*Expecting property name"),
        ("[" * 100_000, r"config.json: "),
        ("[]", r"config.json: config: got \[\], accepted: a config of DeepSeek-OCR"),
        ({"model_type": "llama"}, r"config.json: architectures: got None with model_type 'llama'"),
        (
            {**vendors(), "sliding_window": 128},
            r"config.json: sliding_window: got 128, accepted: none .*that of an Unlimited-OCR",
        ),
        (changed(vendors(), (TEXT, "sliding_window"), 128), r"config.json: language_config.sliding_window: got 128"),
        ({**vendors(), "quantization_config": {"quant_method": "fp8"}}, r"config.json: quantization_config: got "),
        ({**vendors(), "architectures": ["DeepseekOCR2ForCausalLM"]}, r"is of DeepSeek-OCR-2, and --preset deepseek-"),
        (
            {**vendors(), "torch_dtype": "float8_e4m3fn"},
            r"config.json: torch_dtype: got 'float8_e4m3fn', accepted: bfloat16",
        ),
        (
            changed(vendors() | {"num_experts_per_tok": None}, (TEXT, "num_experts_per_tok"), 8),
            r"config.json is of another model than deepseek-ocr-v1-base: text.num_experts_per_tok: got 8, accepted: 6; "
            r"choose the matching --preset, or another --checkpoint",
        ),
        (
            transformers_of("tiny"),
            r"image_token_id: got 1000, accepted: 128815; text.hidden_size: got 64, accepted: 1280; .*"
            r"clip.intermediate_size: got 96, accepted: 4096",
        ),
    ],
)
def test_a_config_that_is_not_the_presets_is_refused(
    full_spec: ModelSpec, tmp_path: Path, config: Config | str | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(written(tmp_path, config), full_spec)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "F64", "BOOL", "I64"])
def test_tensors_that_are_not_floats_of_16_or_32_bits_are_refused(full_spec: ModelSpec, tmp_path: Path, dtype: str) -> None:
    stored = {**BF16, "model.layers.0.mlp.up_proj.weight": dtype}
    with pytest.raises(
        CheckpointError,
        match=rf"has 1 tensors of another kind, such as model.layers.0.mlp.up_proj.weight of {dtype}, accepted:",
    ):
        check_checkpoint(written(tmp_path, vendors(), stored), full_spec)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 20,
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
    ],
)
def test_a_torn_file_of_weights_is_named(full_spec: ModelSpec, tmp_path: Path, data: bytes) -> None:
    (written(tmp_path, vendors()) / "model-00001-of-00001.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"00001.safetensors cannot be read as safetensors: .*; copy it again"):
        check_checkpoint(tmp_path, full_spec)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({**vendors(), "sliding_window": 128}, BF16, "--checkpoint: "),
        (vendors(), {"model.norm.weight": "F8_E4M3"}, "such as model.norm.weight of F8_E4M3, accepted: BF16, F16, F32"),
    ],
)
def test_a_run_of_benchmarks_refuses_it_before_anything_is_built(
    tmp_path: Path, config: Config, tensors: dict[str, str], message: str
) -> None:
    folder = written(tmp_path / "weights", config, tensors)
    done = run("--device", "cpu", "--seq-len", "32", "--checkpoint", str(folder), "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 4, done.stdout + done.stderr
    assert message in done.stderr
    assert "collected" not in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_check_imports_nothing_heavy(tmp_path: Path, options_of: Callable[..., RunOptions]) -> None:
    given: dict[str, Any] = {"device": "cpu", "checkpoint": str(written(tmp_path, vendors()))}
    assert options_of(**given).checkpoint == tmp_path
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from analytic import ModelSpec\n"
        "from fixtures.config.checkpoint import check_checkpoint\n"
        "check_checkpoint(Path(sys.argv[1]), ModelSpec.from_preset('deepseek-ocr-v1-base'))\n"
        "assert not {'torch', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
