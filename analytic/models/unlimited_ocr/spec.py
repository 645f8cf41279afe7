"""The dimensions of Unlimited-OCR, its pages and its crop rule.

transformers' processor and vLLM cut a page into at most 32 tiles; vLLM does not cut the images of a request with several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from analytic.models.deepseek_ocr.crop_rule import TRANSFORMERS
from analytic.models.deepseek_ocr.spec import ClipSpec, DeepseekOCRSpec
from analytic.models.deepseek_ocr.workload import PAGES, PageFormat
from analytic.models.family import ConfigKind
from analytic.models.spec import SamSpec
from analytic.models.unlimited_ocr import hf_config
from analytic.models.unlimited_ocr.text_spec import SlidingTextSpec

MOST_TILES: Final = 32
_RULE: Final = replace(TRANSFORMERS, max_tiles=MOST_TILES, limit=MOST_TILES)
UNLIMITED_PAGES: Final = replace(
    PAGES,
    rules=(_RULE, replace(_RULE, name="vllm", cuts_several=False)),
    swept=(*PAGES.swept, "3x4", "4x4", "4x6", "4x8"),
)
"""The pages of DeepSeek-OCR with more tiles: the same views and tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlimitedOCRSpec(DeepseekOCRSpec):
    """Unlimited-OCR, or a smaller model of the same architecture."""

    family: ClassVar[str] = "unlimited_ocr"
    pages: ClassVar[PageFormat] = UNLIMITED_PAGES

    @classmethod
    def from_dict(cls, loaded: dict[str, Any]) -> UnlimitedOCRSpec:
        return cls(
            model_id=loaded["model_id"],
            model_variant=loaded["model_variant"],
            image_token_id=loaded["image_token_id"],
            sam=SamSpec.from_dict(loaded["sam"]),
            clip=ClipSpec(**loaded["clip"]),
            text=SlidingTextSpec(**loaded["text"], window=loaded["sliding_window"]),
        )

    @classmethod
    def from_config(cls, config: Any, kind: ConfigKind, *, model_id: str, model_variant: str) -> UnlimitedOCRSpec:
        sizes = hf_config.unlimited_dimensions(config, kind)
        return cls.from_dict({"model_id": model_id, "model_variant": model_variant, **sizes})
