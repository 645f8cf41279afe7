"""DeepSeek-OCR-2 as the registry knows it: SAM, query encoder and projector, then the mixture-of-experts decoder.

The layers are imported where they are used: the stages and names of a model are known without its closed form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analytic.io.documents import Document
from analytic.models.deepseek_ocr.family import FAMILY as OTHER
from analytic.models.deepseek_ocr2.hf_config import CONFIGS, NAME
from analytic.models.deepseek_ocr2.spec import DeepseekOCR2Spec
from analytic.models.family import ModelFamily, ModelPart

if TYPE_CHECKING:
    from analytic.core.execution import Execution
    from analytic.core.layer import AnalyticLayer
    from analytic.models.deepseek_ocr.language_model import Logits
    from analytic.models.deepseek_ocr.model import DeepseekOCRModel

PRESET: Final = Document(name="deepseek_ocr2_spec")


def _queries(spec: DeepseekOCR2Spec, shape: tuple[int, ...], run: Execution) -> AnalyticLayer:
    """The query encoder on features joined by queries (V, features + queries, width)."""
    from analytic.models.deepseek_ocr2.encoder import QueryEncoder, QueryShape
    from analytic.models.deepseek_ocr2.workload import split_positions

    views, positions, _ = shape
    features, queries = split_positions(positions)
    return QueryEncoder(spec=spec.encoder, shape=QueryShape(views=views, features=features, queries=queries), run=run)


def _projector(spec: DeepseekOCR2Spec, shape: tuple[int, ...], run: Execution) -> AnalyticLayer:
    """The projector on the queries of every view (V, queries, width)."""
    from analytic.models.deepseek_ocr2.vision import QueryProjector

    views, queries, width = shape
    return QueryProjector(width_in=width, width_out=spec.text.hidden_size, views=views, queries=queries, run=run)


def _model(spec: DeepseekOCR2Spec, run: Execution, logits: Logits) -> DeepseekOCRModel:
    from analytic.models.deepseek_ocr2.model import root_of

    return root_of(spec, run=run, logits=logits)


FAMILY: Final = ModelFamily(
    name=DeepseekOCR2Spec.family,
    title=NAME,
    configs=CONFIGS,
    parts=(
        OTHER.part("sam"),
        ModelPart(name="queries", title="query encoder", path="model.vision_tower.vision_encoder", layer=_queries),
        ModelPart(name="projector", title="projector", path="model.multi_modal_projector", layer=_projector),
    ),
    blocks=OTHER.blocks,
    presets=PRESET,
    full_size="deepseek-ocr-2-base",
    small="ocr-2-tiny",
    spec=DeepseekOCR2Spec,
    model=_model,
)
