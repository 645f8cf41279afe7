"""The memory ledger: storages from birth to release, parameters and views left out."""

import pytest
import torch

from fixtures.op_counter.ledger import Ledger
from fixtures.op_counter.memory import MemoryLedger


def test_the_peak_is_what_is_alive_at_once() -> None:
    x = torch.zeros(1000)  # existed before: not counted
    with MemoryLedger() as memory:
        a = x + 1  # 4000 alive
        b = a * 2  # 8000
        del a  # 4000
        c = b + b  # 8000
        del b
        d = c.view(10, 100)  # a view, still 4000
        del c, d
    assert memory.peak_bytes() == 8000


def test_results_in_place_and_views_make_no_storage() -> None:
    x = torch.zeros(1000)
    with MemoryLedger() as memory:
        x.add_(1)
        x.view(10, 100).t()
    assert memory.peak_bytes() == 0


def test_tensors_can_be_left_out() -> None:
    x = torch.zeros(1000)
    with MemoryLedger() as memory:
        kept = x + 1
        other = kept * 2
        del other
    assert memory.peak_bytes() == 8000
    assert memory.peak_bytes(without=[kept]) == 4000


def test_meta_counts_what_a_device_would() -> None:
    def run(device: str) -> int:
        x = torch.empty(64, 64, device=device)
        with MemoryLedger() as memory:
            y = torch.nn.functional.gelu(x @ x)
            z = y @ y
            del x, y, z
        return memory.peak_bytes()

    assert run("meta") == run("cpu") == 2 * 64 * 64 * 4


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_ledger_tells_its_memory_what_it_would_see_alone(device: str, grad: bool) -> None:
    weight = torch.nn.Parameter(torch.empty(64, 64, device=device))

    def work() -> torch.Tensor:
        x = torch.ones(64, 64, device=device)
        y = (x @ weight.t()).view(32, 128)
        y.mul_(2)
        values, _ = torch.topk(torch.nn.functional.gelu(y), 4)
        x.copy_(weight)
        return torch.cat([values, values]) + torch.zeros(64, 4, device=device)

    def peaks(memory: MemoryLedger, mode: MemoryLedger | Ledger) -> tuple[int, int]:
        with torch.set_grad_enabled(grad), mode:
            kept = work()
        return memory.peak_bytes(), memory.peak_bytes(without=[kept])

    alone = MemoryLedger()
    expected = peaks(alone, alone)
    assert all(expected)
    for _ in range(2):  # the second time every call on meta is known
        told = MemoryLedger()
        assert peaks(told, Ledger(torch.nn.Identity(), outside="", memory=told)) == expected
