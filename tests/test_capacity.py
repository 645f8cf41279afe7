"""What fits in memory: the answer is the largest that fits, and it is made of the closed form's parts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.__main__ import main
from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import gundam
from analytic.models.spec import ModelSpec
from analytic.planning.capacity import Demand, MixMemory, PageMemory, capacity
from analytic.planning.mix import Mix
from tests.samples import BY_HAND

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
RUN = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16", framework=BY_HAND)
PAGE = gundam(CropGrid.parse("2x3"))


@given(memory_gb=st.integers(8, 200), new_tokens=st.integers(1, 2000))
@settings(max_examples=15)
def test_the_answer_fits_and_one_page_more_does_not(memory_gb: int, new_tokens: int) -> None:
    found = capacity(SPEC, RUN, memory_bytes=memory_gb * 10**9, seq_len=1024, new_tokens=new_tokens, page=PAGE)
    memory = PageMemory(SPEC, RUN, seq_len=1024, new_tokens=new_tokens, page=PAGE)
    assert memory.of_batch(found.batch_size).total_bytes <= found.memory_bytes if found.batch_size else True
    assert memory.of_batch(found.batch_size + 1).total_bytes > found.memory_bytes
    assert memory.in_flight(found.pages_in_flight + 1).total_bytes > found.memory_bytes
    assert found.pages_in_flight >= found.batch_size


def test_a_page_is_weights_cache_and_the_largest_stage() -> None:
    # 3,335,504,128 parameters and a cache of 1024 + 511 positions, 12 layers, K and V of 1280, all bfloat16
    demand = PageMemory(SPEC, RUN, seq_len=1024, new_tokens=512, page=PAGE).of_batch(1)
    assert demand.weight_bytes == 2 * 3_335_504_128
    assert demand.kv_bytes == 1535 * 12 * 2 * 1280 * 2
    assert demand.total_bytes == demand.weight_bytes + demand.kv_bytes + demand.activation_bytes


def test_nothing_fits_beside_the_weights() -> None:
    found = capacity(SPEC, RUN, memory_bytes=6 * 10**9, seq_len=1024, new_tokens=8, page=PAGE)
    assert (found.batch_size, found.pages_in_flight, found.batch, found.in_flight) == (0, 0, None, None)
    assert isinstance(found.one_page, Demand)


def test_a_mix_takes_its_mean_cache_and_its_largest_activations() -> None:
    mix = Mix.parsed(["2x3=0.75", "base=0.25"], seq_len=None, prompt_tokens=16, new_tokens=512)
    found = MixMemory(SPEC, RUN, mix).in_flight(100)
    # a cache of 100 pages: 12 layers, K and V of 1280, bfloat16, 920 + 511 and 290 + 511 positions
    assert found.kv_bytes == 100 * 12 * 2 * 1280 * 2 * (0.75 * 1431 + 0.25 * 801)
    alone = [PageMemory(SPEC, RUN, seq_len=one.seq_len, new_tokens=512, page=one.page).in_flight(100) for one in mix.pages]
    assert found.activation_bytes == max(one.activation_bytes for one in alone)
    assert found.weight_bytes == alone[0].weight_bytes


def test_as_many_pages_of_a_mix_fit_as_leave_no_room_for_one_more() -> None:
    mix = Mix.parsed(["3x3=0.5", "tiny=0.5"], seq_len=None, prompt_tokens=16, new_tokens=100)
    memory = MixMemory(SPEC, RUN, mix)
    most = memory.most_in_flight(24 * 10**9)
    assert memory.in_flight(most).total_bytes <= 24 * 10**9 < memory.in_flight(most + 1).total_bytes
    assert memory.most_in_flight(6 * 10**9) == 0


def test_the_command_says_it_in_a_table_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["capacity", "--on", "h200", "--crop-grid", "2x3"]
    assert main(arguments) == 0
    assert "deepseek-ocr-v1-base in 141 GB (h200), bfloat16; a page: gundam-2x3" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    exact = capacity(SPEC, RUN, memory_bytes=141 * 10**9, seq_len=920, new_tokens=512, page=PAGE)
    (page,) = found["pages"]
    assert page["largest_batch"]["pages"] == exact.batch_size
    assert page["in_flight"]["pages"] == found["mix"]["in_flight"]["pages"] == exact.pages_in_flight
    assert main(["capacity", "--memory-gb", "5"]) == 0
    assert capsys.readouterr().out.count(" -") >= 8
