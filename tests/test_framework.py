"""Framework profiles: which one describes a release, what a trait changes and what it never does, and where it is asked."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytic.core.cost import CostNode
from analytic.core.execution import Execution
from analytic.core.op import EXACT_KINDS
from analytic.framework import TORCH, TRANSFORMERS, Framework, FrameworkProfile, installed
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import gundam
from analytic.models.spec import ModelSpec

ROOT = Path(__file__).resolve().parent.parent
SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
BEFORE, AFTER = (Framework.of(transformers=release, torch="2.13.0") for release in ("5.23.0", "5.24.0"))
META = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16", framework=BEFORE)
RUNS = [
    META,
    replace(META, attention="eager", experts="batched_mm"),
    replace(META, device="cpu"),
    replace(META, device="cpu", attention="eager", experts="eager"),
]


def trees(run: Execution) -> list[CostNode]:
    """Vision of a page, a prefill, and a token on it."""
    root = DeepseekOCRModel.from_spec(SPEC, run=run)
    found = []
    for side_px in (1024, 640):
        root.start_vision(workload=replace(gundam(None), base_size=side_px))
        found.append(root.tree())
    root.start_prefill(300, 2)
    found.append(root.tree())
    root.start_decode()
    found.append(root.tree())
    return found


def architecture(run: Execution) -> list[tuple[str, int, int, int, int]]:
    """FLOPs on tensor cores (executed, useful), parameters and cache of every module."""
    return [
        (
            path,
            sum(int(op.executed_flops) for op in node.ops if op.kind in EXACT_KINDS),
            sum(int(op.useful_flops) for op in node.ops if op.kind in EXACT_KINDS),
            node.parameters,
            int(node.kv_bytes),
        )
        for tree in trees(run)
        for path, node in tree.walk()
    ]


def glue(run: Execution) -> list[tuple[int, ...]]:
    """Everything else."""
    names = ("launches", "counter_flops", "cuda_core_flops", "read_bytes", "written_bytes")
    return [
        (*(sum(int(getattr(op, name)) for op in node.ops) for name in names), node.parameter_bytes)
        for tree in trees(run)
        for _, node in tree.walk()
    ]


def with_trait(run: Execution, name: str, value: object) -> Execution:
    return replace(run, framework=replace(run.framework, profile=run.framework.profile.with_trait(name, value)))


def test_every_known_release_has_its_own_profile() -> None:
    for transformers in TRANSFORMERS:
        for torch in TORCH:
            for releases in ((one, other) for one in transformers.releases for other in torch.releases):
                found = Framework.of(*releases)
                assert found.profile == FrameworkProfile(transformers=transformers, torch=torch)
                assert (found.verified, found.notice()) == (True, None)


def test_a_build_of_a_release_is_that_release() -> None:
    assert Framework.of("5.23.0", "2.13.0+cpu") == Framework.of("5.23.0", "2.13.0+cu130") == BEFORE


@pytest.mark.parametrize(
    ("transformers", "torch", "notice"),
    [
        ("5.99.0", "2.13.0", rf"transformers 5.99.0 is not verified (nearest profile {TRANSFORMERS[-1].version})"),
        ("5.23.7", "2.13.0", "transformers 5.23.7 is not verified (nearest profile 5.23)"),
        ("5.24.0.dev0", "2.13.0", "transformers 5.24.0.dev0 is not verified (nearest profile 5.24)"),
        ("4.57.6", "2.13.0", "transformers 4.57.6 is not verified (nearest profile 5.20)"),
        (
            "6.0.0",
            "3.1.0a0+git1234",
            f"transformers 6.0.0 is not verified (nearest profile {TRANSFORMERS[-1].version}) and torch 3.1.0a0 is not "
            f"verified (nearest profile {TORCH[-1].version})",
        ),
    ],
)
def test_a_release_that_nobody_ran_says_so_and_takes_the_nearest_line_before_it(
    transformers: str, torch: str, notice: str
) -> None:
    found = Framework.of(transformers, torch)
    assert (found.verified, found.notice()) == (False, notice)


def test_a_text_that_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"transformers: got version 'main', accepted: a release such as 5\.24\.0"):
        Framework.of("main", "2.13.0")


def test_what_is_installed_is_read_without_importing_it() -> None:
    import torch
    import transformers

    found = installed()
    assert found.transformers == transformers.__version__.partition("+")[0]
    assert found.torch == torch.__version__.partition("+")[0]
    default = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    assert default.framework is found


def test_the_router_of_5_24_keeps_its_weights_in_float32_by_hand() -> None:
    old, new = (dict(trees(replace(META, framework=one))[2].walk()) for one in (BEFORE, AFTER))
    table = 64 * 1280
    gates = [path for path in old if path.endswith("mlp.gate")]
    assert len(gates) == 11
    for path in gates:
        before, after = old[path], new[path]
        assert (before.parameters, after.parameters) == (table, table)
        assert (before.parameter_bytes, after.parameter_bytes) == (table * 2, table * 4)
        # the table's cast is gone: it read bfloat16 and wrote float32
        assert before.operand_bytes() - after.operand_bytes() == table * (2 + 4)
        assert sum(int(op.launches) for op in before.ops) - sum(int(op.launches) for op in after.ops) == 1
    elsewhere = {path for path in old if old[path].ops != new[path].ops} - set(gates)
    assert elsewhere == set()
    # the floor reads each layer's router once, in the dtype that it is kept in
    assert all(new[path].fused_bytes - old[path].fused_bytes == table * 2 for path in new if path.endswith(".1.mlp"))


TRAITS = BEFORE.profile.alternatives()


@pytest.mark.parametrize(("name", "value"), TRAITS, ids=[f"{name}={value}" for name, value in TRAITS])
def test_a_trait_changes_glue_somewhere_and_the_architecture_nowhere(name: str, value: object) -> None:
    changed = False
    for run in RUNS:
        other = with_trait(run, name, value)
        assert architecture(other) == architecture(run)
        changed |= glue(other) != glue(run)
    assert changed


@given(st.lists(st.sampled_from(TRAITS), max_size=8), st.sampled_from(RUNS))
def test_no_profile_changes_the_architecture(changes: list[tuple[str, object]], run: Execution) -> None:
    other = run
    for name, value in changes:
        other = with_trait(other, name, value)
    assert architecture(other) == architecture(run)


def test_in_float32_nothing_is_cast_whatever_the_profile_says() -> None:
    float32 = replace(META, dtype="float32")
    for name, value in TRAITS:
        if "float32" in (value, BEFORE.profile.traits()[name]):
            assert glue(with_trait(float32, name, value)) == glue(float32)


def test_a_name_that_is_no_trait_is_refused() -> None:
    with pytest.raises(ValueError, match="trait: got 'speed', accepted: router_weight_dtype, norm_dtype"):
        BEFORE.profile.with_trait("speed", 2)
    with pytest.raises(ValueError, match="trait: got 'releases'"):
        BEFORE.profile.with_trait("releases", ())


@pytest.mark.parametrize(
    ("mine", "other", "reason"),
    [
        (("5.23.0", "2.13.0"), ("5.23.0", "2.13.0"), None),
        (("5.23.0", "2.13.0"), ("5.22.2", "2.14.1"), None),  # the same traits
        (("5.23.0", "2.13.0"), ("5.24.0", "2.13.0"), "transformers 5.23.0 against 5.24.0"),
        (("5.24.0", "2.13.0"), ("5.99.0", "9.0.0"), "transformers 5.24.0 against 5.99.0; torch 2.13.0 against 9.0.0"),
        (("5.99.0", "2.13.0"), ("5.99.0", "2.13.0"), None),
    ],
)
def test_glue_is_comparable_where_the_traits_are_known_to_be_the_same(
    mine: tuple[str, str], other: tuple[str, str], reason: str | None
) -> None:
    assert Framework.of(*mine).incomparable(Framework.of(*other)) == reason


def test_one_module_spells_how_transformers_is_called() -> None:
    spelled = re.compile(r"past_key_values|last_hidden_state|pooler_output|[\"(]logits_to_keep\"")
    found = {
        str(path.relative_to(ROOT)): matches
        for folder in ("analytic", "benchmarks", "fixtures")
        for path in (ROOT / folder).rglob("*.py")
        if (matches := spelled.findall(path.read_text(encoding="utf-8")))
    }
    assert set(found) == {"analytic/framework.py", "fixtures/adapter.py"}
