"""The checkpoint folder that engines load: read back as the preset, with every token, and loaded by the real model."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.core.execution import Execution
from analytic.io import stored
from analytic.models.family import with_layers
from analytic.models.registry import family_of, load_spec
from analytic.models.spec import ModelSpec
from fixtures.checkpoint import __main__ as command
from fixtures.checkpoint.folder import CheckpointFolder, config_of, engine_files, layout_of
from fixtures.checkpoint.tokenizer import Vocabulary
from fixtures.config.checkpoint import CheckpointError
from fixtures.model.real import build
from tests.configs import vendors

CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
MADE = [name for name in stored.names("presets") if family_of(load_spec(name)).engine_files is not None]
PROMPT = "Free OCR. é\n"


@pytest.fixture
def make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Path, str]]:
    """The exit code of the command, its folder and its output."""

    def make(*arguments: str, folder: str = "made") -> tuple[int, Path, str]:
        code = command.main([str(tmp_path / folder), *arguments])
        said = capsys.readouterr()
        return code, tmp_path / folder, said.out + said.err

    return make


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("layers", [None, 1, 2])
@pytest.mark.parametrize("preset", MADE)
def test_the_config_of_a_preset_is_read_back_as_the_preset(make: Callable, preset: str, layers: int | None) -> None:
    code, folder, said = make("--preset", preset, *([] if layers is None else ["--layers", str(layers)]))
    assert code == 0, said
    spec = with_layers(load_spec(preset), layers)
    read_back = type(spec).from_hf_config(read(folder), model_id=spec.model_id, model_variant=spec.model_variant)
    assert read_back == spec
    assert layers is None or read_back.text.num_layers == layers


def test_the_vendors_layout_is_the_vendors_own_file(full_spec: ModelSpec) -> None:
    # but for the code of its repository, which is not in the folder
    vendor = {name: value for name, value in vendors().items() if name != "auto_map"}
    assert config_of(full_spec, "vendor") == vendor


def test_a_model_that_the_vendors_layout_cannot_state_takes_that_of_transformers(make: Callable) -> None:
    assert layout_of(load_spec("tiny")) == "transformers"
    code, folder, said = make("--preset", "tiny")
    assert (code, read(folder)["model_type"]) == (0, "unlimited_ocr")
    assert "it would be read as another model: sam.mlp_dim: got 128, accepted: 64" in said
    code, folder, said = make("--preset", "tiny", "--layout", "vendor", folder="other")
    assert (code, folder.exists()) == (2, False)
    assert "layout: got 'vendor' for tiny, accepted: transformers, because" in said


@pytest.mark.parametrize("preset", MADE)
def test_every_id_has_a_text_and_every_special_token_its_id(make: Callable, preset: str) -> None:
    from transformers import AutoTokenizer

    _, folder, _ = make("--preset", preset)
    spec, tokenizer = load_spec(preset), AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(tokenizer.get_vocab()) == spec.text.vocab_size
    special = engine_files(spec).special_tokens
    assert tokenizer.convert_tokens_to_ids(list(special)) == [spec.image_token_id + n for n in range(len(special))]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert tokenizer.decode([spec.text.vocab_size - 1]) == f" {spec.text.vocab_size - 1}"
    # a token a byte, é being two of them, and nothing added
    assert len(tokenizer(PROMPT).input_ids) == len(PROMPT.encode()) == 13
    assert tokenizer.decode(tokenizer(PROMPT).input_ids) == PROMPT
    assert tokenizer(f"{special[0]}a").input_ids[0] == spec.image_token_id


def test_the_chat_template_adds_no_token(make: Callable) -> None:
    from transformers import AutoTokenizer

    _, folder, _ = make()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for kind in ("image", "image_url"):
        parts = [{"type": kind, kind: "x"}, {"type": "text", "text": PROMPT}]
        message = {"role": "user", "content": parts}
        assert tokenizer.apply_chat_template([message], tokenize=False) == f"<image>{PROMPT}"
    text = tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}], add_generation_prompt=True)["input_ids"]
    assert text == tokenizer(PROMPT).input_ids


def test_seeded_weights_load_as_a_checkpoint_and_are_those_of_the_suite(make: Callable, tmp_path: Path) -> None:
    code, folder, said = make("--preset", "tiny", "--weights")
    assert code == 0, said
    spec = load_spec("tiny")
    loaded, seeded = build(spec, CPU, checkpoint=folder).state_dict(), build(spec, CPU).state_dict()
    assert loaded.keys() == seeded.keys()
    assert all(torch.equal(loaded[name], seeded[name]) for name in seeded)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_the_weights_have_the_vendors_keys_those_that_never_run_too(make: Callable) -> None:
    from safetensors import safe_open

    _, folder, _ = make("--preset", "tiny", "--layers", "2", "--weights", "--dtype", "float32")
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        dtypes = {file.get_slice(name).get_dtype() for name in shapes}
    assert dtypes == {"F32"}
    assert shapes["model.vision_model.embeddings.patch_embedding.weight"] == (48, 3, 14, 14)
    assert shapes["model.vision_model.transformer.layers.0.self_attn.qkv_proj.weight"] == (3 * 48, 48)
    assert shapes["model.sam_model.blocks.0.norm1.weight"] == (32,)
    assert shapes["model.layers.1.mlp.experts.7.gate_proj.weight"] == (48, 64)
    assert not any(name.startswith("model.layers.2.") for name in shapes)


def test_transformers_loads_model_tokenizer_and_processor_config_by_themselves(make: Callable) -> None:
    from transformers import AutoModelForImageTextToText

    _, folder, _ = make("--preset", "tiny", "--weights")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ in family_of(load_spec("tiny")).architectures
    assert model.generation_config.eos_token_id == 1
    # the rule of the closed form's default, where transformers' own default is 32
    assert read(folder, "preprocessor_config.json")["max_patches"] == 9


@pytest.mark.parametrize("held", ["file", "folder with a file", "link"])
def test_nothing_is_overwritten(make: Callable, tmp_path: Path, held: str) -> None:
    path = tmp_path / "made"
    if held == "file":
        path.write_text("mine")
    elif held == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
        (path / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, folder, said = make()
    assert code == 2
    assert f"checkpoint: DIR: got {folder}, accepted: a new or empty folder, because nothing is overwritten" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(make: Callable, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    code, folder, _ = make()
    assert code == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(make: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, said = make(folder="file/made")
    assert code == 2
    assert "cannot be written: Not a directory; choose another folder" in said or "File exists" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "huge"), "--preset: got 'huge', accepted: "),
        (("--layers", "13"), "layers: got 13, accepted: a whole number of at least 1 and at most 12"),
        (("--layers", "0"), "layers: got 0, accepted: a whole number of at least 1"),
        (("--layout", "ours"), "--layout: got 'ours', accepted: vendor, transformers"),
        (("--weights", "--dtype", "int8"), "--dtype: got 'int8', accepted: "),
    ],
)
def test_an_unusable_option_is_refused(make: Callable, arguments: tuple[str, ...], message: str) -> None:
    code, folder, said = make(*arguments)
    assert (code, folder.exists()) == (2, False)
    assert message in said


def test_a_family_without_the_files_of_a_folder_is_refused(full_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from analytic.models import registry

    bare = tuple(replace(family, engine_files=None) for family in registry.families())
    monkeypatch.setattr(registry, "families", lambda: bare)
    with pytest.raises(CheckpointError, match="preset: got deepseek-ocr-v1-base, accepted: one whose family states"):
        CheckpointFolder(spec=full_spec, layout="vendor", dtype=None)


@pytest.mark.parametrize("image_token_id", [258, 1017])
def test_a_vocabulary_without_room_for_its_tokens_is_refused(image_token_id: int) -> None:
    # 3 ends and 256 bytes come first; 8 tokens from 1017 on end at 1024, one past the last id
    special = tuple(f"<{number}>" for number in range(8))
    with pytest.raises(ValueError, match=f"image_token_id: got {image_token_id} .*, accepted: 259 to 1016"):
        Vocabulary(size=1024, image_token_id=image_token_id, special=special)


def test_fewer_layers_are_the_first_ones(full_spec: ModelSpec) -> None:
    two = with_layers(full_spec, 2)
    assert (two.text.num_layers, two.text.num_dense_layers, two.text.num_moe_layers) == (2, 1, 1)
    assert two.model_variant == "deepseek-ocr-v1-base-2-layers"
    assert with_layers(full_spec, 1).text.num_moe_layers == 0
    assert with_layers(full_spec, 12) is with_layers(full_spec, None) is full_spec
