"""pytest-benchmark's table of a run: a group a stage, milliseconds, 100 columns at most, and the user's own switches."""

from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.logger import Logger
from pytest_benchmark.table import TableResults

from analytic.io.table import three_digits
from fixtures.plugin import benchmark_json, benchmark_table

WIDEST = 100


def config_of(*words: str) -> Any:
    option = SimpleNamespace(benchmark_columns=None, benchmark_sort="min", benchmark_time_unit=None)
    return SimpleNamespace(
        option=option, invocation_params=SimpleNamespace(args=words), getini=lambda _: (), getoption=option.__getattribute__
    )


def timed(name: str, seconds: float, least: float | None = None) -> dict[str, Any]:
    low = seconds if least is None else least
    return {"name": name, "min": low, "max": 3 * seconds, "mean": seconds, "median": seconds, "iqr": 0.0} | {
        "stddev": 0.0,
        "ops": 1 / seconds,
        "rounds": 5,
        "iterations": 1,
        "outliers": "0;0",
    }


def test_a_part_stands_in_the_group_of_its_stage_though_its_test_is_named_after_all_parts() -> None:
    part = timed("part[gundam-2x1-clip]", 0.02) | {"extra_info": {benchmark_json.NOTED: {"stage": "clip"}}}
    groups = benchmark_table.pytest_benchmark_group_stats(config_of(), [timed("speed_root", 1e-5), part])
    assert groups is not None
    assert [name for name, _ in groups] == ["clip", benchmark_table.SPEED]


class Terminal:
    """What is written to a terminal, without its colours."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str, **_: object) -> None:
        self.text += text

    def write_line(self, text: str, **_: object) -> None:
        self.text += f"{text}\n"

    rewrite = write


def test_the_table_has_a_group_a_stage_in_their_order_and_fits_100_columns() -> None:
    times = [timed("decode[64]", 5.2), timed("speed_root", 1e-5), timed("vision[gundam-2x1]", 10_147.68e-3)]
    times += [timed("end_to_end[1654x2339px-vllm]", 6_120.5), timed("decode[8192]", 7.9, least=1e-4)]
    config = config_of()
    benchmark_table.shape(config)
    groups = benchmark_table.pytest_benchmark_group_stats(config, times)
    assert groups is not None
    assert [name for name, _ in groups] == ["vision", "decode", "end_to_end", benchmark_table.SPEED]
    option, terminal = config.option, Terminal()
    TableResults(
        columns=option.benchmark_columns,
        sort=option.benchmark_sort,
        histogram=None,
        name_format=lambda bench: bench["name"],
        logger=Logger(),
        scale_unit=lambda unit, **_: ("m", 1e3) if unit == "seconds" else ("", 1.0),
    ).display(terminal, groups, progress_reporter=lambda items, *_, **__: ((None, item) for item in items))
    table = terminal.text.partition("Legend")[0]
    assert max(map(len, table.splitlines())) <= WIDEST
    assert "time in ms" in table
    assert "inf" not in table


@pytest.mark.parametrize(
    ("word", "option", "value"),
    [
        ("--benchmark-columns=min", "benchmark_columns", ["min"]),
        ("--benchmark-sort=name", "benchmark_sort", "name"),
        ("--benchmark-time-unit=us", "benchmark_time_unit", "us"),
    ],
)
def test_an_option_that_is_given_is_kept(word: str, option: str, value: object) -> None:
    config = config_of(word)
    setattr(config.option, option, value)
    benchmark_table.shape(config)
    assert getattr(config.option, option) == value


def test_a_grouping_that_is_given_is_pytest_benchmarks_own() -> None:
    assert (
        benchmark_table.pytest_benchmark_group_stats(config_of("--benchmark-group-by=param"), [timed("sam[base]", 1.0)])
        is None
    )


def test_small_shares_have_digits_that_say_something() -> None:
    found = [three_digits(value) for value in (0, 4.2e-9, 0.00135, 0.0417, 0.5, 7.25, 355.04, 12_345.6)]
    assert found == ["0", "4.20e-09", "0.00135", "0.0417", "0.500", "7.25", "355", "12,346"]
