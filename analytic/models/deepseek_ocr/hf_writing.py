"""What engines are told of a model in the files of its checkpoint folder: the vendor's config.json, tokens, processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analytic.models.deepseek_ocr.crop_rule import MIN_TILES, TILE_PX, TRANSFORMERS
from analytic.models.family import EngineFiles

if TYPE_CHECKING:
    from analytic.models.deepseek_ocr.spec import DeepseekOCRSpec

SPECIAL_TOKENS: Final = (
    "<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<|User|>", "<|Assistant|>",
)  # fmt: skip
"""From the image token on, one id after the other."""
VENDORS_IMAGE_TOKEN: Final = 128815
"""Which the vendor's config.json does not state."""
NORM: Final = [0.5, 0.5, 0.5]


def vendor_config(spec: DeepseekOCRSpec) -> dict[str, Any]:
    """The vendor's config.json of `spec`, as far as that layout can state it.

    Widths of MLPs and SAM's windows, neck and patches stand in the vendor's code; reading the config tells what differs.
    """
    sam, clip, text = spec.sam, spec.clip, spec.text
    language = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "first_k_dense_replace": text.num_dense_layers,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "kv_lora_rank": None,
        "lm_head": True,
        "max_position_embeddings": text.max_position_embeddings,
        "moe_intermediate_size": text.moe_intermediate_size,
        "n_group": 1,
        "n_routed_experts": text.n_routed_experts,
        "n_shared_experts": text.n_shared_experts,
        "num_attention_heads": text.num_heads,
        "num_experts_per_tok": text.num_experts_per_tok,
        "num_hidden_layers": text.num_layers,
        "num_key_value_heads": text.num_kv_heads,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "rm_head": False,
        "topk_group": 1,
        "topk_method": "greedy",
        "torch_dtype": "bfloat16",
        "use_mla": False,
        "v_head_dim": 0,
        "vocab_size": text.vocab_size,
    }
    return {
        # the vendor's file repeats the fields of the language model at its root
        **{name: value for name, value in language.items() if name != "architectures"},
        "_name_or_path": spec.model_id,
        "architectures": ["DeepseekOCRForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "candidate_resolutions": [[1024, 1024]],
        "global_view_pos": "head",
        "tile_tag": "2D",
        "transformers_version": "4.46.3",
        "language_config": language,
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": sam.downsample_channels[-1] + clip.hidden_size,
            "n_embed": text.hidden_size,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": 1024,
            "mlp_ratio": 3.7362,
            "width": {
                "clip-l-14-224": {
                    "heads": clip.num_heads,
                    "image_size": clip.image_size,
                    "layers": clip.num_layers,
                    "patch_size": clip.patch_size,
                    "width": clip.hidden_size,
                },
                "sam_vit_b": {
                    "downsample_channels": list(sam.downsample_channels),
                    "global_attn_indexes": list(sam.global_attn_indexes),
                    "heads": sam.num_heads,
                    "layers": sam.num_layers,
                    "width": sam.hidden_size,
                },
            },
        },
        **({} if spec.image_token_id == VENDORS_IMAGE_TOKEN else {"image_token_id": spec.image_token_id}),
    }


def unused_tensors(spec: DeepseekOCRSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors in the vendor's file that never run, by their keys: CLIP's patch embedding."""
    clip = spec.clip
    shape = (clip.hidden_size, 3, clip.patch_size, clip.patch_size)
    return {"model.vision_model.embeddings.patch_embedding.weight": shape}


ENGINE_FILES: Final = EngineFiles(
    vendor_config=vendor_config,
    special_tokens=SPECIAL_TOKENS,
    vendor_processor={
        "processor_class": "DeepseekVLV2Processor",
        "add_special_token": False,
        "candidate_resolutions": [[1024, 1024]],
        "downsample_ratio": 4,
        "ignore_id": -100,
        "image_mean": NORM,
        "image_std": NORM,
        "image_token": SPECIAL_TOKENS[0],
        "mask_prompt": False,
        "normalize": True,
        "patch_size": 16,
        "sft_format": "deepseek",
    },
    transformers_processor={"processor_class": "UnlimitedOcrProcessor", "patch_size": 16, "downsample_ratio": 4},
    transformers_preprocessor={
        "image_processor_type": "UnlimitedOcrImageProcessor",
        "processor_class": "UnlimitedOcrProcessor",
        "crop_to_patches": True,
        "min_patches": MIN_TILES,
        "max_patches": TRANSFORMERS.max_tiles,
        "tile_size": TILE_PX,
        "size": {"height": 1024, "width": 1024},
    },
    unused_tensors=unused_tensors,
)
