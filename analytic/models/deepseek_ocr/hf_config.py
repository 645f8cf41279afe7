"""A Hugging Face config of DeepSeek-OCR read field by field: the dimensions that its cost depends on.

Accepts a mapping or any object with the fields as attributes; transformers is not imported. Every field is costed, known to
change no cost, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from analytic.core.checks import whole
from analytic.models.deepseek_ocr.hf_fields import TRANSFORMERS, VENDOR
from analytic.models.deepseek_ocr.hf_reading import NAME, fields_of, read, refused, shown
from analytic.models.family import ConfigKind

FULL: Final = "full_attention"
MLP_RATIO: Final = 4
"""Width of SAM's and CLIP's MLP over that of the encoder in the vendor's code, whose config does not state it."""
DERIVED: Final = ("layer_types", "mlp_layer_types", "head_dim", "first_k_dense_replace", "rope_parameters")
"""Fields of transformers' text config that are not whole numbers, or follow from others."""
VENDORS_SAM: Final = {"image_size": 1024, "patch_size": 16, "window_size": 14, "neck_channels": 256}
"""Dimensions of SAM that stand in the vendor's code alone."""


SLIDING: Final = "reference_sliding_attention"


def slides(fields: Mapping[str, Any]) -> bool:
    """Whether every layer slides in a config of transformers' class, as those do that state no `layer_types`."""
    text = fields.get("text_config")
    kinds = None if text is None else fields_of(text, "text_config").get("layer_types")
    return kinds is None or (isinstance(kinds, list | tuple) and len(kinds) > 0 and all(kind == SLIDING for kind in kinds))


CONFIGS: Final = (
    ConfigKind(
        name=NAME,
        layout="transformers",
        architectures=("UnlimitedOcrForConditionalGeneration",),
        model_types=("unlimited_ocr",),
        applies=lambda fields: not slides(fields),
    ),
    ConfigKind(
        name=NAME,
        layout="vendor",
        architectures=("DeepseekOCRForCausalLM",),
        model_types=("deepseek_vl_v2", "DeepseekOCR"),
    ),
)
"""The configs that describe a DeepSeek-OCR."""


def dimensions(config: Any, kind: ConfigKind) -> dict[str, Any]:
    """The dimensions in `config`, in the form of a stored preset: `image_token_id`, `sam`, `clip`, `text`.

    Raises ValueError, naming the field, its value and what is accepted, for every field that is neither a dimension, nor
    known to change no cost, nor as in DeepSeek-OCR.
    """
    sizes = read(config, VENDOR if kind.layout == "vendor" else TRANSFORMERS)
    whole("image_token_id", sizes["image_token_id"], least=0)
    parts = of_vendor(sizes) if kind.layout == "vendor" else of_transformers(sizes)
    if kind.layout != "vendor":
        _only_full_attention(sizes["text_config"]["layer_types"], sizes["text_config"]["num_hidden_layers"])
    return {"image_token_id": sizes["image_token_id"], **parts}


def of_transformers(sizes: dict[str, Any]) -> dict[str, Any]:
    """The dimensions of encoders and decoder in transformers' layout."""
    sam, clip, text = sizes["vision_config"]["sam_config"], sizes["vision_config"]["encoder_config"], sizes["text_config"]
    whole_fields(sam, "vision_config.sam_config", skip=("global_attn_indexes", "downsample_channels"))
    whole_fields(clip, "vision_config.encoder_config")
    if text["num_key_value_heads"] is None:
        text = {**text, "num_key_value_heads": text["num_attention_heads"]}
    whole_fields(text, "text_config", skip=DERIVED)
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    if text["head_dim"] not in (None, head_dim):
        raise refused("text_config.head_dim", text["head_dim"], head_dim)
    return {
        "sam": {
            "hidden_size": sam["hidden_size"],
            "num_layers": sam["num_hidden_layers"],
            "num_heads": sam["num_attention_heads"],
            "mlp_dim": sam["mlp_dim"],
            "patch_size": sam["patch_size"],
            "image_size": sam["image_size"],
            "window_size": sam["window_size"],
            "global_attn_indexes": layer_numbers(
                "vision_config.sam_config.global_attn_indexes", sam["global_attn_indexes"]
            ),
            "neck_channels": sam["output_channels"],
            "downsample_channels": two_widths("vision_config.sam_config.downsample_channels", sam["downsample_channels"]),
        },
        "clip": {
            "hidden_size": clip["hidden_size"],
            "num_layers": clip["num_hidden_layers"],
            "num_heads": clip["num_attention_heads"],
            "intermediate_size": clip["intermediate_size"],
            "image_size": clip["image_size"],
            "patch_size": clip["patch_size"],
        },
        "text": text_dimensions(text, dense_layers=dense_layers_of(text)),
    }


def of_vendor(sizes: dict[str, Any]) -> dict[str, Any]:
    """The dimensions of encoders and decoder in the vendor's layout."""
    text, projector = sizes["language_config"], sizes["projector_config"]
    clip, sam = sizes["vision_config"]["width"]["clip-l-14-224"], sizes["vision_config"]["width"]["sam_vit_b"]
    whole_fields(text, "language_config", skip=("first_k_dense_replace",))
    whole("language_config.first_k_dense_replace", text["first_k_dense_replace"], least=0)
    whole_fields(clip, "vision_config.width.clip-l-14-224")
    whole_fields(sam, "vision_config.width.sam_vit_b", skip=("downsample_channels", "global_attn_indexes"))
    channels = two_widths("vision_config.width.sam_vit_b.downsample_channels", sam["downsample_channels"])
    for field, got, accepted in (
        ("input_dim", projector["input_dim"], channels[-1] + clip["width"]),
        ("n_embed", projector["n_embed"], text["hidden_size"]),
    ):
        if got != accepted:
            raise refused(f"projector_config.{field}", got, accepted)
    return {
        "sam": {
            "hidden_size": sam["width"],
            "num_layers": sam["layers"],
            "num_heads": sam["heads"],
            "mlp_dim": MLP_RATIO * sam["width"],
            "global_attn_indexes": layer_numbers(
                "vision_config.width.sam_vit_b.global_attn_indexes", sam["global_attn_indexes"]
            ),
            "downsample_channels": channels,
            **VENDORS_SAM,
        },
        "clip": {
            "hidden_size": clip["width"],
            "num_layers": clip["layers"],
            "num_heads": clip["heads"],
            "intermediate_size": MLP_RATIO * clip["width"],
            "image_size": clip["image_size"],
            "patch_size": clip["patch_size"],
        },
        "text": text_dimensions(text, dense_layers=text["first_k_dense_replace"]),
    }


def text_dimensions(text: Mapping[str, Any], *, dense_layers: int) -> dict[str, Any]:
    """The decoder's dimensions, which both layouts name alike."""
    same = ("hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size", "max_position_embeddings")
    experts = ("n_routed_experts", "num_experts_per_tok", "n_shared_experts")
    return {
        **{name: text[name] for name in (*same, *experts)},
        "num_layers": text["num_hidden_layers"],
        "num_dense_layers": dense_layers,
        "num_heads": text["num_attention_heads"],
        "num_kv_heads": text["num_key_value_heads"],
    }


def _only_full_attention(layer_types: Any, num_layers: int) -> None:
    """Raise ValueError unless every layer attends to all positions up to its own."""
    if layer_types == [FULL] * num_layers:
        return
    raise ValueError(
        f"text_config.layer_types: got {shown(layer_types)}, accepted: {FULL} in each of the {num_layers} layers ({NAME}); "
        f"no other form is modelled. A config whose layers all slide, or that has no layer_types, is Unlimited-OCR"
    )


def dense_layers_of(text: Mapping[str, Any], *, model: str = NAME) -> int:
    """Dense layers before the first mixture of experts, from `mlp_layer_types`, else from `first_k_dense_replace`."""
    kinds, count, first = text["mlp_layer_types"], text["num_hidden_layers"], text["first_k_dense_replace"]
    if first is not None:
        whole("text_config.first_k_dense_replace", first, least=0, most=count)
    if kinds is None:
        return 1 if first is None else int(first)
    dense = kinds.count("dense") if isinstance(kinds, list) else 0
    if kinds != ["dense"] * dense + ["sparse"] * (count - dense):
        raise refused(
            "text_config.mlp_layer_types", kinds, f"{count} layers, dense ones first, then sparse ones", model=model
        )
    if first not in (None, dense):
        raise refused(
            "text_config.first_k_dense_replace", first, f"{dense}, the dense layers in mlp_layer_types", model=model
        )
    return dense


def whole_fields(sizes: Mapping[str, Any], path: str, skip: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless every field, those in `skip` aside, is a whole number of at least 1."""
    for name, value in sizes.items():
        if name not in skip:
            whole(f"{path}.{name}", value)


def layer_numbers(path: str, given: Any, *, model: str = NAME) -> list[int]:
    """Layer numbers, ascending. Raises ValueError unless `given` is a list of different whole numbers."""
    numbers = given if isinstance(given, list) else [given]
    for number in numbers:
        whole(path, number, least=0)
    if len(set(numbers)) < len(numbers):
        raise refused(path, given, "every layer once", model=model)
    return sorted(numbers)


def two_widths(path: str, given: Any, *, model: str = NAME) -> list[int]:
    """Two widths. Raises ValueError for anything else."""
    if not isinstance(given, list) or len(given) != 2:
        raise refused(path, given, "two widths", model=model)
    for number in given:
        whole(path, number)
    return list(given)
