"""Datasheets: dense peaks with a source, recognized by the driver's name, never guessed."""

import pytest

from analytic.prediction import hardware


def test_every_device_says_where_its_numbers_come_from() -> None:
    for one in hardware.devices():
        assert one.source
        assert one.bandwidth_bytes_per_s > 1e11
        assert hardware.device(one.name) is one


def test_peaks_are_dense() -> None:
    # the datasheets lead with sparse figures, twice these
    assert hardware.device("h100-sxm").flops_per_s("bfloat16") == 989_400_000_000_000
    assert hardware.device("a100-80gb-sxm").flops_per_s("bfloat16") == 312_000_000_000_000
    assert hardware.device("t4").flops_per_s("bfloat16") is None


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_a_device_is_recognized_by_its_drivers_name(reported: str, name: str) -> None:
    found = hardware.recognized(reported)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("reported", ["NVIDIA A10G", "NVIDIA H800", "NVIDIA GeForce RTX 4090 Laptop GPU", "", "cpu"])
def test_an_unknown_device_is_not_guessed(reported: str) -> None:
    assert hardware.recognized(reported) is None


def test_unknown_names_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="device: got 'h2000', accepted: a100-40gb, "):
        hardware.device("h2000")
    with pytest.raises(ValueError, match="dtype: got 'int8', accepted: bfloat16, float16, float32, tfloat32"):
        hardware.device("h200").flops_per_s("int8")
