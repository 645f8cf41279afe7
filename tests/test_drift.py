"""Drift: what another release costs, which traits explain it, and what is said where it can not be installed."""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.framework import TORCH, TRANSFORMERS, FrameworkProfile
from fixtures.ab_testing.compare_builds import Compared
from fixtures.ab_testing.pairs import Pair
from fixtures.ab_testing.pairwise import PairwiseVerdict
from fixtures.drift.overlay import asked, overlay
from fixtures.drift.pairs import ReleasePair, page
from fixtures.drift.report import DRIFT, Drift, DriftOutcome, lines, write
from fixtures.drift.snapshot import CaseCounts, OperatorWork, Snapshot, taken
from fixtures.drift.snapshot import main as snapshot
from fixtures.drift.snapshot_diff import moved_between
from fixtures.drift.suite import SUITE
from fixtures.drift.traits import Trait, explained

ROOT = Path(__file__).resolve().parent.parent
GATE = "model.language_model.layers.*.mlp.gate"
FEW = [case for case in SUITE if case.name in ("vision[tiny]", "prefill[1]", "decode[1]")]


@pytest.fixture(scope="module")
def here() -> Snapshot:
    """Three cases of the suite under what is installed."""
    return taken(lambda _: None, suite=FEW)


def in_prefill(snapshot: Snapshot, change: Callable[[CaseCounts], CaseCounts]) -> Snapshot:
    return replace(snapshot, cases={**snapshot.cases, "prefill[1]": change(snapshot.cases["prefill[1]"])})


def with_quantity(name: str, group: str, more: int) -> Callable[[CaseCounts], CaseCounts]:
    """A case in which the routers do more of one quantity."""

    def change(seen: CaseCounts) -> CaseCounts:
        held = (GATE, group, name)
        place = next(place for place in seen.operators if place[0] == GATE)
        work = seen.operators[place]
        return replace(
            seen,
            quantities={**seen.quantities, held: seen.quantities[held] + more},
            operators={**seen.operators, place: replace(work, bytes=work.bytes + more)},
        )

    return change


def drift_of(base: Snapshot, head: Snapshot, *, start: FrameworkProfile | None = None) -> Drift:
    return Drift(
        requirements=("transformers==5.99.0",),
        base=base,
        head=head,
        moved=moved_between(base, head),
        explanation=explained(head, start or base.framework.profile, suite=FEW),
        times={},
    )


def test_what_is_installed_is_described_by_its_profile(here: Snapshot) -> None:
    assert here.difference_count == 0
    found = explained(here, here.framework.profile, suite=FEW)
    assert (found.traits, found.unexplained) == ((), ())


def test_the_search_finds_every_trait_that_was_changed(here: Snapshot) -> None:
    own = here.framework.profile
    start = own
    changed = {"router_weight_dtype", "norm_dtype", "builds_sliding_mask", "resizes_every_table", "math_attention_dtype"}
    for name, value in own.alternatives():
        if name in changed:
            start = start.with_trait(name, value)
    found = explained(here, start, suite=FEW)
    assert {one.name for one in found.traits} == changed
    assert (found.profile, found.unexplained) == (own, ())


def test_the_router_explains_5_24_alone(here: Snapshot) -> None:
    own = here.framework.profile
    needed = own.traits()["router_weight_dtype"]
    other = {"float32": "model", "model": "float32"}[needed]
    found = explained(here, own.with_trait("router_weight_dtype", other), suite=FEW)
    assert found.traits == (Trait(name="router_weight_dtype", before=other, needed=needed),)
    assert found.unexplained == ()


def test_glue_that_no_trait_explains_is_named(here: Snapshot) -> None:
    drift = drift_of(here, in_prefill(here, with_quantity("written_bytes", "other", 7)))
    (left,) = drift.explanation.unexplained
    assert (left.case, left.module, left.quantity) == ("prefill[1]", GATE, "written_bytes")
    assert left.measured - left.closed_form == 7
    assert (drift.outcome, drift.exit_code) == (DriftOutcome.UNEXPLAINED, 1)
    said = "\n".join(lines(drift))
    assert "UNEXPLAINED: 1 changed quantities that no known trait explains" in said
    assert (
        f"prefill[1]: {GATE}: written_bytes of other: closed form {left.closed_form:,}, measured {left.measured:,}" in said
    )


def test_architecture_that_moved_is_another_model(here: Snapshot) -> None:
    drift = drift_of(here, in_prefill(here, with_quantity("executed_flops", "matmul", 2)))
    assert (drift.outcome, drift.exit_code) == (DriftOutcome.ARCHITECTURE, 1)
    (moved,) = drift.moved.architecture
    assert (moved.module, moved.quantity, moved.head - moved.base) == (GATE, "executed_flops", 2)
    assert f"prefill[1]: {GATE}: executed_flops" in "\n".join(lines(drift))


def test_a_release_without_a_profile_that_traits_describe_needs_one(here: Snapshot) -> None:
    # as if a release nobody described did what the installed one does, against a base of other traits
    head = replace(here, cases={name: replace(seen, difference_count=1) for name, seen in here.cases.items()})
    base = in_prefill(here, with_quantity("written_bytes", "other", 7))
    drift = drift_of(base, head, start=here.framework.profile.with_trait("builds_sliding_mask", False))
    assert (drift.outcome, drift.exit_code) == (DriftOutcome.UNDESCRIBED, 1)
    said = "\n".join(lines(drift))
    assert "the profile needs: builds_sliding_mask true" in said
    assert drift_of(base, here, start=here.framework.profile).outcome is DriftOutcome.DESCRIBED


def test_work_parameters_and_memory_that_moved_are_listed_once(here: Snapshot) -> None:
    def change(seen: CaseCounts) -> CaseCounts:
        doubled = {
            held: value * (2 if held == (GATE, "parameters", "parameter_bytes") else 1)
            for held, value in seen.quantities.items()
        }
        place = (GATE, "aten.new_operator")
        added = OperatorWork(launches=11, flops=0, pointwise_flops=5, bytes=100)
        return replace(seen, quantities=doubled, operators={**seen.operators, place: added}, peak_bytes=seen.peak_bytes + 1)

    head = replace(here, cases={name: change(seen) for name, seen in here.cases.items() if name != "vision[tiny]"})
    moved = moved_between(here, head)
    (operator,), (parameters,) = moved.operators, moved.parameters
    assert (operator.operator, operator.cases, operator.head.launches) == ("aten.new_operator", 2, 11)
    assert (parameters.number[0] == parameters.number[1], parameters.bytes[1]) == (True, 2 * parameters.bytes[0])
    assert [one.case for one in moved.cases] == ["prefill[1]", "decode[1]"]
    assert all(one.peak_bytes[1] - one.peak_bytes[0] == 1 for one in moved.cases)
    assert moved.architecture == ()


def test_a_snapshot_survives_the_way_through_its_file(here: Snapshot, tmp_path: Path) -> None:
    here.write(tmp_path / "seen.json")
    assert Snapshot.read(tmp_path / "seen.json") == here
    (tmp_path / "seen.json").write_text("{}")
    with pytest.raises(ValueError, match=r"seen\.json: schema_version: got None, accepted: 1\.0"):
        Snapshot.read(tmp_path / "seen.json")


def test_the_report_is_written_by_its_schema(here: Snapshot, tmp_path: Path) -> None:
    drift = drift_of(here, in_prefill(here, with_quantity("written_bytes", "other", 7)))
    paths = write(drift, tmp_path / "out", run_id="run", created="2026-11-26T00:00:00+00:00")
    assert [path.name for path in paths] == ["drift.json", "drift.md"]
    loaded = json.loads(paths[0].read_text())
    DRIFT.check(loaded, where="the drift")
    assert (loaded["outcome"], loaded["unexplained_count"]) == ("unexplained", 1)
    assert "UNEXPLAINED" in paths[1].read_text()


def test_times_of_a_single_pair_are_kept_without_an_interval(here: Snapshot, tmp_path: Path) -> None:
    pair = Pair(base_s=(1.0, 1.1), head_s=(1.2, 1.3), dropped=0)
    timed = Compared(stage="decode[16]", pairs=(pair,), verdict=PairwiseVerdict.INCONCLUSIVE)
    drift = replace(drift_of(here, here), times={"decode[16]": timed})
    paths = write(drift, tmp_path / "out", run_id="run", created="2026-11-26T00:00:00+00:00")
    (found,) = json.loads(paths[0].read_text())["times"]
    assert (found["interval"], found["pairs"], found["verdict"]) == (None, 1, "INCONCLUSIVE")
    assert "decode[16]" in paths[1].read_text()
    assert (drift_of(here, here).exit_code, drift.exit_code) == (0, 2)  # inconclusive is no answer


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RELEASE: got none, accepted: at least one"),
        (["transformers=5.24"], "RELEASE: got 'transformers=5.24', accepted: a package and its version"),
        (["flask==3.0"], r"RELEASE: got 'flask==3\.0', accepted: a release of jinja2, jsonschema, .*torch, transformers"),
        (
            ["torch==2.14.1", "torch==2.13.0"],
            r"RELEASE: got 'torch==2\.14\.1' and 'torch==2\.13\.0', accepted: one release",
        ),
    ],
)
def test_releases_that_can_not_be_meant_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked(words)


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """A package that is metadata alone: what it calls itself is imported from the environment below."""
    info = f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def drift(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`python -m fixtures.drift` with packages from a folder alone; nothing may be left in its temporary folder."""

    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PIP"))}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_NO_INDEX": "1"}
        environment |= {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-m", "fixtures.drift", "--output-dir", str(tmp_path / "out"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert [path.name for path in temporary.iterdir() if path.name.startswith("dsocr")] == []
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_release_that_costs_the_same_says_so(drift: Callable, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "transformers", "5.99.0")
    code, said = drift("transformers==5.99.0", "--case", "prefill[1]", "--case", "decode[1]")
    assert code == 0, said
    assert "SAME: nothing changed" in said
    assert "head: transformers 5.99.0" in said
    (path,) = (tmp_path / "out").rglob("drift.json")
    loaded = json.loads(path.read_text())
    assert loaded["head"]["unverified"] == ["transformers"]
    assert loaded["base"]["transformers"] != "5.99.0"


def test_two_releases_that_are_both_not_installed_are_compared(drift: Callable, tmp_path: Path) -> None:
    for version in ("5.98.0", "5.99.0"):
        wheel(tmp_path / "wheels", "transformers", version)
    words = ("--case", "prefill[1]", "--from", "transformers==5.98.0")
    code, said = drift("transformers==5.99.0", *words)
    assert code == 0, said
    assert "base: transformers 5.98.0" in said
    assert "head: transformers 5.99.0" in said
    assert "the same releases" not in said
    code, said = drift("transformers==5.98.0", *words)
    assert "base and head are the same releases; name those to compare with, as in --from" in said
    assert drift("transformers==5.99.0", "--from", "flask==3.0")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transformers==99.0.0"], "drift: transformers==99.0.0: no such release for this Python and system"),
        (
            ["transformers==5.97.0", "torch==2.99.0"],
            "drift: transformers==5.97.0 torch==2.99.0: cannot be installed together",
        ),
        (["--case", "prefill[7]", "torch==2.99.0"], "drift: --case: got 'prefill[7]', accepted: vision[gundam-1x2]"),
    ],
)
def test_what_can_not_be_installed_is_said_in_a_sentence(
    drift: Callable, tmp_path: Path, words: Sequence[str], message: str
) -> None:
    wheel(tmp_path / "wheels", "transformers", "5.97.0", "torch==0.1.0")
    for version in ("0.1.0", "2.99.0"):
        wheel(tmp_path / "wheels", "torch", version)
    code, said = drift(*words)
    assert (code, "Traceback" in said) == (2, False), said
    assert message in said
    assert not (tmp_path / "out").exists()


def test_an_index_that_can_not_be_reached_is_said_in_a_sentence(drift: Callable, tmp_path: Path) -> None:
    # a port of this machine on which nobody listens
    code, said = drift("transformers==5.98.0", PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (code, "Traceback" in said) == (2, False), said
    assert "drift: transformers==5.98.0: the package index cannot be reached" in said
    assert not (tmp_path / "out").exists()


def test_the_docs_hold_every_pair_of_the_releases_that_are_called_verified() -> None:
    text = (ROOT / "docs" / "verified-releases.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    found = {(row[0], row[1]): row[4] for row in rows[2:]}
    pairs = {
        (release, other)
        for transformers in TRANSFORMERS
        for torch in TORCH
        for release in transformers.releases
        for other in torch.releases
    }
    assert set(found) == pairs
    assert set(found.values()) == {"0"}


def test_the_page_of_pairs_has_a_row_for_each(here: Snapshot) -> None:
    pair = ReleasePair.of(here)
    text = page([pair, replace(pair, difference_count=3)], date="2026-11-26")
    assert "Made by `nox -s frameworks` on 2026-11-26: 3 cases" in text
    assert [line.rsplit("| ", 1)[1] for line in text.splitlines() if line.startswith("| 5")] == ["0 |", "3 |"]


def test_a_snapshot_without_its_arguments_says_which_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        assert snapshot(["out.json"][:number]) == 2
        assert f"snapshot: got {number} arguments, accepted: FILE NAME [CASE ...]" in capsys.readouterr().err


def test_what_installing_leaves_when_it_is_ended_goes_with_the_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_early(command: Sequence[str], *, temporary: Path) -> subprocess.CompletedProcess[str]:
        temporary.mkdir(exist_ok=True)
        (temporary / command[-1].replace("/", "-")).mkdir()
        if "venv" not in command:
            raise KeyboardInterrupt
        site = Path(sysconfig.get_path("purelib", vars={"base": command[-1], "platbase": command[-1]}))
        site.mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("fixtures.drift.overlay.output_of", ended_early)
    with pytest.raises(KeyboardInterrupt), overlay() as place:
        place.install("transformers==5.24.0")
    assert list(tmp_path.iterdir()) == []
