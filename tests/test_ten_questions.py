"""The ten questions of docs/plan.md: each command of the table answers its question, and by hand it is the same.

An H200 has 141 GB, 4.8 TB/s and 989.4 TFLOP/s. A position of the cache takes 12 layers * K and V * 1280 * 2 bytes = 61,440
bytes; the weights take 2 * 3,335,504,128 = 6,671,008,256 bytes. A page of 903 image tokens, BOS, a prompt of 16
and 512 new tokens has 920 + 511 = 1,431 positions in its cache, as the last token is not fed back: 87,920,640 bytes.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from analytic.__main__ import main
from tests.samples import RECORD

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = re.findall(r"^\| (.+\?) \| `(.+)` \|$", (ROOT / "docs" / "plan.md").read_text(encoding="utf-8"), re.MULTILINE)
PAGE_BYTES, WEIGHT_BYTES = 87_920_640, 6_671_008_256


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The answer, in JSON, of the question that has these words; files of the commands are in a folder of the test."""
    monkeypatch.chdir(tmp_path)

    def asked(words: str) -> Any:
        (command,) = (command for question, command in QUESTIONS if words in question)
        assert main([*shlex.split(command), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return asked


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == len({question for question, _ in QUESTIONS}) == 10


def test_tokens_of_a_page_on_vllm(answer: Any) -> None:
    # 1654 / 2339 = 0.707 is nearest to 2 / 3 of the ratios of up to 6 tiles: 16 rows of 17 and 1, 30 rows of 21
    (page,) = answer("where vLLM serves it")
    assert (page["grid"], page["image_tokens"]) == ("2x3", 16 * 17 + 1 + 30 * 21)


def test_the_mix_of_a_folder(answer: Any, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number, size in enumerate([(1654, 2339)] * 3 + [(600, 400)]):
        Image.new("1", size).save(tmp_path / "scans" / f"{number}.png")
    assert [page["image_tokens"] for page in answer("mix of pages is in a folder")] == [903, 903, 903, 273]
    kept = (tmp_path / "pages.mix").read_text().splitlines()
    assert kept[1:] == ["1654x2339px=0.75", "600x400px=0.25"]  # 3 and 1 of 4


def test_pages_that_fit(answer: Any) -> None:
    (page,) = answer("fit in memory")["pages"]
    found = page["in_flight"]
    assert found["kv_bytes"] == found["pages"] * PAGE_BYTES
    # releases of transformers that keep the 11 routers of 64 * 1280 in float32 take 2 bytes more of each
    assert found["weight_bytes"] - WEIGHT_BYTES in (0, 11 * 64 * 1280 * 2)
    left = 141_000_000_000 - found["weight_bytes"] - found["activation_bytes"]
    assert found["pages"] == left // PAGE_BYTES == 1518


def test_pages_per_s_within_limits(answer: Any) -> None:
    limited = answer("the first within a second")["mix"]["within_limits"]
    found = limited["service"]
    pages, enters_s, step_s = found["pages_in_flight"], found["vision_s"] + found["prefill_s"], found["step_s"]
    # 511 steps a page; while a page decodes, each of the others in flight is replaced once
    assert found["tpot_s"] == pytest.approx(step_s + (pages - 1) * enters_s / 511)
    assert found["tpot_s"] <= 0.02
    assert limited["bounded_by"] == "token_s"
    # a page more reads its cache in every step, and one more page enters in 511: past 20 ms
    cache_s = (920 + 255) * 61_440 / 4.8e12
    assert found["tpot_s"] + cache_s + enters_s / 511 > 0.02
    # Pollaczek and Khinchine for pages of one length, and half a step
    rate = 1 / (enters_s + 511 * step_s / pages)
    assert found["pages_per_s"] == pytest.approx(rate)
    assert limited["wait_s"] == pytest.approx(rate * enters_s**2 / (2 * (1 - rate * enters_s)) + step_s / 2)


def test_a_decode_step_reads_the_cache_and_every_weight_that_a_token_needs(answer: Any) -> None:
    # the decoder and lm_head, 2 bytes a parameter, and the cache; of the embedding a step reads a row a page
    found = answer("fit in memory")["mix"]["best"]
    decoder_bytes = 2 * (32_852_480 + 11 * 233_720_320 + 165_478_400 + 1280)
    cache_bytes = found["pages_in_flight"] * (920 + 255) * 61_440
    assert found["step_s"] == pytest.approx((decoder_bytes + cache_bytes) / 4.8e12, rel=0.02)


def test_two_devices(answer: Any) -> None:
    found = answer("on two devices")
    assert found["devices"]["pages_per_s"] == 2 * found["mix"]["best"]["pages_per_s"]
    assert found["devices"]["count"] == 2


def test_devices_for_300_pages_per_s(answer: Any) -> None:
    found = answer("devices for 300")
    # 78.0 pages/s each: three make 234, so it takes four, at 14.00 an hour
    assert found["mix"]["best"]["pages_per_s"] == pytest.approx(78.0, abs=0.1)
    assert (found["devices"]["count"], found["devices"]["price_per_hour"]) == (4, 4 * 3.5)


def test_pages_that_never_stop(answer: Any) -> None:
    found = answer("never stop")
    # they end at 8192 - 920 + 1 = 7273 tokens: 0.95 * 512 + 0.05 * 7273 = 850.05 in the mean; the first is no step
    assert found["loop"]["mean_new_tokens"] == pytest.approx(850.05)
    assert found["loop"]["in_flight_share"] == pytest.approx(0.05 * 7272 / 849.05)
    # the full window of one kind, 1,431 positions of the other
    long, short = 0.05 * 7272 * 8192, 0.95 * 511 * 1431
    assert found["loop"]["cache_share"] == pytest.approx(long / (long + short), rel=1e-6)
    kept = (long + short) / 849.05 * 61_440
    assert found["mix"]["in_flight"]["pages"] == pytest.approx(
        (141e9 - WEIGHT_BYTES - found["mix"]["in_flight"]["activation_bytes"]) / kept, abs=1
    )
    assert found["mix"]["best"]["pages_per_s"] < found["loop"]["pages_per_s_without"] == pytest.approx(78.0, abs=0.1)


def test_the_cost_of_a_million_pages(answer: Any) -> None:
    found = answer("million pages cost")["mix"]["best"]
    # 1e6 / 78.0 seconds are 3.56 hours of 3.5
    assert found["cost_per_million_pages"] == pytest.approx(1e6 / found["pages_per_s"] / 3600 * 3.5)
    assert found["cost_per_million_pages"] == pytest.approx(12.46, abs=0.02)


def test_pages_per_s_of_a_run(answer: Any, tmp_path: Path) -> None:
    (tmp_path / "results" / "latest").mkdir(parents=True)
    (tmp_path / "results" / "latest" / "record.json").write_bytes(RECORD.read_bytes())
    found = answer("times of a run")["mix"]["best"]
    times = {f"{one['stage']}[{one['point']}]": one["time_s"] for one in json.loads(RECORD.read_text())["timings"]}
    page_s = times["vision[gundam-2x1]"] + times["prefill[1024]"] + 511 * times["decode[1024]"]
    assert found["pages_per_s"] == pytest.approx(1 / page_s)


def test_the_bandwidth_of_a_token(answer: Any) -> None:
    found = answer("Which bandwidth")
    (token,) = found["further_token"]
    (target,) = token["targets"]
    assert target["bytes_per_s"] == token["fused_bytes"] / 0.02
    # the dense layer, 11 layers with 6 of 64 experts of 3 * 1280 * 896, lm_head, a norm; 1,040 positions of cache
    expert = 3 * 1280 * 896
    touched = 32_852_480 + 11 * (233_720_320 - 58 * expert) + 165_478_400 + 1280
    assert token["fused_bytes"] == pytest.approx(2 * touched + 1040 * 61_440, rel=0.02)
