"""A plan as a table, as files and as a picture; and what the command refuses."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.__main__ import main
from analytic.cli.capacity import CAPACITY
from analytic.planning.capacity import MOST_PAGES
from analytic.prediction import rates
from tests.samples import RATES, RECORD

H200 = ["capacity", "--on", "h200"]
MIX = [*H200, "--mix", "a4-200dpi=0.7", "slide-16x9=0.2", "base=0.1"]
TINY = ["capacity", "--memory-gb", "16", "--preset", "tiny", "--dtype", "float32"]
RECORDED = [*TINY, "--record", str(RECORD), "--new-tokens", "33"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def in_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found = json.loads(printed(capsys, *arguments, "--json"))
    CAPACITY.check(found, where="the plan")
    return dict(found)


def test_a_mix_is_a_table_of_its_pages_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, *MIX, "--price-per-hour", "3.5").splitlines()
    assert lines[0].startswith("times: floor, the roofline of h200's datasheet")
    assert [line.split()[0] for line in lines[5:11]] == ["page", "least", "a4-200dpi", "slide-16x9", "base", "the"]
    assert (lines[4].split()[-2:], lines[5].split()[-2:]) == (["hours", "cost"], ["per", "M"])
    assert lines[11].startswith("bound by decode (vision ")
    assert "assumed: one page at a time in vision and prefill" in "\n".join(lines)
    assert max(map(len, lines)) <= 100


def test_the_table_says_what_the_json_does(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, *MIX, "--price-per-hour", "3.5")
    top = found["mix"]["best"]
    row = next(line for line in printed(capsys, *MIX, "--price-per-hour", "3.5").splitlines() if "the mix" in line).split()
    assert row[3:5] == [f"{found['mix']['in_flight']['pages']:,}", f"{top['pages_in_flight']:,}"]
    assert row[5:8] == [f"{top[name] * 1e3:.3f}" for name in ("vision_s", "prefill_s", "decode_s")]
    assert float(row[-1]) == pytest.approx(top["cost_per_million_pages"], abs=0.005)
    assert top["cost_per_million_pages"] == pytest.approx(3.5 * top["device_hours_per_million_pages"])
    assert top["pages_per_s"] * (top["vision_s"] + top["prefill_s"] + top["decode_s"]) == pytest.approx(1)


def test_one_page_is_a_mix_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    alone = in_json(capsys, *H200, "--crop-grid", "2x3")
    assert alone == in_json(capsys, *H200, "--mix", "2x3=1")
    assert alone["pages"][0]["best"] == alone["mix"]["best"]


@pytest.mark.parametrize("page", [("--image-size", "1654x2339"), ("--crop-grid", "2x3"), ("--mix", "a4-200dpi=1")])
def test_a_page_has_its_image_bos_and_a_prompt_of_16_however_it_is_given(
    capsys: pytest.CaptureFixture[str], page: tuple[str, str]
) -> None:
    assert in_json(capsys, *H200, *page)["pages"][0]["seq_len"] == 903 + 1 + 16
    assert in_json(capsys, *H200, *page, "--prompt-tokens", "20")["pages"][0]["seq_len"] == 903 + 1 + 20
    assert in_json(capsys, *H200, *page, "--seq-len", "1024")["pages"][0]["seq_len"] == 1024


def test_text_alone_has_1024_positions(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ([], ["--no-image"]):
        assert in_json(capsys, *H200, *text)["pages"][0]["seq_len"] == 1024
    assert in_json(capsys, *H200, "--prompt-tokens", "20")["pages"][0]["seq_len"] == 21


def test_less_memory_than_the_device_has_can_be_planned_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, *MIX, "--memory-gb", "100")
    assert (found["device"], found["memory_bytes"]) == ("h200", 100 * 10**9)
    assert found["mix"]["best"]["pages_per_s"] < in_json(capsys, *MIX)["mix"]["best"]["pages_per_s"]


def test_memory_alone_needs_no_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pages/s" not in printed(capsys, "capacity", "--memory-gb", "24")
    assert in_json(capsys, "capacity", "--memory-gb", "24")["times"] is None
    assert "no pages/s: the datasheet of t4 has no dense peak for bfloat16" in printed(capsys, "capacity", "--on", "t4")


def test_pages_beyond_the_most_that_are_tried_are_at_least_so_many(capsys: pytest.CaptureFixture[str]) -> None:
    endless = [*MIX, "--memory-gb", "1e9"]
    assert in_json(capsys, *endless)["mix"]["in_flight"]["pages"] == MOST_PAGES
    assert printed(capsys, *endless).count("at least 1,048,576 ") == 4  # three shapes and the mix
    assert printed(capsys, *H200, "--memory-gb", "1e9").count("at least 1,048,576 ") == 3
    assert "at least 1,048,576" not in printed(capsys, *MIX)


def test_one_new_token_is_no_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 new token per page;" in printed(capsys, *MIX, "--new-tokens", "1")


def test_where_nothing_fits_there_is_no_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no page fits in memory beside the weights" in printed(capsys, *MIX, "--memory-gb", "6")
    assert in_json(capsys, *MIX, "--memory-gb", "6")["mix"]["best"] is None


def test_a_record_plans_with_its_batch(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *RECORDED, "--mix", "2x1=1", "--seq-len", "1024")
    assert text.startswith(f"times: measured, medians of {RECORD}")
    assert "a batch of one shape passes vision, prefill and decode together" in text.replace("\n  ", " ")
    found = in_json(capsys, *RECORDED, "--mix", "2x1=1", "--seq-len", "1024")
    assert (found["times"]["source"], found["times"]["batch_size"]) == ("measured", 1)
    assert [one["pages_in_flight"] for one in found["mix"]["by_pages_in_flight"]] == [1]


def test_predicted_times_come_from_a_file_of_rates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rates.write(RATES, tmp_path / "rates.json")
    arguments = [*TINY, "--times", "predicted", "--rates", str(tmp_path / "rates.json"), "--mix", "base=1"]
    assert printed(capsys, *arguments).startswith("times: predicted, every operator at the measured rate")
    assert in_json(capsys, *arguments)["times"]["file"] == str(tmp_path / "rates.json")


def test_a_plan_is_kept_as_json_csv_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = printed(capsys, *MIX, "--output-dir", str(tmp_path / "new"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["capacity.csv", "capacity.json", "capacity.png"]
    assert text.count("wrote ") == 3
    kept = CAPACITY.read(tmp_path / "new" / "capacity.json")
    assert kept == in_json(capsys, *MIX)
    with (tmp_path / "new" / "capacity.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["page"] == "the mix"]
    listed = kept["mix"]["by_pages_in_flight"]
    assert [float(row["pages_per_s"]) for row in rows] == [one["pages_per_s"] for one in listed]
    assert {row["cost_per_million_pages"] for row in rows} == {""}
    assert (tmp_path / "new" / "capacity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*H200, "--mix", "base=x"], "mix: got 'base=x', accepted: PAGE=SHARE"),
        ([*H200, "--mix", "base=0.5", "2x3=0.4"], "mix: got shares that sum to 0.9, accepted: 1"),
        ([*H200, "--mix", "a5=1"], "mix: got 'a5', accepted: tiny"),
        ([*H200, "--mix", "2x3=1", "--seq-len", "512"], "seq_len: got 512, accepted: at least 904"),
        ([*H200, "--mix", "2x3=1", "--prompt-tokens", "-1"], "prompt_tokens: got -1"),
        ([*H200, "--mix", "2x3=1", "--new-tokens", "0"], "new_tokens: got 0"),
        ([*H200, "--mix", "2x3=1", "--crop-grid", "2x3"], "not allowed with argument"),
        ([*MIX, "--price-per-hour", "0"], "price_per_hour: got 0, accepted: the price of an hour"),
        ([*MIX, "--price-per-hour", "-2"], "price_per_hour: got -2"),
        ([*MIX, "--price-per-hour", "nan"], "--price-per-hour: got 'nan', accepted: a finite number"),
        ([*MIX, "--price-per-hour", "1e308", "--json"], "price_per_hour: got 1e+308, accepted: the price of an hour"),
        ([*MIX, "--price-per-hour", "much"], "--price-per-hour: got 'much', accepted: a finite number"),
        (["capacity", "--mix", "base=1"], "on: got none, accepted: a100-40gb"),
        (["capacity", "--on", "h2000", "--mix", "base=1"], "on: got 'h2000', accepted: a100-40gb"),
        (["capacity", "--on", "h2000", "--memory-gb", "10"], "on: got 'h2000', accepted: a100-40gb"),
        (["capacity", "--memory-gb", "24", "--mix", "base=1"], "on: got none, accepted: a device with a datasheet"),
        (["capacity", "--memory-gb", "24", "--price-per-hour", "1"], "on: got none, accepted: a device with a datasheet"),
        (["capacity", "--memory-gb", "24", "--times", "floor"], "on: got none, accepted: a device with a datasheet"),
        (["capacity", "--on", "t4", "--mix", "base=1"], "dtype: got bfloat16, which t4 has no unit for"),
        ([*MIX, "--times", "guessed"], "invalid choice: 'guessed'"),
        ([*MIX, "--times", "predicted"], "rates: got none, accepted: the rates of the device"),
        ([*MIX, "--rates", "rates.json"], "rates: got rates.json without --times predicted"),
        ([*MIX, "--times", "predicted", "--rates", "nowhere"], "rates: got nowhere, accepted: a file of rates"),
        ([*MIX, "--times", "floor", "--record", "nowhere"], "times: got floor beside --record, accepted: one of them"),
        ([*MIX, "--record", "nowhere"], "record: got nowhere, accepted: a record.json, or the folder of a run"),
        ([*MIX, "--record", ""], "got '', accepted: a file"),
        ([*MIX, "--record", str(RECORD)], "accepted: measurements on h200"),
        (
            [*MIX, "--record", str(RECORD), "--preset", "deepseek-ocr-v1-base"],
            f"preset: got deepseek-ocr-v1-base, accepted: tiny, which {RECORD} holds; leave --preset out",
        ),
        ([*TINY, "--record", str(RECORD), "--attention", "eager"], "attention: got eager, accepted: sdpa, which"),
        ([*RECORDED, "--mix", "base=1"], "did not time vision[base], prefill[290], decode[290]"),
        ([*RECORDED, "--mix", "2x1=1", "--seq-len", "1024", "--memory-gb", "0.01"], "batches of 1, accepted: at most 0"),
        ([*MIX, "--output-dir", "/proc/nowhere"], "output_dir: got /proc/nowhere, accepted: a writable folder"),
        ([*MIX, "--memory-gb", "6", "--output-dir", "out"], "memory: 6 GB is too small for one page"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    refused: Callable[[list[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refused(arguments)


@pytest.mark.parametrize(
    ("words", "closer"),
    [
        (["--on", "h200"], "closer to real times: --on nvidia-h200, from the measured rates of its operators"),
        (
            ["--on", "h100-sxm"],
            "closer to real times: from rates that `nox -s qualify -- --device cuda` measures on the device",
        ),
        (["--on", "nvidia-h200"], None),
        (["--memory-gb", "24"], None),
    ],
)
def test_a_floor_says_how_to_get_closer_to_real_times(
    words: list[str], closer: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capacity", *words]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "closer" in line]
    assert said == ([] if closer is None else [closer])


def test_an_unknown_device_is_refused_with_the_measured_ones_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--on", "h2000"]) == 2
    assert "; or a device with measured rates: nvidia-h200" in capsys.readouterr().err
    for command in (["capacity"], ["cost", "--no-image"]):
        assert main([*command, "--on", "h100"]) == 2
        assert capsys.readouterr().err.endswith("; did you mean h100-sxm, h100-pcie or h100-nvl?\n")


def test_a_named_page_is_one_of_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    named = printed(capsys, "capacity", "--on", "h200", "--image-size", "a4-200dpi")
    assert named == printed(capsys, "capacity", "--on", "h200", "--image-size", "1654x2339")
    assert main(["cost", "--image-size", "a5"]) == 2
    assert "accepted: WxH in positive whole numbers, such as 1654x2339, or a name: a4-200dpi" in capsys.readouterr().err


def test_what_follows_from_a_floor_is_headed_by_least_and_most(capsys: pytest.CaptureFixture[str]) -> None:
    heads = printed(capsys, *MIX, "--price-per-hour", "3").splitlines()[6].split()
    assert heads == ["least"] * 3 + ["most"] * 2 + ["least"] * 2
    predicted = printed(capsys, "capacity", "--on", "nvidia-h200", "--image-size", "a4-200dpi")
    assert [line for line in predicted.splitlines() if line.split()[:1] == ["least"]] == []
