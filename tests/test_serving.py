"""A served model held to the closed form, over real HTTP: its tokens, what is kept of a run, and where pages are sent."""

import errno
import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from analytic.models.deepseek_ocr.crop_rule import RULES, crop_rule
from fixtures.serving import __main__ as serve
from fixtures.serving.endpoint import Endpoint
from fixtures.serving.held import explanation
from fixtures.serving.page_image import PageSize
from tests.serving_runs import KEY, SLIDE, SMALL, run, started
from tests.serving_stub import Stub

__all__ = ["run", "started"]  # fixtures


def test_a_server_that_cuts_pages_as_the_closed_form_passes(started: Callable[..., Stub], run: Callable) -> None:
    stub = started()
    code, said, kept = run(stub, *SMALL, "--image-size", "1920x1080", "600x400")
    assert code == 0, said
    assert [(cell["page"], cell["shapes"][0]["image_tokens"], len(cell["measured"])) for cell in kept["cells"]] == [
        ("1920x1080px", 1_093, 2),  # 273 + (10 * 4 + 1) * 10 * 2
        ("600x400px", 273, 2),
    ]
    assert kept["problems"] == []
    assert kept["text_tokens"] == 4
    assert "name the device with --on" in said
    # the text alone, then for each page one of warm-up and two that are measured
    assert [request["max_tokens"] for request in stub.requests] == [1, 3, 3, 3, 3, 3, 3]
    for request in stub.requests:
        assert request["stream_options"] == {"include_usage": True}
        assert request["ignore_eos"] is True
        assert request["min_tokens"] == request["max_tokens"]


def test_a_server_that_cuts_at_six_fails_and_the_rule_is_named(started: Callable[..., Stub], run: Callable) -> None:
    code, said, kept = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9")
    assert code == 1
    assert kept["problems"] == [
        "slide-16x9: got 483 image tokens in 3 requests, closed form 1,093 (grid 4x2 under transformers, at most 9 tiles); "
        "483 = grid 2x1 under vllm, at most 6 tiles: --served-by vllm"
    ]
    assert f"WRONG: {kept['problems'][0]}" in said


def test_a_server_that_cuts_at_six_passes_under_its_rule(started: Callable[..., Stub], run: Callable) -> None:
    code, said, _ = run(started(rule=RULES["vllm"]), *SMALL, "--pages", "slide-16x9", "--served-by", "vllm")
    assert code == 0
    assert said.count("crop rule: vllm, at most 6 tiles") == 1


def test_one_token_more_fails_and_the_template_is_named(started: Callable[..., Stub], run: Callable) -> None:
    pages = ("--image-size", "1920x1080", "600x400")
    code, _, kept = run(started(around=1), *SMALL, *pages)
    assert code == 1
    assert [problem.rpartition("; ")[2] for problem in kept["problems"]] == [
        "every page has +1, as of a chat template: --around-image 1"
    ] * 2


def test_tokens_of_the_template_are_taken_off(started: Callable[..., Stub], run: Callable) -> None:
    assert run(started(around=1), *SMALL, "--image-size", "600x400", "--around-image", "1")[0] == 0


@pytest.mark.parametrize(
    ("got", "shift", "told"),
    [
        (483, None, "--served-by vllm"),
        (273, None, "mode base"),  # not cut
        (111, None, "mode small"),  # 10 * 11 + 1
        (700, 1, "--around-image 3"),
        (700, None, "no known crop rule"),
        (700, -1_000, "no known crop rule"),
    ],
)
def test_what_would_explain_a_number_of_image_tokens(got: int, shift: int | None, told: str) -> None:
    assert told in explanation(SLIDE, got, shift=shift, around_image=2)


def test_another_limit_of_tiles_is_named() -> None:
    size = PageSize.parsed("2048x2048")  # 3x3 at 9, 2x2 at 6; 1x1 is none
    got = size.cut_by(crop_rule(None, 4)).image_tokens
    assert "--served-by vllm" in explanation(size, got, shift=None, around_image=0)
    size = PageSize.parsed("600x2400")
    limits = {size.cut_by(crop_rule(None, most)).image_tokens: most for most in range(9, 1, -1)}
    fewest = min(limits)
    assert f"--max-tiles {limits[fewest]}" in explanation(size, fewest, shift=None, around_image=0)


def test_a_key_is_sent_and_is_in_no_output(started: Callable[..., Stub], run: Callable) -> None:
    stub = started(fault=lambda number, _: "401" if number == 1 else None)
    code, said, kept = run(stub, *SMALL, "--image-size", "64x64", "--prompt", f"say {KEY}", OPENAI_API_KEY=f"{KEY}\n")
    assert code == 1
    assert set(stub.keys) == {f"Bearer {KEY}"}
    assert "no such key ***" in said
    assert KEY not in said
    assert KEY not in json.dumps(kept)
    assert KEY not in repr(Endpoint.parsed(stub.url, {"OPENAI_API_KEY": KEY}))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--url", "ftp://127.0.0.1/v1"], "--url: got 'ftp://127.0.0.1/v1'"),
        (["--url", f"http://me:{KEY}@127.0.0.1/v1"], "--url: got a user or password"),
        (["--url", f"http://127.0.0.1/v1?key={KEY}"], "--url: got a query or fragment"),
        (["--url", "http://[::1/v1"], "--url: got a URL that is not one"),
        (["--url", "http://127.0.0.1:99999/v1"], "--url: got a URL that is not one"),
        (["--url", "http://127.0.0.1/ v1"], "--url: got"),
        (["--url", "http://localhost:1", "--requests", "0"], "--requests: got 0"),
        (["--url", "http://localhost:1", "--concurrency", "0"], "--concurrency: got 0"),
        (["--url", "http://localhost:1", "--rate", "0"], "--rate: got 0, accepted: 0.0001 to 10,000 pages a second"),
        (["--url", "http://localhost:1", "--rate", "-1"], "--rate: got -1"),
        (["--url", "http://localhost:1", "--images", "nowhere"], "images: got nowhere, accepted: a folder of images"),
        (["--url", "http://localhost:1", "--pdf", "none.pdf"], "pdf: got none.pdf"),
        (["--url", "http://localhost:1", "--dpi", "90"], "--dpi: got 90 without --pdf"),
        (["--url", "http://localhost:1", "--timeout-s", "-1"], "--timeout-s: got -1"),
        (["--url", "http://localhost:1", "--timeout-s", "0"], "--timeout-s: got 0"),
        (["--url", "http://localhost:1", "--pages", "a5"], "--pages: got 'a5'"),
        (["--url", "http://localhost:1", "--image-size", "8x8"], "width_px: got 8"),
        (["--url", "http://localhost:1", "--image-size", "tall"], "--image-size: got 'tall'"),
        (["--url", "http://localhost:1", "--on", "abacus"], "--on: got 'abacus'"),
        (["--url", "http://localhost:1", "--prompt", " "], "--prompt: got"),
        (["--url", "http://localhost:1", "--text-tokens", "9000", "--model", "m"], "window (max_position_embeddings)"),
    ],
)
def test_an_unusable_command_line_is_refused_before_anything_is_sent(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert serve.main([*arguments, "--output-dir", str(tmp_path)], {}) == 2
    said = capsys.readouterr().err
    assert told in said
    assert KEY not in said


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--url", "http://localhost:1"], {"OPENAI_API_KEY": f"{KEY}\n{KEY}"}) == 2
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY: got what no header can hold" in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:8000/v1/", True),
        ("http://localhost:8000", True),
        ("https://localhost.example/v1", False),
        ("http://127.0.0.1.example/v1", False),
        ("http://192.0.2.1:8000/v1", False),
    ],
)
def test_a_url_on_another_machine_is_known(url: str, loopback: bool) -> None:
    assert Endpoint.parsed(url, {}).is_loopback is loopback


def test_a_url_on_another_machine_is_said_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Refusing(HTTPConnection):
        def connect(self) -> None:
            said.append(capsys.readouterr().err)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(Endpoint, "connection", lambda self, timeout_s: Refusing(self.host, self.port, timeout=timeout_s))
    assert serve.main(["--url", "http://192.0.2.1:8000/v1"], {}) == 2
    assert said == ["serve: pages are sent to http://192.0.2.1:8000/v1, which is not this machine\n"]


def test_proxies_of_the_environment_are_not_used(
    started: Callable[..., Stub], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert run(started(), *SMALL, "--image-size", "64x64")[0] == 0


def test_a_server_of_several_models_needs_a_name(started: Callable[..., Stub], run: Callable) -> None:
    stub = started(models=("a", "b"))
    code, said, _ = run(stub)
    assert (code, stub.requests) == (2, [])
    assert "--model: got none, accepted: one that is served: a, b" in said
    code, _, kept = run(stub, *SMALL, "--image-size", "64x64", "--model", "b")
    assert (code, kept["model"]) == (0, "b")
    assert {request["model"] for request in stub.requests} == {"b"}
