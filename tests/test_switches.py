"""pytest-benchmark's switches and pytest-xdist on `pytest benchmarks`: what they do, and what is refused in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning

from fixtures.plugin.hooks import run_id_in
from tests.conftest import ROOT, Ended

CPU = ("--device", "cpu", "-k", "decode", "--decode-steps", "2")


def test_exact_benchmarks_count_as_benchmarks(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode", "--benchmark-only")
    assert done.code == 0, done.output
    assert [point["stage"] for point in done.records[0]["points"]] == ["decode"]


def test_skipped_benchmarks_are_skipped_on_meta_too(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode", "--benchmark-skip")
    assert done.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "account: measured 0 of 1 exact result; 1 exact result skipped (decode[16]): --benchmark-skip" in done.output
    assert done.records == []


def test_json_on_meta_holds_the_exact_quantities(session: Callable[..., Ended], tmp_path: Path) -> None:
    path = tmp_path / "exact.json"
    done = session("-k", "decode", "--benchmark-json", str(path), "-W", "error")
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    found = json.loads(path.read_text())
    (entry,), (record,) = found["benchmarks"], done.records
    assert found["dsocr_bench"]["run_id"] == record["run_id"]
    assert (entry["fullname"], entry["stats"]) == ("benchmarks/bench_decode.py::decode[16]", None)
    exact = entry["extra_info"]["dsocr_bench"]["exact"]
    assert exact["model"] == {"model_variant": "tiny", "device": "meta", "dtype": "bfloat16"}
    assert exact["compared"] == record["points"][0]["compared"]
    assert exact["compared"]["executed_flops"]["measured"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark-min-rounds=9"], "--benchmark-min-rounds: has no effect here: the benchmarks choose their rounds"),
        (["--benchmark-min-time=1"], "--benchmark-min-time: has no effect here"),
        (["--benchmark-max-time", "9"], "--benchmark-max-time: has no effect here"),
        (["--benchmark-calibration-precision", "3"], "--benchmark-calibration-precision: has no effect here"),
        (["--benchmark-precision", "0.1"], "--benchmark-precision: has no effect here"),
        (["--benchmark-warmup=off"], "--benchmark-warmup: has no effect here: warm-up is set by --warmup-rounds"),
        (
            ["--benchmark-timer", "time.process_time"],
            "--benchmark-timer: got time.process_time, accepted: time.perf",
        ),
        (["--benchmark-cprofile-loops", "3"], "--benchmark-cprofile-loops: accepted: 1"),
        (["--benchmark-group-by", "colour"], "--benchmark-group-by: got 'colour', accepted: group, name"),
        (["--benchmark-json", "nowhere/out.json"], "--benchmark-json: got nowhere/out.json, accepted: a file in a folder"),
        (
            ["--benchmark-json", "README.md/out.json"],
            "--benchmark-json: got README.md/out.json, accepted: a file in a folder",
        ),
        (["--benchmark-autosave"], "--benchmark-autosave: nothing is timed in this run, so there is nothing to save"),
        (["--benchmark-save", "mine"], "--benchmark-save: nothing is timed in this run"),
        (["--benchmark-compare"], "--benchmark-compare: nothing is timed in this run, so there is nothing to compare"),
        (["--benchmark-compare-fail=mean:5%"], "--benchmark-compare-fail: nothing is timed in this run"),
        (["--benchmark-cprofile", "tottime"], "--benchmark-cprofile: nothing is timed in this run"),
        (["--benchmark-only", "--benchmark-disable"], "Can't have both --benchmark-only and --benchmark-disable"),
        (["-n", "2", "--device", "cpu"], "-n: got it for device cpu, accepted: --device meta, or -n 0"),
    ],
)
def test_a_switch_that_can_not_work_is_refused_before_anything_is_measured(
    session: Callable[..., Ended], tmp_path: Path, arguments: list[str], message: str
) -> None:
    storage = ("--benchmark-storage", str(tmp_path / "store"))
    done = session("-k", "decode", *storage, *arguments)
    assert done.code == pytest.ExitCode.USAGE_ERROR, done.output
    assert message in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--benchmark-autosave", "--benchmark-storage", "README.md"],
            "--benchmark-storage: got README.md, accepted: a wri",
        ),
        (["--benchmark-save=one", "--benchmark-storage", "file://README.md/in"], "got README.md/in, accepted: a writable"),
        (["--benchmark-compare-fail=mean:5%"], "--benchmark-compare-fail: there is nothing to compare with in"),
        (
            ["--benchmark-group-by=param:page"],
            "--benchmark-group-by: got 'param:page', but decode[16] has no parameter",
        ),
    ],
)
def test_a_switch_that_does_not_fit_the_timed_benchmarks_is_refused(
    session: Callable[..., Ended], tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = session(*CPU, "--benchmark-storage", str(tmp_path / "store"), *arguments)
    assert done.code == pytest.ExitCode.USAGE_ERROR, done.output
    assert message in done.output


def test_a_histogram_without_its_packages_is_refused(
    session: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.plugin.switches.find_spec", lambda _: None)
    done = session(*CPU, "--benchmark-histogram")
    assert done.code == pytest.ExitCode.USAGE_ERROR
    assert "--benchmark-histogram: needs pygal and pygaljs, which are not installed" in done.output


def test_an_empty_store_is_a_sentence_and_another_machines_run_outside_the_folder_is_refused(
    session: Callable[..., Ended], tmp_path: Path
) -> None:
    store = ("--benchmark-compare", "--benchmark-autosave", "--benchmark-storage", str(tmp_path / "store"))
    with pytest.warns(PytestBenchmarkWarning, match=r"Can't compare. No benchmark files in"):
        done = session(*CPU, *store)
    assert done.code == 0, done.output
    (saved,) = (tmp_path / "store").rglob("*.json")
    found = json.loads(saved.read_text())
    assert found["benchmarks"][0]["extra_info"]["dsocr_bench"]["stage"] == "decode"
    found["machine_info"]["node"] = "elsewhere"
    saved.write_text(json.dumps(found))
    done = session(*CPU, *store)
    assert done.code == pytest.ExitCode.USAGE_ERROR, done.output
    assert "is of another machine" in done.output


def test_disabled_times_fail_where_a_baseline_is_required(session: Callable[..., Ended]) -> None:
    done = session(
        *("--device", "cpu", "--preset", "tiny", "--seq-len", "256", "-k", "prefill"),
        *("--benchmark-disable", "--require-baseline"),
    )
    assert done.code == 1, done.output
    line = "account: measured 1 of 1 exact result, 0 of 1 time; 1 time disabled (prefill[256]): --benchmark-disable"
    assert line in done.output
    assert "baseline: FAILED: 1 equal, 1 unmeasured" in done.output
    assert "prefill[256]` unmeasured: its time was not measured, disabled: --benchmark-disable" in done.output


class BreaksTheStorage:
    """Lets the storage fail when a run is saved, as a disk or a server does."""

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        storage = item.config.pluginmanager.get_plugin("pytest-benchmark").storage
        storage.path = ROOT / "README.md"


def test_a_storage_that_fails_at_the_end_costs_the_run_nothing(session: Callable[..., Ended], tmp_path: Path) -> None:
    store = ("--benchmark-autosave", "--benchmark-storage", str(tmp_path / "store"))
    done = session(*CPU, *store, plugins=(BreaksTheStorage(),))
    assert done.code == 1, done.output
    assert "--benchmark-storage: not written: Not a directory: " in done.output
    assert "Traceback" not in done.output
    assert [timing["stage"] for timing in done.records[0]["timings"]] == ["decode"]


@pytest.mark.parametrize("switch", ["--fixtures", "--fixtures-per-test", "--collect-only"])
def test_a_session_that_only_shows_is_not_judged(session: Callable[..., Ended], tmp_path: Path, switch: str) -> None:
    path = tmp_path / "times.json"
    done = session(switch, "--require-baseline", "--benchmark-json", str(path))
    assert done.code == 0, done.output
    for word in ("baseline:", "INCOMPLETE", "account:"):
        assert word not in done.output
    assert not path.exists()


@pytest.mark.parametrize("switch", ["--setup-plan", "--setup-only", "--setuponly"])
def test_a_switch_that_calls_no_test_is_named(session: Callable[..., Ended], switch: str) -> None:
    done = session("-k", "decode", switch)
    assert done.code == pytest.ExitCode.NO_TESTS_COLLECTED, done.output
    name = "--setup-plan" if "plan" in switch else "--setup-only"
    assert f"measured 0 of 1 exact result; 1 exact result disabled (decode[16]): {name}\n" in done.output


def test_times_without_pytest_benchmark_are_refused_and_exact_results_are_not(session: Callable[..., Ended]) -> None:
    done = session(*CPU, "-p", "no:benchmark")
    assert done.code == pytest.ExitCode.USAGE_ERROR, done.output
    assert "pytest-benchmark: is not loaded (-p no:benchmark, " in done.output
    assert "and decode[16] needs it for its time; accepted: with the plugin, or --device meta" in done.output
    assert session("-k", "decode", "-p", "no:benchmark").code == 0


class AsksForMore:
    """Lets the benchmarks need a fixture that nobody provides."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.fixturenames.append("clean_room")


def test_a_missing_fixture_is_named_as_the_reason(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode", plugins=(AsksForMore(),))
    assert "1 exact result failed (decode[16]): fixture 'clean_room' not found\n" in done.output


class TakesTheTerminal:
    """Keeps the terminal to itself at the end, as a plugin with a display of its own does."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")


def test_a_run_without_a_terminal_still_has_table_verdict_and_record(session: Callable[..., Ended]) -> None:
    done = session("-k", "decode", plugins=(TakesTheTerminal(),))
    assert done.code == 0, done.output
    assert "closed form against the real model" in done.output
    assert "baseline: nothing was judged: 1 new" in done.output
    assert len(done.records) == 1


def test_two_runs_of_one_process_within_a_second_are_two(tmp_path: Path) -> None:
    first = run_id_in(tmp_path)
    (tmp_path / first).mkdir()
    second = run_id_in(tmp_path)
    (tmp_path / second).mkdir()
    assert len({first, second, run_id_in(tmp_path)}) == 3


def test_workers_spread_exact_benchmarks_and_the_controller_gathers_one_run(
    session: Callable[..., Ended], tmp_path: Path
) -> None:
    alone = session("-k", "decode or prefill")
    path = tmp_path / "exact.json"
    done = session("-k", "decode or prefill", "-n", "2", "--benchmark-json", str(path))
    assert (alone.code, done.code) == (0, 0), done.output
    assert "prefill  16" in done.output
    assert "baseline: nothing was judged: 2 new" in done.output
    one, two = done.records
    for found in (one, two):  # which benchmark a call was first run for depends on the worker
        found["points"] = [point | {"reused": None} for point in found["points"]]
    for key in ("points", "account", "model", "execution", "framework"):
        assert one[key] == two[key], key
    assert {judged["benchmark"] for judged in two["gate"]["judged"]} == {"prefill[16]", "decode[16]"}
    assert len(two["gate"]["judged"]) == 2
    assert len(json.loads(path.read_text())["benchmarks"]) == 2
