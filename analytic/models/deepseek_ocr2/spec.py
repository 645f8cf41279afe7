"""The dimensions of DeepSeek-OCR-2, from a stored preset or a Hugging Face config object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from analytic.models.deepseek_ocr.workload import PageFormat
from analytic.models.deepseek_ocr2 import hf_config
from analytic.models.deepseek_ocr2.workload import QUERY_PAGES
from analytic.models.family import ConfigKind
from analytic.models.spec import ModelSpec, SamSpec, TextSpec, check_sizes, divides


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryEncoderSpec:
    """The second encoder: Qwen2 layers with grouped heads, without a token embedding."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int

    def __post_init__(self) -> None:
        check_sizes(self)
        divides("encoder.num_heads", self.num_heads, self.hidden_size)
        divides("encoder.num_kv_heads", self.num_kv_heads, self.num_heads)
        if self.head_dim % 2:
            raise ValueError(
                f"encoder.num_heads: got {self.num_heads}, accepted: heads of an even width, which rotary positions halve"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def kv_width(self) -> int:
        """Width of the keys of a position, and of its values."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalTextSpec(TextSpec):
    """The decoder: as that of DeepSeek-OCR, by a class of transformers that builds the causal mask alone."""

    @property
    def prepares_sliding(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepseekOCR2Spec(ModelSpec):
    """DeepSeek-OCR-2, or a smaller model of the same architecture."""

    family: ClassVar[str] = "deepseek_ocr2"
    pages: ClassVar[PageFormat] = QUERY_PAGES

    sam: SamSpec
    encoder: QueryEncoderSpec

    def __post_init__(self) -> None:
        if self.sam.downsample_channels[-1] != self.encoder.hidden_size:
            raise ValueError(
                f"sam.downsample_channels: got {self.sam.downsample_channels}, accepted: a last value of "
                f"{self.encoder.hidden_size}, the width of the encoder after it"
            )
        self.require_image_token()

    @property
    def encoder_width(self) -> int:
        return self.sam.hidden_size

    @property
    def head_dims(self) -> tuple[int, ...]:
        return tuple(sorted({self.sam.head_dim, self.encoder.head_dim, self.text.head_dim}))

    @classmethod
    def from_dict(cls, loaded: dict[str, Any]) -> DeepseekOCR2Spec:
        return cls(
            model_id=loaded["model_id"],
            model_variant=loaded["model_variant"],
            image_token_id=loaded["image_token_id"],
            sam=SamSpec.from_dict(loaded["sam"]),
            encoder=QueryEncoderSpec(**loaded["encoder"]),
            text=CausalTextSpec(**loaded["text"]),
        )

    @classmethod
    def from_config(cls, config: Any, kind: ConfigKind, *, model_id: str, model_variant: str) -> DeepseekOCR2Spec:
        sizes = hf_config.dimensions(config, kind)
        return cls.from_dict({"model_id": model_id, "model_variant": model_variant, **sizes})
