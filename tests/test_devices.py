"""Devices side by side: each column of one source, work over time and peak by hand, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.__main__ import main
from analytic.planning.side_by_side import DEVICES
from analytic.prediction import hardware, rates
from tests.samples import RATES, RECORD

PAGE = ["devices", "--crop-grid", "2x3"]
TWO = [*PAGE, "--on", "h200", "a100-80gb-sxm"]
TINY = ["devices", "--on", "h200", "h100-sxm"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def in_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found = json.loads(printed(capsys, *arguments, "--json"))
    DEVICES.check(found, where="the devices")
    return dict(found)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[str, str]]:
    """Rates and a record, as if they were of the device that a driver reports under this name."""

    def made(reported: str, folder: str) -> tuple[str, str]:
        place = tmp_path_factory.mktemp(folder)
        rates.write(replace(RATES, device_name=reported), place / "rates.json")
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        record["environment"]["device"]["name"] = reported
        for timing in record["timings"]:
            timing["energy_j"] = 300 * timing["time_s"]
        (place / "record.json").write_text(json.dumps(record), encoding="utf-8")
        return str(place / "rates.json"), str(place)

    return made


def test_a_device_is_planned_as_capacity_plans_it(capsys: pytest.CaptureFixture[str]) -> None:
    h200, a100 = in_json(capsys, *TWO, "--price-per-hour", "3.5", "1.8")["devices"]
    for found, price in ((h200, "3.5"), (a100, "1.8")):
        assert main(["capacity", "--on", found["device"], "--crop-grid", "2x3", "--price-per-hour", price, "--json"]) == 0
        alone = json.loads(capsys.readouterr().out)["mix"]
        service = found["services"]["floor"]
        assert found["pages_fit"] == alone["in_flight"]["pages"]
        assert service["pages_per_s"] == alone["best"]["pages_per_s"]
        assert service["cost_per_million_pages"] == alone["best"]["cost_per_million_pages"]
        assert service["first_token_s"] == alone["best"]["ttft_s"]
    # 700 W for as many hours as a million pages take
    hours = 1e6 / h200["services"]["floor"]["pages_per_s"] / 3600
    assert h200["services"]["floor"]["kwh_per_million_pages"] == pytest.approx(0.7 * hours)


def test_limits_hold_for_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, *TWO, "--token-s", "0.02")["devices"]
    assert [one["services"]["floor"]["tpot_s"] <= 0.02 for one in found] == [True, True]
    assert found[0]["services"]["floor"]["pages_in_flight"] > found[1]["services"]["floor"]["pages_in_flight"]
    none = in_json(capsys, *TWO, "--token-s", "1e-6")["devices"]
    assert [one["services"]["floor"] for one in none] == [None, None]


def test_floor_prediction_and_measurement_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], files: Callable[[str, str], tuple[str, str]]
) -> None:
    (h200_rates, h200), (h100_rates, h100) = files("NVIDIA H200", "h200"), files("NVIDIA H100 80GB HBM3", "h100")
    both = [*TINY, "--rates", h200_rates, h100_rates, "--record", h200, h100, "--new-tokens", "17"]
    found = in_json(capsys, *both)
    assert (found["source"], found["pages"], found["batch_size"], found["decode_steps"]) == (
        "measured",
        [{"page": "gundam-2x1", "share": 1.0, "seq_len": 1024}],
        1,
        4,  # what the record decoded
    )
    assert found["model"]["model_variant"] == "tiny"
    times = {f"{one['stage']}[{one['point']}]": one["time_s"] for one in json.loads(RECORD.read_text())["timings"]}
    vision, prefill, decode = found["devices"][0]["stages"]
    assert [vision["measured_s"], prefill["measured_s"], decode["measured_s"]] == [
        times["vision[gundam-2x1]"],
        times["prefill[1024]"],
        times["decode[1024]"],
    ]
    assert main(["cost", "--preset", "tiny", "--dtype", "float32", "--kernels", "cuda", "--crop-grid", "2x1",
                 "--seq-len", "1024", "--decode-steps", "4", "--json"]) == 0  # fmt: skip
    work = json.loads(capsys.readouterr().out)["stages"]["prefill"]
    peaks = hardware.device("h200")
    assert prefill["mfu"] == pytest.approx(work["executed_flops"] / times["prefill[1024]"] / 67e12, rel=0.01)
    assert peaks.flops_per_s("float32") == pytest.approx(67e12, rel=0.01)
    assert prefill["mbu"] == pytest.approx(work["fused_bytes"] / times["prefill[1024]"] / 4.8e12)
    assert prefill["watts"] == pytest.approx(300)
    assert all(stage["floor_s"] < stage["predicted_s"] for stage in (vision, prefill, decode))
    lines = printed(capsys, *both).splitlines()
    assert "floor  predict  measure" in lines[2]
    assert max(map(len, lines)) <= 100
    rows = [line.split() for line in lines if line.startswith("prefill")]
    assert [row[1] for row in rows] == ["h200", "h100-sxm"]
    assert rows[0][-1] == "300"


def test_a_column_is_of_a_source_that_every_device_has(
    capsys: pytest.CaptureFixture[str], files: Callable[[str, str], tuple[str, str]]
) -> None:
    h200_rates, h200 = files("NVIDIA H200", "only")
    one = [*TINY, "--rates", h200_rates, "--record", h200, "--new-tokens", "17"]
    assert in_json(capsys, *one)["source"] == "floor"
    text = printed(capsys, *one)
    assert "in flight, token, first, kWh and cost: the floor: the roofline of each datasheet" in text.replace("\n  ", " ")


def test_all_devices_by_pages_per_s_with_a_reason_for_those_without(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *PAGE)
    lines = text.splitlines()
    rows = [line.split() for line in lines[3 : lines.index(next(line for line in lines if line.startswith("in flight,")))]]
    able = [one.name for one in hardware.devices() if one.flops_per_s("bfloat16")]
    assert sorted(row[0] for row in rows) == sorted(able)
    rates_found = [float(row[7]) for row in rows]
    assert rates_found == sorted(rates_found, reverse=True)
    assert len({row[3] for row in rows}) > 8  # how many pages fit says something of each
    assert rows[0][8] == "100%"
    assert "t4: no pages/s: its datasheet has no dense peak for bfloat16" in lines
    assert "stage" not in text
    assert max(map(len, lines)) <= 100


def test_the_stages_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *TWO)
    assert "predicted ms" not in text
    assert "MFU" not in text
    assert "stage    device         floor ms  bound" in text


def test_devices_are_kept_as_json_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert printed(capsys, *TWO, "--output-dir", str(tmp_path / "new")).count("wrote ") == 2
    assert DEVICES.read(tmp_path / "new" / "devices.json") == in_json(capsys, *TWO)
    assert (tmp_path / "new" / "devices.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PAGE, "--on", "h2000"], "on: got 'h2000', accepted: a100-40gb"),
        ([*PAGE, "--device", "h200"], "argument --device: got 'h200', accepted: --on NAME"),
        ([*TWO, "--price-per-hour", "1", "2", "3"], "price_per_hour: got 3 prices for 2 devices, accepted: one of all"),
        ([*TWO, "--price-per-hour", "1", "0"], "price_per_hour: got 0, accepted: the price of an hour"),
        ([*TWO, "--batch-size", "0"], "batch_size: got 0"),
        ([*TWO, "--record", "nowhere"], "record: got nowhere, accepted: a record.json"),
        (
            [*TWO, "--record", str(RECORD)],
            "measured on Intel(R) Xeon(R) Processor, accepted: a file of h200",
        ),
        ([*TWO, "--token-s", "1e-6", "--output-dir", "out"], "devices: got none with pages/s, accepted: at least one"),
        ([*TWO, "--output-dir", "/proc/nowhere"], "output_dir: got /proc/nowhere, accepted: a writable folder"),
        (
            ["capacity", "--on", "h200", "--on", "l4"],
            "one device; `python -m analytic devices --on h200 l4` puts",
        ),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    refused: Callable[[list[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refused(arguments)


def test_what_the_files_say_twice_or_otherwise_is_refused(
    refused: Callable[[list[str]], str], files: Callable[[str, str], tuple[str, str]]
) -> None:
    (first_rates, first), (second_rates, second) = files("NVIDIA H200", "first"), files("NVIDIA H200", "second")
    assert "both of h200, accepted: one of each device" in refused([*TINY, "--rates", first_rates, second_rates])
    assert "both of h200, accepted: one of each device" in refused([*TINY, "--record", first, second])
    assert "batch_size: got 1 and 8, in the records" in refused([*TINY, "--record", first, "--batch-size", "8"])
    assert "preset: got deepseek-ocr-v1-base, accepted: tiny, which" in refused(
        [*TINY, "--record", first, "--preset", "deepseek-ocr-v1-base"]
    )
