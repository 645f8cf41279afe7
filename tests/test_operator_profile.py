"""The operator profile that `--torch-profile` keeps: every operator in its module, beside the work of the closed form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analytic.models.deepseek_ocr.workload import MODES
from fixtures.model.timed_calls import Call, Calls
from fixtures.timing.operator_profile import HOST, OPERATOR_PROFILE, OperatorProfile
from fixtures.timing.profile import ROUNDS, profile, profile_of
from fixtures.timing.samples import refuse_disturbance
from fixtures.validation.counted_call import Counted, counted

EXPERTS = "model.language_model.layers.*.mlp.experts"


@pytest.fixture(scope="module")
def subject(subject_on: Callable[..., Any]) -> Any:
    return subject_on("cpu", "sdpa", "grouped_mm", "tiny")


@pytest.fixture(scope="module")
def decode(subject: Any) -> Call:
    return Calls(subject, batch_size=1, context_len=lambda length: length).decode(16, steps=2)


@pytest.fixture(scope="module")
def ran(decode: Call, subject: Any) -> Counted:
    return counted(decode, subject)


@pytest.fixture(scope="module")
def kept(decode: Call, ran: Counted, subject: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    stored, table, trace = profile(decode, folder, "16", device="cpu", model=subject.model, ran=ran)
    assert {path.name for path in folder.iterdir()} == {stored.name, table.name, trace.name}
    assert "aten::mm" in table.read_text()
    return stored


def test_every_operator_is_in_its_module(kept: Path, ran: Counted) -> None:
    found = OperatorProfile.read(kept)
    assert (found.stage, found.point, found.clock, found.units, found.rounds) == ("decode", "16", "host", 2, ROUNDS)
    calls = {(one.module, one.operator): one.calls for one in found.operators}
    assert calls["lm_head", "aten::mm"] == 1  # per token
    assert calls["model.language_model.layers.*.self_attn.q_proj", "aten::mm"] == 4  # the tiny preset's layers
    assert calls["model.language_model.layers.*.self_attn.q_proj", HOST] == 4
    # the modules that the ledger saw run an operator are those that the profiler did
    assert {path for path, work in ran.blocks.items() if work.calls} <= {one.module for one in found.operators}
    assert all(one.low_s <= one.time_s <= one.high_s for one in found.operators)
    assert found.time_s == pytest.approx(sum(one.time_s for one in found.operators))


def test_the_work_beside_it_is_that_of_the_closed_form(kept: Path, decode: Call, ran: Counted) -> None:
    modules = {one.module: one for one in OperatorProfile.read(kept).modules}
    for side in ("closed_form", "measured"):
        flops = sum(getattr(module, side).flops for module in modules.values())
        assert flops == pytest.approx(int(decode.cost.executed_flops))
    assert modules[EXPERTS].measured.bytes == ran.blocks[EXPERTS].bytes / 2
    assert all(module.closed_form.flops == module.measured.flops for module in modules.values())


def test_a_part_holds_only_its_own_work(subject: Any) -> None:
    call = Calls(subject, batch_size=1, context_len=lambda length: length).part("projector", MODES["tiny"])
    found = profile_of(call, "tiny", [], counted(call, subject), clock="host")
    assert {module.module for module in found.modules} == {"model.multi_modal_projector"} | {
        module.module for module in found.modules if module.module.startswith("model.multi_modal_projector.")
    }
    assert sum(module.closed_form.flops for module in found.modules) == int(call.cost.executed_flops)


def test_nothing_of_it_stays_on_the_model(kept: Path, subject: Any) -> None:
    assert kept.is_file()
    refuse_disturbance(subject.model)  # raises while a module has a hook


def test_a_round_without_an_operator_counts_as_none_of_its_time(decode: Call, ran: Counted) -> None:
    # two units a round: 4 s, none, 8 s become 2, 0 and 4 s per unit
    rounds = [{("", "aten::mm"): (2, 4.0)}, {}, {("", "aten::mm"): (2, 8.0)}]
    (row,) = profile_of(decode, "16", rounds, ran, clock="device").operators
    assert (row.calls, row.time_s, row.low_s, row.high_s) == (1, 2.0, 0.0, 4.0)


def test_the_file_reads_back_as_it_was(kept: Path) -> None:
    found = OperatorProfile.read(kept)
    assert OperatorProfile.from_json(json.loads(OPERATOR_PROFILE.text(found.as_json(), where="here"))) == found


def test_what_raises_in_a_call_leaves_no_hook(decode: Call, ran: Counted, subject: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    def broken() -> None:
        subject.model.lm_head(torch.zeros(1, 3))  # of another width

    with pytest.raises(RuntimeError):
        profile(replace(decode, run=broken, restore=None), tmp_path, "16", device="cpu", model=subject.model, ran=ran)
    refuse_disturbance(subject.model)
