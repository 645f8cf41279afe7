"""What is set before torch compiles a model, for the release that compiles it."""

import logging

import pytest
import torch

from fixtures.model.compiled import keep_whole

CHECK, TRACE = "TRANSFORMERS_DISABLE_TORCH_CHECK", "TORCH_TRACE"


@pytest.mark.parametrize(
    ("version", "given", "left"),
    [("2.12.1+cu130", None, "1"), ("2.12.1+cu130", "0", "0"), ("2.13.0", None, None), ("2.14.1+cpu", None, None)],
)
def test_a_torch_that_cannot_trace_transformers_checks_leaves_them_out(
    version: str, given: str | None, left: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {} if given is None else {CHECK: given}
    monkeypatch.setattr("os.environ", environ)
    monkeypatch.setattr(torch, "__version__", version)
    keep_whole()
    assert environ.get(CHECK) == left


@pytest.mark.parametrize(("asked", "silent"), [(None, True), ("/tmp/trace", False)])
def test_torchs_trace_is_not_printed_below_a_failure_unless_it_was_asked_for(
    asked: str | None, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = logging.getLogger("torch.__trace")
    monkeypatch.setattr(trace, "disabled", False)
    monkeypatch.setattr("os.environ", {} if asked is None else {TRACE: asked})
    keep_whole()
    assert trace.disabled is silent
