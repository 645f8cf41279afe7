"""Mapping from the module classes of the real model to the analytic layers.

Class names are those of transformers' `unlimited_ocr`; the layers are named after the vendor's classes. A test fails for a
class of the real model without a row here, and for a row whose layer is not the one at the module's path.
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
"""Torch module classes that have their own analytic layer."""

CONTAINERS: Final = frozenset({"ModuleList"})
"""Classes that only hold other modules."""


def layer_of(path: str, module_class: str) -> str | None:
    """The analytic layer of the module at `path`; None for a container. Raises KeyError for an unmapped class."""
    if module_class in CONTAINERS:
        return None
    return NAMED_BY_PATH.get(path) or MODULE_LAYERS[module_class]
