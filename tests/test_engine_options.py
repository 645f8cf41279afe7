"""The rows of engines, and what is refused before one is started."""

import json
from pathlib import Path

import pytest

from analytic.models.registry import load_spec
from fixtures.config.checkpoint import CheckpointError
from fixtures.serving import __main__ as serve
from fixtures.serving.engine import require_room, started_engine
from fixtures.serving.engine_options import EngineOptions, free_port
from fixtures.serving.engine_table import ENGINES, Engine, EngineTask, engine_for
from fixtures.serving.options import parsed

TASK = EngineTask(
    checkpoint=Path("/made/m"), device="cpu", dtype="float32", port=8123, context=1024, kv_bytes=(1 << 30) + 1
)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.name}-{engine.device}")
def test_an_engine_listens_on_this_machine_alone_and_its_packages_are_pinned(engine: Engine) -> None:
    command = engine.command(TASK)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "8123"
    # it is served under its name, which no temporary folder is part of
    assert "m" in command
    lines = [line for line in engine.requirements.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 30
    assert [line for line in lines if "==" not in line] == []
    assert engine.requirements.is_file()


def test_the_cache_of_a_cpu_has_room_for_the_requests_in_flight() -> None:
    variables = engine_for("vllm", "cpu").variables(TASK)
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "2"  # one byte more than a GiB


def test_an_engine_decides_crop_rule_dtype_and_api_unless_they_are_given() -> None:
    vllm = parsed(["--device", "cpu"], {})
    assert (vllm.rule.name, vllm.dtype, vllm.api.name) == ("vllm", "float32", "vllm")
    own = parsed(["--engine", "transformers", "--device", "cpu", "--preset", "tiny"], {})
    assert (own.rule.name, own.dtype, own.api.name) == ("transformers", "float32", "transformers")
    given = parsed(["--device", "cpu", "--served-by", "transformers", "--dtype", "bfloat16"], {})
    assert (given.rule.name, given.dtype) == ("transformers", "bfloat16")
    url = parsed(["--url", "http://127.0.0.1:8000/v1"], {})
    assert (url.engine, url.rule.name, url.dtype, url.api.name) == (None, "transformers", "bfloat16", "vllm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://127.0.0.1:8000/v1", "--engine", "vllm"], "--engine: got it with --url, accepted: without --url"),
        (["--url", "http://127.0.0.1:8000/v1", "--keep"], "--keep: got it with --url, accepted: without --url"),
        (["--engine", "ours"], "--engine: got 'ours', accepted: vllm, transformers"),
        (["--device", "tpu"], "--device: got 'tpu', accepted: cpu, cuda"),
        (["--device", "cpu", "--start-timeout-s", "0"], "--start-timeout-s: got 0, accepted: above 0"),
        (["--device", "cpu", "--api", "ours"], "--api: got 'ours', accepted: vllm, transformers"),
        (["--device", "cpu", "--layers", "13"], "layers: got 13, accepted: a whole number of at least 1 and at most 12"),
    ],
)
def test_an_unusable_option_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(arguments, {}) == 2
    assert message in capsys.readouterr().err


def test_an_engine_without_a_row_for_a_device_names_those_it_has() -> None:
    with pytest.raises(ValueError, match="--device: got 'cuda' for --engine transformers, accepted: cpu"):
        engine_for("transformers", "cuda")


def test_a_model_that_an_engine_cannot_load_is_refused_before_anything_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--preset", "tiny", "--engines-dir", str(tmp_path / "engines")]
    assert serve.main([*arguments, "--output-dir", str(tmp_path)], {}) == 2
    assert "layout: got 'vendor' for tiny, accepted: transformers" in capsys.readouterr().err
    assert not (tmp_path / "engines").exists()
    with (
        pytest.raises(CheckpointError),
        started_engine(
            EngineOptions(
                engine=engine_for("vllm", "cpu"),
                port=free_port(),
                keep=False,
                start_timeout_s=1.0,
                parent=tmp_path / "engines",
            ),
            load_spec("tiny"),
            dtype="float32",
            context=512,
            kv_bytes=1,
            output_dir=tmp_path,
        ),
    ):
        pass


def test_a_model_that_does_not_fit_the_memory_is_refused() -> None:
    options = parsed(["--device", "cpu", "--concurrency", "1"], {})
    # 3,335,504,128 parameters of 4 bytes, and 12 layers, K and V of 1,280 float32 for each position
    weights = 4 * 3_335_504_128
    with pytest.raises(ValueError, match=r"--layers: got 12, with which .* needs at least 13.5 GB \(weights 13.3 GB, KV"):
        require_room(options, available=weights)
    require_room(options, available=2 * weights)
    require_room(options, available=None)
    require_room(parsed(["--url", "http://127.0.0.1:8000/v1"], {}), available=0)


def test_an_answer_may_end_without_done_where_the_server_is_known_to() -> None:
    from fixtures.serving.stream import Received, RequestError, receive

    finish = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n'
    finish += b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], '
    finish += b'"usage": {"prompt_tokens": 5, "completion_tokens": 1}}\n'
    received = Received()
    receive([(finish, 1.0)], received, ends_with_done=False)
    assert (received.done, received.prompt_tokens, received.token_times_s) == (True, 5, [1.0])
    cut_off = finish.replace(b'"length"', b"null")  # with a usage, as servers that count as they go report it
    for content, ends_with_done in ((finish, True), (finish.splitlines(keepends=True)[0], False), (cut_off, False)):
        with pytest.raises(RequestError, match=r"the stream ended before \[DONE\]"):
            receive([(content, 1.0)], Received(), ends_with_done=ends_with_done)


def test_transformers_is_asked_for_a_length_without_the_fields_that_it_refuses() -> None:
    from fixtures.serving.api import APIS
    from fixtures.serving.exchange import body

    asked = json.loads(body("m", "Free OCR.", image=None, output_tokens=7, api=APIS["transformers"]))
    assert not {"ignore_eos", "min_tokens"} & asked.keys()
    assert asked["max_tokens"] == 7
    assert json.loads(asked["generation_config"])["min_new_tokens"] == 7
    default = json.loads(body("m", "Free OCR.", image=None, output_tokens=7))
    assert (default["ignore_eos"], default["min_tokens"], default["max_tokens"]) == (True, 7, 7)
