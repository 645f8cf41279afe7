"""DeepSeek-OCR as the registry knows it: SAM, CLIP and projector, then the mixture-of-experts decoder.

The layers are imported where they are used: the stages and names of a model are known without its closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from analytic.io.documents import Document
from analytic.models.deepseek_ocr.hf_config import CONFIGS
from analytic.models.deepseek_ocr.hf_reading import NAME
from analytic.models.deepseek_ocr.hf_writing import ENGINE_FILES
from analytic.models.deepseek_ocr.spec import DeepseekOCRSpec
from analytic.models.family import ModelFamily, ModelPart

if TYPE_CHECKING:
    from analytic.core.execution import Execution
    from analytic.core.layer import AnalyticLayer
    from analytic.models.deepseek_ocr.language_model import Logits
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel

PRESET: Final = Document(name="model_spec")


def _sam(spec: DeepseekOCRSpec, shape: tuple[int, ...], run: Execution) -> AnalyticLayer:
    """SAM on pixels (V, 3, side, side)."""
    from analytic.models.deepseek_ocr.sam import ImageEncoderViT

    return ImageEncoderViT(spec=spec.sam, views=shape[0], side_px=shape[-1], run=run)


def _clip(spec: DeepseekOCRSpec, shape: tuple[int, ...], run: Execution) -> AnalyticLayer:
    """CLIP on SAM's feature maps (V, C, side, side)."""
    from analytic.models.deepseek_ocr.vision import VitModel

    return VitModel(spec=spec.clip, views=shape[0], side=shape[-1], run=run)


def _projector(spec: DeepseekOCRSpec, shape: tuple[int, ...], run: Execution) -> AnalyticLayer:
    """The projector on concatenated features (V, tokens, width)."""
    from analytic.models.deepseek_ocr.vision import MlpProjector

    tokens = math.prod(shape[:-1])
    return MlpProjector(width_in=shape[-1], width_out=spec.text.hidden_size, tokens=tokens, run=run)


def _model(spec: DeepseekOCRSpec, run: Execution, logits: Logits) -> DeepseekOCRModel:
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel

    return DeepseekOCRModel.from_spec(spec, run=run, logits=logits)


FAMILY: Final = ModelFamily(
    name=DeepseekOCRSpec.family,
    title=NAME,
    configs=CONFIGS,
    parts=(
        ModelPart(name="sam", title="SAM", path="model.vision_tower.sam_encoder", layer=_sam),
        ModelPart(name="clip", title="CLIP", path="model.vision_tower.vision_encoder", layer=_clip),
        ModelPart(name="projector", title="projector", path="model.multi_modal_projector", layer=_projector),
    ),
    blocks=(
        ("model.language_model.layers.*.self_attn", "attention"),
        ("model.language_model.layers.*.mlp.experts", "routed experts"),
        ("model.language_model.layers.*.mlp.shared_experts", "shared experts"),
        ("model.language_model.layers.*.mlp.gate", "router"),
        ("model.language_model.layers.*.mlp", "dense MLP"),
        ("lm_head", "lm_head"),
    ),
    presets=PRESET,
    full_size="deepseek-ocr-v1-base",
    small="tiny",
    spec=DeepseekOCRSpec,
    model=_model,
    engine_files=ENGINE_FILES,
)
