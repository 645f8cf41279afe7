"""`python -m analytic` as a user calls it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytic.__main__ import main
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import gundam
from analytic.models.spec import ModelSpec

STAGE_KEYS = {
    "launches",
    "executed_flops",
    "useful_flops",
    "counter_flops",
    "cuda_core_flops",
    "eager_bytes",
    "fused_bytes",
    "weight_bytes",
    "activation_bytes",
    "kv_bytes",
}


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_cost_in_json_is_the_stateful_root(capsys: pytest.CaptureFixture[str], full_spec: ModelSpec) -> None:
    stages = answer(capsys, "cost", "--crop-grid", "2x3", "--seq-len", "1024", "--decode-steps", "4")["stages"]
    assert list(stages) == ["vision", "prefill", "decode"]
    assert all(set(stage) >= STAGE_KEYS for stage in stages.values())
    root = DeepseekOCRModel.from_spec(full_spec)
    root.start_vision(workload=gundam(CropGrid.parse("2x3")))
    assert stages["vision"]["executed_flops"] == root.forward_tensor_core_flops()
    root.start_prefill(1024, 1)
    assert stages["prefill"]["eager_bytes"] == root.forward_cal_io()
    root.start_decode()
    for number, step in enumerate(stages["decode"]["steps"], start=1):
        assert (step["step"], step["context_len"]) == (number, 1023 + number)
        assert step["executed_flops"] == root.forward_tensor_core_flops()
        assert step["kv_bytes"] == root.decode_one_token().kv_bytes
    steps = stages["decode"]["steps"]
    assert stages["decode"]["executed_flops"] == sum(step["executed_flops"] for step in steps) // 4
    assert stages["decode"]["kv_bytes"] == steps[-1]["kv_bytes"]


def test_cost_without_an_image_has_no_vision(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "cost", "--no-image", "--seq-len", "256")
    assert list(found["stages"]) == ["prefill", "decode"]
    assert (found["workload"]["image_tokens"], found["workload"]["text_tokens"]) == (0, 255)


def test_cost_by_module_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    stages = answer(capsys, "cost", "--image-size", "1654x2339", "--seq-len", "1024", "--by-module")["stages"]
    for name in ("vision", "prefill"):
        for key in ("launches", "executed_flops", "cuda_core_flops", "eager_bytes", "weight_bytes"):
            assert sum(row[key] for row in stages[name]["modules"]) == stages[name][key]


def test_crops_gives_one_object_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"served_by": "transformers", "max_tiles": 9}
    tokens = {"global_tokens": 273, "local_tokens": 630, "image_tokens": 903}
    assert answer(capsys, "crops", "1654x2339", "600x400") == [
        {"page": None, "size": "1654x2339", "grid": "2x3", "views": 7, **tokens, **rule},
        {
            "page": None,
            "size": "600x400",
            "grid": None,
            "views": 1,
            **tokens,
            "local_tokens": 0,
            "image_tokens": 273,
            **rule,
        },
    ]


def test_tables_are_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--crop-grid", "2x1", "--seq-len", "512", "--by-module"]) == 0
    text = capsys.readouterr().out
    assert "512 positions = 483 image (gundam-2x1) + 1 BOS + 28 text" in text
    assert "model.vision_tower.sam_encoder.layers.2,5,8,11.attn.qkv" in text
    assert "model.vision_tower.vision_encoder.encoder.layers.0-23.mlp.fc1" in text
    assert main(["crops", "600x400"]) == 0
    assert "image_tokens" in capsys.readouterr().out


def test_sweep_writes_both_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sweep", "--seq-lens", "256", "512", "--output-dir", str(tmp_path), "--preset", "tiny"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["analytic_scaling.csv", "analytic_scaling.json"]
    assert "wrote" in capsys.readouterr().out


def test_demand_in_json_names_every_length_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "demand", "--seq-lens", "512", "1024", "--crop-grids", "base", "2x3", "--token-s", "0.02")
    assert [(one["seq_len"], one["page"]) for one in found["first_token"]] == [
        (512, "base"),
        (1024, "base"),
        (1024, "gundam-2x3"),
    ]
    assert found["left_out"] == [{"seq_len": 512, "page": "gundam-2x3", "least_seq_len": 904}]
    assert [len(one["targets"]) for one in found["further_token"]] == [1, 1]
    assert main(["demand", "--seq-lens", "1024"]) == 0
    assert "on the datasheet of" in capsys.readouterr().out


def test_help_says_what_is_planned_without_a_page_and_names_all_experts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no word is broken
    with pytest.raises(SystemExit):
        main(["capacity", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Without --crop-grid, --image-size, --mode or --mix it plans text only" in told
    assert "grouped_mm, batched_mm or eager; on meta not eager (default: grouped_mm)" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "--no-image", "--seq-len", "0"], "seq_len: got 0"),
        (["cost", "--no-image", "--seq-len", "-3"], "seq_len: got -3"),
        (["cost", "--no-image", "--seq-len", "many"], "argument --seq-len: got 'many', accepted: a whole number"),
        (
            ["cost", "--no-image", "--seq-len", "64,64"],
            "got '64,64', accepted: a whole number, such as 64; separate several",
        ),
        (["demand", "--token-s", "fast"], "argument --token-s: got 'fast', accepted: a finite number, such as 0.5"),
        (["cost", "--crop-grid", "2x3", "--seq-len", "903"], "accepted: at least 904 for this page"),
        (["cost", "--crop-grid", "0x3", "--seq-len", "1024"], "crop grid: got '0x3'"),
        (["cost", "--crop-grid", "4x4", "--seq-len", "1024"], "crop grid: got 4x4 (16 tiles)"),
        (["cost", "--crop-grid", "2-3", "--seq-len", "1024"], "crop grid: got '2-3'"),
        (["cost", "--image-size", "10", "--seq-len", "1024"], "image size: got '10'"),
        (["cost", "--mode", "huge", "--seq-len", "1024"], "mode: got 'huge', accepted: tiny, small, base, large"),
        (["cost", "--seq-len", "1024"], "one of the arguments"),
        (["cost", "--no-image", "--seq-len", "8", "--preset", "huge"], "preset: got 'huge'"),
        (["cost", "--no-image", "--seq-len", "8", "--kernels", "tpu"], "device: got 'tpu', accepted: meta, cpu, cuda"),
        (["cost", "--no-image", "--seq-len", "8", "--dtype", "int8"], "dtype: got 'int8'"),
        (["cost", "--no-image", "--seq-len", "8", "--decode-steps", "0"], "decode_steps: got 0"),
        (["cost", "--no-image", "--seq-len", "8", "--batch-size", "0"], "batch_size: got 0"),
        *(
            (["crops", "640x640", "--max-tiles", number], f"max_tiles: got {number}, accepted: 2 to 9")
            for number in ("-1", "0", "1", "10", "99999999999")
        ),
        (
            ["capacity", "--memory-gb", "24", "--no-image", "--new-tokens", "20000"],
            "with new_tokens 20000, of which the last is not fed back, needs",
        ),
        (["crops", "640"], "size: got '640'"),
        (["sweep", "--seq-lens", "0", "--output-dir", "out"], "seq_lens: got 0"),
        (["sweep", "--decode-steps", "100000000000", "--output-dir", "out"], "decode_steps: got 100000000000"),
        (["sweep", "--seq-lens", "8000", "--batch-size", "2000000000", "--output-dir", "out"], "fit 64 bits"),
        (["sweep", "--crop-grids", "2x3", "huge", "--output-dir", "out"], "crop_grids: got 'huge', accepted: WxH"),
        (["sweep", "--crop-grids", "4x4", "--output-dir", "out"], "9 tiles, such as 2x1 or 2x3, or tiny, small, base"),
        (["sweep", "--output-dir", ""], "got '', accepted: a folder"),
        (["cost", "--no-image", "--seq-len", "10000000000000000000000"], "seq_len: got 10000000000000000000000"),
        (["cost", "--no-image", "--seq-len", "100000000000", "--batch-size", "1000000"], "seq_len: got 100000000000"),
        (["cost", "--no-image", "--seq-len", "8000", "--batch-size", "2000000000"], "fit 64 bits"),
        (["demand", "--token-s", "0"], "token_s: got 0.0, accepted: seconds above zero"),
        (["demand", "--seq-lens", "0"], "seq_lens: got 0"),
        (["capacity", "--on", "h2000"], "on: got 'h2000', accepted: a100-40gb"),
        (["capacity", "--memory-gb", "0"], "memory_gb: got 0.0, accepted: gigabytes from 1e-09 (one byte) to 1e+09"),
        (["capacity", "--memory-gb", "nan"], "argument --memory-gb: got 'nan', accepted: a finite number"),
        (["capacity", "--memory-gb", "1e-12"], "memory_gb: got 1e-12, accepted: gigabytes from"),
        (["capacity", "--on", "h200", "--memory-gb", "1e300"], "memory_gb: got 1e+300, accepted: gigabytes from"),
        (["capacity", "--memory-gb", "24", "--prompt-tokens", "-1"], "prompt_tokens: got -1, accepted: a whole number"),
        (["capacity", "--memory-gb", "24", "--crop-grid", "3x3", "--seq-len", "512"], "accepted: at least"),
        (["sweep", "--output-dir", "/proc/nowhere"], "output_dir: got /proc/nowhere, accepted: a writable folder"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    refused: Callable[[list[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refused(arguments)


def test_neither_help_nor_cost_imports_torch() -> None:
    script = (
        "import sys; from analytic.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    cost, plan = ["cost", "--crop-grid", "2x3", "--seq-len", "1024"], ["capacity", "--on", "h200", "--mix", "base=1"]
    for arguments in (["cost", "--help"], cost, ["crops", "10x10"], plan):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_a_page_is_cut_as_its_engine_cuts_it_and_the_output_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--no-image", "--seq-len", "64", "--served-by", "vllm"]) == 0
    assert main(["capacity", "--memory-gb", "24", "--served-by", "vllm"]) == 0
    assert "crop rule" not in capsys.readouterr().out  # there is no page to cut
    vllm = "crop rule: vllm, at most 6 tiles; images of a request with several are not cut (default: at most 9)\n"
    assert main(["crops", "2048x2048", "--served-by", "vllm"]) == 0
    assert capsys.readouterr().out.startswith(vllm)
    for command in ("cost --seq-len 1300", "predict --on xeon-2-threads --seq-len 1300", "capacity --on h200"):
        assert main([*command.split(), "--image-size", "2048x2048", "--served-by", "vllm"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(vllm)
        assert "gundam-2x2" in printed
    assert main(["cost", "--seq-len", "1300", "--image-size", "2048x2048", "--json", "--max-tiles", "4"]) == 0
    workload = json.loads(capsys.readouterr().out)["workload"]
    assert (workload["page"], workload["served_by"], workload["max_tiles"]) == ("gundam-2x2", "max4", 4)
    assert main(["capacity", "--on", "h200", "--mix", "slide-16x9=1", "--served-by", "vllm", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["crop_rule"] == {"served_by": "vllm", "max_tiles": 6}
    assert (answer["pages"][0]["page"], answer["pages"][0]["image_tokens"]) == ("slide-16x9-vllm", 483)


def test_cost_on_a_device_has_the_floor_of_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("cost", "--image-size", "1654x2339", "--on", "h200", "--decode-steps", "3")
    found = answer(capsys, *given)
    assert found["workload"]["seq_len"] == 903 + 1 + 16
    floor, vision = found["floor"], found["stages"]["vision"]
    # vision is bound by its products, a token by what it reads; 989.4 TFLOP/s in bfloat16 and 4.8 TB/s
    assert floor["stages_s"]["vision"] == pytest.approx(vision["executed_flops"] / 989.4e12, rel=1e-4)
    steps_s = [step["fused_bytes"] / 4.8e12 for step in found["stages"]["decode"]["steps"]]
    assert floor["stages_s"]["decode"] == pytest.approx(sum(steps_s) / 3)
    assert floor["all_s"] == pytest.approx(floor["stages_s"]["vision"] + floor["stages_s"]["prefill"] + sum(steps_s))
    assert main([*given]) == 0
    printed = capsys.readouterr().out
    assert "floor ms: a lower bound on time by the datasheet of h200 (989.4 TFLOP/s, 4,800 GB/s)" in printed
    assert "all: 4 new tokens, the first from the prefill and 3 decoded; at least" in printed
    assert "floor" not in answer(capsys, *given[:3])


def test_cost_on_a_device_adds_up_what_the_page_takes(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("cost", "--image-size", "1654x2339", "--on", "h100-sxm", "--decode-steps", "3")
    found = answer(capsys, *given)
    stages, total = found["stages"], found["floor"]["all"]
    for name in ("launches", "executed_flops", "useful_flops", "eager_bytes", "fused_bytes"):
        once = stages["vision"][name] + stages["prefill"][name]
        assert total[name] == once + sum(step[name] for step in stages["decode"]["steps"])
    assert main([*given]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("all, 3 tokens decoded "))
    counts = [f"{total['launches']:,}", *(f"{total[name] / 1e9:,.3f}" for name in list(total)[1:])]
    assert row.split()[4:] == [*counts, "-", "-", "-", f"{found['floor']['all_s'] * 1e3:,.3f}"]
    assert any(line.startswith("vision ") and line.endswith(" 3.506") for line in lines)
    assert "GB fused: the least that must be moved; GB eager: what the operators move, each for itself" in lines


def test_cost_on_a_device_counts_its_kernels_and_the_tokens_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    page = ("cost", "--mode", "tiny", "--preset", "tiny")
    planned, alone = answer(capsys, *page, "--on", "h100-sxm"), answer(capsys, *page)
    assert (planned["execution"]["device"], planned["workload"]["decode_steps"]) == ("cuda", 511)
    assert (alone["execution"]["device"], alone["workload"]["decode_steps"]) == ("meta", 16)
    on_cuda = answer(capsys, *page, "--kernels", "cuda", "--decode-steps", "511")
    assert planned["stages"] == on_cuda["stages"] != answer(capsys, *page, "--decode-steps", "511")["stages"]
    given = answer(capsys, *page, "--on", "h100-sxm", "--kernels", "meta", "--decode-steps", "2")
    assert (given["execution"]["device"], given["workload"]["decode_steps"]) == ("meta", 2)


def test_cost_on_a_device_without_the_peak_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--no-image", "--on", "h900"]) == 2
    assert "error: --on: got 'h900', accepted: " in capsys.readouterr().err
