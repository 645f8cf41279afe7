"""`python -m analytic compare`: one page through several variants, held to the other commands and to hand arithmetic."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.__main__ import main
from analytic.planning.variants import VARIANTS

FULL = ("deepseek-ocr-v1-base", "deepseek-ocr-2-base")
A4 = ("--image-size", "1654x2339")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(told(capsys, *arguments, "--json"))


def test_a_page_is_cut_by_each_variants_own_rule(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = as_json(capsys, "compare", *FULL, *A4, "--new-tokens", "2")["variants"]
    # 2 x 3 tiles of both: 273 + 30 rows of 21, and 257 + 6 x 144; with a BOS and 16 tokens of prompt
    assert (first["image_tokens"], first["seq_len"]) == (273 + 30 * 21, 920)
    assert (second["image_tokens"], second["seq_len"]) == (257 + 6 * 144, 1138)
    # K and V of 12 layers with 10 heads of 128 in two bytes, for the prefill and one token that is fed back
    assert [one["kv_bytes_per_token"] for one in (first, second)] == [2 * 12 * 10 * 128 * 2] * 2
    assert [one["memory"]["kv_bytes"] for one in (first, second)] == [61_440 * 921, 61_440 * 1139]
    assert [one["memory"]["weight_bytes"] for one in (first, second)] == pytest.approx([6.671e9, 6.778e9], rel=1e-3)
    cut = as_json(capsys, "compare", *FULL, "--image-size", "2048x2048", "--max-tiles", "4", "--new-tokens", "2")
    assert [one["crop_grid"] for one in cut["variants"]] == ["2x2", "2x2"]


@pytest.mark.parametrize("preset", ["tiny", "ocr-2-tiny"])
def test_a_variant_costs_what_the_other_commands_say(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    asked = ("--mode", "base", "--dtype", "bfloat16")
    found = as_json(capsys, "compare", "tiny", "ocr-2-tiny", *asked, "--new-tokens", "9", "--on", "h200")
    (mine,) = (one for one in found["variants"] if one["model"]["model_variant"] == preset)
    length = ("--seq-len", str(mine["seq_len"]))
    counted = ("--decode-steps", "8", "--kernels", "cuda")
    cost = as_json(capsys, "cost", "--preset", preset, *asked, *length, *counted)["stages"]
    for stage in ("vision", "prefill"):
        assert mine["stages"][stage]["executed_flops"] == cost[stage]["executed_flops"]
        assert mine["stages"][stage]["eager_bytes"] == cost[stage]["eager_bytes"]
    steps = cost["decode"]["steps"]
    assert mine["stages"]["decode"]["executed_flops"] == sum(step["executed_flops"] for step in steps)
    assert mine["whole_page"]["fused_bytes"] == sum(mine["stages"][name]["fused_bytes"] for name in mine["stages"])
    planned = as_json(capsys, "capacity", "--preset", preset, *asked, *length, "--new-tokens", "9", "--on", "h200")
    (page,) = planned["pages"]
    assert mine["memory"] == page["one_page"]
    assert mine["times"]["pages_in_flight"] == planned["mix"]["in_flight"]["pages"]
    assert mine["times"]["pages_per_s"] == planned["mix"]["best"]["pages_per_s"]


def test_the_table_fits_100_columns_with_any_number_of_variants(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "compare", *FULL, "tiny", "ocr-2-tiny", "--mode", "base", "--new-tokens", "2", "--on", "h200")
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("image tokens") == 2  # three variants in a table
    assert text.count("pages/s at most") == 3  # and once what it means
    assert "floor" not in told(capsys, "compare", *FULL, "--no-image", "--new-tokens", "2")


def test_files_are_written_and_read_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ("compare", "tiny", "ocr-2-tiny", "--mode", "base", "--tokens", "3")
    text = told(capsys, *asked, "--output-dir", str(tmp_path / "out"))
    assert f"wrote {tmp_path / 'out' / 'variants.json'}" in text
    assert VARIANTS.read(tmp_path / "out" / "variants.json") == as_json(capsys, *asked)
    assert (tmp_path / "out" / "variants.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny", "--mode", "base"], "presets: got tiny, accepted: two or more, each once"),
        (["tiny", "tiny", "--mode", "base"], "presets: got tiny, tiny, accepted: two or more, each once"),
        (["tiny", "huge", "--mode", "base"], "preset: got 'huge', accepted: deepseek-ocr"),
        ([*FULL, "--crop-grid", "3x3"], "deepseek-ocr-2-base: crop grid: got 3x3 (9 tiles), accepted: WxH with 2 to 6"),
        ([*FULL, "--mode", "large"], "deepseek-ocr-2-base: mode: got 'large', accepted: tile, base"),
        ([*FULL, *A4, "--new-tokens", "8000"], "deepseek-ocr-v1-base: got 920"),
        ([*FULL, *A4, "--new-tokens", "0"], "new_tokens: got 0, accepted: "),
        ([*FULL, *A4, "--prompt-tokens", "-1"], "prompt_tokens: got -1, accepted: "),
        ([*FULL, *A4, "--on", "abacus"], "on: got 'abacus', accepted: "),
        ([*FULL, *A4, "--device", "h200"], "argument --device: got 'h200', accepted: --on NAME"),
    ],
)
def test_what_cannot_be_compared_is_refused(refused: Callable[[list[str]], str], arguments: list[str], said: str) -> None:
    assert said in refused(["compare", *arguments])
