"""Tables of the profilers, written by hand in the form that they print, and where kernels lie on the roofline."""

from pathlib import Path

import pytest

from analytic.prediction.hardware import DevicePeaks, device
from fixtures.profiling.kernels import (
    ADDS,
    FUSED,
    METRICS,
    PRODUCTS,
    READ,
    TENSOR_ACTIVE,
    TENSOR_FLOPS,
    TIME,
    WRITTEN,
    Bound,
    Kernel,
    KernelFormatError,
    from_ncu,
    from_nsys,
    roof,
)

NSYS = """Generating SQLite file window.sqlite from window.nsys-rep
Processing [window.sqlite] with [cuda_gpu_kern_sum.py]...

"Time (%)","Total Time (ns)","Instances","Avg (ns)","Med (ns)","Min (ns)","Max (ns)","StdDev (ns)","Name"
"40.0","4000","2","2000.0","2000.0","1900","2100","100.0","void norm<float, 4>(const float *, int)"
"60.0","6000","1","6000.0","6000.0","6000","6000","0.0","gemm"
"""


def ncu_table(*launches: dict[str, str], units: dict[str, str] | None = None) -> str:
    """What Nsight Compute prints with --csv --page raw: a header, units, a row a launch."""
    named = {TIME: "nsecond", READ: "byte", WRITTEN: "byte", TENSOR_ACTIVE: "%", **(units or {})}
    first = ("ID", "Process ID", "Kernel Name", "Block Size", *METRICS)
    rows = [first, ("", "", "", "", *(named.get(metric, "inst") for metric in METRICS))]
    for number, launch in enumerate(launches):
        rows.append((str(number), "77", launch["name"], "(128, 1, 1)", *(launch.get(metric, "0") for metric in METRICS)))
    table = "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)
    return f"==PROF== Connected to process 77 (python3)\n{table}\n==PROF== Disconnected from process 77\n"


def test_kernels_of_nsight_systems_come_longest_first() -> None:
    assert from_nsys(NSYS) == (
        Kernel(name="gemm", calls=1, time_s=6e-6),
        Kernel(name="void norm<float, 4>(const float *, int)", calls=2, time_s=4e-6),
    )


def test_a_table_that_nsight_compute_wrote_is_read() -> None:
    """Ten launches of a decoded token on an H200, by ncu 2025.3; the columns that are not read are cut out."""
    kernels = from_ncu((Path(__file__).parent / "data" / "ncu-2025.3-h200.csv").read_text(encoding="utf-8"))
    product = next(kernel for kernel in kernels if kernel.name.startswith("nvjet"))
    # two projections of one token in the dense layer, 1280 x 6848, in tiles of 8 x 64: 6912 columns, one of
    # 8 rows used; from memory come their weights and little else, 2 bytes each
    assert (product.calls, product.tensor_flops) == (2, 2 * 2 * 1280 * 6912 * 8)
    assert product.dram_bytes == pytest.approx(2 * 1280 * 6848 * 2, rel=0.01)
    # 6 experts of a token, gate and up projection of 1280 x 896
    experts = next(kernel for kernel in kernels if "cutlass::device_kernel" in kernel.name)
    assert experts.dram_bytes == pytest.approx(6 * 2 * 1280 * 896 * 2, rel=0.02)
    assert sum(kernel.calls for kernel in kernels) == 10
    assert all(roof(kernel, device("h200")).bound == "memory" for kernel in kernels)


def test_launches_of_nsight_compute_are_summed_by_name() -> None:
    short = {"name": "gemm", TIME: "1,000", READ: "2,000,000", WRITTEN: "500", TENSOR_FLOPS: "1,024", TENSOR_ACTIVE: "10.0"}
    longer = {"name": "gemm", TIME: "3,000", READ: "4,000,000", WRITTEN: "500", TENSOR_FLOPS: "1,024", TENSOR_ACTIVE: "50"}
    norm = {"name": "norm<float>", TIME: "5000.0", READ: "64", ADDS: "3", PRODUCTS: "4", FUSED: "5"}
    first, second = from_ncu(ncu_table(short, norm, longer))
    assert first == Kernel(
        name="norm<float>",
        calls=1,
        time_s=5e-6,
        dram_bytes=64,
        tensor_flops=0,
        cuda_core_flops=3 + 4 + 2 * 5,  # a fused multiply-add is two
        tensor_active=0.0,
    )
    assert (second.name, second.calls, second.dram_bytes, second.tensor_flops) == ("gemm", 2, 6_001_000, 2_048)
    assert second.time_s == pytest.approx(4e-6)
    assert second.tensor_active == pytest.approx(0.4)  # (0.1 * 1 + 0.5 * 3) / 4


def test_a_metric_that_the_gpu_does_not_have_is_not_known() -> None:
    (kernel,) = from_ncu(ncu_table({"name": "gemm", TIME: "1000", TENSOR_FLOPS: "n/a", TENSOR_ACTIVE: "", ADDS: "n/a"}))
    assert (kernel.tensor_flops, kernel.tensor_active, kernel.cuda_core_flops, kernel.dram_bytes) == (None, None, None, 0)
    assert roof(kernel, device("h100-sxm")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got no table with the columns Name, Instances, Total Time .* Its last output: none"),
        ("==ERROR== no permission", "Its last output: ==ERROR== no permission"),
        (NSYS.splitlines()[3], "got a table without kernels: nothing ran on the GPU inside the decode window"),
        (NSYS.replace('"6000","1"', '"many","1"'), r"Total Time \(ns\): got 'many', accepted: a number"),
        (NSYS.replace('"6000","1"', '"0","1"'), r"Total Time \(ns\): got '0', accepted: nanoseconds above 0"),
    ],
)
def test_another_table_of_nsight_systems_is_refused(text: str, message: str) -> None:
    with pytest.raises(KernelFormatError, match=message):
        from_nsys(text)


def test_another_table_of_nsight_compute_is_refused() -> None:
    with pytest.raises(KernelFormatError, match=r"got no table with the columns Kernel Name, gpu__time_duration\.sum"):
        from_ncu(NSYS)
    with pytest.raises(KernelFormatError, match="got a table without kernels"):
        from_ncu(ncu_table())
    scaled = ncu_table({"name": "gemm", TIME: "1"}, units={READ: "Mbyte"})
    with pytest.raises(KernelFormatError, match=r"dram__bytes_read.sum: got unit 'Mbyte', accepted: byte"):
        from_ncu(scaled)


PEAKS = DevicePeaks(
    name="a GPU",
    matches=(),
    peak_flops_per_s=(("bfloat16", 1_000), ("float16", 1_000), ("float32", 100), ("tfloat32", 500)),
    bandwidth_bytes_per_s=10,
    memory_bytes=1,
    source="hand arithmetic",
)


@pytest.mark.parametrize(
    ("tensor", "plain", "moved", "bound", "roof_s"),
    [
        (5_000, 0, 10, Bound.COMPUTE, 5.0),  # 5,000 / 1,000 against 10 / 10
        (0, 300, 20, Bound.COMPUTE, 3.0),  # float32 without tensor cores: 300 / 100 against 20 / 10
        (1_000, 0, 100, Bound.MEMORY, 10.0),
        (0, 0, 5, Bound.MEMORY, 0.5),
        (1_000, 100, 10, Bound.BALANCED, 1.0),
        (1_200, 0, 10, Bound.BALANCED, 1.2),
        (1_250, 0, 10, Bound.COMPUTE, 1.25),
        (800, 0, 10, Bound.MEMORY, 1.0),
        (900, 0, 10, Bound.BALANCED, 1.0),
    ],
)
def test_the_nearer_roof_says_what_bounds_a_kernel(
    tensor: int, plain: int, moved: int, bound: Bound, roof_s: float
) -> None:
    kernel = Kernel(name="k", calls=1, time_s=20.0, dram_bytes=moved, tensor_flops=tensor, cuda_core_flops=plain)
    found = roof(kernel, PEAKS)
    assert found is not None
    assert found.bound is bound
    assert max(found.compute_s, found.memory_s) == pytest.approx(roof_s)


def test_without_counters_or_a_datasheet_nothing_is_guessed() -> None:
    (timed, *_) = from_nsys(NSYS)
    assert roof(timed, PEAKS) is None
    idle = Kernel(name="k", calls=1, time_s=1.0, dram_bytes=0, tensor_flops=0, cuda_core_flops=0)
    assert roof(idle, PEAKS) is None
    assert roof(idle, None) is None
