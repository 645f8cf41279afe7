"""The dimensions that every model of the family has, from a stored preset or a Hugging Face config object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

from analytic.core.checks import whole, within_window
from analytic.models.deepseek_ocr.workload import PageFormat

if TYPE_CHECKING:
    from analytic.core.execution import Execution
    from analytic.core.kvcache import SyntheticKVCache
    from analytic.core.op import Count
    from analytic.models.deepseek_ocr.decoder_attention import DecoderShape
    from analytic.models.family import ConfigKind

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
        check_sizes(self, skip=("global_attn_indexes", "downsample_channels"))
        divides("sam.num_heads", self.num_heads, self.hidden_size)
        if self.patch_size != PATCH_PX:
            raise ValueError(f"sam.patch_size: got {self.patch_size}, accepted: {PATCH_PX}; token counts depend on it")
        divides("sam.patch_size", self.patch_size, self.image_size)
        beyond = [index for index in self.global_attn_indexes if not 0 <= index < self.num_layers]
        if beyond:
            raise ValueError(f"sam.global_attn_indexes: got {beyond}, accepted: 0 to {self.num_layers - 1}")

    @classmethod
    def from_dict(cls, loaded: dict[str, Any]) -> SamSpec:
        """Build from the part `sam` of a stored preset."""
        lists = ("global_attn_indexes", "downsample_channels")
        return cls(**{**loaded, **{name: tuple(loaded[name]) for name in lists}})

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def native_grid(self) -> int:
        """Patches per side of the native map of the position tables."""
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
        check_sizes(self, skip=("num_dense_layers",))
        divides("text.num_heads", self.num_heads, self.hidden_size)
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

    @property
    def prepares_sliding(self) -> bool:
        """Whether its class in transformers knows sliding layers, and so may build their mask where no layer slides."""
        return True

    @property
    def sliding_window(self) -> int | None:
        """Decoded positions that a step attends to, its own among them; None: all of them."""
        return None

    def call_shape(
        self, *, batch: Count, new_tokens: Count, past_tokens: Count, prompt_tokens: Count, capacity: int | None = None
    ) -> DecoderShape:
        """The shape of one call of the decoder, or of an array of calls.

        `prompt_tokens`: positions of the prompt among past and new ones; a cache that keeps all does not tell them apart.
        """
        from analytic.models.deepseek_ocr.decoder_attention import DecoderShape

        return DecoderShape(batch=batch, new_tokens=new_tokens, past_tokens=past_tokens, capacity=capacity)

    def cache(
        self, *, dtype_bytes: int, batch_size: int, length: int, prompt_length: int, capacity: int | None
    ) -> SyntheticKVCache:
        """The cache of `length` positions per sequence, of which the first `prompt_length` are the prompt."""
        from analytic.core.kvcache import SyntheticKVCache

        return SyntheticKVCache(
            num_layers=self.num_layers,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dtype_bytes=dtype_bytes,
            batch_size=batch_size,
            length=length,
            capacity=capacity,
            sliding_window=self.sliding_window,
            prompt_length=None if self.sliding_window is None else prompt_length,
        )

    def require_cache_of(self, option: str, run: Execution) -> None:
        """Raise ValueError naming `option` if `run` needs a static cache and the model has none in closed form."""

    def mean_decoded(self, steps: int) -> float:
        """Decoded positions that a step attends to beside its own: the mean over `steps` steps."""
        most = steps if self.sliding_window is None else self.sliding_window - 1
        growing = min(steps, most + 1)  # steps that attend to 0, 1, ... `most` of them
        return (growing * (growing - 1) / 2 + (steps - growing) * most) / steps if steps else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec(ABC):
    """The dimensions of one model of any family; a family adds those of its own encoders.

    family  name of the package of the model
    pages   the pages that it knows, and how images are cut into them
    """

    family: ClassVar[str]
    pages: ClassVar[PageFormat]

    model_id: str
    model_variant: str
    image_token_id: int
    text: TextSpec

    @property
    @abstractmethod
    def encoder_width(self) -> int:
        """Width of the encoder that runs on the pixels, and of its layer norms."""

    @property
    @abstractmethod
    def head_dims(self) -> tuple[int, ...]:
        """Every width of an attention head, sorted."""

    @classmethod
    @abstractmethod
    def from_dict(cls, loaded: dict[str, Any]) -> ModelSpec:
        """Build from an object that is valid by the schema of the family's presets."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any, kind: ConfigKind, *, model_id: str, model_variant: str) -> ModelSpec:
        """Build from a Hugging Face config that was recognised as the family's `kind`."""

    @classmethod
    def from_preset(cls, name: str) -> ModelSpec:
        """The stored preset `name` of any family. Raises ValueError if unknown or damaged."""
        from analytic.models.registry import load_spec

        return load_spec(name)

    @classmethod
    def from_hf_config(cls, config: Any, *, model_id: str, model_variant: str) -> ModelSpec:
        """Build from a Hugging Face config of any family: transformers', the vendor's config.json, or its object.

        Accepts a mapping or an object with the fields as attributes. Raises ValueError for another model, and for every
        field that is neither in the spec nor known to change no cost.
        """
        from analytic.models.registry import spec_of_config

        return spec_of_config(config, model_id=model_id, model_variant=model_variant)

    def require_window(self, field: str, seq_len: int, *, decoded: int, given: str | None = None) -> None:
        """Raise ValueError unless `seq_len` positions and `decoded` more, those in the cache at the end, fit the window.

        given  what the user gave for the decoded tokens, if that is another number
        """
        window = self.text.max_position_embeddings
        within_window(field, seq_len, decoded=decoded, window=window, model=self.model_variant, given=given)

    def require_image_token(self) -> None:
        """Raise ValueError unless the image's placeholder is in the vocabulary."""
        if not 0 <= self.image_token_id < self.text.vocab_size:
            raise ValueError(f"image_token_id: got {self.image_token_id}, accepted: 0 to {self.text.vocab_size - 1}")


def check_sizes(spec: Any, skip: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless every field of a dataclass, those in `skip` aside, is a whole number of at least 1."""
    for field in fields(spec):
        if field.name not in skip:
            whole(field.name, getattr(spec, field.name))


def divides(field: str, parts: int, whole: int) -> None:
    """Raise ValueError unless `parts` divides `whole`."""
    if whole % parts:
        raise ValueError(f"{field}: got {parts}, accepted: a divisor of {whole}")
