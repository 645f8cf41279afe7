"""Floor, MFU and MBU by hand, and the direction in which the context length moves them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic.core.cost import Cost
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.spec import ModelSpec
from analytic.prediction.roofline import Ceilings, TimedCost, decode_context_len, floor_s, mbu, mfu

COST = Cost(
    launches=100,
    executed_flops=4_000,
    useful_flops=3_000,
    counter_flops=4_000,
    cuda_core_flops=10,
    eager_bytes=900,
    fused_bytes=600,
    weight_bytes=500,
    touched_weight_bytes=400,
    activation_bytes=50,
    kv_bytes=30,
)


def test_by_hand() -> None:
    # 4000 FLOPs in 2 s of a device of 4000 FLOP/s: 0.5; 3000 useful: 0.375; 600 bytes in 2 s of 1000 B/s: 0.3
    timed = TimedCost(cost=COST, time_s=2.0)
    assert mfu([timed], 4_000, convention="executed") == 0.5
    assert mfu([timed], 4_000, convention="useful") == 0.375
    assert mbu([timed], 1_000) == 0.3
    # the floor: max(4000 / 4000, 600 / 300) = 2 s, bound by memory
    assert floor_s(COST, Ceilings(flops_per_s=4_000, bytes_per_s=300)) == 2.0
    assert floor_s(COST, Ceilings(flops_per_s=4_000, bytes_per_s=6_000)) == 1.0


def test_several_stages_are_weighted_by_work_over_summed_time() -> None:
    # (4000 + 2000) FLOPs in (1 + 3) s of 3000 FLOP/s: 0.5, not the mean of 4/3 and 2/9
    stages = [TimedCost(cost=COST, time_s=1.0), TimedCost(cost=replace(COST, executed_flops=2_000), time_s=3.0)]
    assert mfu(stages, 3_000, convention="executed") == 0.5


def test_an_unknown_ceiling_gives_none() -> None:
    timed = TimedCost(cost=COST, time_s=2.0)
    assert mfu([timed], None, convention="executed") is None
    assert mbu([timed], None) is None
    assert floor_s(COST, Ceilings(flops_per_s=None, bytes_per_s=None)) is None
    assert floor_s(COST, Ceilings(flops_per_s=None, bytes_per_s=300)) == 2.0


def test_no_time_is_refused() -> None:
    for time_s in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"time_s: got .*accepted: seconds above zero"):
            TimedCost(cost=COST, time_s=time_s)


def test_context_length_by_mode() -> None:
    assert decode_context_len("auto", prefill_len=1024, new_tokens=512, window=8192) == 1280
    assert decode_context_len("fixed", prefill_len=1024, new_tokens=512, window=8192, fixed=2000) == 2000
    assert decode_context_len("max", prefill_len=1024, new_tokens=512, window=8192) == 8192


@pytest.mark.parametrize(
    ("mode", "fixed", "message"),
    [
        ("fixed", None, r"context_len_fixed: got None with context_len_mode 'fixed', accepted: a length"),
        ("auto", 5, r"context_len_fixed: got 5 with context_len_mode 'auto', accepted: no context_len_fixed"),
        ("longest", None, r"context_len_mode: got 'longest', accepted: auto, fixed, max"),
        ("fixed", 0, r"context_len_fixed: got 0, accepted: a whole number of at least 1"),
    ],
)
def test_modes_that_contradict_are_refused(mode: str, fixed: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_context_len(mode, prefill_len=8, new_tokens=8, window=64, fixed=fixed)


@given(prefill=st.integers(1, 4000), new=st.integers(1, 1000), fixed=st.integers(1, 8192))
def test_mfu_grows_with_the_context_it_assumes(prefill: int, new: int, fixed: int) -> None:
    """The same time and more FLOPs: max is at least auto and fixed, the other way round than the notes have it."""
    model = DeepseekOCRModel.from_spec(ModelSpec.from_preset("deepseek-ocr-v1-base"))

    def decode_mfu(mode: str, length: int | None = None) -> float:
        context = decode_context_len(mode, prefill_len=prefill, new_tokens=new, window=8192, fixed=length)
        model.start_decode(kv_cache=model.start_prefill(context, 1))
        found = mfu([TimedCost(cost=model.forward_cost(), time_s=0.01)], 1e15, convention="executed")
        assert found is not None
        return found

    longest = decode_mfu("max")
    assert longest >= decode_mfu("auto")
    assert longest >= decode_mfu("fixed", fixed)
    assert (decode_mfu("auto") >= decode_mfu("fixed", fixed)) == (prefill + new // 2 >= fixed)
