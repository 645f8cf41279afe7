"""One value worked by hand for each layer, in FLOPs and bytes."""

import inspect
from typing import Literal

import numpy as np
import pytest

from analytic.core.execution import Execution, Experts
from analytic.core.layer import AnalyticLayer
from analytic.models.deepseek_ocr.decoder import (
    DeepseekV2DecoderLayer,
    DeepseekV2MLP,
    DeepseekV2RMSNorm,
    LmHead,
    TokenEmbedding,
)
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape, LlamaFlashAttention2, LlamaRotaryEmbedding
from analytic.models.deepseek_ocr.language_model import Decoder
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.moe import DeepseekV2MoE, MoEGate, RoutedExperts, expected_unique_experts
from analytic.models.deepseek_ocr.sam import ImageEncoderViT, SamBlock
from analytic.models.deepseek_ocr.sam_attention import SamAttention
from analytic.models.deepseek_ocr.vision import MlpProjector, NoTPTransformer, NoTPTransformerBlock, VisionStack, VitModel
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.spec import ModelSpec
from tests.samples import BY_HAND

RUN = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16", framework=BY_HAND)
SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
SAM, CLIP, TEXT = SPEC.sam, SPEC.clip, SPEC.text
TEN = DecoderShape(batch=1, new_tokens=10, past_tokens=0)


def test_sam_attention_global() -> None:
    # 64 x 64 positions of width 768: qkv 2 n 768 2304, out 2 n 768 768, two axes 2 * 64 * (12 * 64) * 64 * 64,
    # scores and values 4 n^2 768
    n = 64 * 64
    projections = 2 * n * 768 * 2304 + 2 * n * 768 * 768
    relative = 2 * (2 * 64 * (12 * 64) * 64 * 64)
    layer = SamAttention(spec=SAM, groups=1, side=64, windowed=False, run=RUN)
    assert layer.forward_tensor_core_flops() == projections + relative + 4 * n * n * 768


@pytest.mark.parametrize(("windowed", "positions"), [(True, 2 * 14 - 1), (False, 2 * 64 - 1)])
def test_sam_attention_weights(windowed: bool, positions: int) -> None:
    # qkv and out with biases, and for each axis a row of 64 features for every distance within the window or the map
    parameters = 4 * 768 * 768 + 4 * 768 + 2 * positions * 64
    layer = SamAttention(spec=SAM, groups=1, side=14 if windowed else 64, windowed=windowed, run=RUN)
    assert layer.forward_memory_weight() == layer.forward_cost().touched_weight_bytes == 2 * parameters


def test_sam_block_pads_its_windows() -> None:
    # 64 pads to 70: 25 windows of 196 positions in attention, 4096 positions in the feed-forward
    n, p = 4096, 4900
    attention = 2 * p * 768 * (2304 + 768) + 2 * (2 * 14 * (25 * 12 * 14) * 64 * 14) + 25 * 4 * 196 * 196 * 768
    layer = SamBlock(spec=SAM, views=1, grid=64, windowed=True, run=RUN)
    assert layer.forward_tensor_core_flops() == attention + 2 * n * 768 * 3072 * 2


def test_image_encoder_convolutions() -> None:
    # patches 2 * 64^2 * 768 * 3 * 16^2; neck 1x1 and 3x3 at 64^2; down to 32^2 x 512 and 16^2 x 1024
    by_path = {
        path: sum(op.executed_flops for op in node.ops)
        for path, node in ImageEncoderViT(spec=SAM, views=1, side_px=1024, run=RUN).tree("sam").walk()
    }
    assert by_path["sam.patch_embed.projection"] == 2 * 64**2 * 768 * 3 * 16**2
    assert by_path["sam.neck.conv1"] == 2 * 64**2 * 768 * 256
    assert by_path["sam.neck.conv2"] == 2 * 64**2 * 256 * 256 * 9
    assert by_path["sam.proj.conv1"] == 2 * 32**2 * 256 * 512 * 9
    assert by_path["sam.proj.conv2"] == 2 * 16**2 * 512 * 1024 * 9


def test_clip_block() -> None:
    # 257 positions of width 1024: four projections, two products, feed-forward through 4096
    flops = 4 * 2 * 257 * 1024 * 1024 + 4 * 257 * 257 * 1024 + 2 * 2 * 257 * 1024 * 4096
    layer = NoTPTransformerBlock(spec=CLIP, views=1, tokens=257, run=RUN)
    assert layer.forward_tensor_core_flops() == layer.forward_cost().useful_flops == flops
    assert NoTPTransformer(spec=CLIP, views=1, tokens=257, run=RUN).forward_tensor_core_flops() == 24 * flops
    assert VitModel(spec=CLIP, views=3, side=16, run=RUN).forward_tensor_core_flops() == 3 * 24 * flops


def test_vit_model_weights() -> None:
    # 24 blocks of 12 * 1024^2 + 13 * 1024, class token, 257 positions, pre-norm
    parameters = 24 * (12 * 1024**2 + 13 * 1024) + 1024 + 257 * 1024 + 2 * 1024
    assert VitModel(spec=CLIP, views=1, side=16, run=RUN).forward_memory_weight() == 2 * parameters == 2 * 302_575_616


def test_projector() -> None:
    # 256 tokens of 2048 to 1280, bf16: FLOPs, weights with bias, input + weights + output
    layer = MlpProjector(width_in=2048, width_out=1280, tokens=256, run=RUN)
    assert layer.forward_tensor_core_flops() == 2 * 256 * 2048 * 1280
    assert layer.forward_memory_weight() == 2 * (2048 * 1280 + 1280)
    assert layer.forward_cal_io() == 2 * (256 * 2048 + 2048 * 1280 + 1280 + 256 * 1280)


def test_vision_stack_is_its_parts() -> None:
    stack = VisionStack(spec=SPEC, workload=MODES["base"], batch=1, run=RUN)
    sam = ImageEncoderViT(spec=SAM, views=1, side_px=1024, run=RUN)
    clip = VitModel(spec=CLIP, views=1, side=16, run=RUN)
    parts = (sam, clip, MlpProjector(width_in=2048, width_out=1280, tokens=256, run=RUN))
    assert stack.forward_tensor_core_flops() == sum(part.forward_tensor_core_flops() for part in parts)


def test_attention() -> None:
    # 10 positions: four projections 8 n 1280^2, two products over the full 10 x 10; half of it plus the diagonal is useful
    cost = LlamaFlashAttention2(spec=TEXT, shape=TEN, run=RUN).forward_cost()
    assert cost.executed_flops == 8 * 10 * 1280 * 1280 + 4 * 10 * 10 * 1280
    assert cost.useful_flops == 8 * 10 * 1280 * 1280 + 4 * 55 * 1280
    assert cost.kv_bytes == 2 * 10 * 1280 * 2
    assert cost.weight_bytes == 4 * 1280 * 1280 * 2


def test_attention_sees_the_past() -> None:
    # 3 new tokens on 7: products over 3 x 10, useful 3 * 7 + 6
    shape = DecoderShape(batch=2, new_tokens=3, past_tokens=7)
    cost = LlamaFlashAttention2(spec=TEXT, shape=shape, run=RUN).forward_cost()
    assert cost.executed_flops == 2 * (8 * 3 * 1280 * 1280 + 4 * 3 * 10 * 1280)
    assert cost.useful_flops == 2 * (8 * 3 * 1280 * 1280 + 4 * (3 * 7 + 6) * 1280)


def test_rotary_embedding() -> None:
    # 10 positions: 64 products each, then cos, sin and a scaling of both over 128
    layer = LlamaRotaryEmbedding(head_dim=128, new_tokens=10, run=RUN)
    assert layer.forward_tensor_core_flops() == 0
    assert layer.forward_cuda_core_flops() == 10 * 64 + 4 * 10 * 128


def test_rms_norm() -> None:
    # square, mean, scale, weight for each of 10 x 1280; epsilon and root for each of 10
    layer = DeepseekV2RMSNorm(width=1280, tokens=10, run=RUN)
    assert layer.forward_cuda_core_flops() == 4 * 12800 + 2 * 10
    assert layer.forward_memory_weight() == 2560


def test_mlp() -> None:
    layer = DeepseekV2MLP(width=1280, hidden=6848, tokens=10, run=RUN)
    assert layer.forward_tensor_core_flops() == 3 * 2 * 10 * 1280 * 6848
    assert layer.backward_tensor_core_flops() == 2 * 3 * 2 * 10 * 1280 * 6848
    assert layer.forward_memory_weight() == 3 * 1280 * 6848 * 2


def test_gate() -> None:
    # one float32 product with 64 rows; softmax over 64 at 5 FLOPs, 6 weights scaled
    layer = MoEGate(spec=TEXT, tokens=10, run=RUN)
    assert layer.forward_tensor_core_flops() == 2 * 10 * 1280 * 64
    assert layer.forward_cuda_core_flops() == 10 * 64 * 5 + 10 * 6


def test_routed_experts() -> None:
    # one token meets 6 of 64 experts, each 3 * 1280 * 896 parameters: touched 6, resident 64
    cost = RoutedExperts(spec=TEXT, tokens=1, run=RUN).forward_cost()
    expert = 3 * 1280 * 896 * 2
    assert cost.executed_flops == 6 * expert
    assert (cost.touched_weight_bytes, cost.weight_bytes) == (6 * expert, 64 * expert)
    assert expected_unique_experts(2, experts=64, per_token=6) == pytest.approx(64 * (1 - (58 / 64) ** 2))


@pytest.mark.parametrize(("device", "experts"), [("meta", "grouped_mm"), ("meta", "batched_mm"), ("cpu", "eager")])
def test_every_way_to_run_the_experts_touches_the_weights_of_those_that_tokens_are_routed_to(
    device: Literal["meta", "cpu"], experts: Experts
) -> None:
    # one token meets 6 experts, two are expected to meet 64 (1 - (58 / 64)^2) = 11.4375
    run = Execution(device=device, attention="sdpa", experts=experts, dtype="bfloat16", framework=BY_HAND)
    expert = 3 * 1280 * 896 * 2
    for tokens, touched in ((1, 6 * expert), (2, 11.4375 * expert)):
        cost = RoutedExperts(spec=TEXT, tokens=tokens, run=run).forward_cost()
        assert (cost.touched_weight_bytes, cost.weight_bytes) == (touched, 64 * expert)
        assert cost.executed_flops == tokens * 6 * expert  # 2 FLOPs a parameter, which has two bytes


def test_bytes_of_the_experts_products_by_hand() -> None:
    # one token in bfloat16 is 6 rows: read 1280 and 896, written 2 x 896 and 1280 features each
    rows, expert = 6, 3 * 1280 * 896 * 2
    read, written = rows * (1280 + 896) * 2, rows * (2 * 896 + 1280) * 2
    runs = {
        experts: Execution(device="cpu", attention="sdpa", experts=experts, dtype="bfloat16", framework=BY_HAND)
        for experts in ("grouped_mm", "batched_mm", "eager")
    }
    # all 64 experts and two int32 offsets each; the copies of 6 experts; the 6 that it is routed to
    weights = {"grouped_mm": 64 * expert + 2 * 64 * 4, "batched_mm": 6 * expert, "eager": 6 * expert}
    for experts, run in runs.items():
        tree = RoutedExperts(spec=TEXT, tokens=1, run=run).tree("experts")
        (products,) = (op for op in tree.ops if op.executed_flops)
        assert (products.read_bytes, products.written_bytes) == (read + weights[experts], written)
    # the copy reads two int64 numbers a row, the token and the experts, and writes the experts and the rows
    copied = RoutedExperts(spec=TEXT, tokens=1, run=runs["batched_mm"]).tree("experts").ops[1]
    assert copied.read_bytes == 6 * expert + 6 * 16 + 1280 * 2
    assert copied.written_bytes == 6 * expert + 6 * 1280 * 2


@pytest.mark.parametrize("tokens", [1, 8, 32, 256, 1024])
def test_expected_unique_experts_are_those_of_random_routing(tokens: int) -> None:
    rng = np.random.default_rng(20251121)
    routed = [len(np.unique(rng.random((tokens, 64)).argpartition(6, axis=1)[:, :6])) for _ in range(200)]
    expected = expected_unique_experts(tokens, experts=64, per_token=6)
    assert np.mean(routed) == pytest.approx(expected, rel=0.02)


def test_mixture_is_gate_routed_and_shared() -> None:
    shared = DeepseekV2MLP(width=1280, hidden=1792, tokens=10, run=RUN)
    layer = DeepseekV2MoE(spec=TEXT, shared=shared, tokens=10, run=RUN)
    routed = 10 * 6 * 6 * 1280 * 896
    assert layer.forward_tensor_core_flops() == 2 * 10 * 1280 * 64 + routed + 3 * 2 * 10 * 1280 * 1792
    # the fused floor: router, the experts ten tokens are expected to meet, shared experts, tokens in and out
    touched = round(64 * (1 - (58 / 64) ** 10) * 3 * 1280 * 896 * 2)
    assert layer.forward_cost().fused_bytes == 2 * (1280 * 64 + 3 * 1280 * 1792 + 2 * 10 * 1280) + touched


def test_decoder_layers() -> None:
    attention = 8 * 10 * 1280 * 1280 + 4 * 100 * 1280
    dense = DeepseekV2DecoderLayer(spec=TEXT, shape=TEN, sparse=False, run=RUN)
    assert dense.forward_tensor_core_flops() == attention + 6 * 10 * 1280 * 6848
    assert dense.forward_memory_weight() == 2 * 32_852_480
    sparse = DeepseekV2DecoderLayer(spec=TEXT, shape=TEN, sparse=True, run=RUN)
    assert sparse.forward_memory_weight() == 2 * 233_720_320


def test_embedding_and_head() -> None:
    # 10 lookups of 1280 in bf16 read and written, 8 bytes an index; the head on one position
    table = TokenEmbedding(vocab_size=129280, width=1280, tokens=10, run=RUN)
    assert table.forward_cal_io() == 2 * 10 * 2560 + 80
    assert table.forward_memory_weight() == 2 * 165_478_400
    head = LmHead(vocab_size=129280, width=1280, rows=1, run=RUN)
    assert head.forward_tensor_core_flops() == 2 * 1280 * 129280
    assert head.forward_arithmetic_intensity() == 2 * 1280 * 129280 / (2 * (1280 + 1280 * 129280 + 129280))


def test_decoder_logits_of_the_last_position_or_all() -> None:
    last, every = (
        Decoder(spec=TEXT, shape=TEN, logits=logits, run=RUN).forward_tensor_core_flops() for logits in ("last", "all")
    )
    assert every - last == 9 * 2 * 1280 * 129280


LAYERS: list[AnalyticLayer] = [
    SamAttention(spec=SAM, groups=1, side=64, windowed=False, run=RUN),
    SamBlock(spec=SAM, views=1, grid=64, windowed=True, run=RUN),
    ImageEncoderViT(spec=SAM, views=1, side_px=1024, run=RUN),
    NoTPTransformerBlock(spec=CLIP, views=1, tokens=257, run=RUN),
    NoTPTransformer(spec=CLIP, views=1, tokens=257, run=RUN),
    VitModel(spec=CLIP, views=1, side=16, run=RUN),
    MlpProjector(width_in=2048, width_out=1280, tokens=256, run=RUN),
    VisionStack(spec=SPEC, workload=MODES["base"], batch=1, run=RUN),
    LlamaFlashAttention2(spec=TEXT, shape=TEN, run=RUN),
    LlamaRotaryEmbedding(head_dim=128, new_tokens=10, run=RUN),
    DeepseekV2RMSNorm(width=1280, tokens=10, run=RUN),
    DeepseekV2MLP(width=1280, hidden=6848, tokens=10, run=RUN),
    MoEGate(spec=TEXT, tokens=10, run=RUN),
    RoutedExperts(spec=TEXT, tokens=10, run=RUN),
    DeepseekV2MoE(spec=TEXT, shared=DeepseekV2MLP(width=1280, hidden=1792, tokens=10, run=RUN), tokens=10, run=RUN),
    DeepseekV2DecoderLayer(spec=TEXT, shape=TEN, sparse=True, run=RUN),
    TokenEmbedding(vocab_size=129280, width=1280, tokens=10, run=RUN),
    LmHead(vocab_size=129280, width=1280, rows=1, run=RUN),
    Decoder(spec=TEXT, shape=TEN, logits="last", run=RUN),
]
WITHOUT_PRODUCTS = (LlamaRotaryEmbedding, DeepseekV2RMSNorm, TokenEmbedding)


def test_no_layer_is_forgotten() -> None:
    def concrete(layer: type[AnalyticLayer]) -> set[type[AnalyticLayer]]:
        own = () if inspect.isabstract(layer) else (layer,)
        return {*own, *(found for one in layer.__subclasses__() for found in concrete(one))}

    known = {type(layer).__name__ for layer in LAYERS} | {DeepseekOCRModel.__name__}
    its = (layer for layer in concrete(AnalyticLayer) if ".deepseek_ocr." in layer.__module__)
    assert known == {layer.__name__ for layer in its}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_every_layer_answers_every_question(layer: AnalyticLayer) -> None:
    for direction in ("forward", "backward"):
        for question in ("tensor_core_flops", "cuda_core_flops", "cal_io", "memory_weight", "memory_activation"):
            value = getattr(layer, f"{direction}_{question}")()
            assert isinstance(value, int), question
            assert value >= 0, question
        assert getattr(layer, f"{direction}_cal_io")() > 0
        assert getattr(layer, f"{direction}_memory_activation")() > 0
        assert (getattr(layer, f"{direction}_tensor_core_flops")() > 0) != isinstance(layer, WITHOUT_PRODUCTS)
        assert getattr(layer, f"{direction}_memory_kvcache")() >= 0
        assert getattr(layer, f"{direction}_arithmetic_intensity")() >= 0


def test_bytes_by_hand() -> None:
    # RMSNorm on 10 x 1280 in bfloat16: read 2 (cast) + 4 (square) + 4 (mean) + 4 (scale) + 4 (cast back) + 2 (weight) an
    # element, 12 a row, the weights; written 4 + 4 + 4 + 2 + 2 an element, 12 a row
    norm = DeepseekV2RMSNorm(width=1280, tokens=10, run=RUN)
    assert norm.forward_cal_io() == 12_800 * 20 + 120 + 2_560 + 12_800 * 16 + 120
    # gate, up and down on 10 x 1280 through 64: each reads x and W and writes y; silu reads and writes 64, the product
    # reads twice and writes once
    mlp = DeepseekV2MLP(width=1280, hidden=64, tokens=10, run=RUN)
    linears = 3 * (10 * 1280 + 1280 * 64 + 10 * 64) * 2
    assert mlp.forward_cal_io() == linears + (2 + 3) * 10 * 64 * 2
    # a CLIP block's products in the decomposed form: q, k, v and the scores read, scores and output written, float32
    block = NoTPTransformerBlock(spec=CLIP, views=1, tokens=5, run=RUN)
    (products,) = (op for op in dict(block.tree("b").walk())["b.self_attn"].ops if op.executed_flops)
    assert products.read_bytes == (3 * 5 * 1024 + 16 * 5 * 5) * 4
    assert products.written_bytes == (5 * 1024 + 16 * 5 * 5) * 4


def test_activations_by_hand() -> None:
    # one token through the head: the token and 129280 logits in bfloat16
    head = LmHead(vocab_size=129280, width=1280, rows=1, run=RUN)
    assert head.forward_memory_activation() == 2 * (1280 + 129280)
    # global SAM attention in eager bfloat16: scores in bf16, the sum with the bias in bf16, float32 and the softmax in
    # float32 (2 + 2 + 4 + 4 bytes), and q, k, v in one
    eager = Execution(device="meta", attention="eager", experts="grouped_mm", dtype="bfloat16")
    attention = SamAttention(spec=SAM, groups=1, side=64, windowed=False, run=eager)
    scores = 12 * 4096 * 4096
    assert attention.forward_memory_activation() == scores * 12 + 3 * 4096 * 768 * 2


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_an_array_of_views_costs_what_each_costs(device: str, attention: str) -> None:
    run = Execution(device=device, attention=attention, experts="grouped_mm", dtype="bfloat16")
    views = [1, 2, 7]

    def layers(count: object) -> list[AnalyticLayer]:
        return [
            ImageEncoderViT(spec=SAM, views=count, side_px=640, run=run),
            VitModel(spec=CLIP, views=count, side=10, run=run),
            MlpProjector(width_in=2048, width_out=1280, tokens=count, run=run),
        ]

    together = [layer.forward_cost().as_dict() for layer in layers(np.array(views))]
    for index, count in enumerate(views):
        for columns, layer in zip(together, layers(count), strict=True):
            for name, value in layer.forward_cost().as_dict().items():
                assert np.broadcast_to(columns[name], 3)[index] == value, (type(layer).__name__, name)
