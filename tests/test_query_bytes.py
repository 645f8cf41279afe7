"""Bytes of DeepSeek-OCR-2's encoder by hand: 896 features, 14 heads of 64 on 2 of keys and values."""

import pytest

from analytic.core.cost import CostNode
from analytic.core.op import Op
from analytic.models.deepseek_ocr2.encoder import QueryAttention, QueryEncoder, QueryEncoderLayer, QueryShape
from analytic.models.deepseek_ocr2.spec import DeepseekOCR2Spec
from analytic.models.deepseek_ocr2.vision import QueryProjector, QueryVisionTower
from analytic.models.registry import load_spec
from tests.test_op_bytes import running

SPEC = load_spec("deepseek-ocr-2-base")
assert isinstance(SPEC, DeepseekOCR2Spec)
ENCODER = SPEC.encoder
SHAPE = QueryShape(views=2, features=5, queries=3)
ROWS, PAIRS = 16, 64  # 2 views of 8 positions
X = ROWS * 896 * 2


def nodes(tree: CostNode) -> dict[str, CostNode]:
    return dict(tree.walk())


def moved(op: Op) -> tuple[object, ...]:
    """Operators, bytes read, written, and alive."""
    return op.launches, op.read_bytes, op.written_bytes, op.live_bytes


def test_a_sequence_has_its_features_and_its_queries() -> None:
    assert (SHAPE.positions, SHAPE.pairs, SHAPE.rows) == (8, PAIRS, ROWS)
    assert (ENCODER.hidden_size, ENCODER.num_heads, ENCODER.head_dim, ENCODER.kv_width) == (896, 14, 64, 128)


@pytest.mark.parametrize(("way", "scores"), [("sdpa", 0), ("eager", 2 * PAIRS * 14 * 2)])
def test_a_layer_keeps_its_residual_and_its_norm_and_transformers_own_its_scores(way: str, scores: int) -> None:
    tree = QueryEncoderLayer(spec=ENCODER, shape=SHAPE, run=running("meta", way)).tree("layer")  # type: ignore[arg-type]
    assert tree.held_bytes == 2 * X
    plain = nodes(QueryEncoderLayer(spec=ENCODER, shape=SHAPE, run=running()).tree("layer"))["layer.mlp"]
    assert int(nodes(tree)["layer.mlp"].held_bytes) - int(plain.held_bytes) == scores
    (sums,) = tree.ops
    assert moved(sums) == (2, 2 * 2 * X, 2 * X, 3 * X)
    assert plain.held_bytes == X  # the input of the layer


@pytest.mark.parametrize(("way", "mask"), [("sdpa", 1), ("eager", 2)])
def test_the_stack_keeps_its_input_angles_and_mask(way: str, mask: int) -> None:
    tree = QueryEncoder(spec=ENCODER, shape=SHAPE, run=running("meta", way)).tree("encoder")  # type: ignore[arg-type]
    assert tree.held_bytes == X + 8 * 2 * 64 * 2 + 2 * PAIRS * mask
    assert [len(child.copies) for child in tree.children] == [0, 24, 0]  # rotary angles, the layers, a norm


def test_the_mask_is_made_of_blocks_of_features_and_queries() -> None:
    (boolean,) = QueryEncoder(spec=ENCODER, shape=SHAPE, run=running("cpu")).tree("encoder").ops
    read = 8 * 48 + 2 * (8 * 41 + 16) + PAIRS * 2 + 2 * PAIRS * 2 + 1
    written = 8 * 40 + 2 * (8 * 25 + 8 + 5 * 8) + PAIRS * 2 + 2 * PAIRS * 3 + 9
    assert moved(boolean) == (18, read, written, 0)
    # on meta the blocks of the features are copied from a scalar; transformers' own attention makes numbers of the mask
    on_meta, numbers = QueryEncoder(spec=ENCODER, shape=SHAPE, run=running("meta", "eager")).tree("encoder").ops
    assert moved(on_meta) == (19, read + 8, written + 8, 0)
    assert moved(numbers) == (3, 2 * PAIRS + 2 * 2, 2 * PAIRS * 2 + 2 * 2, 0)


def test_keys_and_values_are_repeated_for_every_head_of_the_queries() -> None:
    tree = QueryAttention(spec=ENCODER, shape=SHAPE, run=running()).tree("attention")
    assert moved(tree.ops[2]) == (2, ROWS * 2 * 128 * 2, ROWS * 2 * 896 * 2, 0)
    # SDPA makes numbers of the boolean mask in every layer
    assert (3, 2 * PAIRS + 4, 2 * PAIRS * 2 + 4, 0) in [moved(op) for op in tree.ops]
    own = QueryAttention(spec=ENCODER, shape=SHAPE, run=running("meta", "eager")).tree("attention")
    assert len(own.ops) == len(tree.ops) - 1
    # with two views queries are copied for the product, in float32 as SDPA computes here
    assert moved(tree.ops[-1]) == (1, ROWS * 896 * 4, ROWS * 896 * 4, 0)


def test_the_floor_of_an_attention_is_its_weights_and_its_rows() -> None:
    tree = QueryAttention(spec=ENCODER, shape=SHAPE, run=running()).tree("attention")
    # queries with a bias and the output without, keys and values with one
    weights = (896 + 1) * 896 + 896 * 896 + 2 * (896 + 1) * 128
    assert tree.fused_bytes == 2 * X + 2 * weights
    assert tree.total().weight_bytes == 2 * weights
    # every feature sees the features, every query all of them and the queries up to itself: 5 x 5 + 3 x 5 + 6 pairs
    (products,) = (op for op in tree.ops if op.executed_flops)
    assert products.useful_flops == 2 * 14 * 46 * 4 * 64
    assert products.executed_flops == 2 * 14 * PAIRS * 4 * 64


def test_the_tower_joins_features_and_a_table_of_queries() -> None:
    # 768 px: 12 x 12 features and 144 queries; 1024 px: 16 x 16 and 256
    for side_px, count in ((768, 144), (1024, 256)):
        tower = QueryVisionTower(spec=SPEC, views=2, side_px=side_px, run=running())
        assert (tower.shape.features, tower.shape.queries) == (count, count)
        tree, row = tower.tree("tower"), 896 * 2
        assert tree.held_bytes == 2 * count * row
        assert tree.fused_bytes == count * row
        assert moved(tree.ops[0]) == (1, 2 * count * row + count * row, 2 * 2 * count * row, 0)
        assert tree.ops[0].weight_bytes == count * row
        tables = [nodes(tree)[f"tower.query_{side}_resolution"].total().weight_bytes for side in (768, 1024)]
        assert tables == [144 * row, 256 * row]


def test_the_projector_copies_the_queries_of_several_views() -> None:
    several = QueryProjector(width_in=896, width_out=1280, views=2, queries=3, run=running()).tree("projector")
    copied, product, biased = several.ops
    assert moved(copied) == (1, 6 * 896 * 2, 6 * 896 * 2, 0)
    assert (product.read_bytes, product.written_bytes) == (6 * 896 * 2 + 896 * 1280 * 2, 6 * 1280 * 2)
    assert moved(biased) == (1, 6 * 1280 * 2 + 1280 * 2, 6 * 1280 * 2, 2 * 6 * 1280 * 2)
    assert (biased.cuda_core_flops, biased.weight_bytes) == (6 * 1280, 1280 * 2)
    (alone,) = QueryProjector(width_in=896, width_out=1280, views=1, queries=3, run=running()).tree("projector").ops
    assert alone.read_bytes == 3 * 896 * 2 + 897 * 1280 * 2
