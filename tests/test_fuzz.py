"""Readers on damaged files: a short part of the session `fuzz`, the table of what is read, and that problems are found."""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytic.io import stored
from analytic.io.documents import Document
from analytic.io.markdown import marks
from analytic.io.schemas import SCHEMAS, violations
from fixtures.proof import fuzz, fuzz_page
from fixtures.proof.damage import SHAPES, DamagedFile, changed, json_bytes
from fixtures.proof.document_kinds import DOCUMENT_KINDS
from fixtures.proof.fuzz_shares import share_out
from fixtures.proof.fuzz_targets import KINDS, FuzzTally, FuzzTarget, fuzzed, targets, tried
from fixtures.proof.reader_kinds import FuzzedCommand, Reader, ReaderKind, WrongAnswerError
from fixtures.proof.reader_oracle import FoundProblem, read_by
from fixtures.proof.reading_modules import ELSEWHERE, FUZZED
from fixtures.proof.schema_values import node_of, values

BEGIN, END = marks(fuzz_page.SESSION)
READERS = tuple(one for one in targets() if not isinstance(one.reads, FuzzedCommand))
COMMANDS = tuple({one.name: one for one in targets() if isinstance(one.reads, FuzzedCommand)}.values())
QUICK = tuple({one.kind_name: one for one in reversed(READERS)}.values())
"""The first reader of each kind."""
SEED = 20261126
DAMAGES = True


def needed(name: str) -> None:
    """Skip where the library that reads a kind of file is not installed."""
    for start, library in (("PDF", "pypdfium2"), ("image", "PIL")):
        if name.startswith(start):
            pytest.importorskip(library)


@pytest.mark.parametrize("target", QUICK, ids=lambda target: target.label)
def test_a_reader_gives_an_answer_or_names_the_file(target: FuzzTarget, tmp_path: Path) -> None:
    needed(target.kind_name)
    tally = fuzzed(target, tmp_path / "tried", first_seed=SEED, seconds=30, most=2)
    assert [str(finding.problem) for finding in tally.findings] == []
    assert tally.tried >= 1


@pytest.mark.parametrize("target", COMMANDS, ids=lambda target: target.label)
def test_a_command_refuses_what_is_no_document_in_a_sentence(target: FuzzTarget, tmp_path: Path) -> None:
    needed(target.kind_name)
    tried(target, DamagedFile(content=b"\xff\x00"), tmp_path / "tried")


@pytest.mark.parametrize("name", KINDS)
def test_the_example_of_a_kind_is_read_by_all_that_reads_it(name: str, tmp_path: Path) -> None:
    needed(name)
    folder = tmp_path / "tried"
    for target in targets((name,)):
        if not isinstance(target.reads, FuzzedCommand):
            assert tried(target, DamagedFile(content=target.kind.example(folder)), folder) == "read", target.label


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["calibration", "table of ncu", "safetensors", "pins"])
def test_what_is_no_file_is_refused_at_once(name: str, shape: str, tmp_path: Path) -> None:
    if shape == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads every file")
    for target in targets((name,)):
        found = DamagedFile(content=target.kind.example(tmp_path), shape=shape)  # type: ignore[arg-type]
        assert tried(target, found, tmp_path / "tried") == "refused"


def replaced(name: str, old: bytes, new: bytes) -> bytes:
    """The example of a kind with the first `old` replaced."""
    content = KINDS[name].example(Path())
    assert old in content
    return content.replace(old, new, 1)


def without(value: Any, *at: str | int, new: object = None) -> bytes:
    """A document with null, or `new`, at a place."""
    return json_bytes(changed(value, at, new))


MENDED = {
    "record.v5: page": replaced("record.v5", b'"stage": "prefill"', b'"stage": "other"'),
    "record.v5: table": replaced("record.v5", b'"stage": "prefill"', b'"stage": "other"'),
    "record.v5: capacity --record": KINDS["record.v5"].example(Path()).replace(b'"tiny"', b'"other"'),
    "history_study: pages": replaced("history_study", b'"number": 1024', b'"number": 3000'),
    "history_study: report STUDY": replaced("history_study", b'"number": 1024', b'"number": 3000'),
    "snapshot: snapshot": replaced("snapshot", b'"5.24.0"', b'"five"'),
    "table of ncu: kernels": replaced("table of ncu", b'"6,912"', b'"inf"'),
    "table of nsys: kernels": replaced("table of nsys", b'"2"', b'"1e999"'),
    "mix: capacity --mix": b"2339px=1\n",
    "@FILE: words": b"\xff",
    "@FILE: baseline @FILE": b"\xff",
    "accepted of a qualification: accepted": b"[]",
    "backends: pages": without(KINDS["backends"].value(), "stages", 0, "floor_s"),
    "backends: report STUDY": without(KINDS["backends"].value(), "stages", 0, "floor_s"),
    "gate_study: pages": without(KINDS["gate_study"].value(), "fingerprint", "device_name"),
    "gate_study: report STUDY": without(KINDS["gate_study"].value(), "fingerprint", "driver", new={}),
    "qualify: pages": without(KINDS["qualify"].value(), "environment", "device"),
    "qualify: report STUDY": without(KINDS["qualify"].value(), "environment", "device"),
    "config.json, transformers_ocr: spec": without(
        KINDS["config.json, transformers_ocr"].value(), "text_config", "layer_types", new=[["full_attention"]]
    ),
    "measured sweep: scaling --compare": without(KINDS["measured sweep"].value(), "decode_steps", new=7),
    "analytic sweep: scaling --compare": without(KINDS["analytic sweep"].value(), "decode_steps", new=7),
    "faults: results": without(KINDS["faults"].value(), "trials", 0, "problems", new=["left"]),
}
"""What the session found refused in a traceback, or without the name of the file; each is refused by name."""


@pytest.mark.parametrize("label", MENDED)
def test_what_was_found_is_refused_by_name(label: str, tmp_path: Path) -> None:
    (target,) = (one for one in targets() if one.label == label)
    assert tried(target, DamagedFile(content=MENDED[label]), tmp_path / "tried") == "refused"


@pytest.mark.parametrize("label", ["table of ncu: kernels", "table of nsys: kernels"])
@pytest.mark.parametrize("long_line", ["before", "after"])
def test_a_line_beyond_what_csv_has_is_no_header_and_in_a_table_is_refused(
    label: str, long_line: str, tmp_path: Path
) -> None:
    (target,) = (one for one in targets() if one.label == label)
    text, long = target.kind.example(Path()), b"x" * 200_000
    content = long + b"\n" + text if long_line == "before" else text + long + b"\n"
    ending = tried(target, DamagedFile(content=content), tmp_path / "tried")
    assert ending == ("read" if long_line == "before" else "refused")


def test_a_single_process_has_no_spread(tmp_path: Path) -> None:
    value = changed(KINDS["noise"].value(), ("incomplete",), {"reason": "it was stopped", "missing": ["a process"]})
    for name in value["stages"]:
        value = changed(value, ("stages", name, "medians_s"), [0.5])
    for target in targets(("noise",)):
        if not isinstance(target.reads, FuzzedCommand):
            assert tried(target, DamagedFile(content=json_bytes(value)), tmp_path / "tried") == "read", target.label
    baseline = changed(KINDS["baseline, timed"].value(), ("timed", 0, "stages"), value["stages"])
    (target,) = (one for one in targets(("baseline, timed",)) if one.name == "baseline show")
    assert tried(target, DamagedFile(content=json_bytes(baseline)), tmp_path / "tried") == "read"


@pytest.mark.parametrize("shape", ["folder", "pipe", "endless device"])
def test_words_are_read_from_files_alone(shape: str, tmp_path: Path) -> None:
    for target in targets(("@FILE",)):
        found = DamagedFile(shape=shape)  # type: ignore[arg-type]  # a shape, as the parameters list them
        assert tried(target, found, tmp_path / "tried") == "refused", target.label


def test_a_file_that_does_not_say_how_an_environment_was_repaired_is_none(tmp_path: Path) -> None:
    (target,) = targets(("engine's environment",))
    assert tried(target, DamagedFile(content=b'{"repaired": 5}'), tmp_path / "tried") == "read"


def test_a_file_of_words_that_stands_in_itself_is_named(tmp_path: Path) -> None:
    from fixtures.config.option_values import expanded

    path = tmp_path / "words.txt"
    path.write_text(f"--device=cpu\n@{path}\n")
    with pytest.raises(ValueError, match=f"@{path}: got a file that is read within itself"):
        expanded([f"@{path}"])


def made_up(reader: Reader, content: bytes = b'{"a": 1}') -> FuzzTarget:
    kind = ReaderKind(example=lambda _: content, place="a.json", readers={"reader": reader})
    return FuzzTarget(kind=kind, kind_name="made up", name="reader", reads=reader)


def wrong(path: Path) -> object:
    """Reads small files alone: a link to endless zeros would be read until memory ends."""
    if not path.is_file() or path.stat().st_size > 1000 or b'"a"' not in path.read_bytes():
        raise KeyError("a")
    return None


def unnamed(path: Path) -> object:
    raise ValueError("something is wrong")


def contradicting(path: Path) -> object:
    raise WrongAnswerError("it differs")


def drawing(path: Path) -> object:
    return "<td>nan</td>"


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (wrong, "KeyError: 'a'"),
        (unnamed, "refused without its name: 'something is wrong'"),
        (contradicting, "WrongAnswerError: it differs"),
        (drawing, "a page shows nan as a number"),
    ],
)
def test_what_a_reader_may_not_do_is_found_and_made_small(reader: Reader, said: str, tmp_path: Path) -> None:
    tally = fuzzed(made_up(reader), tmp_path / "tried", first_seed=1, seconds=60, most=100)
    assert len(tally.findings) == 1
    assert said in str(tally.findings[0].problem)
    assert len(tally.findings[0].damaged.content) < 10  # nothing of the file is needed for it


def test_a_page_may_show_a_text_of_its_document_that_looks_like_a_number(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_text('{"peer": "NaN points of the inference", "flops": null}')
    kind = made_up(unnamed).kind
    assert read_by(lambda _: "<td>NaN</td>", path, kind) == "read"
    with pytest.raises(FoundProblem, match="shows inf as a number"):
        read_by(lambda _: "<td>NaN</td><td>inf</td>", path, kind)


def test_a_reader_that_waits_and_one_that_takes_memory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.proof import reader_oracle

    monkeypatch.setattr(reader_oracle, "WAIT_S", 0.2)
    monkeypatch.setattr(reader_oracle, "MOST_GROWTH_BYTES", -1)
    pipe = DamagedFile(shape="pipe")
    with pytest.raises(FoundProblem, match="no end within"):
        tried(made_up(lambda path: path.read_bytes() and None), pipe, tmp_path / "tried")
    with pytest.raises(FoundProblem, match="it takes"):
        tried(made_up(lambda _: None), DamagedFile(), tmp_path / "tried")


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        return self.time_s

    def taking(self, seconds: float) -> Reader:
        """A reader that takes so long."""

        def read(path: Path) -> object:
            self.time_s += seconds
            return None

        return read


def test_a_slow_reader_takes_no_time_from_another_and_each_has_its_share(tmp_path: Path) -> None:
    clock = Clock()
    readers = {"slow": clock.taking(7.0), "fast": clock.taking(0.1), "usual": clock.taking(0.5), "last": clock.taking(0.5)}
    tallies = {name: FuzzTally(target=made_up(reader)) for name, reader in readers.items()}
    share_out(list(tallies.values()), tmp_path / "tried", first_seed=1, seconds=40.0, now=clock)
    assert 40 <= clock.time_s <= 47
    assert tallies["slow"].tried == 2  # a second one while no other has had less
    for name in ("fast", "usual", "last"):
        assert 6.5 <= tallies[name].seconds <= 14, name  # of a share of 10, two or three turns of a third


def test_whoever_had_no_turn_is_given_a_file_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    tallies = [FuzzTally(target=made_up(clock.taking(100.0))) for _ in range(5)]
    share_out(tallies, tmp_path / "tried", first_seed=1, seconds=10.0, now=clock)
    assert [tally.tried for tally in tallies] == [1] * 5


def test_no_file_is_made_when_the_time_is_over(tmp_path: Path) -> None:
    clock, made = Clock(), [0]

    class Counting(ReaderKind):
        def damaged(self, folder: Path) -> st.SearchStrategy[DamagedFile]:
            return st.integers(0, 10**6).map(counted)

    def counted(number: int) -> DamagedFile:
        made[0] += 1
        return DamagedFile(content=str(number).encode())

    reader = clock.taking(100.0)
    kind = Counting(example=lambda _: b"0", place="a.txt", readers={"reader": reader}, json=False)
    target = FuzzTarget(kind=kind, kind_name="made up", name="reader", reads=reader)
    tally = fuzzed(target, tmp_path / "tried", first_seed=1, seconds=10.0, now=clock)
    assert tally.tried == 1
    assert made[0] <= 2


def test_the_same_seed_tries_the_same_files(tmp_path: Path) -> None:
    def contents(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def reader(path: Path) -> object:
            seen.append(path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 20 else b"")
            return None

        fuzzed(made_up(reader), tmp_path / "tried", first_seed=seed, seconds=60, most=20)
        return seen

    assert contents(7) == contents(7) != contents(8)


def test_a_finding_is_kept_and_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (target,) = (one for one in targets(("mix",)) if one.name == "mix")
    damaged = DamagedFile(content=b"\x00\xff")
    finding = fuzz_page.FuzzFinding(target=target, problem=FoundProblem(what="it fails", where="there"), damaged=damaged)
    path = fuzz_page.keep(finding, tmp_path, 1)
    assert fuzz_page.kept_in(path) == ("mix", "mix", damaged)
    assert fuzz.main(["--again", str(path)]) == 0  # it is mended
    assert "mix: mix: refused" in capsys.readouterr().out
    path.write_text("{}")
    assert fuzz.main(["--again", str(path)]) == 2


def test_a_session_prints_its_table_and_says_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = fuzz_page.PAGE.read_text(encoding="utf-8")
    assert fuzz.main(["--minutes", "0.01", "--seed", "3", "--only", "mix", "--output-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "| mix | mix, capacity --mix |" in said.out
    assert "seed 3" in said.err
    assert not (tmp_path / "out").exists()
    assert fuzz_page.PAGE.read_text(encoding="utf-8") == page  # a part of the readers makes no page
    for words in (["--minutes", "0"], ["--seed", "-1"], ["--only", "nothing"]):
        assert fuzz.main(words) == 2


def test_the_table_stands_between_the_markers_of_the_page() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    text = fuzz_page.written(page, [], told="Made today.")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    with pytest.raises(ValueError, match="accepted: one that has both"):
        fuzz_page.written("nothing", [], told="")
    assert BEGIN in fuzz_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["noise", "calibration", "merged", "snapshot", "refresh"])
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_values_that_are_made_of_a_schema_fit_it(name: str, data: st.DataObject) -> None:
    schema = DOCUMENT_KINDS[name].schema
    assert schema is not None
    assert violations(data.draw(values(node_of(schema))), schema) == []


def test_every_schema_has_a_kind_with_an_example_that_fits() -> None:
    kinds = {path.name.partition(".")[0] for path in SCHEMAS.glob("*.schema.json")}
    known = {kind.document.name for kind in DOCUMENT_KINDS.values() if kind.document is not None}
    assert kinds - known == {"history_index"}  # a plain kind, whose text is a format of its own
    for name, kind in DOCUMENT_KINDS.items():
        assert kind.schema is not None
        assert violations(json.loads(kind.example(Path())), kind.schema) == [], name


READING = {"read_text", "read_bytes", "loads", "safe_open", "PdfDocument", "memmap"}


def reads(path: Path) -> bool:
    """Whether a module reads a file or parses text: what no other module has read for it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = (
            function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
        )
        holder = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        modes = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        if name in READING or (name == "open" and holder == "Image") or (holder == "json_text" and name == "parsed"):
            return True
        if name == "open" and holder != "os" and not any(re.search("[awx]", mode) for mode in modes if len(mode) < 4):
            return True
        if name == "read" and (
            holder[:1].isupper() or holder in ("rates", "stored_rates", "rates_module", "document", "run")
        ):
            return True
    return False


def test_every_module_that_reads_is_fuzzed_or_says_why_not() -> None:
    found = {
        ".".join(path.relative_to(stored.ROOT).with_suffix("").parts)
        for folder in ("analytic", "fixtures")
        for path in (stored.ROOT / folder).rglob("*.py")
        if "proof" not in path.parts and reads(path)
    }
    assert found == found & {*FUZZED, *ELSEWHERE}, "name the kind of file in fixtures/proof/reading_modules.py"
    assert not FUZZED.keys() & ELSEWHERE.keys()
    assert {kind for kinds in FUZZED.values() for kind in kinds} <= KINDS.keys()
    modules = {".".join(path.relative_to(stored.ROOT).with_suffix("").parts) for path in stored.ROOT.glob("*/**/*.py")}
    assert FUZZED.keys() | ELSEWHERE.keys() <= modules


def test_a_reader_that_is_new_is_found(tmp_path: Path) -> None:
    for number, code in enumerate(("RATES.read(path)", "path.read_text()", "open(path)", "path.open('rb')")):
        (tmp_path / f"m{number}.py").write_text(code)
        assert reads(tmp_path / f"m{number}.py")
    (tmp_path / "w.py").write_text("path.open('w')\npath.write_text('x')")
    assert not reads(tmp_path / "w.py")


def test_the_profile_of_hypothesis_is_left_as_it_is(tmp_path: Path) -> None:
    before = settings.default
    fuzzed(made_up(lambda _: None), tmp_path / "tried", first_seed=1, seconds=5, most=3)
    assert settings.default == before


def test_every_document_that_is_declared_is_of_a_kind() -> None:
    assert all(Document(name=kind.document.name).versions for kind in DOCUMENT_KINDS.values() if kind.document)
