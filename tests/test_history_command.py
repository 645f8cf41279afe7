"""`nox -s history`: its table, its exit codes, its annotations, and what it refuses."""

import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.section import Standing
from fixtures.history.__main__ import LABELS, main
from fixtures.history.document import History, Label, SeriesVerdict
from fixtures.history.stored import read_history
from fixtures.report.__main__ import main as report
from tests.history_runs import base_record, history_of_folder, night, nights, put
from tests.mixed_runs import measurement


def run(folder: Path, *arguments: str) -> tuple[int, History]:
    output_dir = folder.parent / "out"
    code = main([str(folder), "--output-dir", str(output_dir), *arguments])
    return code, read_history(output_dir / "history.json")


def test_the_labels_of_the_command_are_those_of_a_step() -> None:
    assert tuple(map(str, Label)) == LABELS


def test_a_step_fails_while_it_is_new_and_only_by_its_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path / "results", 30, since=24, times=1.08)
    code, history = run(tmp_path / "results", "--fail-on", "work,efficiency", "--within", "7")
    assert (code, history.standing, len(history.failed_by)) == (1, Standing.FAILED, 2)
    out = capsys.readouterr().out
    assert out.startswith("history: 2 of 2 judged benchmarks got worse by work or efficiency within the last 7 nights: ")
    assert "  FAILED 2026-09-25 +8.0% (" in out
    assert "efficiency: nothing we record changed (000000180000..000000190000)" in out
    assert "in a checkout of 000000190000: `nox -s compare -- 000000180000 --stage 'decode[1024]'`" in out
    assert run(tmp_path / "results", "--fail-on", "work")[0] == 0
    assert run(tmp_path / "results", "--fail-on", "efficiency", "--within", "5")[0] == 0  # it is six nights old
    assert run(tmp_path / "results", "--fail-on", "efficiency", "--within", "6")[0] == 1
    code, history = run(tmp_path / "results")
    assert (code, history.standing) == (0, Standing.MEASURED)


def test_what_became_faster_fails_nothing(tmp_path: Path) -> None:
    nights(tmp_path / "results", 30, since=24, times=0.9)
    code, history = run(tmp_path / "results", "--fail-on", "work,efficiency,environment,noise")
    assert (code, history.standing) == (0, Standing.PASSED)
    assert {one.verdict for one in history.series} == {SeriesVerdict.FASTER}


def test_a_history_without_enough_nights_is_not_green(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path / "results", 8)
    code, history = run(tmp_path / "results", "--fail-on", "efficiency")
    assert (code, history.standing) == (2, Standing.INCONCLUSIVE)
    out = capsys.readouterr().out
    assert out.startswith("history: Nothing is judged: no benchmark has enough nights.")
    assert "8 of 8 points on 8 nights are judged; 8, fewer than the 12 that a step takes" in out
    assert run(tmp_path / "results")[0] == 0  # nothing was to be judged


def test_nothing_is_judged_where_the_latest_nights_are_disturbed(tmp_path: Path) -> None:
    def disturbed(record: dict[str, Any]) -> None:
        for timing in record["timings"]:
            timing["measurement"] = measurement(timing["time_s"], ["other processes used 1.90 of 2 CPUs"])

    nights(tmp_path / "results", 30, since=22, change=disturbed)
    code, history = run(tmp_path / "results", "--fail-on", "efficiency")
    assert (code, history.standing) == (2, Standing.INCONCLUSIVE)
    assert {one.verdict for one in history.series} == {SeriesVerdict.NOT_JUDGED}
    assert history.series[0].judged == "22 of 30 points on 30 nights are judged; not judged since 2026-09-22"


def test_a_benchmark_that_is_no_longer_measured_fails_nothing_and_is_not_green(tmp_path: Path) -> None:
    base = base_record()
    for number in range(40):
        record = night(base, number, times=1.1 if number >= 16 else 1.0)
        if number >= 20:
            record["timings"] = [timing for timing in record["timings"] if timing["stage"] == "prefill"]
        put(tmp_path / "results", record)
    history = history_of_folder(tmp_path / "results", tmp_path / "out", Label.EFFICIENCY)
    (ended,) = [one for one in history.series if one.benchmark.startswith("decode")]
    assert (ended.verdict, history.standing) == (SeriesVerdict.NOT_JUDGED, Standing.PASSED)
    assert ended.judged == "20 of 20 points on 20 nights are judged; not measured since 2026-09-20"
    assert history.verdict[-1] == "Not judged: decode[1024] (decode_steps 4)."


def test_github_gets_an_error_for_each_failing_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    nights(tmp_path / "results", 30, since=24, times=1.08)
    assert run(tmp_path / "results", "--fail-on", "efficiency", "--report-format", "github")[0] == 1
    errors = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::error ")]
    assert len(errors) == 2
    assert errors[0].startswith("::error title=decode[1024] (decode_steps 4)%2C tiny on Intel(R) Xeon(R) Processor")
    assert "efficiency: nothing we record changed" in errors[0]
    assert "history: 2 of 2 judged benchmarks got worse" in (tmp_path / "summary").read_text()


def test_github_is_told_that_nothing_was_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    nights(tmp_path / "results", 3)
    assert run(tmp_path / "results", "--fail-on", "efficiency", "--report-format", "github")[0] == 2
    assert "::warning title=history::Nothing is judged: no benchmark has enough nights." in capsys.readouterr().out


def test_what_got_worse_most_stands_first(tmp_path: Path) -> None:
    base = base_record()
    for number in range(30):
        record = night(base, number)
        for timing, times in zip(record["timings"], (1.03, 1.2), strict=True):
            if number >= 20:
                timing["time_s"] *= times
        put(tmp_path / "results", record)
    _, history = run(tmp_path / "results")
    assert [one.benchmark for one in history.series] == ["prefill[1024]", "decode[1024]"]
    assert history.verdict == (
        "2 of 2 judged benchmarks are slower than they were: prefill[1024], decode[1024] (decode_steps 4).",
    )


def test_an_empty_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results").mkdir()
    assert run(tmp_path / "results", "--fail-on", "work")[0] == 2
    assert capsys.readouterr().out.startswith("history: No times were found.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-folder"], "RESULTS: got no-such-folder, accepted: a folder with records, or a record.json; it does not"),
        ([".", "--fail-on", "work,speed"], "--fail-on: got 'speed', accepted: work, efficiency, environment, noise"),
        ([".", "--within", "0"], "--within: got 0, accepted: a whole number of at least 1"),
    ],
)
def test_unusable_input_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"history: {said}")


def test_the_history_is_a_study_whose_pages_are_made_again_from_its_document(tmp_path: Path) -> None:
    nights(tmp_path / "results", 14)
    output_dir = tmp_path / "results" / "history"
    assert main([str(tmp_path / "results"), "--output-dir", str(output_dir)]) == 0
    pages = {path.name: path.read_text() for path in output_dir.glob("*.html")}
    assert sorted(pages) == ["benchmark-decode-1024.html", "benchmark-prefill-1024.html", "report.html"]
    for name in pages:
        (output_dir / name).unlink()
    assert report([str(output_dir)]) == 0
    assert {path.name: path.read_text() for path in output_dir.glob("*.html")} == pages
    assert report([str(tmp_path / "results")]) == 0
    assert "history/report.html" in (tmp_path / "results" / "index.html").read_text()
    assert main([str(tmp_path / "results"), "--output-dir", str(output_dir)]) == 0  # its own folder holds no record


def test_the_page_of_a_benchmark_that_is_no_longer_measured_goes_and_nothing_else(tmp_path: Path) -> None:
    nights(tmp_path / "results", 3)
    run(tmp_path / "results")
    pages = {path.name for path in (tmp_path / "out").iterdir()}
    for name in ("benchmark-vision-base.html", "benchmark-vision-base.md", "notes.html"):
        (tmp_path / "out" / name).write_text("of an earlier history")
    run(tmp_path / "results")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*pages, "notes.html"}


def test_a_folder_with_any_name_is_read(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a \xff\nfolder"))
    nights(odd, 2)
    (odd / "damaged").mkdir()
    (odd / "damaged" / "record.json").write_text("{")
    code, history = run(odd)
    assert (code, len(history.records)) == (0, 2)
    assert "a \\xff\\nfolder/damaged" in history.left_out[0].path
