"""Every known field of a Hugging Face config of DeepSeek-OCR, in transformers' layout and in the vendor's.

A field is a size, which goes into the spec; fixed, because another value would change what runs; or free, because no value
changes the cost. `hf_config` refuses every field that stands in none of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from analytic.models.deepseek_ocr.hf_reading import REQUIRED, ConfigSection

_NAMES: Final = "a name, not a dimension"
_IDS: Final = "which token has a meaning, not how many there are"
_VALUES: Final = "a value within an operation that runs anyway"
_INIT: Final = "values of random weights"
_TRAINING: Final = "training alone reads it"
_SAMPLING: Final = "how generate() chooses a token; decoding is greedy here, one token a step"
_KERNELS: Final = "the kernels of a run are chosen by Execution"

_BASE_FIXED: Final[dict[str, tuple[Any, ...]]] = {
    "add_cross_attention": (None, False),
    "chunk_size_feed_forward": (None, 0),
    "compression_config": (None,),
    "cross_attention_hidden_size": (None,),
    "dtype": (None, "bfloat16", "float16", "float32"),
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "num_beam_groups": (None, 1),
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "output_scores": (None, False),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "return_dict": (None, True),
    "return_dict_in_generate": (None, False),
    "tie_encoder_decoder": (None, False),
    "tie_word_embeddings": (None, False),
    "torch_dtype": (None, "bfloat16", "float16", "float32"),
    "torchscript": (None, False),
    "use_bfloat16": (None, False),
}
_BASE_FREE: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("_name_or_path", "architectures", "auto_map", "id2label", "label2id", "problem_type", "transformers_version"),
        _NAMES,
    ),
    **dict.fromkeys(("_commit_hash", "finetuning_task", "prefix", "task_specific_params", "tokenizer_class"), _NAMES),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"), _IDS),
    **dict.fromkeys(("bad_words_ids", "begin_suppress_tokens", "suppress_tokens"), _SAMPLING),
    **dict.fromkeys(("do_sample", "early_stopping", "temperature", "top_k", "top_p", "typical_p"), _SAMPLING),
    **dict.fromkeys(("diversity_penalty", "exponential_decay_length_penalty", "length_penalty"), _SAMPLING),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "max_length", "min_length"), _SAMPLING),
    **dict.fromkeys(("encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "repetition_penalty"), _SAMPLING),
    "remove_invalid_values": _SAMPLING,
    "tf_legacy_loss": _TRAINING,
    **dict.fromkeys(("_attn_implementation_autoset", "_attn_implementation_internal", "attn_implementation"), _KERNELS),
    **dict.fromkeys(("_experts_implementation_internal", "experts_implementation"), _KERNELS),
}
"""Fields that transformers gives to every config."""


def _section(
    *,
    sizes: Mapping[str, Any] | None = None,
    fixed: Mapping[str, tuple[Any, ...]] | None = None,
    free: Mapping[str, str] | None = None,
    parts: Mapping[str, ConfigSection] | None = None,
    repeats: str | None = None,
) -> ConfigSection:
    """A section that also knows the fields of every config."""
    return ConfigSection(
        sizes=sizes or {},
        fixed={**_BASE_FIXED, **(fixed or {})},
        free={**_BASE_FREE, **(free or {})},
        parts=parts or {},
        repeats=repeats,
    )


_TEXT_FREE: Final[dict[str, str]] = {
    "attention_dropout": _TRAINING,
    "initializer_range": _INIT,
    **dict.fromkeys(("n_group", "topk_group"), "read by grouped routing alone, and topk_method has to be greedy"),
    **dict.fromkeys(("rms_norm_eps", "rope_theta", "routed_scaling_factor"), _VALUES),
}
_TEXT_FIXED: Final[dict[str, tuple[Any, ...]]] = {
    "attention_bias": (None, False),
    "hidden_act": (None, "silu"),
    "pretraining_tp": (None, 1),
    "rope_scaling": (None,),
    "topk_method": (None, "greedy"),
    "use_cache": (None, True),
}
_TEXT_SIZES: Final = {
    "hidden_size": 1280,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "intermediate_size": 6848,
    "moe_intermediate_size": 896,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "vocab_size": 129280,
    "max_position_embeddings": 32768,
}

_SAM: Final = _section(
    sizes={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mlp_dim": 3072,
        "patch_size": 16,
        "image_size": 1024,
        "window_size": 14,
        "global_attn_indexes": (2, 5, 8, 11),
        "output_channels": 256,
        "downsample_channels": (512, 1024),
    },
    fixed={
        "hidden_act": (None, "gelu"),
        "model_type": (None, "", "unlimited_ocr_sam_vision_model"),
        "num_channels": (None, 3),
        "qkv_bias": (None, True),
        "use_abs_pos": (None, True),
        "use_rel_pos": (None, True),
    },
    free={"attention_dropout": _TRAINING, "initializer_range": _INIT, "layer_norm_eps": _VALUES},
)
_CLIP: Final = _section(
    sizes={
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": 224,
        "patch_size": 14,
    },
    fixed={
        "hidden_act": (None, "quick_gelu"),
        "model_type": (None, "", "unlimited_ocr_vision_encoder"),
        "num_channels": (None, 3),
    },
    free={
        "attention_dropout": _TRAINING,
        **dict.fromkeys(("initializer_factor", "initializer_range"), _INIT),
        "layer_norm_eps": _VALUES,
    },
)
_ROPE: Final = ConfigSection(
    fixed={"partial_rotary_factor": (None, 1.0), "rope_type": (None, "default"), "type": (None, "default")},
    free={"rope_theta": _VALUES},
)

TRANSFORMERS: Final = _section(
    sizes={"image_token_id": 128815},
    fixed={"model_type": (None, "", "unlimited_ocr")},
    parts={
        "vision_config": _section(
            fixed={"model_type": (None, "", "unlimited_ocr_vision")}, parts={"sam_config": _SAM, "encoder_config": _CLIP}
        ),
        "text_config": _section(
            # layer_types and mlp_layer_types have an entry a layer, head_dim and first_k_dense_replace follow from others:
            # hf_config checks the four
            sizes={
                **_TEXT_SIZES,
                "layer_types": None,
                "mlp_layer_types": None,
                "first_k_dense_replace": None,
                "head_dim": None,
            },
            fixed={
                **_TEXT_FIXED,
                "mlp_bias": (None, False),
                "model_type": (None, "", "unlimited_ocr_text"),
                "output_router_logits": (None, False),
            },
            free={
                **_TEXT_FREE,
                "sliding_window": "no layer reads it, because layer_types has to be full_attention throughout",
            },
            parts={"rope_parameters": _ROPE},
        ),
    },
)
"""transformers' `UnlimitedOcrConfig`; the defaults are those of its classes."""

_VENDOR_TEXT: Final = _section(
    sizes={**dict.fromkeys(_TEXT_SIZES, REQUIRED), "first_k_dense_replace": REQUIRED},
    fixed={
        **_TEXT_FIXED,
        "ep_size": (None, 1),
        "kv_lora_rank": (None,),
        "lm_head": (None, True),
        "model_type": (None, "", "deepseek_v2"),
        "moe_layer_freq": (None, 1),
        "norm_topk_prob": (None, False),
        "q_lora_rank": (None,),
        "qk_nope_head_dim": (None, 0),
        "qk_rope_head_dim": (None, 0),
        "rm_head": (None, False),
        "scoring_func": (None, "softmax"),
        "sliding_window": (None,),
        "sliding_window_size": (None,),
        "use_mla": (False,),
        "v_head_dim": (None, 0),
    },
    free={**_TEXT_FREE, **dict.fromkeys(("aux_loss_alpha", "seq_aux"), _TRAINING)},
)
_ENCODER: Final = dict.fromkeys(("heads", "layers", "width"), REQUIRED)
_WIDTH: Final = ConfigSection(
    parts={
        "clip-l-14-224": ConfigSection(sizes={**_ENCODER, "image_size": REQUIRED, "patch_size": REQUIRED}),
        "sam_vit_b": ConfigSection(sizes={**_ENCODER, "downsample_channels": REQUIRED, "global_attn_indexes": REQUIRED}),
    }
)
VENDOR: Final = _section(
    sizes={"image_token_id": 128815},
    fixed={
        "candidate_resolutions": (None, [[1024, 1024]]),
        "global_view_pos": (None, "head"),
        "model_type": (None, "", "deepseek_vl_v2", "DeepseekOCR"),
        "tile_tag": (None, "2D"),
    },
    repeats="language_config",
    parts={
        "language_config": _VENDOR_TEXT,
        "projector_config": ConfigSection(
            sizes={"input_dim": REQUIRED, "n_embed": REQUIRED},
            fixed={"model_type": (None, "mlp_projector"), "projector_type": ("linear",)},
        ),
        "vision_config": _section(
            fixed={
                "image_size": (None, 1024),
                "mlp_ratio": (None, 3.7362),
                "model_name": (None, "deeplip_b_l"),
                "model_type": (None, "", "vision"),
            },
            parts={"width": _WIDTH},
        ),
    },
)
"""The vendor's config.json, and the object that its code makes of it, which has the text fields at the root too."""
