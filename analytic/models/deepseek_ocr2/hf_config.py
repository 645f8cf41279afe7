"""A Hugging Face config of DeepSeek-OCR-2 read field by field: the dimensions that its cost depends on.

Every field is costed, known to change no cost, or refused.
"""

from __future__ import annotations

from typing import Any, Final

from analytic.core.checks import whole
from analytic.models.deepseek_ocr.hf_config import (
    FULL,
    MLP_RATIO,
    VENDORS_SAM,
    dense_layers_of,
    layer_numbers,
    text_dimensions,
    two_widths,
    whole_fields,
)
from analytic.models.deepseek_ocr.hf_reading import read, refused
from analytic.models.deepseek_ocr2.hf_fields import TRANSFORMERS, VENDOR
from analytic.models.family import ConfigKind

NAME: Final = "DeepSeek-OCR-2"
CONFIGS: Final = (
    ConfigKind(
        name=NAME,
        layout="transformers",
        architectures=("DeepseekOcr2ForConditionalGeneration",),
        model_types=("deepseek_ocr2",),
    ),
    ConfigKind(name=NAME, layout="vendor", architectures=("DeepseekOCR2ForCausalLM",), model_types=("deepseekocr_2",)),
)
"""The configs that describe a DeepSeek-OCR-2."""
NEITHER_WHOLE: Final = ("global_attn_indexes", "downsample_channels", "mlp_ratio", "mlp_dim")
"""Sizes of SAM that are not whole numbers, or follow from others."""
VENDORS_ENCODER: Final = {"num_layers": 24, "num_heads": 14, "num_kv_heads": 2, "intermediate_size": 4864}
"""Dimensions of the query encoder that stand in the vendor's code alone: those of Qwen2-0.5B."""
VENDORS_CHANNELS: Final = 512


def dimensions(config: Any, kind: ConfigKind) -> dict[str, Any]:
    """The dimensions in `config`, in the form of a stored preset: `image_token_id`, `sam`, `encoder`, `text`.

    Raises ValueError, naming the field, its value and what is accepted, for every field that is neither a dimension, nor
    known to change no cost, nor as in DeepSeek-OCR-2.
    """
    sizes = read(config, VENDOR if kind.layout == "vendor" else TRANSFORMERS, model=NAME)
    whole("image_token_id", sizes["image_token_id"], least=0)
    parts = _of_vendor(sizes) if kind.layout == "vendor" else _of_transformers(sizes)
    return {"image_token_id": sizes["image_token_id"], **parts}


def _of_transformers(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "sam": _sam(sizes["vision_config"]["sam_config"]),
        "encoder": _encoder(sizes["vision_config"]["encoder_config"]),
        "text": _text(sizes["text_config"]),
    }


def _sam(sam: dict[str, Any]) -> dict[str, Any]:
    path = "vision_config.sam_config"
    whole_fields(sam, path, skip=NEITHER_WHOLE)
    if sam["mlp_dim"] is None:
        wide = sam["hidden_size"] * sam["mlp_ratio"] if type(sam["mlp_ratio"]) in (int, float) else 0
        if wide < 1:
            raise refused(f"{path}.mlp_ratio", sam["mlp_ratio"], "a number above 0", model=NAME)
        sam = {**sam, "mlp_dim": int(wide)}
    whole(f"{path}.mlp_dim", sam["mlp_dim"])
    return {
        "hidden_size": sam["hidden_size"],
        "num_layers": sam["num_hidden_layers"],
        "num_heads": sam["num_attention_heads"],
        "mlp_dim": sam["mlp_dim"],
        "patch_size": sam["patch_size"],
        "image_size": sam["image_size"],
        "window_size": sam["window_size"],
        "global_attn_indexes": layer_numbers(f"{path}.global_attn_indexes", sam["global_attn_indexes"], model=NAME),
        "neck_channels": sam["output_channels"],
        "downsample_channels": two_widths(f"{path}.downsample_channels", sam["downsample_channels"], model=NAME),
    }


def _encoder(encoder: dict[str, Any]) -> dict[str, Any]:
    path = "vision_config.encoder_config"
    if encoder["num_key_value_heads"] is None:
        encoder = {**encoder, "num_key_value_heads": encoder["num_attention_heads"]}
    whole_fields(encoder, path, skip=("layer_types", "rope_parameters"))
    layers = encoder["num_hidden_layers"]
    if encoder["layer_types"] not in (None, [FULL] * layers):
        raise refused(f"{path}.layer_types", encoder["layer_types"], f"{FULL} in each of the {layers} layers", model=NAME)
    return {
        "hidden_size": encoder["hidden_size"],
        "num_layers": layers,
        "num_heads": encoder["num_attention_heads"],
        "num_kv_heads": encoder["num_key_value_heads"],
        "intermediate_size": encoder["intermediate_size"],
    }


def _text(text: dict[str, Any]) -> dict[str, Any]:
    if text["num_key_value_heads"] is None:
        text = {**text, "num_key_value_heads": text["num_attention_heads"]}
    whole_fields(text, "text_config", skip=("mlp_layer_types", "head_dim", "rope_parameters"))
    # transformers sets head_dim anew, whatever the config states
    dense = dense_layers_of({**text, "first_k_dense_replace": None}, model=NAME)
    return text_dimensions(text, dense_layers=dense)


def _of_vendor(sizes: dict[str, Any]) -> dict[str, Any]:
    text, projector = sizes["language_config"], sizes["projector_config"]
    path, width = "vision_config.width", sizes["vision_config"]["width"]
    encoder, sam = width["qwen2-0-5b"], width["sam_vit_b"]
    whole_fields(text, "language_config", skip=("first_k_dense_replace",))
    whole("language_config.first_k_dense_replace", text["first_k_dense_replace"], least=0)
    whole_fields(encoder, f"{path}.qwen2-0-5b")
    whole_fields(sam, f"{path}.sam_vit_b", skip=("global_attn_indexes",))
    for field, got, accepted in (
        ("input_dim", projector["input_dim"], encoder["dim"]),
        ("n_embed", projector["n_embed"], text["hidden_size"]),
    ):
        if got != accepted:
            raise refused(f"projector_config.{field}", got, accepted, model=NAME)
    return {
        "sam": {
            "hidden_size": sam["width"],
            "num_layers": sam["layers"],
            "num_heads": sam["heads"],
            "mlp_dim": MLP_RATIO * sam["width"],
            "global_attn_indexes": layer_numbers(
                f"{path}.sam_vit_b.global_attn_indexes", sam["global_attn_indexes"], model=NAME
            ),
            "downsample_channels": [VENDORS_CHANNELS, encoder["dim"]],
            **VENDORS_SAM,
        },
        "encoder": {"hidden_size": encoder["dim"], **VENDORS_ENCODER},
        "text": text_dimensions(text, dense_layers=text["first_k_dense_replace"]),
    }
