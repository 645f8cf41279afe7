"""Base against head from the command line: verdicts, what explains them, interruption, and worktrees of other commits."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from fixtures.ab_testing import builds, compare_builds
from fixtures.ab_testing.builds import BuildError, build_of, dependencies
from fixtures.ab_testing.compare_builds import main, parsed
from fixtures.ab_testing.conversation import WorkerError
from fixtures.ab_testing.pairs import Pair
from fixtures.ab_testing.pairwise import PairwiseVerdict
from fixtures.ab_testing.worker_process import HERE, Amount, Build
from fixtures.config.job import STAGES
from fixtures.validation.counted_call import Work

ROOT = Path(__file__).resolve().parent.parent
LAYER = "model.language_model.layers.*.self_attn"


def amount(flops: int, calls: int) -> Amount:
    blocks = {LAYER: Work(flops=flops - 10, bytes=5, calls=calls - 1), "lm_head": Work(flops=10, bytes=5, calls=1)}
    return Amount(executed_flops=flops, operator_calls=calls, peak_bytes=100, blocks=blocks)


class Stand:
    """A stand-in for a worker: the head does 5% more work in one module."""

    def __init__(self, build: Build, job: Any) -> None:
        self.head = build is HERE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def greeting(self) -> dict[str, Any]:
        return {}

    def count(self, stage: str) -> Amount:
        return amount(1_050, 21) if self.head else amount(1_000, 20)


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let the phases of a comparison find these log ratios, eight pairs each; an exception is raised instead."""
    monkeypatch.chdir(tmp_path)  # where `results` is

    @contextmanager
    def build_here(ref: str, *, progress: Callable[[str], None]) -> Iterator[Build]:
        yield Build(label=ref, root=ROOT, python=Path(sys.executable))

    def setting(*phases: float | Exception | type[BaseException]) -> None:
        left = iter(phases)

        def until_enough(
            base: Any, head: Any, stages: Sequence[str], *, seen: Any, **_: Any
        ) -> Iterator[dict[str, list[Pair]]]:
            ratio = next(left)
            pair = Pair(base_s=(1.0,), head_s=(math.exp(ratio if isinstance(ratio, float) else 0.0),), dropped=1)
            found = {stage: [pair] * (8 if isinstance(ratio, float) else 3) for stage in stages}
            seen(len(next(iter(found.values()))), found)
            yield found
            if not isinstance(ratio, float):
                raise ratio

        monkeypatch.setattr(compare_builds, "until_enough", until_enough)
        monkeypatch.setattr(compare_builds, "build_of", build_here)
        monkeypatch.setattr(compare_builds, "WorkerProcess", Stand)

    return setting


ONE = ["main", "--stage", "decode[1024]"]


def test_nothing_slower_passes(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(0.001)
    assert main(ONE) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Nothing is slower.\nbase main, head ")
    assert "decode[1024]" in printed.out
    assert "pair 8 of about 8: decode[1024] +0.1% ± 0.0% of 1,000.000 ms a token; 0 s taken, enough" in printed.err


def test_slower_is_confirmed_and_explained(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(math.log(1.07), math.log(1.07))
    assert main(ONE) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "SLOWER: decode[1024] +7.0%."
    assert "+7.0% time: +5.0% from more work, +1.9% from lower efficiency" in printed.out
    assert "operators launched 20 -> 21" in printed.out
    assert f"    {LAYER}: 990 -> 1,040 FLOPs, 19 -> 20 operators" in lines
    assert "again, pair 8" in printed.err


def test_slower_that_is_not_confirmed_passes(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(math.log(1.07), 0.0)
    assert main(ONE) == 0
    assert capsys.readouterr().out.startswith("Nothing is slower.")


def test_an_interruption_prints_what_was_learnt(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(KeyboardInterrupt)
    assert main(ONE) == 130
    out = capsys.readouterr().out
    assert out.startswith("INCOMPLETE: interrupted (Ctrl-C); the pairs so far decide nothing")
    assert "decode[1024] +0.0% (95%: +0.0% to +0.0%; 3 pairs)" in out


def test_an_interrupted_comparison_of_a_commit_goes_on_with_its_pairs(
    ratios: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_builds, "is_dirty", lambda: False)
    ratios(KeyboardInterrupt)
    assert main(ONE) == 130
    assert "add pairs to these with `nox -s compare -- main --stage 'decode[1024]' --continue`" in capsys.readouterr().err
    begun: list[int] = []

    def until_enough(*_: Any, before: Any, **__: Any) -> Iterator[dict[str, list[Pair]]]:
        begun.append(len(before["decode[1024]"]))
        yield {"decode[1024]": [*before["decode[1024]"], *before["decode[1024]"]]}

    monkeypatch.setattr(compare_builds, "until_enough", until_enough)
    assert main([*ONE, "--continue"]) == 0
    assert begun == [3]
    assert capsys.readouterr().out.startswith("Nothing is slower.")
    assert main([*ONE, "--continue"]) == 2
    assert "has its verdict; compare again without --continue" in capsys.readouterr().err
    assert main(["main", "--stage", "prefill", "--preset", "tiny", "--batch-size", "2", "--continue"]) == 2
    assert "--continue: got no comparison of head" in capsys.readouterr().err
    monkeypatch.setattr(compare_builds, "is_dirty", lambda: True)
    assert main([*ONE, "--continue"]) == 2
    assert "--continue: got uncommitted changes" in capsys.readouterr().err


def test_a_worker_that_dies_is_no_verdict(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(WorkerError("main: the worker ended with code 1: ImportError"))
    assert main(ONE) == 2
    assert "compare: main: the worker ended with code 1: ImportError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-ref"], "BASE_REF: got 'no-such-ref', accepted: a commit, branch or tag"),
        (["main", "--threshold", "0"], "--threshold: got 0.0, accepted: percent above 0"),
        (["main", "--minutes", "0"], "--minutes: got 0, accepted: minutes above 0"),
        (["main", "--stage", "encode"], "stage: got 'encode'"),
        (["main", "--device", "meta"], "--device: got 'meta', accepted: cpu, cuda"),
        (["main", "--preset", "huge"], "--preset: got 'huge'"),
        (["main", "--attention", "flash"], "--attention: got 'flash', accepted: sdpa, eager"),
        (["main", "--backend", "cudagraph"], "backend: got cudagraph on device cpu, accepted: on cuda only"),
    ],
)
def test_what_can_not_be_compared_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_becomes_a_job() -> None:
    found = parsed(["main", "--threshold", "2.5", "--stage", "prefill[64]", "--stage", "prefill[64]"])
    assert (found.ref, found.threshold, found.job.stages) == ("main", 0.025, ("prefill[64]",))
    assert parsed(["main"]).job.stages == STAGES
    assert parsed(["main", "--stage", "decode", "--stage", "decode[1024]"]).job.stages == ("decode[1024]",)
    assert (parsed(["main"]).limit_s, parsed(["main", "--minutes", "2"]).limit_s) == (None, 120.0)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of two commits: the first has no worker, the second has one and asks for another library."""
    root = tmp_path / "checkout"
    (root / "fixtures").mkdir(parents=True)

    def git(*arguments: str) -> str:
        command = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments)
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    for number, wanted in enumerate(("numpy", "pandas")):
        (root / "pyproject.toml").write_text(f'[project]\nname = "x"\ndependencies = ["torch", "{wanted}"]\n')
        if number:
            (root / "fixtures" / "worker.py").write_text("")
        git("add", "-A")
        git("commit", "--quiet", "-m", str(number))
    monkeypatch.setattr(builds.stored, "ROOT", root)
    return root


def test_a_build_is_a_worktree_that_is_gone_afterwards(repository: Path) -> None:
    with build_of("main", progress=print) as build:
        assert (build.root / "fixtures" / "worker.py").exists()
        assert build.root != repository
        assert build.python == Path(sys.executable)  # the same dependencies
        assert build.label.startswith("main (")
    assert not build.root.exists()
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == 1


def test_a_commit_without_a_worker_is_refused(repository: Path) -> None:
    with (
        pytest.raises(BuildError, match=r"accepted: a commit with fixtures/worker\.py"),
        build_of("main~1", progress=print),
    ):
        pass


def test_other_dependencies_get_an_environment_of_their_own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dependencies(repository) == ("pandas", "torch")
    asked: list[Path] = []

    def installed(venv: Path, root: Path) -> Path:
        asked.append(root)
        return venv / "bin" / "python"

    monkeypatch.setattr(builds, "_installed", installed)
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["torch"]\n')
    said: list[str] = []
    with build_of("main", progress=said.append) as build:
        assert asked == [build.root]
        assert build.python.name == "python"
        assert build.python != Path(sys.executable)
    assert said == ["main has different dependencies: installing them"]


PINNED = "torch==2.13.0\npandas==3.1.1\nsympy==1.14.0\n"


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        (PINNED, PINNED, True),
        (PINNED, PINNED.replace("1.14.0", "1.15.0"), True),  # asked for by torch alone
        (PINNED, PINNED + "torch==2.12.0 ; python_version < '3'\n", True),  # for another interpreter
        (PINNED, PINNED.replace("2.13.0", "2.14.1"), False),
        (PINNED, PINNED.replace("pandas==3.1.1\n", ""), False),
        (None, PINNED, True),  # a commit from before there were pins
        (PINNED, None, True),
    ],
)
def test_dependencies_are_others_where_those_asked_for_are_pinned_to_others(
    repository: Path, tmp_path: Path, there: str | None, here: str | None, same: bool
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "pyproject.toml").write_bytes((repository / "pyproject.toml").read_bytes())
    for root, pins in ((tree, there), (repository, here)):
        if pins is not None:
            (root / "constraints.txt").write_text(pins)
    assert builds.same_dependencies("main", tree) == same


def test_a_commit_whose_pins_are_damaged_is_refused(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "pyproject.toml").write_bytes((repository / "pyproject.toml").read_bytes())
    (tree / "constraints.txt").write_text("torch 2.13.0\n")
    message = r"BASE_REF: got 'main', .* \(constraints.txt, line 1: got 'torch 2.13.0', accepted: NAME==VERSION"
    with pytest.raises(BuildError, match=message):
        builds.same_dependencies("main", tree)


def test_an_environment_of_its_own_has_the_pins_of_its_commit_and_can_say_which_gpu_it_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    def stand_in(*command: str, cwd: Path, temporary: Path) -> None:
        assert (cwd, temporary) == (tmp_path, Path("/base/tmp"))  # which goes with the environment
        ran.append(command)

    monkeypatch.setattr(builds, "_run", stand_in)
    assert builds._installed(Path("/base/venv"), tmp_path) == Path("/base/venv/bin/python")
    assert ran[-1] == ("/base/venv/bin/python", "-m", "pip", "install", "--quiet", f"{tmp_path}[gpu]")
    (tmp_path / "constraints.txt").write_text(PINNED)
    builds._installed(Path("/base/venv"), tmp_path)
    assert ran[-1][-3:] == ("--constraint", f"{tmp_path}/constraints.txt", f"{tmp_path}[gpu]")


def test_one_pair_has_no_interval_and_says_so() -> None:
    one = compare_builds.Compared(
        stage="decode[16]", pairs=(Pair(base_s=(1.0,), head_s=(1.1,), dropped=0),), verdict=PairwiseVerdict.INCONCLUSIVE
    )
    columns, row = compare_builds.table_rows({"decode[16]": one})
    shown = dict(zip(columns, row, strict=True))
    assert (shown["base ms"], shown["per"], shown["95% interval"]) == ("1,000.000", "token", "needs 2 pairs")


def test_verdicts_of_all_stages_are_listed(ratios: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ratios(-0.1)
    assert main(["main"]) == 0
    out = capsys.readouterr().out
    for stage in STAGES:
        assert stage in out
    assert out.count(f"  {PairwiseVerdict.FASTER}") == len(STAGES)
    assert out.startswith("Nothing is slower; faster: vision[tiny] -9.5%, ")


def test_a_slowdown_of_compiled_graphs_is_explained_as_far_as_they_say() -> None:
    unsaid = [replace(amount(flops, 20), operator_calls=None, peak_bytes=None) for flops in (1_000, 1_050)]
    slower = compare_builds.Compared(
        stage="decode[16]",
        pairs=tuple(Pair(base_s=(1.0,), head_s=(1.05,), dropped=0) for _ in range(8)),
        verdict=PairwiseVerdict.SLOWER,
        amounts=(unsaid[0], unsaid[1]),
    )
    said = "\n".join(compare_builds.explanation(slower))
    assert said.splitlines()[0].endswith("from lower efficiency (time per FLOP)")
    assert "unknown" not in said
