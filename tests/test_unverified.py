"""A release of transformers that nobody has verified: its architecture is judged, its glue is shown."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.framework import TRANSFORMERS
from tests import fresh_process

ROOT = Path(__file__).resolve().parent.parent
RELEASE = "5.99.0"
GATE = "model.language_model.layers.2.mlp.gate"
ADDED = {
    "cast": "hidden.float().to(hidden.dtype)",  # two casts of what the module is given
    "matmul": "hidden @ hidden.new_empty(hidden.shape[-1], 1)",
}
PLUGIN = '''
"""A model whose {module} does more than the installed release lets it do."""
from fixtures.model import real

build = real.build


def built(*arguments, **given):
    model = build(*arguments, **given)

    def more(module, args):
        hidden = args[0]
        {added}

    model.get_submodule("{module}").register_forward_pre_hook(more)
    return model


real.build = built
'''


@pytest.fixture
def run_with(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`pytest benchmarks` under a transformers that calls itself 5.99.0; `added` is what one module does more."""

    def run(added: str | None, *arguments: str) -> tuple[int, str]:
        place = tmp_path / "site"
        metadata = place / f"transformers-{RELEASE}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: transformers\nVersion: {RELEASE}\n")
        plugins = []
        if added is not None:
            (place / "more_work.py").write_text(PLUGIN.format(module=GATE, added=ADDED[added]))
            plugins = ["-p", "more_work"]
        environment = fresh_process.outside_pytest()
        environment["PYTHONPATH"] = os.pathsep.join((str(place), str(ROOT)))
        command = [
            *("pytest", "-p", "no:cacheprovider", *plugins, str(ROOT / "benchmarks")),
            *("--preset", "tiny", "--seq-len", "64", "--decode-steps", "2", "-k", "prefill or decode"),
            *("--output-dir", str(tmp_path / "out"), *arguments),
        ]
        done = fresh_process.run(*command, environment=environment)
        return done.returncode, done.stdout + done.stderr

    return run


NOTICE = f"framework: transformers {RELEASE} is not verified (nearest profile {TRANSFORMERS[-1].version}); glue differs in"


def test_glue_is_shown_and_not_judged(run_with: Callable, tmp_path: Path) -> None:
    code, said = run_with("cast")
    assert code == 0, said
    # of the gate's other operators: launches, bytes read, bytes written
    assert f"{NOTICE} 3 quantities, see {tmp_path / 'out'}" in said
    assert "~: glue of an unverified framework differs at this point; shown, not judged" in said
    (path,) = (tmp_path / "out").rglob("record.json")
    record = json.loads(path.read_text())
    assert record["framework"] == {
        "transformers": RELEASE,
        "torch": record["framework"]["torch"],
        "profile": record["framework"]["profile"],
        "unverified": ["transformers"],
        "strict": False,
    }
    assert [point["verdict"] for point in record["points"]] == ["pass", "pass"]
    assert [point["glue_difference_count"] for point in record["points"]] == [3, 2 * 3]
    assert {one["module"] for point in record["points"] for one in point["glue_differences"]} == {GATE}
    page = path.with_name("report.md").read_text().replace("\\_", "_")
    assert "Passed: 2 of 2 points agree in their architecture; their glue differs and is not judged." in page
    assert "Unverified framework" in page
    assert GATE in page


def test_architecture_is_judged_whatever_the_release(run_with: Callable) -> None:
    code, said = run_with("matmul")
    assert code == 1, said
    assert f"{GATE}: executed_flops of tensor cores: closed form" in said
    assert "prefill[64]: closed form and measurement differ in 1 quantity" in said


@pytest.mark.parametrize("added", [None, *ADDED])
def test_strict_framework_fails_a_release_that_nobody_verified(run_with: Callable, added: str | None) -> None:
    code, said = run_with(added, "--strict-framework")
    assert code == 1, said
    assert f"{NOTICE} {0 if added is None else ''}" in said
    assert "FAILED: --strict-framework accepts verified releases only" in said
    assert (GATE in said) == (added is not None)
