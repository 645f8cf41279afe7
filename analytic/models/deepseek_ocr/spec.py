"""The dimensions of DeepSeek-OCR, from a stored preset or a Hugging Face config object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from analytic.models.deepseek_ocr import hf_config
from analytic.models.deepseek_ocr.workload import PAGES, PageFormat
from analytic.models.family import ConfigKind
from analytic.models.spec import ModelSpec as ModelSpec
from analytic.models.spec import SamSpec as SamSpec
from analytic.models.spec import TextSpec as TextSpec
from analytic.models.spec import check_sizes, divides


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """CLIP-L: the second encoder, on SAM's features. Its own patch embedding never runs and is not counted."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        check_sizes(self)
        divides("clip.num_heads", self.num_heads, self.hidden_size)
        divides("clip.patch_size", self.patch_size, self.image_size)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def native_grid(self) -> int:
        """Positions per side of the native map of the position table."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekOCRSpec(ModelSpec):
    """DeepSeek-OCR, or a smaller model of the same architecture."""

    family: ClassVar[str] = "deepseek_ocr"
    pages: ClassVar[PageFormat] = PAGES

    sam: SamSpec
    clip: ClipSpec

    def __post_init__(self) -> None:
        if self.sam.downsample_channels[-1] != self.clip.hidden_size:
            raise ValueError(
                f"sam.downsample_channels: got {self.sam.downsample_channels}, accepted: a last value of "
                f"{self.clip.hidden_size}, the width of the CLIP encoder after it"
            )
        self.require_image_token()

    @property
    def encoder_width(self) -> int:
        return self.sam.hidden_size

    @property
    def head_dims(self) -> tuple[int, ...]:
        return tuple(sorted({self.sam.head_dim, self.clip.head_dim, self.text.head_dim}))

    @classmethod
    def from_dict(cls, loaded: dict[str, Any]) -> DeepseekOCRSpec:
        return cls(
            model_id=loaded["model_id"],
            model_variant=loaded["model_variant"],
            image_token_id=loaded["image_token_id"],
            sam=SamSpec.from_dict(loaded["sam"]),
            clip=ClipSpec(**loaded["clip"]),
            text=TextSpec(**loaded["text"]),
        )

    @classmethod
    def from_config(cls, config: Any, kind: ConfigKind, *, model_id: str, model_variant: str) -> DeepseekOCRSpec:
        sizes = hf_config.dimensions(config, kind)
        return cls.from_dict({"model_id": model_id, "model_variant": model_variant, **sizes})
