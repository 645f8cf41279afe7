"""Throughput of a mix: hand arithmetic on times that are made up, and what holds of any times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr.workload import SWEPT_PAGES
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix
from analytic.planning.plan import plan
from analytic.planning.plan_request import PlanRequest
from analytic.planning.throughput import best, ladder, service, services
from analytic.planning.times import ClosedFormTimes, floor_times
from analytic.prediction import hardware
from tests.made_times import Made

SPEC = ModelSpec.from_preset("deepseek-ocr-v1-base")
RUN = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")


def mix_of(*texts: str, new_tokens: int = 101, seq_len: int | None = 1000) -> Mix:
    return Mix.parsed(texts, seq_len=seq_len, prompt_tokens=16, new_tokens=new_tokens)


def test_one_page_in_flight_by_hand() -> None:
    # 7 views: 7 ms; 1000 positions: 10 ms; 100 steps at 1000 + 49 positions: 2.049 ms each
    found = service(mix_of("2x3=1"), Made(), 1)
    assert (found.vision_s, found.prefill_s) == (pytest.approx(7e-3), pytest.approx(10e-3))
    assert found.decode_s == pytest.approx(0.2049)
    assert (found.ttft_s, found.tpot_s) == (pytest.approx(17e-3), pytest.approx(2.049e-3))
    assert found.pages_per_s == pytest.approx(1 / 0.2219)
    assert found.tokens_per_s == pytest.approx(101 / 0.2219)
    assert found.bound_by == "decode"


def test_a_mix_in_flight_by_hand() -> None:
    # a quarter of 7 views and three of 1: 2.5 ms; prefill 10 ms; a step of 20 pages: 1 ms + 20 * 1.049 ms
    found = service(mix_of("2x3=0.25", "base=0.75"), Made(), 20)
    assert found.vision_s == pytest.approx(2.5e-3)
    assert found.step_s == pytest.approx(21.98e-3)
    assert found.decode_s == pytest.approx(100 * 21.98e-3 / 20)
    # 19 other pages enter during the 100 steps of one
    assert found.tpot_s == pytest.approx(21.98e-3 + 19 * 12.5e-3 / 100)


def test_a_batch_that_was_measured_together_waits_for_itself() -> None:
    # the calls are those of 4 pages; nobody enters while they decode
    found = service(mix_of("2x3=1"), Made(batch_size=4), 4)
    assert (found.vision_s, found.ttft_s) == (pytest.approx(7e-3 / 4), pytest.approx(17e-3))
    assert found.tpot_s == pytest.approx(found.step_s)
    assert services(mix_of("2x3=1"), Made(batch_size=4), 1000) == (found,)
    assert services(mix_of("2x3=1"), Made(batch_size=4), 3) == ()


def test_a_page_of_one_token_does_not_decode() -> None:
    found = service(mix_of("base=1", new_tokens=1), Made(), 5)
    assert (found.decode_s, found.tpot_s) == (0, None)
    assert found.bound_by == "prefill"


def test_hours_and_cost_of_a_million_pages() -> None:
    found = service(mix_of("2x3=1"), Made(), 1)
    assert found.device_hours_per_million_pages == pytest.approx(1e6 * 0.2219 / 3600)
    assert found.cost_per_million_pages(3.5) == pytest.approx(3.5 * 1e6 * 0.2219 / 3600)


@given(pages=st.integers(1, 5000), new_tokens=st.integers(2, 3000), batch=st.one_of(st.none(), st.integers(1, 50)))
def test_so_many_are_in_flight_as_arrive_while_one_stays(pages: int, new_tokens: int, batch: int | None) -> None:
    """Little's law: pages in flight are pages/s times how long a page stays."""
    found = service(mix_of("2x3=0.25", "base=0.75", new_tokens=new_tokens), Made(batch), batch or pages)
    assert found.tpot_s is not None
    stays_s = found.ttft_s + (new_tokens - 1) * found.tpot_s
    assert found.pages_per_s * stays_s == pytest.approx(found.pages_in_flight)


@given(most=st.integers(1, 10_000))
def test_the_ladder_ends_at_what_fits(most: int) -> None:
    found = ladder(most)
    assert (found[0], found[-1]) == (1, most)
    assert found == sorted(set(found))
    assert ladder(0) == []


SHARES = st.lists(st.integers(1, 100), min_size=2, max_size=4)


@given(parts=SHARES, pages=st.integers(1, 2000), places=st.permutations(SWEPT_PAGES))
@settings(max_examples=30)
def test_a_mix_is_no_better_than_its_best_page_and_no_worse_than_its_worst(
    parts: list[int], pages: int, places: list[str]
) -> None:
    mix = mix_of(*(f"{page}={part / sum(parts)!r}" for page, part in zip(places, parts, strict=False)), seq_len=1300)
    for times in (Made(), floor_times(SPEC, RUN, hardware.device("h200"))):
        alone = [service(one, times, pages).pages_per_s for one in mix.alone]
        found = service(mix, times, pages).pages_per_s
        assert min(alone) * (1 - 1e-9) <= found <= max(alone) * (1 + 1e-9)


@given(page=st.sampled_from(SWEPT_PAGES), memory_gb=st.integers(9, 100), more=st.integers(0, 50))
@settings(max_examples=15)
def test_more_memory_never_gives_fewer_pages(page: str, memory_gb: int, more: int) -> None:
    times = floor_times(SPEC, RUN, hardware.device("h200"))
    found = []
    for gigabytes in (memory_gb, memory_gb + more):
        made = plan(
            SPEC,
            RUN,
            mix_of(f"{page}=1", seq_len=None),
            device="h200",
            memory_bytes=gigabytes * 10**9,
            times=times,
            asked=PlanRequest(),
        )
        top = best(made.services)
        found.append(top.pages_per_s if top else 0)
    assert found[0] <= found[1]


@given(slower=st.floats(1, 10), pages=st.integers(1, 2000))
@settings(max_examples=20)
def test_nothing_that_is_slower_than_the_floor_gives_more_pages(slower: float, pages: int) -> None:
    device, mix = hardware.device("h200"), mix_of("2x3=0.5", "base=0.5")
    floor = floor_times(SPEC, RUN, device)
    other = ClosedFormTimes(
        SPEC, RUN, source="predicted", description="", file=None, seconds=lambda root: slower * floor._seconds(root)
    )
    assert service(mix, floor, pages).pages_per_s >= service(mix, other, pages).pages_per_s * (1 - 1e-12)


def test_a_mix_of_one_is_the_page_alone() -> None:
    times = floor_times(SPEC, RUN, hardware.device("h200"))
    mix = mix_of("2x3=1", seq_len=None)
    made = plan(SPEC, RUN, mix, device="h200", memory_bytes=141 * 10**9, times=times, asked=PlanRequest(price_per_hour=2.0))
    (page,) = made.pages
    assert page.services == made.services
    assert (page.fits.pages_in_flight, page.fits.in_flight) == (made.pages_in_flight, made.in_flight)


@given(price=st.floats(0.01, 100), factor=st.floats(1, 10))
def test_cost_scales_with_the_price(price: float, factor: float) -> None:
    found = service(mix_of("2x3=1"), Made(), 7)
    assert found.cost_per_million_pages(price * factor) == pytest.approx(factor * found.cost_per_million_pages(price))


def test_the_floor_is_the_larger_of_products_and_traffic() -> None:
    times = floor_times(SPEC, RUN, hardware.device("h200"))
    mix = mix_of("2x3=1", seq_len=1024)
    # vision is bound by products, a step of one page by traffic
    root = DeepseekOCRModel.from_spec(SPEC, run=RUN)
    root.start_vision(mix.pages[0].page)
    assert times.vision_s(mix.pages[0]) == int(root.forward_cost().executed_flops) / 989.4e12
    root.start_decode(root.start_prefill(1024 + 49, 1))
    assert times.step_s(mix, 1) == int(root.forward_cost().fused_bytes) / 4.8e12
