"""Mutation testing: which changes are made, who judges them, and what a session says of them."""

import ast
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.io.markdown import replaced
from fixtures.proof import explained_mutants, mutants, mutants_text
from fixtures.proof.explained_mutants import EXPLAINED, ExplainedMutant
from fixtures.proof.mutant_results import MUTANTS, JudgedMutant, MutantTally, as_json, digest, read_judged, wilson
from fixtures.proof.mutant_runs import Fate, MutantCopy
from fixtures.proof.mutant_server import IDLE_S, ProcessorLimit, processor_s
from fixtures.proof.mutant_targets import FORMULAS, GATE, GROUPS, MutantGroup, MutatedModules, judging_files
from fixtures.proof.mutants_text import GroupResult, lines
from fixtures.proof.mutations import REQUIREMENT, Mutant, Mutated, annotated, definitions, place_of, signatures

ROOT = Path(__file__).resolve().parent.parent
SOURCE = '''\
class Box:
    """A box."""

    sides: int = 4

    def area(self, *, width: int | None, height: int = 2) -> int | None:
        return width * height


TOP: int | None = 1
'''
MUTANT = Mutant(
    path="made/box.py",
    place="Box.area",
    line=7,
    operator="core/ReplaceBinaryOperator_Mul_Add",
    occurrence=1,  # the star of the signature is the first
    code="return width * height",
    number=0,
)
JUDGED = JudgedMutant(
    group="formulas",
    key=MUTANT.key,
    path=MUTANT.path,
    place=MUTANT.place,
    line=7,
    was="return width * height",
    now="return width + height",
    fate=Fate.KILLED,
    seconds=1.5,
    failed="tests/test_box.py::test_area",
    module="0123456789abcdef",
    tests="fedcba9876543210",
)
TOOLS = {"python": "3.11", "cosmic_ray": "8.7.0", "seed": 0}
ABOUT = {"created": "2026-01-02T03:04:05+00:00", "commit": "a" * 12, "python": "3.11", "cosmic_ray": "8.7.0", "seed": "0"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A checkout with one module."""
    (tmp_path / "made").mkdir()
    (tmp_path / MUTANT.path).write_text(SOURCE)
    return tmp_path


def test_what_nothing_evaluates_is_no_place_for_a_mutant() -> None:
    tree = ast.parse(SOURCE)
    lines_of = SOURCE.splitlines()
    column = lines_of[5].index("int | None") + 4  # of the bar
    assert (6, column) in annotated(tree)
    assert (6, lines_of[5].rindex("|")) in annotated(tree)
    assert (10, lines_of[9].index("|")) in annotated(tree)
    assert (7, lines_of[6].index("*")) not in annotated(tree)
    assert (6, lines_of[5].index("2")) not in annotated(tree)
    assert (6, lines_of[5].index("*")) in signatures(tree)
    assert (7, lines_of[6].index("*")) not in signatures(tree)


def test_a_mutant_is_named_after_the_innermost_definition() -> None:
    places = definitions(ast.parse(SOURCE))
    assert [place_of(line, places) for line in (4, 6, 7, 10)] == ["Box", "Box.area", "Box.area", "module"]


def test_a_mutant_keeps_its_name_and_rank_when_lines_move() -> None:
    moved = replace(MUTANT, line=70, occurrence=9)
    assert (moved.key, moved.rank(0)) == (MUTANT.key, MUTANT.rank(0))
    assert MUTANT.rank(1) != MUTANT.rank(0)
    assert replace(MUTANT, number=1).key != MUTANT.key


def test_the_changes_of_a_module_are_found_and_made(made: Path) -> None:
    pytest.importorskip("cosmic_ray")
    from fixtures.proof.mutations import mutants_of, mutated

    found = mutants_of(made, MUTANT.path)
    # of the product: by a sum, a difference and a quotient; of the numbers 4, 2 and 1: one more, one less
    assert sorted((mutant.line, mutant.operator.rpartition("/")[2]) for mutant in found) == [
        *[(4, "NumberReplacer")] * 2,
        *[(6, "NumberReplacer")] * 2,
        *[(7, f"ReplaceBinaryOperator_Mul_{other}") for other in ("Add", "FloorDiv", "Sub")],
        *[(10, "NumberReplacer")] * 2,
    ]
    assert MUTANT in found
    change = mutated(made, MUTANT)
    assert change is not None
    assert (change.was, change.now) == ("return width * height", "return width + height")
    assert change.source == SOURCE.replace("width * height", "width + height")
    assert (made / MUTANT.path).read_text() == SOURCE


def test_the_project_and_the_session_ask_for_the_same_cosmic_ray() -> None:
    assert f'COSMIC_RAY = "{REQUIREMENT}"\n' in (ROOT / "noxfile.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_pattern_of_a_group_has_modules_and_every_test_is_there(group: object) -> None:
    assert group in (FORMULAS, GATE)
    for modules in group.modules:  # type: ignore[attr-defined]
        assert modules.paths(ROOT), modules.patterns
    assert [file for file in judging_files(GROUPS) if not (ROOT / file).is_file()] == []


def test_every_formula_is_in_the_group_of_formulas() -> None:
    there = {
        str(path.relative_to(ROOT))
        for folder in ("core", "models")
        for path in (ROOT / "analytic" / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert set(FORMULAS.tests_of(ROOT)) == there


def test_the_interval_of_a_share_is_wilsons() -> None:
    # 8 of 10: (0.8 + 3.8415 / 20) / 1.38415 = 0.71674; 1.96 sqrt(0.016 + 3.8415 / 400) / 1.38415 = 0.22659
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert 0.7 < wilson(10, 10)[0] < 0.73  # 10 / 13.8415


def test_a_tally_counts_a_mutant_that_ran_into_the_limit_as_noticed() -> None:
    judged = [JUDGED, replace(JUDGED, fate=Fate.TIMED_OUT), *[replace(JUDGED, fate=Fate.SURVIVED)] * 2]
    tally = MutantTally.of(judged, population=40)
    assert (tally.killed, tally.timed_out, tally.survived, tally.judged, tally.share) == (1, 1, 2, 4, 0.5)
    assert tally.interval == wilson(2, 4)
    assert MutantTally.of(judged, population=4).interval == (0.5, 0.5)  # all of them: no interval is left
    assert MutantTally.of([], population=4).share == 0.0


def test_what_was_judged_holds_until_its_module_changes_or_a_test_might_notice_it() -> None:
    same = {"module": JUDGED.module, "tests": JUDGED.tests}
    survived = replace(JUDGED, fate=Fate.SURVIVED)
    assert JUDGED.holds(**same)
    assert survived.holds(**same)
    assert JUDGED.holds(**{**same, "tests": "0" * 16})
    assert not survived.holds(**{**same, "tests": "0" * 16})
    assert not JUDGED.holds(**{**same, "module": "0" * 16})


def test_a_digest_is_of_every_file(made: Path) -> None:
    (made / "test.py").write_text("one")
    before = digest(made, [MUTANT.path, "test.py"])
    (made / "test.py").write_text("two")
    assert digest(made, [MUTANT.path, "test.py"]) != before
    assert re.fullmatch("[0-9a-f]{16}", before)


def result(*judged: JudgedMutant, goal: float = 0.5) -> GroupResult:
    return GroupResult(group=replace(FORMULAS, goal=goal), population=40, judged=judged)


def test_a_group_below_its_goal_and_a_survivor_that_nobody_explained_are_problems() -> None:
    survived = replace(JUDGED, fate=Fate.SURVIVED)
    assert result(JUDGED).problems == []
    assert result(JUDGED, survived).problems == [
        "made/box.py:7: survived: return width * height -> return width + height: write a test, or explain it"
    ]
    assert result(JUDGED, survived, goal=0.6).problems[0] == (
        "formulas: 1 of 2 mutants were noticed (50.0%), accepted: at least 60%"
    )


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> str:
    """A reason for the mutant, in place of the stored ones."""
    why = "A box is as wide as it is high."
    one = ExplainedMutant(path=JUDGED.path, was=JUDGED.was, now=(JUDGED.now,), why=why)
    monkeypatch.setattr(explained_mutants, "EXPLAINED", (one,))
    return why


def test_an_explained_survivor_is_no_problem_and_stands_in_the_table(explained: str) -> None:
    survived = replace(JUDGED, fate=Fate.SURVIVED)
    killed = replace(JUDGED, now="return width - height")
    assert result(killed, survived).problems == []
    assert lines([result(killed, survived)])[-1].endswith(f"return width + height: {explained}")
    text = mutants_text.part([result(killed, survived)], ABOUT, ("--sample", "2"))
    assert "Made by `nox -s mutants -- --sample 2` on 2026-01-02, commit aaaaaaaaaaaa" in text
    assert f"| `box.py` | `Box.area` | `return width * height` | `return width + height` | {explained} |" in text
    assert "| 40 | 2 | 1 | 0 | 1 | 1 | 50.0% | 9.5% to 90.5% | 50% |" in text  # Wilson's of 1 in 2
    assert "| `made/box.py` | 2 | 1 |" in text


def test_an_explanation_of_a_mutant_that_is_killed_is_a_problem(explained: str) -> None:
    assert "explained and killed by tests/test_box.py::test_area" in result(JUDGED).problems[0]


@pytest.mark.parametrize("one", EXPLAINED, ids=lambda one: f"{Path(one.path).name}: {one.was}")
def test_an_explained_mutant_is_of_code_that_is_there(one: ExplainedMutant) -> None:
    source = [line.strip() for line in (ROOT / one.path).read_text(encoding="utf-8").splitlines()]
    assert set(one.was.splitlines()) <= set(source)
    assert one.now
    assert one.was not in one.now
    assert one.why.endswith(".")


class Answering:
    """In place of the process that runs tests: what it answers, and what it was asked."""

    def __init__(self, copy: Path, *codes: int | None) -> None:
        self.copy = copy
        self.codes = list(codes)
        self.asked: list[dict[str, object]] = []
        self.sources: list[str] = []
        self.stdin = self
        self.stdout = self

    def write(self, text: str) -> None:
        if text.strip():
            self.asked.append(json.loads(text))
            self.sources.append((self.copy / MUTANT.path).read_text())

    def flush(self) -> None:
        pass

    def readline(self) -> str:
        Path(str(self.asked[-1]["output"])).write_text("FAILED tests/test_box.py::test_area - assert 6 == 5\n")
        return json.dumps({"code": self.codes.pop(0), "seconds": 2.0}) + "\n"


@pytest.mark.parametrize(
    ("code", "fate"), [(0, Fate.SURVIVED), (1, Fate.KILLED), (-11, Fate.KILLED), (None, Fate.TIMED_OUT)]
)
def test_a_mutant_is_judged_in_the_copy_which_is_mended_afterwards(made: Path, code: int | None, fate: Fate) -> None:
    root = made / "tree"
    (root / "made").mkdir(parents=True)
    (root / MUTANT.path).write_text(SOURCE)
    before = (root / MUTANT.path).stat().st_mtime_ns
    process = Answering(root, 0, code)
    copy = MutantCopy(root, process)  # type: ignore[arg-type]
    change = Mutated(source="changed = True\n", was="", now="")
    assert copy.judge(MUTANT, change, ["tests/test_box.py"])[0] is fate
    assert process.sources == [SOURCE, "changed = True\n"]
    assert [asked["limit_s"] for asked in process.asked] == [600.0, 3 * 2.0 + 15]
    assert (root / MUTANT.path).read_text() == SOURCE
    assert (root / MUTANT.path).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("codes", "fate", "ran"),
    [
        ((0, 1), Fate.KILLED, ["a b", "a b"]),  # without the mutant, and with it
        ((0, 0, 0, 1), Fate.KILLED, ["a b", "a b", "c", "c"]),
        ((0, 0, 0, 0), Fate.SURVIVED, ["a b", "a b", "c", "c"]),
        ((0, None), Fate.TIMED_OUT, ["a b", "a b"]),
    ],
)
def test_files_of_tests_run_two_by_two_until_one_notices_the_mutant(
    made: Path, codes: tuple[int | None, ...], fate: Fate, ran: list[str]
) -> None:
    process = Answering(made, *codes)
    copy = MutantCopy(made, process)  # type: ignore[arg-type]
    found, last = copy.judge(MUTANT, Mutated(source="changed = True\n", was="", now=""), ["a", "b", "c"])
    assert found is fate
    assert [" ".join(asked["tests"]) for asked in process.asked] == ran  # type: ignore[arg-type]
    assert last.seconds == 2.0 * (len(ran) // 2)  # of the mutant alone
    assert (made / MUTANT.path).read_text() == SOURCE


def test_a_run_is_ended_by_the_processor_time_it_uses_and_not_by_what_a_busy_machine_takes() -> None:
    limit = ProcessorLimit(10.0, now_s=0.0)
    # a hundredth of a processor, up to its limit
    assert not any(limit.reached(at / 100, now_s=at) for at in range(0, 1_001, 50))
    assert limit.reached(10.01, now_s=1_001.0)


def test_a_run_that_waits_for_what_never_comes_is_ended() -> None:
    limit = ProcessorLimit(10.0, now_s=0.0)
    assert not limit.reached(2.0, now_s=5.0)
    assert not limit.reached(2.9, now_s=5.0 + IDLE_S)
    assert limit.reached(2.9, now_s=5.1 + IDLE_S)
    assert not limit.reached(3.0, now_s=5.1 + IDLE_S)


def test_processor_time_is_that_of_the_process() -> None:
    def used() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    before = used()
    assert before - 0.05 <= processor_s(os.getpid()) <= used() + 0.05


def test_tests_that_fail_without_a_mutant_judge_none(made: Path) -> None:
    root = made / "tree"
    (root / "made").mkdir(parents=True)
    (root / MUTANT.path).write_text(SOURCE)
    copy = MutantCopy(root, Answering(root, 1))  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"tests/test_box.py: the tests do not pass without a mutant: FAILED tests/test_box"
    ):
        copy.limit_s(["tests/test_box.py"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "0"], "--sample: got 0, accepted: 1 to 1,000,000"),
        (["--seed", "-1"], "--seed: got -1, accepted: 0 to 1,000,000"),
        (["--group", "nothing"], "--group: got 'nothing', accepted: formulas, gate"),
        (["--page", "no-such-page.md"], "No such file"),
    ],
)
def test_an_unusable_option_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mutants, "require_cosmic_ray", lambda: None)
    assert mutants.main([*arguments, "--output-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_part_of_a_session_is_replaced_and_no_other() -> None:
    page = "a\n<!-- written by the session one: begin -->\nold\n<!-- written by the session one: end -->\nb\n"
    assert replaced(page, "one", "new") == (
        "a\n<!-- written by the session one: begin -->\n\nnew\n\n<!-- written by the session one: end -->\nb\n"
    )
    with pytest.raises(ValueError, match="without the lines <!-- written by the session two: begin"):
        replaced(page, "two", "new")


@pytest.fixture
def whole(tmp_path: Path) -> mutants.MutantsOptions:
    """Options of a session."""
    pytest.importorskip("cosmic_ray")
    return mutants.parsed(["--output-dir", str(tmp_path / "out")])


@pytest.fixture
def boxes(made: Path) -> MutantGroup:
    """The group of the made-up module, and the test that judges it."""
    (made / "tests").mkdir()
    (made / "tests" / "test_box.py").write_text("def test_area(): ...\n")
    modules = MutatedModules(patterns=("made/*.py",), tests=("box",))
    return MutantGroup(name="boxes", title="Boxes", goal=1.0, modules=(modules,))


def test_a_session_goes_on_with_what_was_judged_before(
    made: Path, whole: mutants.MutantsOptions, boxes: MutantGroup
) -> None:
    options = replace(whole, groups=(boxes,), sample=2)
    root = made / "tree"
    (root / "made").mkdir(parents=True)
    (root / "tests").mkdir()
    for name in (MUTANT.path, "tests/test_box.py"):
        (root / name).write_text((made / name).read_text())
    session = mutants.MutantSession(options, root=made)
    assert len(session.open()) == 2
    copy = MutantCopy(root, Answering(root, 0, 1))  # type: ignore[arg-type]
    assert session.judge(*session.open()[0], copy) is not None
    assert len(session.open()) == 1
    again = mutants.MutantSession(options, root=made)
    assert again.open() == session.open()
    assert [one.fate for one in again.results()[0].judged] == [Fate.KILLED]
    assert len(mutants.MutantSession(replace(options, anew=True), root=made).open()) == 2
    assert len(mutants.MutantSession(replace(options, sample=5), root=made).open()) == 4
    (made / MUTANT.path).write_text(SOURCE.replace("4", "5"))
    assert len(mutants.MutantSession(options, root=made).open()) == 2


def test_a_session_of_one_group_keeps_what_was_judged_of_another(
    made: Path, whole: mutants.MutantsOptions, boxes: MutantGroup
) -> None:
    options = replace(whole, groups=(boxes,), sample=2)
    others = replace(JUDGED, group="others", key="another | key")
    MUTANTS.write(options.kept, as_json([others], created="2026-01-02", commit=None, populations={}, **TOOLS))
    for anew in (False, True):
        session = mutants.MutantSession(replace(options, anew=anew), root=made)
        copy = MutantCopy(made, Answering(made, 0, 1))  # type: ignore[arg-type]
        assert session.judge(*session.open()[0], copy) is not None
        assert [one.group for one in read_judged(options.kept)] == ["others", "boxes"]
        assert len(session.results()[0].judged) == 1  # and it does not count what is not its own


def test_figures_are_of_the_mutants_before_the_first_that_is_open(
    made: Path, whole: mutants.MutantsOptions, boxes: MutantGroup
) -> None:
    options = replace(whole, groups=(boxes,), sample=3)
    copy = MutantCopy(made, Answering(made, 0, 0, 1, 1))  # type: ignore[arg-type]
    session = mutants.MutantSession(options, root=made)
    for open_one in session.open():
        session.judge(*open_one, copy)
    assert [one.fate for one in session.results()[0].judged] == [Fate.SURVIVED, Fate.KILLED, Fate.KILLED]
    # a test changes: the survivor is open, and those that were killed do not stand for the sample without it
    (made / "tests" / "test_box.py").write_text("def test_other(): ...\n")
    again = mutants.MutantSession(options, root=made)
    assert len(again.open()) == 1
    assert again.results()[0].judged == ()


def test_the_commit_of_a_session_is_that_of_its_beginning(
    made: Path, whole: mutants.MutantsOptions, boxes: MutantGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "this_commit", lambda: "a" * 40)
    monkeypatch.setattr(mutants, "is_dirty", lambda: False)
    options = replace(whole, groups=(boxes,), sample=2)
    clean = mutants.MutantSession(options, root=made)
    monkeypatch.setattr(mutants, "is_dirty", lambda: True)
    dirty = mutants.MutantSession(options, root=made)
    monkeypatch.setattr(mutants, "this_commit", lambda: "b" * 40)
    assert clean.about()["commit"] == "a" * 12
    assert dirty.about()["commit"] == "a" * 12 + " with uncommitted changes"
    copy = MutantCopy(made, Answering(made, 0, 1))  # type: ignore[arg-type]
    assert clean.judge(*clean.open()[0], copy) is not None
    assert MUTANTS.read(options.kept)["commit"] == "a" * 40
