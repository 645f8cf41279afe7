"""The whole model: its cost tree by stage, and the stateful root that walks through vision, prefill and decode.

model = DeepseekOCRModel.from_spec(ModelSpec.from_preset("deepseek-ocr-v1-base"))
model.start_vision(workload=VisionWorkload.from_image(1654, 2339))
model.forward_tensor_core_flops()              # the vision stack on this page
cache = model.start_prefill(context_len=1024, batch_size=1)
model.start_decode()
for _ in range(16):
    model.forward_cal_io()                     # one more token on the current cache
    cache = model.decode_one_token()
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Literal

from analytic.core.checks import accept, whole
from analytic.core.cost import BackwardCost, Cost, CostNode
from analytic.core.execution import FULL_SIZE, Execution
from analytic.core.kvcache import SyntheticKVCache
from analytic.core.layer import AnalyticLayer, module
from analytic.core.op import Count
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape
from analytic.models.deepseek_ocr.language_model import Decoder, Logits
from analytic.models.deepseek_ocr.spec import DeepseekOCRSpec
from analytic.models.deepseek_ocr.step_costs import DecodeWindow, prompt_of, scaled
from analytic.models.deepseek_ocr.vision import VisionStack
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.page_vision import PageVision

Mode = Literal["idle", "vision", "prefill", "decode"]
DECODE_WINDOW = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCall:
    """One forward of a page: its stage, the positions in the cache before it, and the cache after it (None for vision)."""

    stage: Mode
    context_len: int
    cache: SyntheticKVCache | None


class DeepseekOCRModel(AnalyticLayer):
    """The stateful root of a model of any family: start a stage, read its cost, advance the cache.

    `operation_mode` is `idle`, `vision`, `prefill` or `decode`. Every `forward_*` and `backward_*` returns the cost of the
    stage started last, and raises RuntimeError before the first one. In `decode` it is the cost of one more token on the
    current cache.
    """

    __slots__ = ("_cache", "_decoder", "_mode", "_multiplier", "_run", "_shape", "_stage_cost", "_vision", "_window")

    def __init__(self, *, vision: PageVision, decoder: Decoder) -> None:
        self._vision = vision
        self._decoder = decoder
        self._run = decoder.run
        self._mode: Mode = "idle"
        self._multiplier = Fraction(1)
        self._cache: SyntheticKVCache | None = None
        self._shape = decoder.shape
        self._stage_cost: Cost | None = None
        self._window: DecodeWindow | None = None

    @classmethod
    def from_spec(cls, spec: DeepseekOCRSpec, *, run: Execution = FULL_SIZE, logits: Logits = "last") -> DeepseekOCRModel:
        """Build a DeepSeek-OCR of `spec` for `run`; `logits` of the `last` position or of `all`."""
        accept("logits", logits, ("last", "all"))
        shape = spec.text.call_shape(batch=1, new_tokens=1, past_tokens=0, prompt_tokens=1)
        return cls.from_layers(
            VisionStack(spec=spec, workload=spec.pages.gundam(None), batch=1, run=run),
            Decoder(spec=spec.text, shape=shape, logits=logits, run=run),
        )

    @classmethod
    def from_layers(cls, vision: PageVision, decoder: Decoder) -> DeepseekOCRModel:
        """Build from prepared layers; starting a stage replaces their shapes. Raises ValueError if they do not match."""
        width = vision.spec.text.hidden_size
        if width != decoder.spec.hidden_size:
            raise ValueError(
                f"vision: got a projector to width {width}, accepted: {decoder.spec.hidden_size}, the decoder's"
            )
        if vision.run != decoder.run:
            raise ValueError(f"vision: got {vision.run}, accepted: the decoder's {decoder.run}")
        return cls(vision=vision, decoder=decoder)

    @property
    def operation_mode(self) -> Mode:
        """The stage started last."""
        return self._mode

    @property
    def kv_cache(self) -> SyntheticKVCache | None:
        """The current cache; None before the first prefill."""
        return self._cache

    def start_vision(
        self, workload: VisionWorkload | None = None, *, batch_size: int = 1, num_views: int | None = None
    ) -> None:
        """Start vision on `batch_size` pages, each with the views of `workload` or with `num_views` global views.

        Raises ValueError for a count below one, or if both `num_views` and `workload` are given.
        """
        whole("batch_size", batch_size)
        if num_views is not None and workload is not None:
            raise ValueError(f"num_views: got {num_views} beside a workload, accepted: one of the two")
        views = 1 if num_views is None else num_views
        whole("num_views", views)
        if workload is None:
            whole_page = self._vision.spec.pages.gundam(None)
            self._vision = replace(self._vision, workload=whole_page, batch=batch_size * views)
        else:
            self._vision = replace(self._vision, workload=workload, batch=batch_size)
        self._enter("vision")

    def set_vision_workload_multiplier(self, multiplier: float) -> None:
        """Scale vision FLOPs, traffic and activations by a positive number, until set again.

        Weights and launches stay the same: the same operators on more data. Raises ValueError unless positive and finite.
        """
        if not isinstance(multiplier, int | float | Fraction) or multiplier is True or not 0 < multiplier < float("inf"):
            raise ValueError(f"multiplier: got {multiplier!r}, accepted: a positive number")
        self._multiplier = Fraction(multiplier)
        self._stage_cost = None

    def start_prefill(
        self,
        context_len: int,
        batch_size: int,
        kv_cache: SyntheticKVCache | None = None,
        *,
        capacity: int | None = None,
    ) -> SyntheticKVCache:
        """Start a prefill of `context_len` positions in each of `batch_size` sequences; returns the resulting cache.

        With a `kv_cache` the positions extend it (chunked prefill); with a `capacity` they fill a new static cache of that
        many positions. Raises ValueError for counts below one or beyond the capacity, and for a cache of another batch size
        or model.
        """
        whole("context_len", context_len)
        whole("batch_size", batch_size)
        if kv_cache is not None:
            if capacity is not None:
                raise ValueError(f"capacity: got {capacity} beside a kv_cache, which has its own; accepted: one of the two")
            self._check_cache(kv_cache, batch_size)
            capacity = kv_cache.capacity
        past = 0 if kv_cache is None else kv_cache.length
        length = past + context_len
        self._shape = self._decoder.spec.call_shape(
            batch=batch_size, new_tokens=context_len, past_tokens=past, prompt_tokens=length, capacity=capacity
        )
        self._cache = self._new_cache(batch_size, length, capacity, prompt_length=length)
        self._enter("prefill")
        return self._cache

    def cache_after(
        self, prompt_len: int, *, decoded: int, batch_size: int, capacity: int | None = None
    ) -> SyntheticKVCache:
        """The cache of a batch after a prefill of `prompt_len` positions and `decoded` tokens; starts nothing."""
        return self._new_cache(batch_size, prompt_len + decoded, capacity, prompt_length=prompt_len)

    def start_decode(self, kv_cache: SyntheticKVCache | None = None) -> SyntheticKVCache:
        """Start decoding on the cache of the last prefill, or on `kv_cache`; returns it.

        Raises RuntimeError if there is neither, ValueError for a cache of another model.
        """
        if kv_cache is not None:
            self._check_cache(kv_cache, kv_cache.batch_size)
            self._cache = kv_cache
        if self._cache is None:
            raise RuntimeError("start_decode: there is no KV cache; call start_prefill first or pass kv_cache")
        self._enter("decode")
        return self._cache

    def decode_one_token(self) -> SyntheticKVCache:
        """Advance every sequence by one token; returns the new cache. Raises RuntimeError outside `decode`."""
        if self._mode != "decode" or self._cache is None:
            raise RuntimeError(f"decode_one_token: the mode is {self._mode!r}; call start_decode first")
        self._cache = self._cache.extended(1)
        self._stage_cost = None
        return self._cache

    def walk(
        self, page: VisionWorkload | None, *, seq_len: int, batch_size: int, decode_steps: int, capacity: int | None = None
    ) -> Iterator[PageCall]:
        """The forwards of a page in order: vision (if there is a page), prefill, then `decode_steps` tokens.

        The model is in the stage of a call while it is the current item: `forward_cost` and `tree` are those of the call.
        """
        if page is not None:
            self.start_vision(page, batch_size=batch_size)
            yield PageCall(stage="vision", context_len=0, cache=None)
        cache = self.start_prefill(seq_len, batch_size, capacity=capacity)
        yield PageCall(stage="prefill", context_len=0, cache=cache)
        yield from self.walk_decode(decode_steps)

    def walk_decode(self, steps: int) -> Iterator[PageCall]:
        """`steps` decoded tokens on the current cache, as `walk` yields them."""
        before = self.start_decode()
        for _ in range(steps):
            yield PageCall(stage="decode", context_len=before.length, cache=before.extended(1))
            before = self.decode_one_token()

    def tree(self, name: str = "") -> CostNode:
        """The cost tree of the current stage, with the module paths of the real model below `name`.

        It excludes the vision multiplier. Raises RuntimeError before the first stage.
        """
        if self._mode == "idle":
            raise RuntimeError("no stage was started; call start_vision, start_prefill or start_decode first")
        if self._mode == "vision":
            return module(name, "DeepseekOCRModel", children=(self._vision.tree("model"),))
        if self._mode == "decode":
            return replace(self._decoder, shape=self._step_shape()).tree(name)
        return replace(self._decoder, shape=self._shape).tree(name)

    def forward_cost(self) -> Cost:
        """All quantities of the current stage."""
        if self._stage_cost is None:
            if self._mode == "decode":
                self._stage_cost = self._decode_cost()
            elif self._mode == "prefill":
                self._stage_cost = replace(self._decoder, shape=self._shape).forward_cost()
            else:
                self._stage_cost = scaled(self.tree().total(), self._multiplier)
        return self._stage_cost

    def backward_cost(self) -> BackwardCost:
        """The gradients of the current stage; those of vision are scaled like its forward."""
        cost = self.tree().backward()
        if self._mode != "vision":
            return cost
        return BackwardCost(**{field.name: int(getattr(cost, field.name) * self._multiplier) for field in fields(cost)})

    def mean_decoded(self, steps: int) -> float:
        """Decoded positions that a step attends to beside its own: the mean over `steps` steps."""
        return self._decoder.spec.mean_decoded(steps)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters, in every stage; `forward_memory_weight` has those of the current stage alone."""
        vision = module("", "DeepseekOCRModel", children=(self._vision.tree("model"),))
        return int(vision.total().weight_bytes) + int(self._decoder.forward_cost().weight_bytes)

    def forward_memory_kvcache(self) -> Count:
        """Bytes of the current cache, 0 before the first prefill; in `decode` before the token that the costs are for.

        `forward_cost().kv_bytes` is the cache after that token.
        """
        return 0 if self._cache is None else self._cache.kv_bytes

    def _enter(self, mode: Mode) -> None:
        self._mode = mode
        self._stage_cost = None

    def _step_shape(self) -> DecoderShape:
        assert self._cache is not None  # the decode mode is entered with a cache only
        cache = self._cache
        return self._decoder.spec.call_shape(
            batch=cache.batch_size,
            new_tokens=1,
            past_tokens=cache.length,
            prompt_tokens=prompt_of(cache),
            capacity=cache.capacity,
        )

    def _decode_cost(self) -> Cost:
        """The cost of the next token, from a window of steps evaluated in one vectorised call."""
        assert self._cache is not None  # the decode mode is entered with a cache only
        cost = None if self._window is None else self._window.cost(self._cache)
        if cost is None:
            self._window = DecodeWindow.of(self._decoder, self._cache, steps=DECODE_WINDOW)
            cost = self._window.cost(self._cache)
        assert cost is not None  # the first step of its window
        return cost

    def _new_cache(self, batch_size: int, length: int, capacity: int | None, *, prompt_length: int) -> SyntheticKVCache:
        return self._decoder.spec.cache(
            dtype_bytes=self._run.dtype_bytes,
            batch_size=batch_size,
            length=length,
            prompt_length=prompt_length,
            capacity=capacity,
        )

    def _check_cache(self, cache: SyntheticKVCache, batch_size: int) -> None:
        fitting = self._new_cache(batch_size, cache.length, cache.capacity, prompt_length=prompt_of(cache))
        if cache != fitting:
            raise ValueError(f"kv_cache: got {cache}, accepted: {fitting}")
