"""How fast a device has to be: hand arithmetic, what must hold whatever is asked, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.core.execution import FULL_SIZE
from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS, CropGrid
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import MODES, VisionWorkload, gundam
from analytic.models.spec import ModelSpec
from analytic.planning.demand import DEMAND, ServingDemand, devices_with, lines, serving_demand, spread_rows, spreads
from tests.samples import BY_HAND

PAGE = gundam(CropGrid.parse("2x3"))
TINY = ModelSpec.from_preset("tiny")


def demand(spec: ModelSpec, *, seq_lens: Sequence[int], pages: Sequence[VisionWorkload], **asked: Any) -> ServingDemand:
    run = replace(FULL_SIZE, framework=BY_HAND)
    return serving_demand(spec, run, seq_lens=seq_lens, pages=pages, **{"batch_size": 1, "decode_steps": 16, **asked})


def test_rates_are_work_over_time(full_spec: ModelSpec) -> None:
    found = demand(full_spec, seq_lens=[1024], pages=[PAGE], first_token_s=[0.5], token_s=[0.02])
    # vision of 7 views and prefill of 1024 positions, as `python -m analytic cost` has them
    (first,), (further,) = found.first_token, found.further_token
    assert first.executed_flops == 3_468_866_060_288 + 901_603_000_320
    assert first.targets[0].flops_per_s == 2 * first.executed_flops
    assert first.targets[0].bytes_per_s == 2 * (2_932_091_904 + 5_732_767_232)
    # the sixteenth token sees the 1024 positions and the fifteen tokens before it
    root = DeepseekOCRModel.from_spec(full_spec, run=replace(FULL_SIZE, framework=BY_HAND))
    root.start_decode(root.start_prefill(1039, 1))
    assert further.context_len == 1039
    assert further.targets[0].flops_per_s == pytest.approx(50 * root.forward_tensor_core_flops())
    assert further.targets[0].bytes_per_s == pytest.approx(50 * root.forward_cost().fused_bytes)


def test_devices_have_both_rates_on_their_datasheet() -> None:
    # with bfloat16 only the B200 has more than 1e15 FLOP/s and 5.5e12 bytes/s; the MI300X has 5.3e12
    assert devices_with(1e15, 5.5e12, "bfloat16") == ("b200",)
    assert "mi300x" in devices_with(1e15, 5e12, "bfloat16")
    assert "h200" not in devices_with(1e15, 1e12, "bfloat16")  # 989.4e12
    assert not {"t4", "v100-32gb"} & set(devices_with(0, 0, "bfloat16"))  # no unit for it
    assert devices_with(1e18, 1, "bfloat16") == ()


def test_pages_that_do_not_fit_are_left_out_by_name(full_spec: ModelSpec) -> None:
    found = demand(full_spec, seq_lens=[273, 274, 904], pages=[MODES["base"], PAGE])
    assert [(one.seq_len, one.page.label) for one in found.first_token if one.page] == [
        (274, "base"),
        (904, "base"),
        (904, "gundam-2x3"),
    ]
    assert found.left_out == ((273, "base", 274), (273, "gundam-2x3", 904), (274, "gundam-2x3", 904))
    assert [one.seq_len for one in found.further_token] == [273, 274, 904]


def test_spreads_cover_all_points(full_spec: ModelSpec) -> None:
    found = demand(full_spec, seq_lens=[1024, 2048], pages=[MODES["base"], PAGE])
    for number, one in enumerate(spreads(found.first_token)):
        rates = [answer.targets[number] for answer in found.first_token]
        assert one.flops_per_s == (min(r.flops_per_s for r in rates), max(r.flops_per_s for r in rates))
        assert set(one.devices) == set.intersection(*(set(r.devices) for r in rates))


def test_the_table_says_which_devices_are_too_slow(full_spec: ModelSpec) -> None:
    found = demand(
        full_spec, seq_lens=[4096], pages=[gundam(CropGrid.parse("3x3"))], first_token_s=[0.1, 1e-4], token_s=[1]
    )
    # (4633.3 + 4378.5) GFLOP in a tenth of a second
    text = "\n".join(lines(found))
    assert "0.1 s" in text
    assert "90.1" in text
    assert "15 of 16, not rtx-3090" in text
    assert "none of 16" in text


@settings(max_examples=25)
@given(
    seq_len=st.integers(1024, 4096),
    more=st.integers(1, 512),
    grids=st.lists(st.sampled_from(ALL_GRIDS), min_size=2, max_size=2, unique=True),
    times=st.lists(st.floats(1e-3, 10), min_size=2, max_size=2, unique=True),
    batch=st.integers(1, 4),
)
def test_less_time_more_positions_more_views_and_more_pages_ask_for_more(
    seq_len: int, more: int, grids: list[CropGrid], times: list[float], batch: int
) -> None:
    pages = sorted((gundam(grid) for grid in grids), key=lambda page: page.num_views)
    lengths = [seq_len + 512, seq_len + 512 + more]  # 1536: the largest page fits
    found = demand(
        TINY, seq_lens=lengths, pages=pages, first_token_s=sorted(times), token_s=sorted(times), batch_size=batch
    )
    assert found.left_out == ()
    DEMAND.check(found.as_json(), where="the demand")
    for answer in (*found.first_token, *found.further_token):
        fast, slow = answer.targets
        for rates in answer.targets:
            assert rates.flops_per_s * rates.time_s == pytest.approx(answer.executed_flops)
            assert rates.bytes_per_s * rates.time_s == pytest.approx(answer.fused_bytes)
        assert fast.flops_per_s > slow.flops_per_s
        assert fast.bytes_per_s > slow.bytes_per_s
        assert set(fast.devices) <= set(slow.devices)
    by_point = {(one.seq_len, one.page): one for one in found.first_token}
    for page in pages:
        assert by_point[lengths[0], page].executed_flops < by_point[lengths[1], page].executed_flops
    few, many = (by_point[lengths[0], page] for page in pages)
    assert (few.executed_flops < many.executed_flops) == (pages[0].num_views < pages[1].num_views)
    one_more = demand(TINY, seq_lens=lengths, pages=pages, batch_size=batch + 1)
    for left, right in zip(found.further_token, one_more.further_token, strict=True):
        assert left.executed_flops < right.executed_flops
        assert left.context_len == right.context_len


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"first_token_s": [0.1, 0.0]}, "first_token_s: got 0.0, accepted: seconds above zero"),
        ({"token_s": [float("nan")]}, "token_s: got nan, accepted: seconds above zero"),
        ({"token_s": [float("inf")]}, "token_s: got inf"),
        ({"first_token_s": [1e-320]}, "first_token_s: got 1e-320, accepted: seconds above zero, from 1e-09 to "),
        ({"token_s": [1e308]}, r"token_s: got 1e\+308, accepted: seconds above zero"),
        ({"first_token_s": []}, "first_token_s: got none"),
        ({"decode_steps": 0}, "decode_steps: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"seq_lens": [0]}, "seq_lens: got 0"),
        ({"seq_lens": []}, "seq_lens: got none"),
    ],
)
def test_what_can_not_be_asked_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        demand(TINY, **{"seq_lens": [512], "pages": [MODES["base"]], **asked})


def test_a_dtype_without_a_unit_leaves_devices_out(full_spec: ModelSpec) -> None:
    half = serving_demand(
        full_spec,
        replace(FULL_SIZE, dtype="float16"),
        seq_lens=[64],
        pages=[],
        batch_size=1,
        decode_steps=1,
        token_s=[10.0],
    )
    assert {"t4", "v100-32gb"} <= set(half.further_token[0].targets[0].devices)
    assert half.first_token == ()
    DEMAND.check(half.as_json(), where="the demand")


def test_where_all_devices_reach_a_rate_the_one_with_the_least_headroom_is_named() -> None:
    spec = ModelSpec.from_preset("deepseek-ocr-v1-base")
    found = serving_demand(spec, FULL_SIZE, seq_lens=[1024], pages=[], batch_size=1, decode_steps=16, token_s=[0.05])
    (row,) = spread_rows(found.further_token, "bfloat16")[1:]
    (answer,) = found.further_token
    # an L4 has the least bandwidth of all, 300 GB/s
    assert row[3] == f"all 16, l4 with {300e9 / (answer.fused_bytes / 0.05):,.1f}x as much"
