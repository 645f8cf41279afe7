"""The GPU's paths without a GPU: a stand-in driver and a stand-in allocator."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.config.run_options import RunOptions
from fixtures.machine.gpu import Gpu, GpuState, gpu_of
from fixtures.machine.gpu_watch import GpuWatch, gpu_warnings
from fixtures.model.counted_stages import ModelUnderTest
from fixtures.op_counter.memory import allocator_peak_bytes
from fixtures.plugin import summary


def test_peak_memory_on_a_gpu_is_what_its_allocator_held_above_before() -> None:
    class Allocator:
        """A stand-in for torch.cuda's: 1000 bytes of weights, 300 in use during the run, 200 of them kept after it."""

        held, peak, waits = 1_000, 5_000, 0

        def synchronize(self) -> None:
            self.waits += 1

        def reset_peak_memory_stats(self) -> None:
            self.peak = self.held

        def memory_allocated(self) -> int:
            return self.held

        def max_memory_allocated(self) -> int:
            return self.peak

        def run(self) -> None:
            self.peak, self.held = self.held + 300, self.held + 200

    allocator = Allocator()
    assert allocator_peak_bytes(allocator.run, allocator) == 300
    assert allocator.waits == 2


class Nvml:
    """A stand-in for nvidia-ml-py: two GPUs, one slowed by power and heat; energy is not supported on the first."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def nvmlInit(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: b"NVIDIA H200",
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlSystemGetDriverVersion": lambda: "570.1",
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1980 if kind == 1 else 3201,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x1 if handle == 0 else 0x4 | 0x40,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [object()],
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
        }
        return answers[name]

    def _energy(self, handle: int) -> int:
        if handle == 0:
            raise self.NVMLError
        return 5_000


def test_a_gpu_says_its_clocks_what_slows_it_and_its_energy() -> None:
    cool, hot = Gpu(Nvml(), 0), Gpu(Nvml(), 1)
    assert (cool.state().name, cool.state().uuid, cool.state().driver) == ("NVIDIA H200", "GPU-0", "570.1")
    assert (cool.state().sm_clock_mhz, cool.state().memory_clock_mhz, cool.state().power_limit_w) == (1980, 3201, 700.0)
    assert cool.state().throttle_reasons == ("gpu_idle",)
    assert not cool.state().throttled
    assert cool.energy_j() is None
    assert hot.state().throttle_reasons == ("software_power_cap", "hardware_thermal")
    assert hot.state().throttled
    assert hot.energy_j() == 5.0


def test_no_gpu_is_known_without_a_driver_or_on_another_device() -> None:
    class WithoutDriver(Nvml):
        def nvmlInit(self) -> None:
            raise self.NVMLError

    assert gpu_of("cpu") is None
    assert gpu_of("cuda", WithoutDriver()) is None


@pytest.mark.parametrize(("uuid", "index"), [("GPU-1", 1), ("GPU-0", 0), ("GPU-7", 0)])
def test_torchs_current_device_is_found_by_its_uuid_among_those_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, uuid: str, index: int
) -> None:
    """As with CUDA_VISIBLE_DEVICES=1, where torch's device 0 is the driver's 1; the first for one that it does not know."""

    class TwoGpus(Nvml):
        def nvmlDeviceGetCount(self) -> int:
            return 2

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda: SimpleNamespace(uuid=uuid))
    found = gpu_of("cuda", TwoGpus())
    assert found is not None
    assert found.state().uuid == f"GPU-{index}"


CALM = GpuState(
    name="NVIDIA H200",
    uuid="GPU-0",
    driver="570.1",
    sm_clock_mhz=1_980,
    memory_clock_mhz=3_201,
    power_limit_w=700.0,
    throttle_reasons=(),
    compute_processes=1,
)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, []),
        ({"throttle_reasons": ("applications_clocks",)}, {"sm_clock_mhz": 1_965}, []),  # less than 5% of 1,980
        ({}, {"throttle_reasons": ("hardware_thermal",)}, ["clocks were throttled by hardware_thermal"]),
        (
            {"throttle_reasons": ("software_power_cap",)},
            {"throttle_reasons": ("software_power_cap", "hardware_thermal")},
            ["clocks were throttled by software_power_cap, hardware_thermal"],
        ),
        ({"compute_processes": 2}, {}, ["1 other process ran on the GPU"]),
        ({}, {"compute_processes": 4}, ["3 other processes ran on the GPU"]),
        ({"compute_processes": None}, {"compute_processes": None}, []),
        ({}, {"sm_clock_mhz": 1_485}, ["SM clock 1,980 -> 1,485 MHz (-25%)"]),
        ({"memory_clock_mhz": 1_601}, {}, ["memory clock 1,601 -> 3,201 MHz (+100%)"]),
        ({"sm_clock_mhz": 345, "throttle_reasons": ("gpu_idle",)}, {}, []),  # an idle GPU has slow clocks
        ({"sm_clock_mhz": None}, {}, []),
    ],
)
def test_what_disturbed_a_gpu_between_two_states_is_told(
    before: dict[str, Any], after: dict[str, Any], said: list[str]
) -> None:
    assert gpu_warnings(replace(CALM, **before), replace(CALM, **after)) == said


class Driver:
    """A stand-in for a Gpu that goes through states."""

    def __init__(self, *states: GpuState) -> None:
        self._states = iter(states)

    def state(self) -> GpuState:
        return next(self._states)

    def energy_j(self) -> float:
        return 7.0


def test_disturbances_are_gathered_by_kind_with_the_timings_they_fell_on() -> None:
    hot = replace(CALM, throttle_reasons=("hardware_thermal",))
    watch = GpuWatch(Driver(*[CALM, hot] * 8, CALM, CALM))
    for number in range(9):
        assert watch.energy_j() == watch.energy_j() == 7.0
        watch.timed(f"decode[{number}]")
    first = ", ".join(f"decode[{number}]" for number in range(6))
    assert watch.lines() == [f"disturbed: clocks were throttled by hardware_thermal: {first} and 2 more"]


def test_disturbances_stand_below_the_times(
    monkeypatch: pytest.MonkeyPatch, options_of: Callable[..., RunOptions], subject_on: Callable[..., ModelUnderTest]
) -> None:
    watch = GpuWatch(Driver(CALM, replace(CALM, compute_processes=2)))
    watch.energy_j()
    watch.energy_j()
    watch.timed("decode[16]")
    monkeypatch.setattr(summary.table, "time_lines", lambda timer, decode_steps: ["the times"])
    monkeypatch.setattr(summary.table, "lines", lambda results, by_module: ["the comparison"])
    bench = SimpleNamespace(subject=subject_on("meta", "sdpa", "grouped_mm", "tiny"), batch_size=1, results=[])
    run = summary.FinishedRun(
        bench=bench,
        timer=SimpleNamespace(timed=["one"], watch=watch, warnings=["disturbed: decode[16]: another process"]),
        gates=None,
        account=None,
        options=options_of(seq_len=["4096"]),
        run_id="1",
        arguments=(),
    )
    printed: list[str] = []
    summary._print_tables(run, SimpleNamespace(section=lambda *_, **__: None, write_line=printed.append))
    assert printed[-3:] == [
        "the times",
        "disturbed: 1 other process ran on the GPU: decode[16]",
        "disturbed: decode[16]: another process",
    ]


def test_a_timing_that_failed_leaves_no_state_to_the_next() -> None:
    watch = GpuWatch(Driver(replace(CALM, compute_processes=3), CALM, CALM))
    watch.energy_j()  # then it ran out of memory
    watch.energy_j()
    watch.energy_j()
    watch.timed("decode[16]")
    assert watch.lines() == []


def test_a_time_is_distrusted_for_heat_and_other_processes_not_for_the_power_limit_of_the_gpu() -> None:
    def seen(**after: object) -> tuple[str, ...]:
        watch = GpuWatch(Driver(CALM, replace(CALM, **after)))
        watch.energy_j()
        watch.energy_j()
        return watch.timed("decode[16]", "prefill[16]")

    assert seen(throttle_reasons=("hardware_thermal",)) == ("clocks were throttled by hardware_thermal",)
    assert seen(compute_processes=2) == ("1 other process ran on the GPU",)
    assert seen(throttle_reasons=("software_power_cap",)) == ()
    assert seen(throttle_reasons=("software_power_cap", "software_thermal")) == (
        "clocks were throttled by software_thermal",
    )


def test_without_a_gpu_there_is_nothing_to_watch() -> None:
    watch = GpuWatch(None)
    assert watch.energy_j() is None
    watch.timed("decode[16]")
    assert watch.lines() == []
