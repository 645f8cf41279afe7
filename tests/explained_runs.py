"""Records and operator profiles of runs that differ in one thing, for the tests of `nox -s explain`."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analytic.io.run_record import RECORD
from fixtures.explain.explanation import explained
from fixtures.report.run import run_of
from fixtures.timing.operator_profile import OPERATOR_PROFILE, ModuleWork, OperatorProfile, OperatorTime, WorkPerUnit
from tests import samples

MLP, HEAD = "model.language_model.layers.*.mlp", "lm_head"


def recorded() -> dict[str, Any]:
    """The sample with rounds that differ by 0.1%, so that what is changed in it is beyond the noise."""
    made = RECORD.current(json.loads(samples.RECORD.read_text()), where="the sample")
    for timing in made["timings"]:
        timing["samples_s"] = [timing["time_s"] * (1 + step / 1000) for step in (-1, 0, 0, 0, 1)]
        timing["measured_bytes"] = 40 * timing["fused_bytes"]
    return made | {"gate": None}


def decode_of(record: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = (timing for timing in record["timings"] if timing["stage"] == "decode")
    return found


def slower(record: dict[str, Any], factor: float) -> dict[str, Any]:
    """The record with another time of its decode."""
    made = copy.deepcopy(record)
    decode = decode_of(made)
    decode["time_s"] *= factor
    decode["samples_s"] = [sample * factor for sample in decode["samples_s"]]
    return made


def operator(module: str, name: str, time_s: float, calls: float = 1) -> OperatorTime:
    return OperatorTime(module=module, operator=name, calls=calls, time_s=time_s, low_s=0.9 * time_s, high_s=1.1 * time_s)


def module(path: str, measured: float, closed_form: float) -> ModuleWork:
    ours, theirs = (WorkPerUnit(flops=flops, bytes=2 * flops, launches=1) for flops in (closed_form, measured))
    return ModuleWork(module=path, closed_form=ours, measured=theirs)


def profile(*operators: OperatorTime, mlp_flops: float = 1e6) -> OperatorProfile:
    return OperatorProfile(
        stage="decode",
        point="1024",
        clock="host",
        rounds=3,
        units=4,
        time_s=sum(one.time_s for one in operators),
        operators=operators,
        modules=(module(MLP, mlp_flops, 1e6), module(HEAD, 1e6, 1e6)),
    )


BEFORE = profile(operator(MLP, "aten::mm", 1e-3), operator(HEAD, "aten::mm", 1e-3), operator(MLP, "aten::silu", 1e-4))


def profiled(record: dict[str, Any], folder: Path, kept: OperatorProfile) -> dict[str, Any]:
    """The record with a profile of its decode beside it."""
    OPERATOR_PROFILE.write(folder / "profile" / "decode-1024.operators.json", kept.as_json())
    decode_of(record)["profile"] = "profile/decode-1024.operators.json"
    return record


def explanation_of_two() -> dict[str, Any]:
    """The explanation of two profiled runs, of which the second decodes slower."""
    with TemporaryDirectory() as parent:
        folders = (Path(parent) / "first", Path(parent) / "second")
        after = profile(operator(MLP, "aten::mm", 2e-3, calls=2), operator(HEAD, "aten::copy_", 1e-3), mlp_flops=2e6)
        first, second = profiled(recorded(), folders[0], BEFORE), profiled(slower(recorded(), 1.5), folders[1], after)
        found: dict[str, Any] = json.loads(json.dumps(explained(folders, (run_of(first), run_of(second)))))
        return found
