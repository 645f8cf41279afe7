"""The session `faults`: every session has a row or a reason, and what a command leaves behind is found."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io.markdown import marks
from fixtures.proof import clock_back, faults_text
from fixtures.proof import faults as session
from fixtures.proof.fault_commands import COMMANDS, NO_ROW, FaultCommand
from fixtures.proof.fault_kinds import Fault, Moment
from fixtures.proof.fault_moments import soon_over
from fixtures.proof.fault_results import FAULTS, FaultResults, TrialResult
from fixtures.proof.faults import parsed
from fixtures.proof.faulty_process import FaultyProcess, Sent
from fixtures.proof.hostile_records import KINDS, hostile_copy
from fixtures.proof.left_behind import (
    CloneState,
    left_in,
    left_in_clone,
    left_in_temporary,
    negative_times,
    shows_own_traceback,
    unescaped,
    unlisted,
)
from fixtures.proof.tried_clone import TrialPlace, TriedClone, cloned
from tests.command_parsers import check, sessions
from tests.fresh_process import outside_pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "data" / "record.v5.json"
BEGIN, END = marks(faults_text.SESSION)
CLEAN = TrialResult(
    command="noise",
    fault=Fault.CTRL_C,
    moment=Moment.MIDDLE,
    outcome="clean",
    problems=(),
    note="exit code 130",
    seconds=1.5,
    commit="0" * 40,
)


def results(*trials: TrialResult) -> FaultResults:
    return FaultResults(
        created="2026-01-02T03:04:05+00:00",
        commit="0" * 40,
        dirty=False,
        seed=3,
        python="Python 3.12.1",
        platform="Linux",
        mounts=None,
        trials=trials,
    )


def without_row(names: set[str]) -> set[str]:
    return names - {command.session for command in COMMANDS} - set(NO_ROW)


def test_every_session_has_a_row_or_a_reason() -> None:
    assert without_row(set(sessions())) == set()
    assert without_row({"noise", "tests", "a_new_session"}) == {"a_new_session"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_command_of_a_row_is_one_that_the_project_takes(command: FaultCommand, tmp_path: Path) -> None:
    given = {"out": tmp_path, "run": tmp_path, "url": "http://127.0.0.1:1/v1", "release": "transformers==5.24.0"}
    words = [word if word[0] != "{" else str(given.get(word[1:].partition("}")[0], tmp_path)) for word in command.words]
    check(" ".join(words if words[0] == "pytest" else ["python", "-m", *words]), values=False)
    assert set(command.unlike) <= set(Fault)
    assert command.resumes or "--continue" not in " ".join(command.words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--commands", "noise", "nothing"], "--commands: got 'nothing', accepted: bench-meta"),
        (["--faults", "nothing"], "--faults: got 'nothing', accepted: ctrl-c"),
        (["--jobs", "0"], "--jobs: got 0, accepted: 1 to 64"),
        (["--seed", "-1"], "--seed: got -1, accepted: 0 or more"),
    ],
)
def test_an_unusable_option_is_named(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parsed(words)
    assert not parsed(["--faults", "home"]).whole
    assert parsed([]).whole


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("record.json", "", "is empty"),
        ("record.json", '{"schema_version": ', "is no JSON"),
        ("study.json", '{"schema_version": "1.0"}', "does not fit its schema"),
        ("study.json", "[]", "has schema_version None"),
        ("report.html", "<html><body>", "ends in the middle"),
        (".dsocr-record-abcdefgh.tmp", "x", "is a temporary file"),
        (".latest-17", "x", "is a temporary file"),
    ],
)
def test_what_is_not_whole_is_found(tmp_path: Path, name: str, text: str, found: str) -> None:
    folder = tmp_path / "20260102-030405-6"
    folder.mkdir()
    shutil.copy(RECORD, folder / "record.json")
    (folder / "page.html").write_text("<html></html>\n")
    assert left_in(tmp_path, killed=False) == []
    (folder / name).write_text(text)
    (problem,) = left_in(tmp_path, killed=False)
    assert f"{name} {found}" in problem
    # the next run removes what is ours: it is looked at after that
    assert (left_in(tmp_path, killed=True) == []) == name.startswith(".dsocr-")


def test_links_to_nothing_empty_folders_and_unlisted_results_are_found(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    (tmp_path / "noise-1").mkdir()
    assert left_in(tmp_path, killed=False) == ["latest is a link to nothing", "noise-1 is an empty folder"]
    assert left_in(tmp_path, killed=True) == ["latest is a link to nothing"]  # the next run fills the folder
    (tmp_path / "noise-1" / "study.json").write_text("{}")
    (tmp_path / "index.html").write_text("<html>noise-2</html>")
    assert unlisted(tmp_path) == ["index.html does not list noise-1"]


def test_temporary_files_are_found_unless_a_library_keeps_them(tmp_path: Path) -> None:
    place = TrialPlace.made(tmp_path / "place")
    for name in ("torchinductor_user", "dsocr-base-abcdefgh.tmp", "tmpabc"):
        (place.tmp / name).mkdir()
    assert left_in_temporary(place, killed=False) == ["temporary: dsocr-base-abcdefgh.tmp", "temporary: tmpabc"]
    assert left_in_temporary(place, killed=True) == ["temporary: tmpabc"]


def test_what_differs_in_the_clone_is_found(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    cache = tmp_path / "cache"
    (cache / "dsocr-bench").mkdir(parents=True)
    (cache / "dsocr-bench" / "cpu.json").write_text("{}")

    def git(*arguments: str) -> None:
        author = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(("git", *author, *arguments), cwd=root, check=True, capture_output=True)

    root.mkdir()
    (root / "file").touch()
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all of it"]):
        git(*arguments)
    clone = TriedClone(root=root, cache=cache, given={})
    before = CloneState.of(clone)
    assert left_in_clone(before, clone, killed=False) == []
    git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    git("branch", "new")
    (root / "baselines.json").touch()
    (root / ".git" / "index.lock").touch()
    (cache / "dsocr-bench" / "cpu.json").rename(cache / "dsocr-bench" / "cpu.tmp")
    found = left_in_clone(before, clone, killed=False)
    for words in (
        "worktrees: ",
        "branches or tags",
        "'?? baselines.json'",
        "index.lock",
        "cpu.json is gone",
        "cpu.tmp is a temp",
    ):
        assert any(words in problem for problem in found), words
    assert not any("worktrees" in problem for problem in left_in_clone(before, clone, killed=True))


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., FaultyProcess]:
    """A process that runs the given lines."""

    def start(*lines: str, **more: str) -> FaultyProcess:
        (tmp_path / "lines.py").write_text("\n".join(lines))
        (tmp_path / "watched").mkdir(exist_ok=True)
        environment = {**outside_pytest(), "PYTHONPATH": str(tmp_path), **more}
        return FaultyProcess(
            ("lines",), cwd=tmp_path, environment=environment, folder=tmp_path, watched=tmp_path / "watched"
        )

    return start


def test_a_process_that_outlives_its_command_is_found_and_killed(
    process: Callable[..., FaultyProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fixtures.proof.faulty_process.GONE_S", 0.2)
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    end = process("import subprocess, sys", f"open('pid', 'w').write(str({child}.pid))").ended(limit_s=60)
    assert end.code == 0
    (outlived,) = end.outlived
    assert outlived.endswith("import time; time.sleep(600)")
    number = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < until:
        if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{number}").exists()


def test_a_signal_is_sent_at_its_moment_and_one_that_comes_too_late_is_told(process: Callable[..., FaultyProcess]) -> None:
    lines = ("import time, sys", "open('watched/first', 'w')", "print('line', file=sys.stderr)", "time.sleep(60)")
    sent = Sent(number=signal.SIGTERM, to_group=False, when=lambda seen: "first" in seen.names and seen.lines == 1)
    end = process(*lines).ended(limit_s=30, sent=sent)
    assert (end.code, end.timed_out, len(end.line_s)) == (-signal.SIGTERM, False, 1)
    assert end.hit_s is not None
    assert soon_over(end)
    assert not soon_over(replace(end, seconds=2 * end.hit_s + 4))
    end = process("pass").ended(limit_s=30, sent=sent)
    assert (end.code, end.hit_s) == (0, None)
    assert not soon_over(end)
    end = process("import time; time.sleep(60)").ended(limit_s=0.5)
    assert (end.code, end.timed_out) == (-signal.SIGKILL, True)


def test_a_command_takes_ctrl_c_where_the_session_ignores_it(process: Callable[..., FaultyProcess]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        running = process("import signal, sys", "sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.ended(limit_s=30).code == 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_clock_is_set_back_and_durations_are_not(process: Callable[..., FaultyProcess], tmp_path: Path) -> None:
    library = clock_back.built(tmp_path)
    assert library is not None
    lines = (
        "import time, datetime",
        "before = time.time(), time.monotonic(), datetime.datetime.now(datetime.UTC)",
        "time.sleep(2.1)",
        "after = time.time(), time.monotonic(), datetime.datetime.now(datetime.UTC)",
        "print(*(int(a - b) for a, b in zip(after[:2], before[:2])), (after[2] - before[2]).days)",
    )
    end = process(*lines, **clock_back.environment(library, after_s=1.0)).ended(limit_s=60)
    # 26 hours are a day and two hours; floor division takes -1.08 days to -2
    wall_s, monotonic_s, days = map(int, end.out.split())
    assert (-clock_back.BACK_S <= wall_s < -clock_back.BACK_S + 60, 2 <= monotonic_s < 60, days) == (True, True, -2)


def test_seconds_below_zero_are_found(tmp_path: Path) -> None:
    (tmp_path / "noise.json").write_text(json.dumps({"run_s": 1.0, "stages": [{"first_s": -0.5, "share": -1}]}))
    assert negative_times(tmp_path) == ["noise.json: first_s is -0.5"]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_records_are_hostile(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(RECORD, tmp_path / "run" / "record.json")
    hostile_copy(tmp_path / "run", tmp_path / "hostile", kind=kind)
    made = json.loads((tmp_path / "hostile" / "record.json").read_text())
    plain = json.loads(RECORD.read_text())
    assert ("fault-marker" in json.dumps(made["points"])) == (kind == "measured")
    assert ("\\u001b" in json.dumps(made)) == (kind == "controls")
    assert (made["environment"] == plain["environment"]) == (kind == "measured")


def test_a_hostile_value_that_is_read_as_a_tag_or_printed_is_found(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>&lt;fault-marker&gt; <b title='&lt;fault-marker&gt;'>x</b></p>")
    assert unescaped(tmp_path, "one\n\ttwo") == []
    for text in ("<p><fault-marker></p>", '<p title=""><img fault-marker="1"></p>'):
        (tmp_path / "report.html").write_text(text)
        assert unescaped(tmp_path, "") == ["report.html: a value is read as a tag"]
    assert unescaped(tmp_path / "none", "\x1b[2J") == ["a control character reached the terminal"]


def test_a_traceback_is_ours_if_our_code_had_begun(tmp_path: Path) -> None:
    """Pytest reads its plugins before it looks for our conftest: nothing of ours can take a signal by then."""
    head = "Traceback (most recent call last):\n"
    library = '  File "/usr/lib/python3/site-packages/_pytest/config/__init__.py", line 1769, in parse\n'
    own = f'  File "{tmp_path}/fixtures/plugin/hooks.py", line 2, in hook\n'
    assert not shows_own_traceback(f"{head}{library}KeyboardInterrupt\n", tmp_path)
    assert shows_own_traceback(f"{head}{library}{own}KeyboardInterrupt\n", tmp_path)
    assert not shows_own_traceback(own, tmp_path)


def test_results_are_read_as_they_were_written_and_make_the_table(tmp_path: Path) -> None:
    left = replace(CLEAN, fault=Fault.SIGKILL, outcome="left", problems=("latest is a link to <nothing>",))
    untried = replace(CLEAN, fault=Fault.HOSTILE, moment=None, outcome="not tried", note="reads no record")
    found = results(CLEAN, left, untried)
    FAULTS.write(tmp_path / "faults.json", found.as_json())
    assert FaultResults.of(FAULTS.read(tmp_path / "faults.json")) == found
    with pytest.raises(ValueError, match="problems: got 0 beside 'left'"):
        replace(CLEAN, outcome="left")
    page = faults_text.written(f"# Proof\n\n{BEGIN}\nold\n{END}\nafter\n", found)
    assert page.startswith(f"# Proof\n\n{BEGIN}\n\nMade by `nox -s faults -- --seed 3` on 2026-01-02")
    assert page.endswith(f"{END}\nafter\n")
    cells = ["noise", "clean, middle", "", "**left**, middle", *[""] * 6, "(1)"]
    assert f"| {' | '.join(cells)} |" in page
    assert "3 trials: 1 clean, 1 left something, 1 not tried." in page
    assert "- noise, sigkill: latest is a link to &lt;nothing>" in page
    assert "Not tried yet, for lack of time: bench-meta; bench-cpu; " in page
    assert "; noise (sigterm, full-disk, read-only, home, two-runs, clock, latest); gate_study; " in page
    assert f"at commit `{'0' * 12}`, Python 3.12.1" in page
    both = faults_text.written(f"{BEGIN}{END}", results(CLEAN, replace(left, commit="1" * 40)))
    assert f"at commit `{'0' * 12}` (1 trials), commit `{'1' * 12}` (1 trials), Python" in both
    with pytest.raises(ValueError, match="--page: got a page without the lines"):
        faults_text.written("# Proof\n", results())


@pytest.mark.parametrize("ended_early", [True, False])
def test_a_session_that_is_ended_early_writes_the_page_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended_early: bool
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Proof\n{BEGIN}\n{END}\n")

    def tried(options: session.FaultsOptions, kept: session.KeptTrials, *, mounts: str | None) -> None:
        kept.add(replace(CLEAN, commit=kept.found.commit))
        page.write_text(page.read_text() + "of another session\n")  # while this one tries
        if ended_early:
            raise KeyboardInterrupt

    monkeypatch.setattr(session.own_mounts, "separate", lambda: "none here")
    monkeypatch.setattr(session, "tried", tried)
    code = session.main(["--page", str(page), "--output-dir", str(tmp_path / "results")])
    assert code == (130 if ended_early else 0)
    assert "| noise | clean, middle |" in page.read_text()
    assert page.read_text().endswith(f"{END}\nof another session\n")
    assert ("go on with `nox -s faults -- --page" in capsys.readouterr().err) == ended_early


def test_new_files_of_the_checkout_are_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    author = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
    (root / ".gitignore").write_text("ignored\n")
    (root / "tracked").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all of it"]):
        subprocess.run(("git", *author, *arguments), cwd=root, check=True)
    for name in ("tracked", "new", "ignored"):
        (root / name).write_text("2")
    for name, value in {"GIT_AUTHOR": "someone", "GIT_COMMITTER": "someone"}.items():
        monkeypatch.setenv(f"{name}_NAME", value)
        monkeypatch.setenv(f"{name}_EMAIL", f"{value}@example.org")
    monkeypatch.setattr("analytic.io.stored.ROOT", root)
    cloned(tmp_path / "clone")
    found = {path.name: path.read_text() for path in (tmp_path / "clone").iterdir() if path.name[0] != "."}
    assert found == {"tracked": "2", "new": "2"}


def faults(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fixtures.proof.faults", "--jobs", "1", "--output-dir", str(cwd / "out"), *arguments]
    own = {**outside_pytest(), "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd), **(environment or {})}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the project's git repository")
def test_a_short_part_of_the_session_finds_nothing_and_goes_on_after_what_it_has(tmp_path: Path) -> None:
    asked = ("--commands", "analytic capacity", "--faults", "ctrl-c", "sigkill", "two-runs")
    done = faults(*asked, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "3 trials: 3 clean, 0 left something, 0 not tried\n"), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["out"]
    kept: dict[str, Any] = FAULTS.read(tmp_path / "out" / "faults" / "faults.json")
    assert {trial["fault"] for trial in kept["trials"]} == {"ctrl-c", "sigkill", "two-runs"}
