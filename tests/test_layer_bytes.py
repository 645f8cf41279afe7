"""Bytes of each layer by hand: what surrounds its products, what it keeps alive, and the floor of its modules."""

from dataclasses import replace

import pytest

from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.op import Op
from analytic.core.shape_class import ShapeClass
from analytic.models.deepseek_ocr.decoder import DeepseekV2DecoderLayer, DeepseekV2MLP, DeepseekV2RMSNorm
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaFlashAttention2, LlamaRotaryEmbedding
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.moe import MoEGate, RoutedExperts
from analytic.models.deepseek_ocr.sam import SamBlock
from analytic.models.deepseek_ocr.sam_attention import SamAttention
from analytic.models.deepseek_ocr.vision import NoTPTransformerBlock, VitModel
from analytic.models.spec import ModelSpec
from tests.samples import BY_HAND
from tests.test_op_bytes import running

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
TEXT = SPEC.text


# --- what layers keep alive


def test_the_weighted_sum_keeps_the_rows_of_experts_and_their_sum() -> None:
    # two tokens are 12 rows of 1280: weighted in float32 beside the rows in bfloat16, and the float32 sum of each token
    op = RoutedExperts(spec=TEXT, tokens=2, run=running()).tree("experts").ops[3]
    assert op.live_bytes == 12 * 1280 * (2 + 4) + 2 * 1280 * 4
    assert op.read_bytes == 12 * (1280 * (2 + 4) + 4) + 2 * 1280 * 4
    assert op.written_bytes == 12 * 1280 * 4 + 2 * 1280 * (4 + 2)
    assert (op.launches, op.cuda_core_flops) == (3, 12 * 2 * 1280)
    single = RoutedExperts(spec=TEXT, tokens=2, run=running("cpu", dtype="float32")).tree("experts").ops[3]
    assert (single.launches, single.read_bytes) == (2, 12 * (1280 * 8 + 4))  # without the cast back
    assert (single.written_bytes, single.live_bytes) == (12 * 1280 * 4 + 2 * 1280 * 4, 12 * 1280 * 8 + 2 * 1280 * 4)


def test_the_sum_of_positions_keeps_its_operands() -> None:
    # two views of 257 positions of 1024 in bfloat16, before and after, and the positions
    embeddings = dict(VitModel(spec=SPEC.clip, views=2, side=16, run=running()).tree("clip").walk())["clip.embeddings"]
    assert embeddings.ops[1].live_bytes == (2 * 2 * 257 + 257) * 1024 * 2


SEVERAL = DecoderShape(batch=2, new_tokens=3, past_tokens=7)


def held(run: Execution, shape: DecoderShape = SEVERAL) -> object:
    (model,) = (
        node
        for path, node in Decoder(spec=TEXT, shape=shape, logits="last", run=run).tree("").walk()
        if path == "model.language_model"
    )
    return model.held_bytes


def test_embedded_tokens_angles_and_masks_are_held_across_the_layers() -> None:
    tokens, angles, pairs = 2 * 3 * 1280 * 2, 3 * 2 * 128 * 2, 3 * 10
    # SDPA: the idle sliding mask of this release and the causal mask of a continued prefill, a byte a pair each
    assert held(running()) == tokens + angles + pairs * 2
    alone = replace(SEVERAL, past_tokens=0)
    assert held(running(), alone) == tokens + angles + 9
    # transformers' own attention has both masks as bfloat16, for each sequence
    assert held(running("meta", "eager")) == tokens + angles + pairs * 2 * 2 * 2


def test_masks_are_made_once_a_call() -> None:
    # two operators of positions; 21 of the idle sliding mask; 7 of the causal mask that SDPA is given, on a batch of two
    tree = Decoder(spec=TEXT, shape=SEVERAL, logits="last", run=running()).tree("")
    (masks,) = (op for _, node in tree.walk() for op in node.ops if op.rate_class is ShapeClass.MASK)
    new, context, pairs = 3, 10, 30
    sliding = pairs * 8 + new * 43 + context * 49, pairs * 9 + new * 27 + context * 25 + 2 * 8 + 8
    assert masks.launches == 2 + 21 + 7
    assert masks.read_bytes == new * 8 + sliding[0] + (new + context) * 16
    assert masks.written_bytes == new * 16 + sliding[1] + pairs + (new + context) * 16 + 2 * 8 + 8
    assert masks.live_bytes == pairs * 2 + context * 16
    # transformers' own attention turns both into bfloat16 for each sequence: zero, lowest and a selection
    own = Decoder(spec=TEXT, shape=SEVERAL, logits="last", run=running("meta", "eager")).tree("")
    (numbers,) = (op for _, node in own.walk() for op in node.ops if op.rate_class is ShapeClass.MASK)
    assert int(numbers.launches) - int(masks.launches) == 2 * 3
    assert int(numbers.read_bytes) - int(masks.read_bytes) == 2 * (pairs + 2 * 2)
    assert int(numbers.written_bytes) - int(masks.written_bytes) == 2 * (pairs * 2 * 2 + 2 * 2)


def test_weights_of_transformers_own_attention_live_until_their_layer_ends() -> None:
    mlps = {
        way: dict(
            DeepseekV2DecoderLayer(spec=TEXT, shape=SEVERAL, sparse=False, run=running("meta", way)).tree("layer").walk()
        )["layer.mlp"]
        for way in ("eager", "sdpa")
    }
    assert int(mlps["eager"].held_bytes) - int(mlps["sdpa"].held_bytes) == 2 * 10 * 3 * 10 * 2  # 10 heads, bfloat16


def cached(shape: DecoderShape, run: Execution) -> list[Op]:
    """What stores keys and values, and copies of operands and masks: the movements of an attention."""
    tree = LlamaFlashAttention2(spec=TEXT, shape=shape, run=run).tree("attention")
    return [op for op in tree.ops if not op.cuda_core_flops and not op.executed_flops]


def test_keys_and_values_are_joined_to_a_cache_that_grows_and_copied_into_a_static_one() -> None:
    position = 2 * 2 * 1280 * 2  # K and V of two sequences in bfloat16
    join = cached(SEVERAL, running())[0]
    assert (join.launches, join.read_bytes, join.written_bytes) == (2, 10 * position, 10 * position)
    # arange of three positions, + length, an increment of the length, and two copies by these positions
    static = cached(replace(SEVERAL, capacity=16), running("cpu"))[0]
    assert static.launches == 5
    assert static.read_bytes == 3 * position + 3 * (3 * 8) + 2 * 8
    assert static.written_bytes == 3 * position + 2 * (3 * 8) + 8


@pytest.mark.parametrize(("batch", "new", "launches"), [(2, 3, 1), (1, 3, 0), (2, 1, 0)])
def test_rotated_queries_of_several_sequences_are_copied(batch: int, new: int, launches: int) -> None:
    copy = cached(DecoderShape(batch=batch, new_tokens=new, past_tokens=7), running("meta", "eager"))[-1]
    copied = batch * new * 1280 * 2 * launches
    assert (copy.launches, copy.read_bytes, copy.written_bytes) == (launches, copied, copied)


def test_the_cache_of_an_attention_is_keys_and_values_of_every_position() -> None:
    tree = LlamaFlashAttention2(spec=TEXT, shape=SEVERAL, run=running()).tree("attention")
    position = 2 * 2 * 1280 * 2
    assert tree.kv_bytes == 10 * position
    # the floor: tokens in and out, four projections, and the cache once
    assert tree.fused_bytes == 2 * (2 * 3 * 1280 * 2) + 4 * 1280 * 1280 * 2 + 10 * position


def test_decomposed_attention_makes_its_mask_in_every_layer() -> None:
    run = running()
    own, given = (cached(replace(SEVERAL, past_tokens=past), run)[1] for past in (0, 7))
    # ones and the lower triangle as bytes, two scalars, a selection of float32
    assert (own.launches, own.read_bytes, own.written_bytes) == (5, 9 * 2 + 2 * 4, 9 * (1 + 1 + 4) + 2 * 4)
    # the boolean mask that is given: two scalars and a selection of bfloat16, for each sequence
    assert (given.launches, given.read_bytes, given.written_bytes) == (3, 30 + 2 * 2, 2 * 30 * 2 + 2 * 2)


# --- what surrounds the products of a decoder layer


def test_the_router_casts_its_tokens_and_weights_to_float32() -> None:
    # two tokens of 1280 and 64 rows of 1280 from bfloat16; 128 scores: softmax 4 -> 4, top K reads them; six a token scaled
    products, routed = MoEGate(spec=TEXT, tokens=2, run=running()).tree("gate").ops
    cast, scores = 2 * 1280 + 64 * 1280, 2 * 64
    assert routed.read_bytes == cast * 2 + scores * (4 + 4) + 2 * 6 * 4
    assert routed.written_bytes == cast * 4 + scores * 4 + 2 * 6 * (4 + 8 + 4)  # values, int64 indices, scaled values
    assert (routed.weight_bytes, products.weight_bytes) == (64 * 1280 * 2, 0)  # the cast reads the parameters
    assert routed.live_bytes == cast * 4 + scores * 8
    assert (routed.launches, routed.cuda_core_flops) == (5, scores * 5 + 2 * 6)
    single = MoEGate(spec=TEXT, tokens=2, run=running("cpu", dtype="float32")).tree("gate").ops[1]
    assert (single.launches, single.read_bytes, single.written_bytes) == (3, scores * 8 + 48, scores * 4 + 192)


def test_the_experts_sort_their_rows_and_put_them_back() -> None:
    # six rows a token; ids, orders and positions are int64, weights and counts of 4 bytes
    rows, row = 12, 1280 * 2
    sorting, restored = RoutedExperts(spec=TEXT, tokens=2, run=running()).tree("experts").ops[1:3]
    assert sorting.read_bytes == rows * (8 + 8 + 8 + 12 + 8 + 4 + 16) + rows * row + 64 * 4
    assert sorting.written_bytes == rows * (16 + 8 + 4 + 4 + 8 + 8) + rows * row + 2 * 64 * 4
    assert sorting.launches == 9
    assert restored.read_bytes == rows * (8 + 1280 * 4)  # weighted outputs in float32, by their order
    assert restored.written_bytes == rows * 1280 * 4
    assert restored.live_bytes == rows * 1280 * (2 * 2 + 2 * 4)


def test_the_loop_over_experts_moves_masks_and_the_rows_of_each() -> None:
    # two tokens, of six experts each: an int64 mask of 64 experts and a row for none, written twice and read twice
    run = replace(running("cpu"), experts="eager")
    (looped,) = (op for op in RoutedExperts(spec=TEXT, tokens=2, run=run).tree("experts").ops if op.launches > 22)
    rows, row, masks = 12, 1280 * 2, 2 * 6 * 65 * 8
    assert looped.read_bytes == masks * 2 + rows * (2 * row + 4 * 1280 + 40)
    assert looped.written_bytes == masks * 2 + rows * (2 * row + 4 * 1280 + 24) + 2 * row
    assert looped.live_bytes == masks + rows * row
    # 64 (1 - (58 / 64)^2) = 11.4 experts are hit
    assert (looped.launches, looped.cuda_core_flops) == (9 + 11 * 11, rows * 2 * 1280)


def test_angles_are_made_in_float32_and_cast() -> None:
    # three positions and 64 frequencies: positions 8 -> 4, products, joined, cos and sin, both scaled, both cast
    half, full = 3 * 64, 3 * 128
    (angles,) = LlamaRotaryEmbedding(head_dim=128, new_tokens=3, run=running()).tree("rotary").ops
    assert angles.read_bytes == 3 * (8 + 4) + (64 + half) * 4 + full * (4 * 4 + 2 * 4)
    assert angles.written_bytes == 3 * 4 + half * 4 + full * (5 * 4 + 2 * 2)
    assert angles.live_bytes == full * 3 * 4
    assert (angles.launches, angles.cuda_core_flops) == (9, half + 4 * full)


# --- the floor of a module: its weights once, and what goes in and comes out


def floors(tree: CostNode) -> dict[str, object]:
    """The floor of every module that has one of its own."""
    return {path: node.fused_bytes for path, node in tree.walk() if node.fused_bytes}


def test_the_floor_of_a_feed_forward_is_its_weights_and_its_tokens() -> None:
    mlp = DeepseekV2MLP(width=1280, hidden=64, tokens=10, run=running()).tree("mlp")
    assert floors(mlp) == {"mlp": 2 * (2 * 10 * 1280 + 3 * 1280 * 64)}


def test_the_floors_of_a_block_of_clip() -> None:
    block = NoTPTransformerBlock(spec=SPEC.clip, views=2, tokens=5, run=running()).tree("block")
    tokens, norm = 2 * (2 * 10 * 1024), 2 * 2 * 1024
    assert floors(block) == {
        "block.layer_norm1": norm,
        "block.self_attn": tokens + 2 * 4 * (1024 * 1024 + 1024),
        "block.layer_norm2": norm,
        "block.mlp": tokens + 2 * (2 * 1024 * 4096 + 1024 + 4096),
    }


def test_the_floors_of_a_block_of_sam() -> None:
    # one map of 64 x 64, padded to 25 windows of 196 positions in its attention
    block = SamBlock(spec=SPEC.sam, views=1, grid=64, windowed=True, run=running()).tree("block")
    attention_weights = 4 * 768 * 768 + 4 * 768 + 2 * 27 * 64
    assert floors(block) == {
        "block.layer_norm1": 2 * 2 * 768,
        "block.attn": 2 * (2 * 4_900 * 768 + attention_weights),
        "block.layer_norm2": 2 * 2 * 768,
        "block.mlp": 2 * (2 * 4_096 * 768 + 2 * 768 * 3072 + 768 + 3072),
    }


def sam_attention(side: int, run: Execution) -> tuple[Op, ...]:
    """The operators of one window of side x side positions in SAM, in the order of its tree."""
    return SamAttention(spec=SPEC.sam, groups=1, side=side, windowed=True, run=run).tree("attn").ops


def test_the_sum_of_relative_positions_keeps_both_biases_and_the_fused_projection() -> None:
    # 12 heads of 49 x 49 scores, twice, and q, k and v of 49 positions, all in bfloat16
    *_, added, _ = sam_attention(7, running())
    assert added.live_bytes == 12 * 49 * 49 * (2 * 2) + 49 * 3 * 768 * 2


@pytest.mark.parametrize(("side", "every", "resizes"), [(7, False, 1), (14, False, 0), (16, False, 1), (14, True, 1)])
def test_tables_of_another_length_are_interpolated_and_by_transformers_all(side: int, every: bool, resizes: int) -> None:
    # a table has 27 rows of 64 features for windows of 14; its rows for this side are made of three operations each
    glue = replace(BY_HAND.profile.transformers, resizes_every_table=every)
    framework = replace(BY_HAND, profile=replace(BY_HAND.profile, transformers=glue))
    distances, *_ = sam_attention(side, replace(running(), framework=framework))
    table, made = 2 * 27 * 64, 2 * (2 * side - 1) * 64
    assert distances.launches == 2 * (7 + resizes)
    assert distances.cuda_core_flops == resizes * 3 * made + 4 * (side + side**2)
    assert (distances.read_bytes, distances.written_bytes, distances.weight_bytes) == (
        resizes * table * 2 + 2 * (24 * side + 8 * side**2),
        resizes * made * 2 + 2 * (24 * side + 16 * side**2),
        resizes * table * 2,
    )


def test_the_floors_of_the_embeddings_of_clip_and_of_a_decoders_norm() -> None:
    # the native table has 257 positions, beside the class token, whatever is looked up
    for side in (16, 10):
        tree = VitModel(spec=SPEC.clip, views=2, side=side, run=running()).tree("clip")
        assert floors(tree)["clip.embeddings"] == 258 * 1024 * 2
    assert floors(DeepseekV2RMSNorm(width=1280, tokens=10, run=running()).tree("norm")) == {"norm": 2 * 1280}
