"""Hugging Face configs: which are read, which are refused, and that no field of one is ignored."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.hf_fields import TRANSFORMERS, VENDOR
from analytic.models.deepseek_ocr.workload import MODES
from analytic.models.registry import recognised
from analytic.models.spec import ModelSpec
from fixtures.config.points import Point
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.validation.bench import Bench
from tests.configs import (
    Config,
    Where,
    as_object,
    at,
    changed,
    leaves,
    section_at,
    spec_of,
    transformers_of,
    vendors,
    without,
)

META = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
TINY = transformers_of("tiny")
FULL = transformers_of("deepseek-ocr-v1-base")
VENDORS = vendors()
LAYOUTS = {"transformers": (TINY, TRANSFORMERS), "vendor": (VENDORS, VENDOR)}


def named(spec: ModelSpec) -> ModelSpec:
    return replace(spec, model_id="m", model_variant="v")


# --- what is read


@pytest.mark.parametrize("form", [lambda config: config, as_object, lambda config: SimpleNamespace(**config)])
@pytest.mark.parametrize("config", [FULL, VENDORS], ids=["transformers", "vendor"])
def test_a_config_of_deepseek_ocr_gives_the_preset(full_spec: ModelSpec, config: Config, form: Callable) -> None:
    assert spec_of(form(config)) == named(full_spec)
    assert recognised(form(config))[0].title == "DeepSeek-OCR"


def test_a_config_of_transformers_gives_the_preset_as_an_object_and_as_its_file(full_spec: ModelSpec) -> None:
    import json

    from fixtures.model.deepseek_ocr import config_for

    made = config_for(full_spec)
    assert spec_of(made) == named(full_spec)
    made.architectures = ["UnlimitedOcrForConditionalGeneration"]
    assert spec_of(json.loads(made.to_json_string())) == named(full_spec)
    made.dtype = torch.bfloat16
    assert spec_of(made) == named(full_spec)


def test_the_object_of_the_vendors_code_has_the_text_fields_at_its_root(full_spec: ModelSpec) -> None:
    given = {**VENDORS, "model_type": "DeepseekOCR", "torch_dtype": torch.bfloat16, "num_beams": 1, "temperature": 1.0}
    given |= {
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "aux_loss_alpha": 0.001,
        "ep_size": 1,
    }
    for config in (given, without(given, ("language_config",))):
        assert spec_of(as_object(config)) == named(full_spec)
    nested_alone = {name: value for name, value in VENDORS.items() if name not in VENDORS["language_config"]}
    assert spec_of({**nested_alone, "architectures": ["DeepseekOCRForCausalLM"]}) == named(full_spec)


def test_fields_left_out_are_those_of_transformers_classes() -> None:
    from transformers.models.unlimited_ocr import UnlimitedOcrConfig

    default = UnlimitedOcrConfig(text_config={"layer_types": ["full_attention"] * 12}).to_dict()
    sparse = {"model_type": "unlimited_ocr", "text_config": {"layer_types": ["full_attention"] * 12}}
    assert spec_of(sparse) == spec_of(default)
    assert spec_of(sparse).text.max_position_embeddings == 32768


# --- what is refused


def test_other_models_are_recognised_and_not_modelled() -> None:
    for config, name in (({**VENDORS, "architectures": ["DeepseekVLV2ForCausalLM"]}, "DeepSeek-VL2"),):
        with pytest.raises(
            ValueError, match=rf"config: recognised as {name}; not modelled, accepted: a config of DeepSeek"
        ):
            spec_of(config)
    mixed = ["full_attention"] * 11 + ["reference_sliding_attention"]
    with pytest.raises(ValueError, match=r"full_attention in each of the 12 layers .*is Unlimited-OCR"):
        spec_of(changed(FULL, ("text_config", "layer_types"), mixed))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"architectures: got None with model_type None, accepted: UnlimitedOcrForConditionalGeneration, Deepseek"),
        ({"model_type": "qwen2"}, "architectures: got None with model_type 'qwen2', accepted: "),
        ({**FULL, "architectures": ["UnlimitedOcrModel"]}, r"architectures: got \['UnlimitedOcrModel'\]"),
        (3, "config: got 3, accepted: a config of DeepSeek-OCR, as a mapping or as an object"),
        (None, "config: got None, accepted"),
        (SimpleNamespace, "config: got <class"),
        ({**VENDORS, "vision_config": 7}, "vision_config: got 7, accepted: a config"),
        ({**VENDORS, "projector_config": None}, r"projector_config.input_dim: got none, accepted: that of a DeepSeek-OCR"),
        ({**VENDORS, "hidden_size": 2048}, r"language_config.hidden_size: got 1280, accepted: 2048, as at the root"),
        ({**VENDORS, "use_mla": True}, r"^use_mla: got True, accepted: False .*latent attention is not modelled"),
        (
            {**VENDORS, "speculative": 4},
            r"speculative: got 4, accepted: only the fields of DeepSeek-OCR's config, .*remove",
        ),
        (
            {**VENDORS, "sliding_window": 128},
            r"^sliding_window: got 128, accepted: none .*; a window is that of an Unlimited-OCR",
        ),
        (
            {**VENDORS, "quantization_config": {"quant_method": "fp8"}},
            r"quantization_config: got \{'quant_method': 'fp8'\}, accepted: none .*use the unquantised checkpoint",
        ),
        (
            changed(VENDORS, ("projector_config", "projector_type"), "mlp_gelu"),
            r"projector_config.projector_type: got 'mlp_gelu', accepted: linear",
        ),
        (changed(VENDORS, ("projector_config", "input_dim"), 896), r"projector_config.input_dim: got 896, accepted: 2048"),
        (changed(VENDORS, ("language_config", "rope_scaling"), {"type": "yarn"}), r"language_config.rope_scaling: got "),
        (
            changed(FULL, ("text_config", "rope_parameters"), {"rope_type": "yarn", "factor": 4.0}),
            r"text_config.rope_parameters.factor: got 4.0, accepted: only the fields",
        ),
        (
            changed(FULL, ("text_config", "rope_parameters", "rope_type"), "dynamic"),
            r"text_config.rope_parameters.rope_type: got 'dynamic', accepted: default",
        ),
        (changed(FULL, ("text_config", "use_cache"), False), r"text_config.use_cache: got False, accepted: True"),
        (changed(FULL, ("text_config", "n_shared_experts"), 0), r"text_config.n_shared_experts: got 0, accepted: a whole"),
        (changed(FULL, ("tie_word_embeddings",), True), r"tie_word_embeddings: got True, accepted: False"),
        (
            changed(FULL, ("dtype",), "float8_e4m3fn"),
            r"dtype: got 'float8_e4m3fn', accepted: bfloat16 or float16 or float32",
        ),
        (
            changed(FULL, ("vision_config", "sam_config", "image_size"), [1024, 512]),
            r"sam_config.image_size: got \[1024, 512",
        ),
    ],
)
def test_what_is_not_deepseek_ocr_is_refused_by_name(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(config)


LEGACY = {
    **dict.fromkeys(("add_cross_attention", "is_decoder", "is_encoder_decoder", "output_attentions"), False),
    **dict.fromkeys(("output_hidden_states", "output_scores", "return_dict_in_generate", "tie_encoder_decoder"), False),
    **dict.fromkeys(("tie_word_embeddings", "torchscript", "use_bfloat16"), False),
    **dict.fromkeys(("num_beam_groups", "num_beams", "num_return_sequences"), 1),
    **dict.fromkeys(("cross_attention_hidden_size", "quantization_config", "compression_config"), None),
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "return_dict": True,
}
"""What configs of earlier releases of transformers hold in every part."""


@pytest.mark.parametrize("name", LEGACY)
def test_a_default_of_earlier_releases_is_read_and_another_value_is_refused(full_spec: ModelSpec, name: str) -> None:
    assert named(spec_of({**FULL, name: LEGACY[name]})) == named(full_spec)
    other = {"of": "another"} if LEGACY[name] in (None, {}) else not LEGACY[name] if LEGACY[name] in (True, False) else 7
    with pytest.raises(ValueError, match=name):
        spec_of({**FULL, name: other})


def test_mla_is_refused_wherever_it_is_said_and_also_where_nothing_is_said() -> None:
    text = {**VENDORS["language_config"], "use_mla": True}
    for config in (
        without({**VENDORS, "language_config": text}, ("use_mla",)),
        without(
            without(VENDORS, ("use_mla",)), ("language_config", "use_mla")
        ),  # the default of the vendor's class is true
    ):
        with pytest.raises(
            ValueError, match=r"language_config.use_mla: got (True|None), accepted: False .*latent attention"
        ):
            spec_of(config)


# --- no field is ignored


FAST = settings(max_examples=1000, print_blob=False)


def other_values(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same kind, and of others."""
    kinds = {
        bool: st.just(not value),
        int: st.integers(0, 300),
        float: st.floats(0, 10),
        str: st.sampled_from(["", "none", "gelu", "relu", "float32", "mlp_gelu", "yarn", "sparse"]),
        list: st.permutations(value) | st.just(value[:-1]) | st.just([*value, 1]) if isinstance(value, list) else st.none(),
    }
    strange = st.sampled_from([None, True, 0, -1, 7, "x", [], [1, 2], {"a": 1}])
    return kinds.get(type(value), strange) | strange


def is_free(section: Any, path: Where) -> bool:
    """Whether the field is known to change no cost."""
    own = section_at(section, path[:-1])
    return path[-1] in own.free or (own.repeats is not None and path[-1] in own.parts[own.repeats].free)


def is_accepted(section: Any, path: Where, value: Any) -> bool:
    """Whether a fixed field has one of its accepted values."""
    own = section_at(section, path[:-1])
    repeated = None if own.repeats is None else own.parts[own.repeats].fixed.get(path[-1])
    return value in (own.fixed.get(path[-1]) or repeated or ())


def same_dimension(path: Where, before: Any, after: Any) -> bool:
    """Whether two values of a size say the same: layers in another order, none for what is derived."""
    if path[-1] == "global_attn_indexes":
        return isinstance(after, list) and sorted(map(str, after)) == sorted(map(str, before))
    derived = ("num_key_value_heads", "head_dim", "mlp_layer_types")
    return bool(after == before) or (after is None and path[-1] in (*derived, *VENDORS["language_config"]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_field_of_a_config_is_known(layout: str) -> None:
    config, section = LAYOUTS[layout]
    for path in leaves(config):
        own = section_at(section, path[:-1])
        assert own.knows(path[-1]) or own.parts[str(own.repeats)].knows(path[-1]), path


@FAST
@given(data=st.data())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_field_is_refused_or_costed_or_known_to_be_free(layout: str, data: Any) -> None:
    config, section = LAYOUTS[layout]
    path = data.draw(st.sampled_from(sorted(leaves(config))))
    before = at(config, path)
    after = data.draw(other_values(before))
    try:
        found = spec_of(changed(config, path, after))
    except ValueError:
        return
    if found.family != spec_of(config).family:  # layers that slide are costed as those of Unlimited-OCR
        assert path == ("text_config", "layer_types")
        return
    unchanged = found == spec_of(config)
    harmless = is_free(section, path) or is_accepted(section, path, after) or same_dimension(path, before, after)
    assert unchanged == harmless, f"{path}: {before!r} -> {after!r}"


@FAST
@given(data=st.data(), name=st.text(min_size=1), value=st.integers() | st.text() | st.booleans())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_field_that_nobody_knows_is_refused_in_every_part(layout: str, data: Any, name: str, value: Any) -> None:
    config, _ = LAYOUTS[layout]
    parts = sorted({path[:-1] for path in leaves(config)})
    path = (*data.draw(st.sampled_from(parts)), f"{name}!")
    with pytest.raises(ValueError, match="accepted: only the fields of DeepSeek-OCR's config"):
        spec_of(changed(config, path, value))


# --- what is read is what runs


def differences(config: Config, *, spec: ModelSpec | None = None) -> list[Any]:
    """Where the cost on meta of transformers' model of a config is not the closed form of the spec read from it."""
    from transformers.models.unlimited_ocr import UnlimitedOcrConfig, UnlimitedOcrForConditionalGeneration

    spec = spec_of(config) if spec is None else spec
    fields = {name: value for name, value in config.items() if name not in ("model_type", "transformers_version")}
    with torch.device("meta"):
        model = UnlimitedOcrForConditionalGeneration._from_config(
            UnlimitedOcrConfig(**fields),
            dtype=torch.bfloat16,
            attn_implementation=META.attention,
            experts_implementation=META.experts,
        ).eval()
    bench = Bench(ModelUnderTest(spec=spec, run=META, model=model), batch_size=1, decode_steps=2)
    length = Point(label="24", seq_len=24, page=None)
    page = Point(label="tiny", seq_len=None, page=MODES["tiny"])
    return [one for result in (bench.prefill(length), bench.decode(length), bench.vision(page))
            for one in result.comparison.differences()]  # fmt: skip


SIZES = {
    ("image_token_id",): 7,
    ("text_config", "hidden_size"): 96,
    ("text_config", "num_hidden_layers"): None,  # lists of layers go with it
    ("text_config", "num_attention_heads"): None,
    ("text_config", "intermediate_size"): 96,
    ("text_config", "moe_intermediate_size"): 32,
    ("text_config", "n_routed_experts"): 16,
    ("text_config", "num_experts_per_tok"): 3,
    ("text_config", "n_shared_experts"): 1,
    ("text_config", "vocab_size"): 2048,
    ("text_config", "max_position_embeddings"): 4096,
    ("text_config", "mlp_layer_types"): ["dense", "dense", "sparse", "sparse"],
    ("vision_config", "sam_config", "hidden_size"): 64,
    ("vision_config", "sam_config", "num_hidden_layers"): 5,
    ("vision_config", "sam_config", "num_attention_heads"): 4,
    ("vision_config", "sam_config", "mlp_dim"): 96,
    ("vision_config", "sam_config", "window_size"): 7,
    ("vision_config", "sam_config", "global_attn_indexes"): [3],
    ("vision_config", "sam_config", "image_size"): 512,
    ("vision_config", "sam_config", "output_channels"): 32,
    ("vision_config", "sam_config", "downsample_channels"): [64, 48],
    ("vision_config", "encoder_config", "num_hidden_layers"): 2,
    ("vision_config", "encoder_config", "num_attention_heads"): 4,
    ("vision_config", "encoder_config", "intermediate_size"): 192,
    ("vision_config", "encoder_config", "image_size"): 112,
    ("vision_config", "encoder_config", "patch_size"): 28,
}


@pytest.mark.parametrize("path", [path for path, value in SIZES.items() if value is not None], ids=".".join)
def test_a_changed_size_is_costed_as_transformers_model_of_that_config_runs(path: Where) -> None:
    config = without(changed(TINY, path, SIZES[path]), ("text_config", "head_dim"))
    assert spec_of(config) != spec_of(TINY)
    assert differences(config) == []


FREE = {
    ("text_config", "attention_dropout"): 0.5,
    ("text_config", "bos_token_id"): 5,
    ("text_config", "eos_token_id"): [6, 7],
    ("text_config", "pad_token_id"): 8,
    ("text_config", "initializer_range"): 0.5,
    ("text_config", "n_group"): 4,
    ("text_config", "topk_group"): 2,
    ("text_config", "rms_norm_eps"): 1e-3,
    ("text_config", "routed_scaling_factor"): 16.0,
    ("text_config", "rope_parameters", "rope_theta"): 5e5,
    ("text_config", "sliding_window"): 4,
    ("vision_config", "sam_config", "attention_dropout"): 0.5,
    ("vision_config", "sam_config", "initializer_range"): 0.5,
    ("vision_config", "sam_config", "layer_norm_eps"): 1e-3,
    ("vision_config", "encoder_config", "attention_dropout"): 0.5,
    ("vision_config", "encoder_config", "initializer_factor"): 0.5,
    ("vision_config", "encoder_config", "initializer_range"): 0.5,
    ("vision_config", "encoder_config", "layer_norm_eps"): 1e-3,
}


def test_the_free_fields_that_transformers_model_reads_change_nothing_that_runs() -> None:
    config = TINY
    for path, value in FREE.items():
        config = changed(config, path, value)
    assert spec_of(config) == spec_of(TINY)
    assert differences(config) == []


def test_no_free_field_of_transformers_classes_is_left_unmeasured() -> None:
    base = set(TINY)  # what every config has: names, labels and the forms of outputs
    own = {path for path in leaves(TINY) if path[-1] in section_at(TRANSFORMERS, path[:-1]).free}
    assert {path for path in own if path[-1] not in base} == set(FREE)


def test_what_is_refused_runs_otherwise_than_the_closed_form_says() -> None:
    """The comparison above can fail: a bias that `spec_of` refuses is measured, beside the closed form without it."""
    with pytest.raises(ValueError, match=r"text_config.attention_bias: got True, accepted: False"):
        spec_of(changed(TINY, ("text_config", "attention_bias"), True))
    assert differences(changed(TINY, ("text_config", "attention_bias"), True), spec=spec_of(TINY)) != []
