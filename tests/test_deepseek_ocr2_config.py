"""Configs of DeepSeek-OCR-2: transformers' and the vendor's are read, and what would change the cost is refused."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from analytic.models.registry import load_spec, recognised
from fixtures.model.deepseek_ocr2 import config_for
from tests.configs import at, changed, spec_of, vendors, without

FULL = load_spec("deepseek-ocr-2-base")
ENCODER = ("vision_config", "encoder_config")


def vendors_own() -> dict[str, Any]:
    """The vendor's config.json as published: that of DeepSeek-OCR with another second encoder and projector."""
    made = copy.deepcopy(vendors())
    width = made["vision_config"]["width"]
    del width["clip-l-14-224"]
    width["qwen2-0-5b"] = {"dim": 896}
    made["vision_config"]["model_name"] = "deepencoderv2"
    made["projector_config"]["input_dim"] = 896
    return {**made, "architectures": ["DeepseekOCR2ForCausalLM"]}


@pytest.mark.parametrize("config", [config_for(FULL), config_for(FULL).to_dict(), vendors_own()])
def test_a_config_gives_the_preset(config: Any) -> None:
    assert spec_of(config) == replace(FULL, model_id="m", model_variant="v")
    assert recognised(config)[0].title == "DeepSeek-OCR-2"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*ENCODER, "use_sliding_window"), True, r"use_sliding_window: got True, accepted: False \(DeepSeek-OCR-2\)"),
        (
            (*ENCODER, "layer_types"),
            ["sliding_attention"],
            "layer_types: got .*full_attention in each of the 24",
        ),
        ((*ENCODER, "num_key_value_heads"), 3, "encoder.num_kv_heads: got 3, accepted: a divisor of 14"),
        ((*ENCODER, "novelty"), 1, "encoder_config.novelty: got 1, accepted: only the fields of DeepSeek-OCR-2's config"),
        (("text_config", "mlp_layer_types"), ["sparse"], "mlp_layer_types: got .*dense ones first"),
        (("vision_config", "sam_config", "downsample_channels"), [512, 1024], "accepted: a last value of 896"),
    ],
)
def test_what_would_change_the_cost_is_refused(path: tuple[str, ...], value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec_of(changed(config_for(FULL).to_dict(), path, value))


def test_a_width_that_follows_from_its_ratio_and_fields_of_no_cost_are_read() -> None:
    given, sam = config_for(FULL).to_dict(), ("vision_config", "sam_config")
    assert at(given, (*sam, "mlp_dim")) == 3072
    for config in (changed(given, (*sam, "mlp_dim"), None), without(given, (*sam, "mlp_dim"))):
        assert spec_of(config).sam.mlp_dim == 4 * 768
    assert spec_of(changed(given, (*ENCODER, "vocab_size"), 1)) == spec_of(given)
    with pytest.raises(ValueError, match=r"projector_config\.input_dim: got 2048, accepted: 896"):
        spec_of(changed(vendors_own(), ("projector_config", "input_dim"), 2048))
