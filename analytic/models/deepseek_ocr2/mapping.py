"""Mapping from the module classes of the real model, those of transformers' `deepseek_ocr2`, to the analytic layers."""

from __future__ import annotations

from typing import Final

MODULE_LAYERS: Final = {
    "DeepseekOcr2ForConditionalGeneration": "DeepseekOCRModel",
    "DeepseekOcr2Model": "QueryVisionStack",
    # vision
    "DeepseekOcr2VisionModel": "QueryVisionTower",
    "DeepseekOcr2SamVisionEncoder": "ImageEncoderViT",
    "DeepseekOcr2SamPatchEmbeddings": "PatchEmbedding",
    "DeepseekOcr2SamVisionLayer": "SamBlock",
    "DeepseekOcr2SamVisionAttention": "SamAttention",
    "DeepseekOcr2SamVisionSdpaAttention": "SamAttention",
    "DeepseekOcr2SamMLPBlock": "SamMLP",
    "DeepseekOcr2SamVisionNeck": "SamNeck",
    "DeepseekOcr2SamLayerNorm": "LayerNorm",
    "DeepseekOcr2SamVisionProj": "SamDownsample",
    "DeepseekOcr2VisionEncoder": "QueryEncoder",
    "DeepseekOcr2VisionEncoderLayer": "QueryEncoderLayer",
    "DeepseekOcr2VisionAttention": "QueryAttention",
    "DeepseekOcr2VisionMLP": "DeepseekV2MLP",
    "DeepseekOcr2VisionRMSNorm": "DeepseekV2RMSNorm",
    "DeepseekOcr2VisionRotaryEmbedding": "LlamaRotaryEmbedding",
    # decoder
    "DeepseekOcr2TextModel": "Decoder",
    "DeepseekOcr2TextDecoderLayer": "DeepseekV2DecoderLayer",
    "DeepseekOcr2TextAttention": "LlamaFlashAttention2",
    "DeepseekOcr2TextRotaryEmbedding": "LlamaRotaryEmbedding",
    "DeepseekOcr2TextMLP": "DeepseekV2MLP",
    "DeepseekOcr2TextMoe": "DeepseekV2MoE",
    "DeepseekOcr2TextExperts": "RoutedExperts",
    "DeepseekOcr2TextTopkRouter": "MoEGate",
    "DeepseekOcr2TextRMSNorm": "DeepseekV2RMSNorm",
    # torch's own, and transformers' activations
    "Linear": "Linear",
    "Conv2d": "Conv2d",
    "LayerNorm": "LayerNorm",
    "Embedding": "Embedding",
    "GELUActivation": "Activation",
    "SiLUActivation": "Activation",
}

NAMED_BY_PATH: Final = {
    "model.multi_modal_projector": "MlpProjector",
    "model.language_model.embed_tokens": "TokenEmbedding",
    "lm_head": "LmHead",
}
"""Torch module classes that have their own analytic layer."""
