"""The dimensions of the model, from a stored preset or a Hugging Face config object."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from analytic.core.checks import whole, within_window
from analytic.io.documents import Document, load
from analytic.models.deepseek_ocr import hf_config

PRESET: Final = Document(name="model_spec")
PATCH_PX: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SamSpec:
    """SAM ViT-B: the first encoder. `image_size` is the native side in pixels of its position tables."""

    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    patch_size: int
    image_size: int
    window_size: int
    global_attn_indexes: tuple[int, ...]
    neck_channels: int
    downsample_channels: tuple[int, int]

    def __post_init__(self) -> None:
        _check_sizes(self, skip=("global_attn_indexes", "downsample_channels"))
        _divides("sam.num_heads", self.num_heads, self.hidden_size)
        if self.patch_size != PATCH_PX:
            raise ValueError(f"sam.patch_size: got {self.patch_size}, accepted: {PATCH_PX}; token counts depend on it")
        _divides("sam.patch_size", self.patch_size, self.image_size)
        beyond = [index for index in self.global_attn_indexes if not 0 <= index < self.num_layers]
        if beyond:
            raise ValueError(f"sam.global_attn_indexes: got {beyond}, accepted: 0 to {self.num_layers - 1}")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def native_grid(self) -> int:
        """Patches per side of the native map of the position tables."""
        return self.image_size // self.patch_size


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
        _check_sizes(self)
        _divides("clip.num_heads", self.num_heads, self.hidden_size)
        _divides("clip.patch_size", self.patch_size, self.image_size)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def native_grid(self) -> int:
        """Positions per side of the native map of the position table."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSpec:
    """The decoder: `num_dense_layers` dense layers, then mixture-of-experts layers."""

    hidden_size: int
    num_layers: int
    num_dense_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int
    vocab_size: int
    max_position_embeddings: int

    def __post_init__(self) -> None:
        _check_sizes(self, skip=("num_dense_layers",))
        _divides("text.num_heads", self.num_heads, self.hidden_size)
        if self.num_kv_heads != self.num_heads:
            raise ValueError(
                f"text.num_kv_heads: got {self.num_kv_heads}, accepted: {self.num_heads}, one per head; grouped heads "
                f"are not modelled"
            )
        if not 0 <= self.num_dense_layers <= self.num_layers:
            raise ValueError(f"text.num_dense_layers: got {self.num_dense_layers}, accepted: 0 to {self.num_layers}")
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"text.num_experts_per_tok: got {self.num_experts_per_tok}, accepted: 1 to {self.n_routed_experts}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def num_moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.num_layers - self.num_dense_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """DeepSeek-OCR, or a smaller model of the same architecture."""

    family: ClassVar[str] = "deepseek_ocr"

    model_id: str
    model_variant: str
    image_token_id: int
    sam: SamSpec
    clip: ClipSpec
    text: TextSpec

    def __post_init__(self) -> None:
        if self.sam.downsample_channels[-1] != self.clip.hidden_size:
            raise ValueError(
                f"sam.downsample_channels: got {self.sam.downsample_channels}, accepted: a last value of "
                f"{self.clip.hidden_size}, the width of the CLIP encoder after it"
            )
        if not 0 <= self.image_token_id < self.text.vocab_size:
            raise ValueError(f"image_token_id: got {self.image_token_id}, accepted: 0 to {self.text.vocab_size - 1}")

    @property
    def encoder_width(self) -> int:
        """Width of the encoder that runs on the pixels, and of its layer norms."""
        return self.sam.hidden_size

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Every width of an attention head, sorted."""
        return tuple(sorted({self.sam.head_dim, self.clip.head_dim, self.text.head_dim}))

    def require_window(self, field: str, seq_len: int, *, decoded: int, given: str | None = None) -> None:
        """Raise ValueError unless `seq_len` positions and `decoded` more, those in the cache at the end, fit the window.

        given  what the user gave for the decoded tokens, if that is another number
        """
        window = self.text.max_position_embeddings
        within_window(field, seq_len, decoded=decoded, window=window, model=self.model_variant, given=given)

    @classmethod
    def from_preset(cls, name: str) -> ModelSpec:
        """The stored preset `name` (`deepseek-ocr-v1-base`, `tiny`). Raises ValueError if unknown or damaged."""
        loaded = load(PRESET, "presets", name, field="preset")
        try:
            return cls.from_dict(loaded)
        except ValueError as error:
            raise ValueError(f"preset {name}: {error}") from error

    @classmethod
    def from_dict(cls, loaded: dict[str, Any]) -> ModelSpec:
        """Build from an object that is valid by the schema."""
        sam = {
            **loaded["sam"],
            "global_attn_indexes": tuple(loaded["sam"]["global_attn_indexes"]),
            "downsample_channels": tuple(loaded["sam"]["downsample_channels"]),
        }
        return cls(
            model_id=loaded["model_id"],
            model_variant=loaded["model_variant"],
            image_token_id=loaded["image_token_id"],
            sam=SamSpec(**sam),
            clip=ClipSpec(**loaded["clip"]),
            text=TextSpec(**loaded["text"]),
        )

    @classmethod
    def from_hf_config(cls, config: Any, *, model_id: str, model_variant: str) -> ModelSpec:
        """Build from a Hugging Face config: transformers' `UnlimitedOcrConfig`, the vendor's config.json, or its object.

        Accepts a mapping or an object with the fields as attributes. Raises ValueError for another model, and for every
        field that is neither in the spec nor known to change no cost.
        """
        return cls.from_dict({"model_id": model_id, "model_variant": model_variant, **hf_config.dimensions(config)})


def _check_sizes(spec: SamSpec | ClipSpec | TextSpec, skip: tuple[str, ...] = ()) -> None:
    for field in fields(spec):
        if field.name not in skip:
            whole(field.name, getattr(spec, field.name))


def _divides(field: str, parts: int, whole: int) -> None:
    if whole % parts:
        raise ValueError(f"{field}: got {parts}, accepted: a divisor of {whole}")
