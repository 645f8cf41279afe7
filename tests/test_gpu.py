"""The GPU's paths without a GPU: a stand-in driver and a stand-in allocator."""

from typing import Any

from fixtures.gpu import Gpu, gpu_of
from fixtures.memory import allocator_peak_bytes


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
