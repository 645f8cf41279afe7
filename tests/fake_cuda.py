"""CUDA without a GPU: the model on fake tensors (`FakeTensorMode`) of device cuda, through transformers' CUDA branches.

Shapes, strides and dtypes are inferred and nothing is computed. Three things stand in for a machine with a GPU: a guard
that lets torch's bindings ask for the current device where torch is built without CUDA, the compute capability of an H100,
and the choice of SDPA's kernel, which torch makes from properties of the GPU. It is the one thing that is not verified so.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from analytic.core.execution import Execution
from analytic.models.registry import load_spec
from fixtures.model import counted_stages
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.model.inputs import PageInputs, page_inputs, token_ids
from fixtures.model.real import build

CAPABILITY: Final = (9, 0)
"""Of an H100."""
DEVICE: Final = torch.device("cuda", 0)
GUARDS: Final = "_ZN3c104impl26device_guard_impl_registryE"
"""`c10::impl::device_guard_impl_registry`, pointers by type of device; CUDA's is null where torch is built without it."""
CUDA_TYPE, META_TYPE = 1, 14
"""Of `c10::DeviceType`; meta's guard does nothing."""
aten = torch.ops.aten


@contextmanager
def cuda_guard() -> Iterator[None]:
    """Let meta's guard, which does nothing, be CUDA's, where torch has none."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META_TYPE + 1)).in_dll(library, GUARDS)
    before = guards[CUDA_TYPE]
    if before is None:
        guards[CUDA_TYPE] = guards[META_TYPE]
    try:
        yield
    finally:
        guards[CUDA_TYPE] = before


class AsOnGpu(TorchFunctionMode):
    """SDPA as one CUDA kernel, as an H100 runs it: flash attention, or with a mask that of cuDNN.

    Also makes an empty tensor on the device at once. Without a GPU, fake tensors make it on the host and dispatch a copy.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is torch.tensor and args == ([],):
            return torch.empty(0, **kwargs)
        return func(*args, **kwargs)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        assert (dropout_p, enable_gqa) == (0.0, False)
        if attn_mask is None:
            kernel = aten._scaled_dot_product_flash_attention
            return kernel(query, key, value, dropout_p, is_causal, scale=scale)[0]
        if attn_mask.dtype is torch.bool:  # as SDPA does before it hands the mask to any kernel
            made = {"dtype": query.dtype, "device": query.device}
            attn_mask = torch.where(attn_mask, torch.scalar_tensor(0.0, **made), torch.scalar_tensor(-math.inf, **made))
        kernel = aten._scaled_dot_product_cudnn_attention
        return kernel(query, key, value, attn_mask, False, dropout_p, is_causal, scale=scale)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeCuda:
    """The mode under which everything is on the GPU that is not there."""

    mode: FakeTensorMode

    def fake(self, tensor: torch.Tensor) -> FakeTensor:
        """A tensor on meta as one on the GPU."""
        return FakeTensor(self.mode, tensor, DEVICE)

    def subject(self, preset: str, *, attention: str, experts: str) -> ModelUnderTest:
        """The model of `preset`, its weights on the GPU."""
        spec = load_spec(preset)
        run = Execution(device="cuda", attention=attention, experts=experts, dtype="bfloat16")  # type: ignore[arg-type]
        model = build(spec, replace(run, device="meta"))
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    made = torch.nn.Parameter(self.fake(parameter.data), requires_grad=False)
                    module._parameters[name] = made
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self.fake(buffer)
        return ModelUnderTest(spec=spec, run=run, model=model)

    def page(self, *args: Any, run: Execution, **given: Any) -> PageInputs:
        """In place of `page_inputs`."""
        made = page_inputs(*args, run=replace(run, device="meta"), **given)
        local = made.pixel_values_local
        return replace(
            made,
            pixel_values=self.fake(made.pixel_values),
            pixel_values_local=None if local is None else self.fake(local),
        )

    def ids(self, *args: Any, run: Execution, **given: Any) -> torch.Tensor:
        """In place of `token_ids`."""
        return self.fake(token_ids(*args, run=replace(run, device="meta"), **given))


Subject = Callable[..., ModelUnderTest]


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    """Subjects on a GPU that is not there; what runs within the test is on fake tensors."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    cuda = FakeCuda(mode=mode)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: CAPABILITY)
    monkeypatch.setattr(counted_stages, "page_inputs", cuda.page)
    monkeypatch.setattr(counted_stages, "token_ids", cuda.ids)
    with cuda_guard(), AsOnGpu():

        def subject(preset: str, attention: str, experts: str) -> ModelUnderTest:
            return cuda.subject(preset, attention=attention, experts=experts)

        with mode:
            yield subject
