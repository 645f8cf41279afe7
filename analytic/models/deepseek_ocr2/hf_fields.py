"""Every known field of a Hugging Face config of DeepSeek-OCR-2, in transformers' layout and in the vendor's.

SAM and the decoder have the fields of DeepSeek-OCR's; this module states what differs. Sources: transformers' configuration
of deepseek_ocr2, and its script that converts the vendor's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from analytic.models.deepseek_ocr.hf_fields import TRANSFORMERS as OTHER
from analytic.models.deepseek_ocr.hf_fields import VENDOR as OTHER_VENDOR
from analytic.models.deepseek_ocr.hf_reading import REQUIRED, ConfigSection

_ITS_VISION: Final = OTHER.parts["vision_config"]
_ITS_SAM: Final = _ITS_VISION.parts["sam_config"]
_ITS_TEXT: Final = OTHER.parts["text_config"]
_VENDORS_VISION: Final = OTHER_VENDOR.parts["vision_config"]
_VENDORS_SAM: Final = _VENDORS_VISION.parts["width"].parts["sam_vit_b"]

_NO_TABLE: Final = "the encoder has no token embedding"
_NOT_SLIDING: Final = "no layer reads it, because use_sliding_window has to be false"


def _of(kind: str, section: ConfigSection, fixed: Mapping[str, tuple[Any, ...]] | None = None) -> ConfigSection:
    """`section` with the `model_type` of this model, and other fixed fields in `fixed`."""
    return replace(section, fixed={**section.fixed, **(fixed or {}), "model_type": (None, "", kind)})


_SAM: Final = replace(
    _of("deepseek_ocr2_sam_vision_model", _ITS_SAM),
    # without mlp_dim the width of the MLP follows from mlp_ratio
    sizes={**_ITS_SAM.sizes, "downsample_channels": (512, 896), "mlp_dim": None, "mlp_ratio": 4.0},
    free={**_ITS_SAM.free, "scale": "half of hidden_size; nothing reads it"},
)
_ENCODER: Final = replace(
    _of(
        "deepseek_ocr2_encoder",
        _ITS_SAM,
        {"hidden_act": (None, "silu"), "use_cache": (None, True), "use_sliding_window": (None, False)},
    ),
    sizes={
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "layer_types": None,
    },
    free={
        **{name: reason for name, reason in _ITS_TEXT.free.items() if name not in ("n_group", "topk_group")},
        "vocab_size": _NO_TABLE,
        "max_position_embeddings": "rotary positions are computed for as many as there are",
        **dict.fromkeys(("sliding_window", "max_window_layers"), _NOT_SLIDING),
    },
    parts=_ITS_TEXT.parts,
)
_NOT_IN_TEXT: Final = ("layer_types", "first_k_dense_replace")
_TEXT: Final = replace(
    _of("deepseek_ocr2_text", _ITS_TEXT),
    sizes={
        **{name: default for name, default in _ITS_TEXT.sizes.items() if name not in _NOT_IN_TEXT},
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "intermediate_size": 11008,
        "moe_intermediate_size": 1407,
        "vocab_size": 102400,
        "max_position_embeddings": 2048,
        "num_experts_per_tok": REQUIRED,
        "mlp_layer_types": REQUIRED,
    },
    free={name: reason for name, reason in _ITS_TEXT.free.items() if name != "sliding_window"},
)
TRANSFORMERS: Final = replace(
    _of("deepseek_ocr2", OTHER),
    parts={
        "vision_config": replace(
            _of("deepseek_ocr2_vision", _ITS_VISION), parts={"sam_config": _SAM, "encoder_config": _ENCODER}
        ),
        "text_config": _TEXT,
    },
)
"""transformers' `DeepseekOcr2Config`; the defaults are those of its classes."""

VENDOR: Final = replace(
    OTHER_VENDOR,
    fixed={**OTHER_VENDOR.fixed, "model_type": (None, "", "deepseek_vl_v2", "deepseekocr_2")},
    parts={
        **OTHER_VENDOR.parts,
        "vision_config": replace(
            _VENDORS_VISION,
            fixed={**_VENDORS_VISION.fixed, "model_name": (None, "deepencoderv2")},
            parts={
                "width": ConfigSection(
                    parts={
                        "qwen2-0-5b": ConfigSection(sizes={"dim": REQUIRED}),
                        "sam_vit_b": replace(
                            _VENDORS_SAM,
                            sizes={name: REQUIRED for name in _VENDORS_SAM.sizes if name != "downsample_channels"},
                            free={"downsample_channels": "the vendor's code takes 512 and 896, whatever its config states"},
                        ),
                    }
                )
            },
        ),
    },
)
"""The vendor's config.json."""
