"""What a point needs is known beforehand: a run that cannot fit is refused with both numbers, before anything is built."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analytic.core.execution import Execution
from analytic.models.spec import ModelSpec
from fixtures.config.points import Point, point_of
from fixtures.machine.memory import available_bytes, needed, require_memory
from tests.samples import JOB
from tests.test_plugin import run

CPU = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
PAGE = point_of("end_to_end[gundam-2x1-1024]")
LENGTH = point_of("decode[64]")


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


# --- what is needed


def test_the_parts_are_those_of_the_forward_with_the_largest_peak(tiny_spec: ModelSpec) -> None:
    page = needed(tiny_spec, CPU, PAGE, batch_size=3, decode_steps=16)
    # one view of 1024 px and two of 640 px, three channels of float32, three pages
    assert page.input_bytes == 3 * 4 * 3 * (1024**2 + 2 * 640**2)
    assert page.kv_bytes == 0  # vision peaks, before there is a cache
    assert page.weight_bytes == 4 * 802_640
    assert page.total_bytes == page.weight_bytes + page.kv_bytes + page.input_bytes + page.activation_bytes
    length = needed(tiny_spec, CPU, point_of("decode[1024]"), batch_size=3, decode_steps=16)
    assert (length.input_bytes, length.weight_bytes) == (0, page.weight_bytes)
    # the prefill peaks: 4 layers, K and V of 64 float32, 1024 positions
    assert length.kv_bytes == 3 * 4 * 2 * 64 * 4 * 1024
    long = needed(tiny_spec, CPU, point_of("decode[8]"), batch_size=3, decode_steps=8000)
    assert long.kv_bytes == 3 * 4 * 2 * 64 * 4 * 8008
    static = needed(tiny_spec, replace(CPU, backend="compile"), point_of("decode[1024]"), batch_size=3, decode_steps=16)
    assert static.kv_bytes == 3 * 4 * 2 * 64 * 4 * 1040


def test_the_need_is_what_the_model_is_measured_to_hold(subject_on: Callable) -> None:
    from fixtures.model import counted_stages

    subject = subject_on("cpu", "sdpa", "grouped_mm", "tiny")
    point = point_of("vision[tiny]")
    measured = counted_stages.vision(subject, point.page, batch_size=4)
    need = needed(subject.spec, CPU, point, batch_size=4, decode_steps=0)
    assert need.activation_bytes == pytest.approx(measured.activation_bytes, rel=0.01)
    assert need.weight_bytes == sum(p.numel() * p.element_size() for p in subject.model.parameters())


# --- what is there


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 16 kB\nMemAvailable:       10 kB\n"}, 10_240),
        ({"proc/meminfo": "MemTotal: 16 kB\n"}, None),
        (
            {
                "proc/meminfo": "MemAvailable: 10 kB\n",
                "proc/self/cgroup": "0::/user/run\n",
                "sys/fs/cgroup/user/run/memory.max": "max\n",
                "sys/fs/cgroup/user/run/memory.current": "9000\n",
                "sys/fs/cgroup/user/memory.max": "9000\n",
                "sys/fs/cgroup/user/memory.current": "5000\n",
                "sys/fs/cgroup/user/memory.stat": "anon 4000\ninactive_file 1000\nactive_file 7\n",
            },
            5000,  # 9000 - 5000 of the group above, 1000 of which are cache
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 10 kB\n",
                "proc/self/cgroup": "9:cpu:/\n4:memory:/box\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "9000\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "4000\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "4500\n",
                "sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 100\n",
            },
            0,
        ),
        (
            {  # inside a container the path of the group is that of the host
                "proc/meminfo": "MemAvailable: 10 kB\n",
                "proc/self/cgroup": "0::/host/path\n",
                "sys/fs/cgroup/memory.max": "8000\n",
                "sys/fs/cgroup/memory.current": "1000\n",
            },
            7000,
        ),
    ],
    ids=["unknown", "system", "old kernel", "version 2", "version 1", "container"],
)
def test_what_is_available_is_the_least_of_system_and_groups(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    assert available_bytes("cpu", root=written(tmp_path, files)) == expected


def test_this_machine_has_memory_to_run_the_tests() -> None:
    assert available_bytes("cpu") is None or available_bytes("cpu") > 100_000_000


# --- what is refused


def test_both_numbers_the_point_and_the_batch_that_fits_are_said(tiny_spec: ModelSpec) -> None:
    points = [LENGTH, PAGE, point_of("vision[tiny]")]
    with pytest.raises(
        ValueError,
        match=r"--batch-size: got 100, with which tiny at gundam-2x1-1024 needs at least 29.5 GB \(weights 0.0 GB, KV "
        r"cache 0.0 GB, pixels 2.2 GB, activations 27.3 GB\), accepted: what fits the 12.0 GB available on cpu; choose a "
        r"batch of at most 40, a shorter sequence",
    ):
        require_memory(tiny_spec, CPU, points, batch_size=100, decode_steps=16, available=12 * 10**9)
    require_memory(tiny_spec, CPU, points, batch_size=40, decode_steps=16, available=12 * 10**9)
    with pytest.raises(ValueError, match="at most 40"):
        require_memory(tiny_spec, CPU, points, batch_size=41, decode_steps=16, available=12 * 10**9)


def test_weights_that_do_not_fit_are_refused_without_a_batch_to_choose(full_spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match=r"at least 13.4 GB \(weights 13.3 GB.*; choose a shorter.*--preset tiny"):
        require_memory(full_spec, CPU, [LENGTH], batch_size=1, decode_steps=16, available=8 * 10**9)


def test_what_allocates_nothing_or_is_unknown_is_not_refused(full_spec: ModelSpec) -> None:
    meta = Execution(device="meta", attention="sdpa", experts="grouped_mm", dtype="bfloat16")
    require_memory(full_spec, meta, [PAGE], batch_size=10_000, decode_steps=16, available=1)
    require_memory(full_spec, CPU, [PAGE], batch_size=10_000, decode_steps=16, available=None)
    require_memory(full_spec, CPU, [], batch_size=10_000, decode_steps=16, available=1)


# sizes for which the first allocation fails at once, so that a machine survives these tests when the check is broken
@pytest.mark.parametrize("selected", [("-k", "vision or part"), ("-k", "end_to_end", "--benchmark-disable")])
def test_a_run_of_benchmarks_ends_before_anything_is_built(tmp_path: Path, selected: tuple[str, ...]) -> None:
    out = ("--output-dir", str(tmp_path / "out"))
    done = run("--device", "cpu", "--preset", "tiny", "--seq-len", "1024", "--batch-size", "10000", *selected, *out)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "--batch-size: got 10000, with which tiny at gundam-2x1" in done.stdout + done.stderr
    assert "closed form against the real model" not in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_run_on_meta_takes_any_batch(tmp_path: Path) -> None:
    done = run(
        "--device", "meta", "--seq-len", "16", "--batch-size", "10000", "-k", "prefill", "--output-dir", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_refuses_before_it_builds() -> None:
    from fixtures.worker import Worker

    with pytest.raises(ValueError, match=r"--batch-size: got 2000000000, with which tiny at 16 needs at least"):
        Worker(replace(JOB, batch_size=2_000_000_000))


def test_a_decode_window_refuses_before_it_builds(capsys: pytest.CaptureFixture[str]) -> None:
    from fixtures.profiling import decode_window

    arguments = ["--device", "cpu", "--preset", "tiny", "--batch-size", "2000000000", "--decode-steps", "2"]
    assert decode_window.main(arguments) == 2
    assert "--batch-size: got 2000000000, with which tiny at 1024 needs at least" in capsys.readouterr().err


def test_a_point_of_a_name_is_that_of_its_benchmark() -> None:
    assert Point(label="64", seq_len=64, page=None) == LENGTH
    assert (PAGE.label, PAGE.seq_len, PAGE.page.num_views) == ("gundam-2x1-1024", 1024, 3)
