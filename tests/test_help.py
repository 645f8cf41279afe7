"""What an option's help offers is what its check accepts, in every command."""

import re
from collections.abc import Callable
from typing import Any, get_args

import pytest

from analytic.__main__ import main as analytic
from analytic.core.execution import DTYPE_BYTES, Attention, Backend, Device, Experts
from analytic.io import stored
from fixtures.ab_testing import compare_builds, gate_study, noise
from fixtures.baseline import command as baseline
from fixtures.config.pytest_options import DEFAULTS, add_options
from fixtures.config.run_options import RunOptions
from fixtures.cross_check import static_compute
from fixtures.drift import __main__ as drift
from fixtures.profiling import backends, decode_window, nsight, predict_study
from fixtures.scaling import options as scaling
from fixtures.serving import options as serve

Command = Callable[[list[str]], object]
PAGE = ["--no-image", "--seq-len", "64"]
COMMANDS: dict[str, tuple[Command, list[str]]] = {
    "cost": (lambda given: analytic(["cost", *given]), PAGE),
    "sweep": (lambda given: analytic(["sweep", *given]), ["--output-dir", "out"]),
    "demand": (lambda given: analytic(["demand", *given]), []),
    "capacity": (lambda given: analytic(["capacity", *given]), ["--memory-gb", "24"]),
    "noise": (noise.parsed, []),
    "gate_study": (gate_study.main, []),
    "compare": (compare_builds.parsed, ["main"]),
    "drift": (drift.parsed, ["transformers==5.24.0"]),
    "backends": (backends.parsed, []),
    "predict_study": (predict_study.main, []),
    "nsys": (lambda given: nsight.parsed("nsys", given), []),
    "ncu": (lambda given: nsight.parsed("ncu", given), []),
    "decode_window": (decode_window.main, []),
    "static_compute": (static_compute.parsed, []),
    "scaling": (scaling.parsed, []),
    "serve": (serve.parsed, []),
    "baseline show": (lambda given: baseline.main(["show", *given]), []),
}
WORDS = {
    *get_args(Attention), *get_args(Experts), *get_args(Backend), *get_args(Device), *DTYPE_BYTES, "auto", "last", "all",
    "on", "off", "fixed", "max", "text", "github", *stored.names("presets"), *stored.names("profiles"),
}  # fmt: skip
"""Every value of an option with a list of values."""
LISTED = ("--attention", "--experts", "--backend", "--device", "--kernels", "--preset", "--dtype", "--profile", "--logits")


def told(command: Command, given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says of a command line, as an error or on the terminal."""
    try:
        command(given)
    except SystemExit:
        pass  # argparse's own end
    except ValueError as error:
        return str(error)
    said = capsys.readouterr()
    return said.out + said.err


def helps(text: str) -> dict[str, str]:
    """The help of every option, by its long name."""
    found = re.split(r"^  (?:-\w, )?(--[\w-]+)", text, flags=re.MULTILINE)[1:]
    return {name: " ".join(body.split()) for name, body in zip(found[::2], found[1::2], strict=True)}


def values_in(text: str) -> set[str]:
    return {word for word in re.findall(r"[\w-]+(?:\.[\w-]+)*", text) if word in WORDS}


def offers(text: str) -> set[str]:
    """The values that a help text begins with: up to the first semicolon, else up to the default."""
    return values_in(text.partition("(default")[0].partition(";")[0])


def accepted(text: str) -> set[str]:
    """The values after `accepted:` or, in argparse's own refusal, after `choose from`."""
    _, _, listed = text.partition("accepted: ") if "accepted: " in text else text.partition("choose from")
    return values_in(listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_offers_what_it_accepts(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    command, needed = COMMANDS[name]
    offered = helps(told(command, ["--help"], capsys))
    wrong = {}
    for option in LISTED:
        if option in offered:
            said = told(command, [*needed, option, "no-such-value"], capsys)
            assert "no-such-value" in said, said
            wrong[option] = (offers(offered[option]), accepted(said))
    assert wrong, offered
    assert {option: pair for option, pair in wrong.items() if pair[0] != pair[1]} == {}


class Declared:
    """What `add_options` declares, option by option."""

    def __init__(self) -> None:
        self.helps: dict[str, str] = {}

    def getgroup(self, *_: str) -> "Declared":
        return self

    def addoption(self, flag: str, *, help: str, **_: Any) -> None:
        self.helps[flag] = help


def test_the_help_of_the_benchmarks_offers_what_they_accept() -> None:
    declared = Declared()
    add_options(declared)
    listed = (*LISTED, "--context-len-mode", "--warmup-synthetic", "--report-format")
    wrong = {}
    for option in listed:
        if option in declared.helps:
            with pytest.raises(ValueError, match="no-such-value") as refused:
                RunOptions.parsed({**DEFAULTS, option: "no-such-value"}.get)
            wrong[option] = (offers(declared.helps[option]), accepted(str(refused.value)))
    assert len(wrong) >= 8
    assert {option: pair for option, pair in wrong.items() if pair[0] != pair[1]} == {}
