"""Which analytic layer describes which module class of the real model.

Class names as transformers' `unlimited_ocr` has them; the vendor's names are those of the layers. A class of the real
model that has no row here fails a test, and so does a row whose layer is not the one found at the module's path.
"""

from __future__ import annotations

from typing import Final

MODULE_LAYERS: Final = {
    "UnlimitedOcrForConditionalGeneration": "DeepseekOCRModel",
    "UnlimitedOcrModel": "VisionStack",
    # vision
    "UnlimitedOcrVisionModel": "VisionTower",
    "UnlimitedOcrSamVisionEncoder": "ImageEncoderViT",
    "UnlimitedOcrSamPatchEmbeddings": "PatchEmbedding",
    "UnlimitedOcrSamVisionLayer": "SamBlock",
    "UnlimitedOcrSamVisionAttention": "SamAttention",
    "UnlimitedOcrSamVisionSdpaAttention": "SamAttention",
    "UnlimitedOcrSamMLPBlock": "SamMLP",
    "UnlimitedOcrSamVisionNeck": "SamNeck",
    "UnlimitedOcrSamLayerNorm": "LayerNorm",
    "UnlimitedOcrSamVisionProj": "SamDownsample",
    "UnlimitedOcrVisionEncoder": "VitModel",
    "UnlimitedOcrVisionEmbeddings": "ClipEmbeddings",
    "UnlimitedOcrEncoder": "NoTPTransformer",
    "UnlimitedOcrEncoderLayer": "NoTPTransformerBlock",
    "UnlimitedOcrAttention": "NoTPAttention",
    "UnlimitedOcrMLP": "NoTPFeedForward",
    # decoder
    "UnlimitedOcrTextModel": "Decoder",
    "UnlimitedOcrTextDecoderLayer": "DeepseekV2DecoderLayer",
    "UnlimitedOcrTextAttention": "LlamaFlashAttention2",
    "UnlimitedOcrTextRotaryEmbedding": "LlamaRotaryEmbedding",
    "UnlimitedOcrTextMLP": "DeepseekV2MLP",
    "UnlimitedOcrTextMoe": "DeepseekV2MoE",
    "UnlimitedOcrTextExperts": "RoutedExperts",
    "UnlimitedOcrTextTopkRouter": "MoEGate",
    "UnlimitedOcrTextRMSNorm": "DeepseekV2RMSNorm",
    # torch's own, and transformers' activations
    "Linear": "Linear",
    "Conv2d": "Conv2d",
    "LayerNorm": "LayerNorm",
    "Embedding": "Embedding",
    "GELUActivation": "Activation",
    "QuickGELUActivation": "Activation",
    "SiLUActivation": "Activation",
}

NAMED_BY_PATH: Final = {
    "model.multi_modal_projector": "MlpProjector",
    "model.language_model.embed_tokens": "TokenEmbedding",
    "lm_head": "LmHead",
}
"""Modules of torch's own classes that are layers of their own."""

CONTAINERS: Final = frozenset({"ModuleList"})
"""Classes that only hold other modules."""


def layer_of(path: str, module_class: str) -> str | None:
    """The analytic layer of the module at `path`; None for a container. Raises KeyError for a class without a row."""
    if module_class in CONTAINERS:
        return None
    return NAMED_BY_PATH.get(path) or MODULE_LAYERS[module_class]
