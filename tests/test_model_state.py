"""The stateful root: its modes, its cache, and the laws its costs obey."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.core.cost import Cost, CostNode
from analytic.core.execution import FULL_SIZE, Execution
from analytic.core.kvcache import SyntheticKVCache
from analytic.models.deepseek_ocr.crop_rule import ALL_GRIDS, CropGrid
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, refuse_overflow
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.step_costs import DecodeWindow, scaled
from analytic.models.deepseek_ocr.vision import VisionStack
from analytic.models.deepseek_ocr.workload import MODES, gundam
from analytic.models.spec import ModelSpec
from tests.samples import BY_HAND, COST

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
TINY = ModelSpec.from_preset("tiny")
SUMMED = (
    "launches",
    "executed_flops",
    "useful_flops",
    "counter_flops",
    "cuda_core_flops",
    "eager_bytes",
    "fused_bytes",
    "kv_bytes",
)
SIZES = st.integers(1, 5000)
RUNS = st.builds(
    Execution,
    device=st.sampled_from(["meta", "cpu", "cuda"]),
    attention=st.sampled_from(["sdpa", "eager"]),
    experts=st.sampled_from(["grouped_mm", "batched_mm"]),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
)


def root(spec: ModelSpec = SPEC, run: Execution = FULL_SIZE) -> DeepseekOCRModel:
    return DeepseekOCRModel.from_spec(spec, run=run)


def test_modes_follow_the_calls() -> None:
    model = root()
    assert model.operation_mode == "idle"
    model.start_vision(batch_size=2, num_views=7)
    assert model.operation_mode == "vision"
    cache = model.start_prefill(context_len=100, batch_size=2)
    assert (model.operation_mode, cache.length, cache.batch_size) == ("prefill", 100, 2)
    assert model.start_decode() == cache
    assert model.operation_mode == "decode"
    assert model.decode_one_token().length == 101


def test_a_model_has_no_cache_before_its_first_prefill() -> None:
    fresh = root()
    assert fresh.forward_memory_kvcache() == 0
    fresh.start_vision()
    assert fresh.forward_memory_kvcache() == 0


def test_calls_out_of_order_raise() -> None:
    model = root()
    with pytest.raises(RuntimeError, match="no stage was started"):
        model.forward_tensor_core_flops()
    with pytest.raises(RuntimeError, match="call start_prefill first or pass kv_cache"):
        model.start_decode()
    with pytest.raises(RuntimeError, match="the mode is 'idle'; call start_decode first"):
        model.decode_one_token()
    model.start_prefill(8, 1)
    with pytest.raises(RuntimeError, match="the mode is 'prefill'"):
        model.decode_one_token()


@pytest.mark.parametrize(
    ("context_len", "batch_size"), [(0, 1), (-1, 1), (8, 0), (2.5, 1), ("8", 1), (1 << 40, 1), (True, 1)]
)
def test_counts_below_one_are_refused_and_change_nothing(context_len: object, batch_size: object) -> None:
    model = root()
    before = model.start_prefill(4, 1)
    with pytest.raises(ValueError, match=r"(context_len|batch_size): got .*, accepted: a whole number of at least 1"):
        model.start_prefill(context_len, batch_size)
    assert (model.operation_mode, model.kv_cache) == ("prefill", before)


def test_vision_arguments_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match="num_views: got 3 beside a workload"):
        root().start_vision(num_views=3, workload=MODES["base"])
    with pytest.raises(ValueError, match="num_views: got 0"):
        root().start_vision(num_views=0)


@pytest.mark.parametrize("multiplier", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_multipliers_that_are_none_are_refused(multiplier: float) -> None:
    with pytest.raises(ValueError, match=r"multiplier: got .*accepted: a positive number"):
        root().set_vision_workload_multiplier(multiplier)


def test_the_multiplier_scales_work_but_not_weights() -> None:
    model = root()
    model.start_vision()
    once = model.forward_cost()
    model.set_vision_workload_multiplier(7.0)
    seven = model.forward_cost()
    assert seven.executed_flops == 7 * once.executed_flops
    assert model.forward_cal_io() == 7 * once.eager_bytes
    assert (model.forward_memory_weight(), seven.launches) == (once.weight_bytes, once.launches)
    assert model.backward_tensor_core_flops() == 7 * _vision().backward_tensor_core_flops()
    assert model.backward_cal_io() == 7 * _vision().backward_cal_io()
    model.start_prefill(16, 1)
    assert model.forward_cost() == _prefill(16)


def _vision() -> DeepseekOCRModel:
    model = root()
    model.start_vision()
    return model


def test_weights_of_the_whole_model_need_no_stage() -> None:
    model = DeepseekOCRModel.from_spec(SPEC, run=replace(FULL_SIZE, framework=BY_HAND))
    assert model.weight_bytes == 2 * 3_335_504_128


def test_a_page_can_be_given_by_itself() -> None:
    model = root()
    model.start_vision(MODES["base"])
    assert model.forward_cost() == _vision().forward_cost()


@pytest.mark.parametrize("change", [{"length": -5}, {"length": 2.5}, {"batch_size": 0}])
def test_a_cache_that_can_not_be_is_refused(change: dict[str, object]) -> None:
    cache = root().start_prefill(8, 1)
    with pytest.raises(ValueError, match=r"(length|batch_size): got .*accepted: a whole number"):
        replace(cache, **change)


def test_arrays_whose_counts_would_overflow_are_refused() -> None:
    decoder = Decoder(
        spec=SPEC.text, shape=DecoderShape(batch=1, new_tokens=1, past_tokens=0), logits="last", run=FULL_SIZE
    )
    with pytest.raises(ValueError, match="fit 64 bits"):
        replace(decoder, shape=DecoderShape(batch=1, new_tokens=np.array([1 << 31]), past_tokens=0)).forward_cost()
    with pytest.raises(ValueError, match="got an array of int32, accepted: int64"):
        DecoderShape(batch=1, new_tokens=np.array([1], dtype=np.int32), past_tokens=0)


def test_counts_that_just_fit_64_bits_are_taken() -> None:
    """16 bytes of each parameter, and 4 FLOPs a feature and 128 bytes of the only pair in each head and layer."""
    text = SPEC.text
    experts = text.n_routed_experts * text.moe_intermediate_size + text.intermediate_size
    parameters = text.num_layers * text.hidden_size * (4 * text.hidden_size + 3 * experts)
    parameters += 2 * text.hidden_size * text.vocab_size
    one = 16 * parameters + text.num_layers * text.num_heads * (4 * text.head_dim + 128)
    most = ((1 << 63) - 1) // one

    def of(batch: int) -> DecoderShape:
        return DecoderShape(batch=np.array([batch]), new_tokens=1, past_tokens=0)

    refuse_overflow(text, of(most))
    with pytest.raises(ValueError, match="fit 64 bits"):
        refuse_overflow(text, of(most + 1))


def _prefill(length: int) -> object:
    model = root()
    model.start_prefill(length, 1)
    return model.forward_cost()


def test_views_of_a_page_may_differ_in_size() -> None:
    model, page = root(), gundam(ALL_GRIDS[5])
    model.start_vision(workload=page)
    together = model.forward_tensor_core_flops()
    model.start_vision(workload=MODES["base"])
    whole = model.forward_tensor_core_flops()
    model.start_vision(batch_size=page.grid.tiles, workload=MODES["small"])
    assert together == whole + model.forward_tensor_core_flops()


def test_a_prefill_in_chunks_does_the_work_of_one() -> None:
    model = root()
    model.start_prefill(300, 2)
    whole, useful = model.forward_cost().executed_flops, model.forward_cost().useful_flops
    cache = model.start_prefill(100, 2)
    first = model.forward_cost()
    longer = model.start_prefill(200, 2, kv_cache=cache)
    second = model.forward_cost()
    head = 2 * 2 * 1280 * 129280  # the logits of one position in two sequences, done twice in chunks
    skipped = 12 * 2 * 4 * 100 * 200 * 1280  # the first chunk never meets the second
    assert first.executed_flops + second.executed_flops == whole + head - skipped
    assert first.useful_flops + second.useful_flops == useful + head
    assert (longer.length, longer.kv_bytes) == (300, second.kv_bytes)


def test_a_cache_of_another_model_or_batch_is_refused() -> None:
    other = root(TINY).start_prefill(8, 1)
    with pytest.raises(ValueError, match="kv_cache: got SyntheticKVCache"):
        root().start_decode(kv_cache=other)
    with pytest.raises(ValueError, match="kv_cache: got SyntheticKVCache"):
        root().start_prefill(8, 2, kv_cache=root().start_prefill(8, 1))


def test_layers_of_two_models_are_refused() -> None:
    shape = DecoderShape(batch=1, new_tokens=1, past_tokens=0)
    decoder = Decoder(spec=SPEC.text, shape=shape, logits="last", run=FULL_SIZE)
    tiny = VisionStack(spec=TINY, workload=MODES["base"], batch=1, run=FULL_SIZE)
    with pytest.raises(ValueError, match="a projector to width 64, accepted: 1280"):
        DeepseekOCRModel.from_layers(tiny, decoder)
    other = VisionStack(spec=SPEC, workload=MODES["base"], batch=1, run=replace(FULL_SIZE, attention="eager"))
    with pytest.raises(ValueError, match="accepted: the decoder's"):
        DeepseekOCRModel.from_layers(other, decoder)


@given(length=SIZES, batch=st.integers(1, 8), steps=st.integers(1, 70))
@settings(max_examples=30)
def test_the_cache_grows_by_one_token_a_step(length: int, batch: int, steps: int) -> None:
    model = root()
    cache = model.start_prefill(length, batch)
    per_token = 2 * 12 * 10 * 128 * 2 * batch  # K and V, 12 layers, 10 heads of 128, bf16
    model.start_decode()
    for step in range(1, steps + 1):
        previous, cache = cache, model.decode_one_token()
        assert cache.kv_bytes - previous.kv_bytes == per_token == cache.bytes_per_token * batch
        assert model.forward_memory_kvcache() == cache.kv_bytes == (length + step) * per_token


@given(length=SIZES, more=st.integers(1, 500))
@settings(max_examples=40)
def test_work_rises_with_the_sequence(length: int, more: int) -> None:
    model = root()

    def prefill_and_decode(tokens: int) -> list[int]:
        model.start_prefill(tokens, 1)
        prefill = model.forward_cost()
        model.start_decode()
        decode = model.forward_cost()
        return [
            int(value)
            for cost in (prefill, decode)
            for value in (cost.executed_flops, cost.useful_flops, cost.eager_bytes, cost.fused_bytes)
        ]

    short, long = prefill_and_decode(length), prefill_and_decode(length + more)
    assert all(small < large for small, large in zip(short, long, strict=True))


@given(run=RUNS, length=SIZES, past=st.integers(0, 3000), batch=st.integers(1, 4))
@settings(max_examples=40)
def test_children_sum_to_their_parent(run: Execution, length: int, past: int, batch: int) -> None:
    shape = DecoderShape(batch=batch, new_tokens=length, past_tokens=past)
    check_sums(Decoder(spec=SPEC.text, shape=shape, logits="all", run=run).tree(""))


@pytest.mark.parametrize("page", [MODES["tiny"], gundam(ALL_GRIDS[8])], ids=["tiny", "gundam"])
def test_children_sum_to_their_parent_in_vision(page: object) -> None:
    check_sums(VisionStack(spec=SPEC, workload=page, batch=2, run=FULL_SIZE).tree("model"))


def check_sums(node: CostNode) -> None:
    own = replace(node, children=(), copies=()).total()
    total = node.total()
    for name in (*SUMMED, "weight_bytes", "touched_weight_bytes"):
        below = sum(getattr(child.total(), name) for child in node.children)
        assert getattr(total, name) == (getattr(own, name) + below) * (len(node.copies) or 1), (node.name, name)
    assert total.activation_bytes >= max((child.total().activation_bytes for child in node.children), default=0)
    for child in node.children:
        check_sums(child)


@given(run=RUNS, grid=st.sampled_from(ALL_GRIDS), batch=st.integers(2, 6))
@settings(max_examples=20)
def test_vision_flops_are_linear_in_the_batch(run: Execution, grid: object, batch: int) -> None:
    model = root(run=run)
    model.start_vision(workload=gundam(grid))
    one = model.forward_cost()
    model.start_vision(batch_size=batch, workload=gundam(grid))
    many = model.forward_cost()
    assert many.executed_flops == batch * one.executed_flops
    assert many.weight_bytes == one.weight_bytes


@given(views=st.integers(1, 12), batch=st.integers(1, 4))
@settings(max_examples=20)
def test_vision_flops_are_linear_in_equal_views(views: int, batch: int) -> None:
    model = root()
    model.start_vision()
    one = model.forward_tensor_core_flops()
    model.start_vision(batch_size=batch, num_views=views)
    assert model.forward_tensor_core_flops() == batch * views * one


@given(run=RUNS, length=SIZES, batch=st.integers(2, 9))
@settings(max_examples=40)
def test_decoder_flops_and_cache_are_linear_in_the_batch(run: Execution, length: int, batch: int) -> None:
    model = root(run=run)
    model.start_prefill(length, 1)
    one = model.forward_cost()
    model.start_prefill(length, batch)
    many = model.forward_cost()
    for name in ("executed_flops", "useful_flops", "counter_flops", "kv_bytes"):
        assert getattr(many, name) == batch * getattr(one, name)


@given(run=RUNS, length=SIZES, past=st.integers(0, 5000), batch=st.integers(1, 5), logits=st.sampled_from(["last", "all"]))
@settings(max_examples=60)
def test_bounds_between_the_conventions(run: Execution, length: int, past: int, batch: int, logits: str) -> None:
    shape = DecoderShape(batch=batch, new_tokens=length, past_tokens=past)
    cost = Decoder(spec=SPEC.text, shape=shape, logits=logits, run=run).forward_cost()
    assert 0 < cost.counter_flops <= cost.executed_flops
    assert 0 < cost.useful_flops <= cost.executed_flops
    assert cost.fused_bytes <= cost.eager_bytes
    assert cost.kv_bytes <= cost.fused_bytes


@given(run=RUNS, batch=st.integers(1, 4), data=st.data())
@settings(max_examples=30)
def test_an_array_of_shapes_costs_what_each_shape_costs(run: Execution, batch: int, data: st.DataObject) -> None:
    new = data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
    past = data.draw(st.lists(st.integers(0, 3000), min_size=len(new), max_size=len(new)))
    decoder = Decoder(spec=SPEC.text, shape=DecoderShape(batch=1, new_tokens=1, past_tokens=0), logits="last", run=run)
    together = DecoderShape(batch=batch, new_tokens=np.array(new), past_tokens=np.array(past))
    columns = replace(decoder, shape=together).forward_cost().as_dict()
    for index, (tokens, before) in enumerate(zip(new, past, strict=True)):
        shape = DecoderShape(batch=batch, new_tokens=tokens, past_tokens=before)
        for name, value in replace(decoder, shape=shape).forward_cost().as_dict().items():
            assert np.broadcast_to(columns[name], len(new))[index] == value, name


def test_a_cache_says_its_bytes() -> None:
    cache = SyntheticKVCache(num_layers=12, num_kv_heads=10, head_dim=128, dtype_bytes=2, batch_size=3, length=5)
    assert cache.kv_bytes == 2 * 12 * 10 * 128 * 2 * 3 * 5
    assert cache.extended(2).length == 7
    with pytest.raises(ValueError, match="tokens: got 0"):
        cache.extended(0)


def test_a_step_on_a_static_cache_attends_to_all_of_it_of_which_a_position_more_is_useful(tiny_spec: ModelSpec) -> None:
    root = DeepseekOCRModel.from_spec(tiny_spec)
    root.start_prefill(8, 1, capacity=12)
    root.start_decode()
    costs = [root.forward_cost()]
    for _ in range(4):
        root.decode_one_token()
        costs.append(root.forward_cost())  # the last is that of a step on a full cache, which cannot be taken
    a_position = 4 * tiny_spec.text.hidden_size * tiny_spec.text.num_layers  # Q K and A V, two FLOPs each
    assert costs == [replace(costs[0], useful_flops=costs[0].useful_flops + step * a_position) for step in range(5)]
    assert costs[4] == root.tree().total()
    with pytest.raises(ValueError, match="capacity: got 12, accepted: a whole number of at least 13"):
        root.decode_one_token()


def test_a_window_of_steps_has_the_cost_of_each_and_of_no_other(tiny_spec: ModelSpec) -> None:
    root = DeepseekOCRModel.from_spec(tiny_spec)
    one = DecoderShape(batch=1, new_tokens=1, past_tokens=8)
    decoder = Decoder(spec=tiny_spec.text, shape=one, logits="last", run=FULL_SIZE)
    cache = root.start_prefill(8, 1)
    window = DecodeWindow.of(decoder, cache, steps=3)
    for step in range(3):
        shape = replace(one, past_tokens=8 + step)
        assert window.cost(replace(cache, length=8 + step)) == replace(decoder, shape=shape).forward_cost()
    assert [window.cost(replace(cache, length=length)) for length in (7, 11)] == [None, None]
    assert window.cost(replace(cache, batch_size=2)) is None
    static = replace(cache, capacity=10)
    ended = DecodeWindow.of(decoder, static, steps=9)
    assert [ended.cost(replace(static, length=length)) is None for length in (8, 9, 10)] == [False] * 3
    assert len(ended.columns["launches"]) == 3


def test_a_cost_is_scaled_in_whole_units_without_its_launches_and_weights() -> None:
    found = scaled(COST, Fraction(1, 7)).as_dict()
    kept = {"launches": 100, "weight_bytes": 500, "touched_weight_bytes": 400}
    # 8,000 / 7 = 1,142.9; 6,000 / 7 = 857.1; 900 / 7 = 128.6; 600 / 7 = 85.7; 50 / 7 = 7.1; 30 / 7 = 4.3
    assert found == kept | {
        "executed_flops": 1_142,
        "useful_flops": 857,
        "counter_flops": 1_142,
        "cuda_core_flops": 0,
        "eager_bytes": 128,
        "fused_bytes": 85,
        "activation_bytes": 7,
        "kv_bytes": 4,
    }
    assert scaled(COST, Fraction(1)) == COST


def test_a_walk_over_a_page_has_the_cost_of_its_stages_started_one_by_one(tiny_spec: ModelSpec) -> None:
    page = gundam(CropGrid(columns=2, rows=1))
    walked = DeepseekOCRModel.from_spec(tiny_spec)
    calls = [
        (call.stage, call.context_len, call.cache and call.cache.length, walked.forward_cost())
        for call in walked.walk(page, seq_len=600, batch_size=2, decode_steps=3)
    ]
    alone = DeepseekOCRModel.from_spec(tiny_spec)
    alone.start_vision(page, batch_size=2)
    expected: list[tuple[str, int, int | None, Cost]] = [("vision", 0, None, alone.forward_cost())]
    alone.start_prefill(600, 2)
    expected.append(("prefill", 0, 600, alone.forward_cost()))
    alone.start_decode()
    for before in (600, 601, 602):
        expected.append(("decode", before, before + 1, alone.forward_cost()))
        alone.decode_one_token()
    assert calls == expected
    assert walked.kv_cache == alone.kv_cache


def test_a_walk_without_a_page_begins_with_its_prefill(tiny_spec: ModelSpec) -> None:
    root = DeepseekOCRModel.from_spec(tiny_spec)
    assert [call.stage for call in root.walk(None, seq_len=8, batch_size=1, decode_steps=2)] == [
        "prefill",
        "decode",
        "decode",
    ]
