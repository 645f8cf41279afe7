"""Model dimensions: what is accepted, and how a wrong one is refused."""

from dataclasses import replace

import pytest

from analytic.io import stored
from analytic.models.spec import ModelSpec


def test_the_base_preset_is_deepseek_ocr(full_spec: ModelSpec) -> None:
    text = full_spec.text
    assert (text.num_layers, text.hidden_size, text.num_heads, text.head_dim) == (12, 1280, 10, 128)
    assert (text.n_routed_experts, text.num_experts_per_tok, text.n_shared_experts) == (64, 6, 2)
    assert (full_spec.sam.native_grid, full_spec.clip.native_grid) == (64, 16)


def test_tiny_has_every_code_path(tiny_spec: ModelSpec) -> None:
    assert 0 < len(tiny_spec.sam.global_attn_indexes) < tiny_spec.sam.num_layers
    assert tiny_spec.text.num_dense_layers > 0
    assert tiny_spec.text.num_moe_layers > 0
    assert (tiny_spec.sam.native_grid, tiny_spec.clip.native_grid) == (64, 16)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="preset: got 'huge', accepted: deepseek-ocr"):
        ModelSpec.from_preset("huge")


def test_a_damaged_preset_names_file_and_key(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deepseek_ocr" / "presets"
    folder.mkdir(parents=True)
    text = stored.path_of("presets", "tiny", field="preset").read_text()
    (folder / "tiny.json").write_text(text.replace('"num_layers": 4', '"num_layers": 0', 1))
    monkeypatch.setattr(stored, "MODELS", tmp_path)
    with pytest.raises(ValueError, match=r"tiny\.json: does not fit .*\$\.sam\.num_layers: 0 is less than the minimum"):
        ModelSpec.from_preset("tiny")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("sam", {"num_heads": 5}, "sam.num_heads: got 5, accepted: a divisor of 32"),
        ("sam", {"global_attn_indexes": (1, 9)}, r"sam.global_attn_indexes: got \[9\], accepted: 0 to 3"),
        ("sam", {"hidden_size": 0}, "hidden_size: got 0"),
        ("clip", {"num_heads": 5}, "clip.num_heads: got 5"),
        ("text", {"num_kv_heads": 2}, "text.num_kv_heads: got 2, accepted: 4, one per head"),
        ("sam", {"patch_size": 8}, "sam.patch_size: got 8, accepted: 16"),
        ("sam", {"image_size": 1000}, "sam.patch_size: got 16, accepted: a divisor of 1000"),
        ("text", {"num_dense_layers": 5}, "text.num_dense_layers: got 5, accepted: 0 to 4"),
        ("text", {"num_experts_per_tok": 9}, "text.num_experts_per_tok: got 9, accepted: 1 to 8"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(
    tiny_spec: ModelSpec, part: str, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(getattr(tiny_spec, part), **change)


def test_encoders_that_do_not_meet_are_refused(tiny_spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match="a last value of 48, the width of the CLIP encoder"):
        replace(tiny_spec, sam=replace(tiny_spec.sam, downsample_channels=(32, 64)))
    with pytest.raises(ValueError, match="image_token_id: got 1024, accepted: 0 to 1023"):
        replace(tiny_spec, image_token_id=1024)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("text_config", "layer_types", ["full_attention"] * 3 + ["reference_sliding_attention"]),
        ("text_config", "mlp_layer_types", ["sparse", "dense", "sparse", "sparse"]),
        ("text_config", "attention_bias", True),
        ("text_config", "topk_method", "group_limited_greedy"),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "head_dim", 64),
        ("vision_config.encoder_config", "hidden_act", "gelu"),
        ("vision_config.sam_config", "hidden_act", "relu"),
        ("vision_config.sam_config", "num_channels", 1),
        ("vision_config.sam_config", "use_rel_pos", False),
    ],
)
def test_a_config_that_is_not_modelled_is_refused(tiny_spec: ModelSpec, part: str, field: str, value: object) -> None:
    from fixtures.model.deepseek_ocr import config_for

    config = config_for(tiny_spec)
    owner = config
    for name in part.split("."):
        owner = getattr(owner, name)
    owner.__dict__[field] = value
    with pytest.raises(ValueError, match=rf"{part}\.{field}: got .*no other form is modelled"):
        ModelSpec.from_hf_config(config, model_id="m", model_variant="v")
