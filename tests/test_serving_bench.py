"""`pytest benchmarks --url`: pages of a served model as benchmarks, through the session's account, gate and record."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from analytic.models.deepseek_ocr.crop_rule import RULES
from fixtures.config.served_options import OPTIONS, serve_arguments
from fixtures.serving.options import parsed
from fixtures.serving.served_baseline import ROUNDS, accepted, place_of
from tests.fresh_process import run as process
from tests.serving_runs import answer_at, cell_with, started
from tests.serving_stub import Stub

__all__ = ["started"]  # a fixture
ONE = ("--image-size", "64x64", "--concurrency", "1", "--requests", "2", "--output-tokens", "2")


def session(*arguments: str, where: str = "benchmarks/bench_serving.py") -> subprocess.CompletedProcess[str]:
    return process("pytest", where, "-p", "no:cacheprovider", *arguments)


def test_a_session_without_a_url_collects_none() -> None:
    done = session("--collect-only", "-q", where="benchmarks")
    assert done.returncode == 0, done.stdout
    assert "prefill[256]" in done.stdout
    assert "served[" not in done.stdout


def test_pages_and_loads_are_the_points(started: Callable[..., Stub]) -> None:
    stub = started()
    done = session(
        "--collect-only", "-q", "--url", stub.url, "--concurrency", "1,4", "--rate", "0.5", "--image-size", "64x64"
    )
    assert [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line] == [
        "served[64x64px-c1]",
        "served[64x64px-c4]",
        "served[64x64px-r0.5]",
    ]
    assert stub.requests == []  # nothing is sent to collect


def test_the_record_of_a_session_has_the_served_pages(started: Callable[..., Stub], tmp_path: Path) -> None:
    stub = started()
    exact = ("--seq-len", "512", "--decode-steps", "1", "--preset", "tiny", "--device", "meta", "-k", "prefill or served")
    done = session(*exact, *ONE, "--url", stub.url, "--output-dir", str(tmp_path), where="benchmarks")
    assert done.returncode == 0, done.stdout
    assert "pages of a served model" in done.stdout
    (path,) = tmp_path.rglob("record.json")
    record = json.loads(path.read_text())
    (cell,) = record["served"]["cells"]
    assert (cell["name"], cell["steady"], cell["shapes"][0]["image_tokens"]) == ("64x64px-c1", 2, 273)
    assert record["account"]["asked"]["exact"] == record["account"]["measured"]["exact"] == 2
    assert (tmp_path / "latest-serve" / "report.html").is_file()


def test_a_page_that_is_cut_otherwise_fails_its_benchmark(started: Callable[..., Stub], tmp_path: Path) -> None:
    stub = started(rule=RULES["vllm"])
    given = ("--image-size", "1920x1080", *ONE[2:], "--url", stub.url, "--output-dir", str(tmp_path))
    done = session(*given)
    assert done.returncode == 1
    assert "483 = grid 2x1 under vllm, at most 6 tiles: --served-by vllm" in done.stdout
    assert session(*given, "--served-by", "vllm").returncode == 0


def test_times_are_held_to_the_baseline_of_the_server(started: Callable[..., Stub], tmp_path: Path) -> None:
    """Accepted times of a nanosecond, which no server keeps."""
    stub = started()
    common = ("--url", stub.url, *ONE)
    place = place_of(parsed(list(common), {}), model="ocr", text_tokens=4)
    path = tmp_path / "served.json"
    nanosecond = cell_with(answer_at(0.0, 1e-9), answer_at(1e-9, 1e-9))
    nanosecond.label = "64x64px"
    accepted(place, [[nanosecond]] * ROUNDS).write(path, [])
    changed = json.loads(path.read_text())
    changed["cells"]["64x64px-c1"]["image_tokens"] = {"64x64px": 273}
    path.write_text(json.dumps(changed))
    done = session(*common, "--served-baseline", str(path), "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "served[64x64px-c1] ttft: slower: +" in done.stdout
    assert "baseline: FAILED: 1 equal, 2 slower" in done.stdout


def test_a_server_that_is_not_there_fails_every_point(tmp_path: Path) -> None:
    done = session(
        "--url", "http://127.0.0.1:1/v1", "--concurrency", "1,2", "--image-size", "64x64", "--output-dir", str(tmp_path)
    )
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "--url: http://127.0.0.1:1/v1: connection refused" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--url", "ftp://127.0.0.1"), "--url: got 'ftp://127.0.0.1'"),
        (("--url", "http://127.0.0.1:1", "--requests", "0"), "--requests: got 0"),
        (("--url", "http://127.0.0.1:1", "--requests", "few"), "--requests: got 'few'"),
        (("--url", "http://127.0.0.1:1", "-n", "2"), "--url: got with -n, accepted: one process"),
    ],
)
def test_an_option_that_serve_refuses_is_a_usage_error(arguments: tuple[str, ...], told: str) -> None:
    done = session(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert told in done.stdout + done.stderr


def test_every_option_reaches_the_command_line_of_serve() -> None:
    values = {
        "--url": "http://127.0.0.1:8000/v1", "--api": "vllm",
        "--model": "ocr", "--concurrency": "1,4", "--rate": "2", "--requests": "3",
        "--output-tokens": "5", "--text-tokens": "6", "--around-image": "1", "--timeout-s": "7", "--on": "h200",
        "--served-baseline": "served.json", "--served-by": "vllm", "--max-tiles": "5", "--preset": "deepseek-ocr-v1-base",
        "--image-size": ["64x64"], "--time-threshold": "3", "--require-baseline": True, "--output-dir": "out",
    }  # fmt: skip
    assert set(OPTIONS) <= set(values) | {"--rates"}
    options = parsed(serve_arguments(values.get), {})
    assert (options.model, options.requests, options.output_tokens, options.text_tokens) == ("ocr", 3, 5, 6)
    assert [str(load) for load in options.loads] == ["1", "4", "2/s"]
    assert (options.around_image, options.timeout_s, options.threshold) == (1, 7.0, 0.03)
    assert (options.baseline, options.require_baseline) == (Path("served.json"), True)
    assert (options.rule.max_tiles, [pages.label for pages in options.sets]) == (5, ["64x64px"])
    assert options.device is not None
    assert options.output_dir == Path("out")
