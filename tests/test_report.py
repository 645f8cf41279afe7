"""The page of a run: made from its record alone, the same bytes every time, with nothing of a record run as markup."""

import copy
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analytic.io import stored
from analytic.io.run_record import RECORD, RecordError
from fixtures.evidence.render import as_html, as_markdown
from fixtures.evidence.section import Standing, Tone
from fixtures.report import __main__ as command
from fixtures.report.blocks import NAMES, block_of, by_block
from fixtures.report.pair import page_of_pair
from fixtures.report.render import write_run
from fixtures.report.run import RecordedRun, run_of
from fixtures.report.sections import page_of, verdict_words
from fixtures.validation.point_result import ModuleRow

DATA = Path(__file__).resolve().parent / "data"
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "img", "input"}


@pytest.fixture
def record() -> dict[str, Any]:
    return json.loads((DATA / "record.v5.json").read_text())


@pytest.fixture
def folder(tmp_path: Path, record: dict[str, Any]) -> Path:
    return put(tmp_path / record["run_id"], record)


def put(folder: Path, record: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    return folder


class Reader(HTMLParser):
    """Tags, attributes and text of a page; tags that are opened and not closed stay in `open`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_same_record_gives_the_same_bytes(folder: Path) -> None:
    page = write_run(folder)
    first = page.read_bytes(), (folder / "report.md").read_bytes()
    write_run(folder)
    assert first == (page.read_bytes(), (folder / "report.md").read_bytes())
    assert {path.name for path in folder.iterdir()} == {"record.json", "report.html", "report.md"}


def test_the_page_says_what_the_record_does(record: dict[str, Any]) -> None:
    run = run_of(record)
    read = Reader(as_html(page_of(run)))
    assert read.open == []
    for words in (
        "FAILED against the baseline: prefill[1024].",
        "4 of 4 points agree with the closed form.",
        "prefill[1024]",
        "901,603,000,320",
        "1 changed",
    ):
        assert words in read.text, words
    assert "1 of 12 benchmarks differ from the baseline: prefill[1024] more work" in read.text
    assert "pytest benchmarks --device cpu --preset tiny --seq-len 1024" in read.text
    headings = (
        "What failed",
        "Closed form against the real model",
        "Time on the device",
        "Where it goes",
        "Roofline",
        "Memory",
    )
    for heading in headings:
        assert heading in read.text, heading
        assert f"## {heading}" in as_markdown(page_of(run))
    assert read.tags.count("svg") >= 5


def test_the_page_asks_no_host_for_anything(record: dict[str, Any]) -> None:
    text = as_html(page_of(run_of(record)))
    read = Reader(text)
    assert "script" not in read.tags
    assert not {tag for tag in read.tags if tag in ("img", "iframe", "object", "embed")}
    targets = [value for name, value in read.attributes if name in ("src", "href", "xlink:href", "action")]
    assert {value.partition("#")[0] for value in targets} <= {"", "data:,"}
    assert not re.search(r"@import|url\((?!#)", text)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.update(run_id=EVIL),
        lambda made: made["model"].update(model_variant=EVIL),
        lambda made: made["timed"]["model"].update(model_variant=EVIL),
        lambda made: made["points"][0].update(point=EVIL, verdict="fail"),
        lambda made: made["points"][0]["modules"][0].update(module=EVIL),
        lambda made: made["timings"][0].update(point=EVIL),
        lambda made: made["pages"][0].update(point=f"{EVIL}-1024"),
        lambda made: made["gate"]["judged"][0].update(benchmark=EVIL, reason=EVIL),
        lambda made: made["gate"].update(held_to=EVIL, accept=EVIL),
        lambda made: made["environment"].update(platform=EVIL),
        lambda made: made["ceilings"]["calibration"].update(device_name=EVIL),
        lambda made: made["command"].append(EVIL),
    ],
)
def test_markup_in_a_record_is_shown_as_text(record: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    change(record)
    text = as_html(page_of(run_of(record)))
    read = Reader(text)
    assert "script" not in read.tags
    assert read.open == []
    assert "alert(1)" in read.text
    markdown = re.sub(r"^(`{3,})\n.*?\n\1$", "", as_markdown(page_of(run_of(record))), flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in markdown


def test_a_fence_in_a_record_does_not_end_the_report(record: dict[str, Any]) -> None:
    record["gate"]["held_to"] = "```\n# not a heading of ours"
    text = as_markdown(page_of(run_of(record)))
    (fence,) = {line for line in text.splitlines() if re.fullmatch("`{4,}", line)}
    assert fence == "````"


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        ([], "results"),
        (["--output-dir", "out"], "out"),
        (["--output-dir=some where"], "some where"),
        (["--output-dir", "a", "--output-dir", "b/"], "b"),
    ],
)
def test_the_page_names_the_folder_it_is_made_from(record: dict[str, Any], said: list[str], folder: str) -> None:
    record["command"] = ["pytest", "benchmarks", *said, "-k", "prefill"]
    wanted = shlex.quote(f"{folder}/{record['run_id']}")
    assert f"nox -s report -- {wanted}" in as_markdown(page_of(run_of(record))).splitlines()


def test_records_of_earlier_schemas_have_a_page() -> None:
    for version in ("v1", "v2"):
        run = run_of(RECORD.read(DATA / f"record.{version}.json"))
        assert Reader(as_html(page_of(run))).open == []


def judgement(benchmark: str, outcome: str) -> dict[str, Any]:
    return {"benchmark": benchmark, "outcome": outcome, "reason": "why", "exact": None, "timed": None, "mismatches": []}


def test_what_equals_the_baseline_is_counted_and_not_listed(record: dict[str, Any]) -> None:
    equal = [judgement(f"prefill[{length}]", "equal") for length in range(50)]
    record["gate"]["judged"] = [*equal, judgement("decode[1024]", "new")]
    (section,) = (one for one in page_of(run_of(record)).sections if one.key == "baseline")
    assert section.words[1] == "Equal to it in every exact quantity: 50 benchmarks."
    (table,) = section.tables
    assert (table.columns, table.rows) == (("benchmark", "verdict", "why"), (("decode[1024]", "new", "why"),))
    record["gate"]["judged"] = equal
    (section,) = (one for one in page_of(run_of(record)).sections if one.key == "baseline")
    assert section.tables == ()
    assert "<code>baselines/meta/deepseek-ocr-v1-base.json</code>" in as_html(page_of(run_of(record)))


def test_a_run_without_times_has_a_page_that_says_so(record: dict[str, Any]) -> None:
    record |= {"timings": [], "timed": None, "ceilings": None, "pages": [], "gate": None}
    run = run_of(record)
    keys = [section.key for section in page_of(run).sections]
    assert "times" not in keys
    assert "roofline" in keys
    assert verdict_words(run) == (
        "Passed: 4 of 4 points agree with the closed form.",
        "Nothing was timed: add --device cpu or cuda for times.",
        "Nothing was compared with a baseline.",
    )


def test_devices_differ_in_how_often_a_point_fits_in_their_memory(record: dict[str, Any]) -> None:
    run = run_of(record)
    largest = max(run.stage("end_to_end") or run.points, key=lambda point: point.weight_bytes + point.kv_bytes)
    assert largest.peak_bytes is not None
    own = largest.kv_bytes + largest.peak_bytes[1]
    (section,) = (section for section in page_of(run).sections if section.key == "memory")
    rows = {row[0]: row[1:] for row in section.tables[0].rows}
    left = 141 * 10**9 - largest.weight_bytes
    assert rows["h200"] == ("141.0", f"{1 - (left - own) / 141e9:.1%}", f"{(left - own) / 1e9:,.1f}", f"{left // own:,}")
    assert len({row[-1] for row in rows.values()}) > 8
    # of a model of 100 GB nothing fits in 80 GB, and 20 GB and what a page takes are missing
    for point in record["points"]:
        point["closed_form"]["weight_bytes"] = 100 * 10**9
    (section,) = (section for section in page_of(run_of(record)).sections if section.key == "memory")
    missing = {row[0]: row for row in section.tables[0].rows}["h100-sxm"]
    assert (missing[3], missing[4]) == (f"{(20e9 + own) / 1e9:,.1f} too few", "0")


def test_a_point_that_differs_fails_the_page(record: dict[str, Any]) -> None:
    failure = {
        "call": "step 1",
        "module": "lm_head",
        "group": "matmul",
        "quantity": "executed_flops",
        "closed_form": 100,
        "measured": 103,
        "relative_error": 3 / 103,
    }
    record["gate"] = None
    record["points"][0] |= {"verdict": "fail", "failure_count": 1, "failures": [failure]}
    run = run_of(record)
    assert not run.passes
    page = page_of(run)
    assert page.sections[0].key == "failures"
    assert page.sections[0].tables[0].rows[0][1:] == ("step 1, lm_head", "executed_flops of matmul", "100", "103", "+3")


def test_five_hundred_points_make_one_page(record: dict[str, Any]) -> None:
    record["points"] = [copy.deepcopy(record["points"][number % 4]) for number in range(500)]
    for number, point in enumerate(record["points"]):
        point["point"] = f"{point['point']}-{number}"
    assert Reader(as_html(page_of(run_of(record)))).tags.count("tr") > 500


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("model.vision_tower.sam_encoder.layers.*.attn", "SAM"),
        ("model.language_model.layers.*.mlp.gate", "router"),
        ("model.language_model.layers.*.mlp.gate_proj", "dense MLP"),
        ("model.language_model.layers.*.mlp.shared_experts.down_proj", "shared experts"),
        ("model.language_model.layers.*.self_attn.q_proj", "attention"),
        ("lm_head", "lm_head"),
        ("model.language_model.embed_tokens", "rest"),
        ("", "rest"),
    ],
)
def test_blocks_of_modules(path: str, block: str) -> None:
    assert block_of(path) == block


def test_blocks_hold_all_the_work() -> None:
    rows = [
        ModuleRow(
            module=path, modules=1, closed_form_flops=0, measured_flops=flops, closed_form_bytes=0, measured_bytes=flops + 1
        )
        for path, flops in (("lm_head", 5), ("model.norm", 7), ("model.multi_modal_projector", 11), ("lm_head.x", 13))
    ]
    assert by_block(rows, "flops") == {"projector": 11, "lm_head": 18, "rest": 7}
    assert sum(by_block(rows, "bytes").values()) == sum(row.measured_bytes for row in rows)
    assert set(by_block(rows, "bytes")) <= set(NAMES)


def runs(record: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> tuple[RecordedRun, RecordedRun]:
    other = copy.deepcopy(record)
    other["run_id"] = "20270101-000000-1"
    change(other)
    return run_of(record), run_of(other)


def test_what_moved_between_two_runs_is_marked(record: dict[str, Any]) -> None:
    def change(other: dict[str, Any]) -> None:
        other["points"][1]["compared"]["executed_flops"]["measured"] += 1
        other["points"][2]["decoded_tokens"] = 9
        other["timings"][0]["time_s"] *= 2
        other["environment"]["platform"] = "another"

    page = page_of_pair(*runs(record, change))
    sections = {section.key: section for section in page.sections}
    assert page.standing is Standing.WORSE
    assert "Work: 1 of 3 shared points differ in FLOPs, bytes and cache: prefill[1024]." in page.verdict
    assert any(words.startswith("Only in the first: ") for words in page.verdict)
    assert sections["work"].tables[0].tones == {0: Tone.BAD}
    assert [row[1] for row in sections["times"].tables[0].rows if row[1] != "+0.0%"] == ["+100.0%"]
    assert sections["environment"].tables[0].rows[0][0] == "platform"
    assert Reader(as_html(page)).open == []


def test_the_command_writes_one_run_and_two(
    folder: Path, record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = put(folder.parent / "other", record | {"run_id": "20270101-000000-1"})
    assert command.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"
    assert command.main([str(folder), str(other)]) == 0
    assert (other / "pair.html").is_file()
    assert (other / "pair.md").is_file()


def test_what_is_no_run_is_refused_by_name(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path / "none")]) == 2
    assert "none, accepted: a folder; it does not exist" in capsys.readouterr().err
    assert command.main([str(folder / "record.json")]) == 2
    assert "record.json, accepted: a folder; it is a file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as nowhere:
        command.main([""])
    assert nowhere.value.code == 2
    assert "RUN_DIR: got '', accepted: a folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert command.main([str(tmp_path / "empty")]) == 2
    assert "empty, accepted: the folder of a run" in capsys.readouterr().err
    (folder / "record.json").write_text("{")
    assert command.main([str(folder)]) == 2
    assert "not valid JSON" in capsys.readouterr().err
    assert not (folder / "report.html").exists()
    with pytest.raises(SystemExit) as stopped:
        command.main([str(folder)] * 3)
    assert stopped.value.code == 2
    with pytest.raises(RecordError, match="got no record"):
        write_run(tmp_path / "empty")


def test_a_page_is_made_without_torch(folder: Path) -> None:
    code = "import sys; from fixtures.report.__main__ import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=stored.ROOT)
    assert done.returncode == 0, done.stderr
