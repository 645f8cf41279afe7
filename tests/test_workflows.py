"""The workflows of .github: what they may do, what they run, and on whose behalf."""

import argparse
import ast
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.baseline.stored import find
from fixtures.config.points import benchmarks
from fixtures.config.pytest_options import ArgparseGroups, add_options
from fixtures.config.run_options import RunOptions
from fixtures.config.stages import BenchmarkId

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"
LOADED: dict[str, dict[Any, Any]] = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}


def triggers(workflow: dict[Any, Any]) -> set[str]:
    """What starts a workflow: `on`, which YAML 1.1 reads as true."""
    return set(workflow[True])


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workflow in LOADED.items():
        for job, found in workflow["jobs"].items():
            yield f"{name}.{job}", found


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def sessions_named(text: str) -> set[str]:
    """Every NAME of `nox -s NAME NAME -- ...`."""
    found = re.findall(r"\bnox (?:--no-venv )?-s ((?:\w+ )*\w+)", text)
    return {name for names in found for name in names.split()}


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "nox.session" for one in node.decorator_list)
    }


ALL_JOBS = dict(jobs())
every_job = pytest.mark.parametrize("job", ALL_JOBS.values(), ids=ALL_JOBS)


def test_there_are_workflows_for_pushes_gpus_nights_and_baselines() -> None:
    assert set(LOADED) == {"ci", "gpu", "nightly", "baseline"}
    assert {"push", "pull_request"} <= triggers(LOADED["ci"])
    assert "pull_request" in triggers(LOADED["gpu"])
    assert "schedule" in triggers(LOADED["nightly"])
    assert triggers(LOADED["baseline"]) == {"workflow_dispatch"}


def test_every_session_that_is_named_exists() -> None:
    existing = sessions()
    assert "bench_gpu" in existing
    for path in (*FILES, ROOT / "README.md"):
        named = sessions_named(path.read_text(encoding="utf-8"))
        assert named, path
        assert named <= existing, path
    assert sessions_named("nox --no-venv -s lint types\n`nox -s bench -- --seq-len 8`") == {"lint", "types", "bench"}


def test_actions_are_pinned_to_commits_with_their_version_beside() -> None:
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" not in line:
                continue
            found = re.fullmatch(r"\s*(?:- )?uses: (actions/[a-z-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
            assert found, f"{path.name}: {line}"
            pins.setdefault(found[1], set()).add(found[2])
    assert pins
    assert [action for action, versions in pins.items() if len(versions) > 1] == []


@pytest.mark.parametrize("name", LOADED)
def test_nothing_is_permitted_that_a_job_does_not_ask_for(name: str) -> None:
    workflow = LOADED[name]
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in triggers(workflow)
    for job in workflow["jobs"].values():
        assert job["permissions"]["contents"] in ("read", "write")


WRITERS = {
    "baseline.propose": {"contents": "write", "pull-requests": "write"},
    "nightly.canary_issue": {"contents": "read", "issues": "write"},
}


def test_only_jobs_that_run_nothing_of_the_project_may_write() -> None:
    writers = {name: job["permissions"] for name, job in ALL_JOBS.items() if "write" in job["permissions"].values()}
    assert writers == WRITERS
    for name in writers:
        assert not any(re.search(r"\b(nox|pip|python|pytest)\b", script) for script in scripts(ALL_JOBS[name])), name


def test_a_night_runs_what_other_runs_reuse() -> None:
    whole = "-s bench -- --device meta --no-reuse --require-baseline -m 'not speed'"
    assert any(whole in script for script in scripts(ALL_JOBS["nightly.cpu"]))


def test_the_canary_prices_the_newest_releases_from_the_pins() -> None:
    install, drift, _ = scripts(ALL_JOBS["nightly.canary"])
    assert "install --quiet -c constraints.txt" in install
    assert "nox --no-venv -s drift -- transformers torch --output-dir results" in drift
    job = ALL_JOBS["nightly.canary"]
    assert job["outputs"] == {"drift": "${{ steps.drift.outcome }}"}
    assert [step["run"] for step in job["steps"] if step.get("id") == "drift"] == [drift]
    assert any("upload-artifact" in step.get("uses", "") for step in job["steps"])


def test_the_history_gathers_what_the_nights_before_have_kept(tmp_path: Path) -> None:
    job = ALL_JOBS["nightly.history"]
    assert job["permissions"] == {"actions": "read", "contents": "read"}
    assert set(job["needs"]) == {"cpu", "cuda"}
    _, gather, judge = scripts(job)
    assert judge == ("nox --no-venv -s history -- artifacts --fail-on work,efficiency --within 7 --report-format github")
    steps = [step for name in ("cpu", "cuda") for step in ALL_JOBS[f"nightly.{name}"]["steps"]]
    kept = {step["with"]["name"] for step in steps if "name" in step.get("with", {})}
    assert kept == {"nightly-cpu", "nightly-cuda"}
    assert all(name in gather for name in kept)
    for name in ("cpu", "cuda"):
        assert any("-s bench -- --device" in script for script in scripts(ALL_JOBS[f"nightly.{name}"]))
    (tmp_path / "gh").write_text(
        '#!/usr/bin/env bash\nif [ "$2" = list ]; then printf "12\\n11\\n"; exit; fi\n'
        '[ "$3 $5" = "11 nightly-cuda" ] && exit 1\nmkdir -p "$7" && echo "{}" > "$7/record.json"\n'
    )
    (tmp_path / "gh").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BRANCH": "main"}
    command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", gather)
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert sorted(path.parent.name for path in tmp_path.rglob("record.json")) == [
        "11-nightly-cpu", "12-nightly-cpu", "12-nightly-cuda"]  # fmt: skip
    assert done.stdout == "run 11 has no nightly-cuda\n"


REPORT = """# Drift: transformers torch

```
UNDESCRIBED: no profile describes these releases; router_weight_dtype explains all changes
base: transformers 5.24.0, torch 2.13.0; head: transformers 5.25.0, torch 2.16.1; 40 cases
```
"""
GH = """#!/usr/bin/env bash
if [ "$2" = list ]; then cat "$RUNNER_TEMP/titles"; exit; fi
printf '%s\\n' "$@" > "$RUNNER_TEMP/created"; cat "${@: -1}" > "$RUNNER_TEMP/issue"
"""


@pytest.fixture
def issue_of(tmp_path: Path) -> Callable[..., tuple[str, str] | None]:
    """Title and body of the issue that the canary opens: `report` is its drift.md, `titles` are those of open issues."""

    def run(report: str | None, *titles: str) -> tuple[str, str] | None:
        folder = tmp_path / "results" / "drift-20260101-000000-1"
        folder.mkdir(parents=True)
        folder.with_name("drift.txt").write_text("installing transformers torch\ndrift: torch: no such release\n")
        if report is not None:
            (folder / "drift.md").write_text(report)
        (tmp_path / "titles").write_text("".join(f"{title}\n" for title in titles))
        (tmp_path / "gh").write_text(GH)
        (tmp_path / "gh").chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(tmp_path),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        }
        (script,) = scripts(ALL_JOBS["nightly.canary_issue"])
        command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        if not (tmp_path / "created").exists():
            return None
        given = (tmp_path / "created").read_text().splitlines()
        return given[given.index("--title") + 1], (tmp_path / "issue").read_text()

    return run


def test_the_canary_opens_an_issue_with_its_report_named_after_the_releases(issue_of: Callable) -> None:
    assert issue_of(REPORT, "Drift: transformers 5.25.0, torch 2.16.0") == (
        "Drift: transformers 5.25.0, torch 2.16.1",
        REPORT,
    )


def test_the_canary_opens_no_second_issue_of_one_title(issue_of: Callable) -> None:
    assert issue_of(REPORT, "another", "Drift: transformers 5.25.0, torch 2.16.1") is None


def test_the_canary_reports_what_it_said_last_where_it_has_no_report(issue_of: Callable) -> None:
    title, body = issue_of(None)
    assert title == "Drift: the newest releases can not be compared"
    assert "drift: torch: no such release" in body


@every_job
def test_a_job_ends_keeps_no_credentials_and_quotes_what_it_is_given(job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 120
    for step in job["steps"]:
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    for script in scripts(job):
        assert "${{" not in script  # what others choose, such as the name of a branch, goes by way of the environment
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_nothing_from_a_fork_runs_on_the_gpu_runner() -> None:
    on_gpu = {name: job for name, job in ALL_JOBS.items() if "self-hosted" in str(job["runs-on"])}
    assert set(on_gpu) == {"gpu.bench_gpu", "gpu.compare", "nightly.cuda", "baseline.measure"}
    for name, job in on_gpu.items():
        if "pull_request" in triggers(LOADED[name.partition(".")[0]]):
            assert SAME_REPOSITORY in job["if"], name
            assert job["environment"] == "gpu", name
        else:
            assert "environment" in job or "default_branch" in job["if"], name


SELECTION = "@.github/gpu.selection"


def test_gate_and_refresh_of_the_gpu_runner_take_one_selection() -> None:
    (gate,) = [script for script in scripts(ALL_JOBS["gpu.bench_gpu"]) if "nox" in script]
    (refresh,) = [script for script in scripts(ALL_JOBS["baseline.measure"]) if "refresh" in script]
    assert f"-s bench_gpu -- {SELECTION} " in gate
    assert f'if [ "$DEVICE" = cuda ]; then selection=({SELECTION}); fi' in refresh
    assert 'refresh --device "$DEVICE" "${selection[@]}"' in refresh
    # nothing beside the file selects what is measured, or how it runs
    flags = {word for text in (gate, refresh) for word in re.findall(r"--[a-z][a-z-]+", text)}
    own = {"--no-venv", "--require-baseline", "--report-format", "--junitxml", "--device", "--preset"}
    assert flags == own


def test_the_selection_of_the_gpu_runner_has_exact_results_that_are_stored() -> None:
    words = (ROOT / ".github" / "gpu.selection").read_text(encoding="utf-8").splitlines()
    parser = argparse.ArgumentParser()
    add_options(ArgparseGroups(parser))
    given = vars(parser.parse_args(["--device", "meta", *words]))
    options = RunOptions.parsed(lambda flag: given[flag.removeprefix("--").replace("-", "_")])
    names = {str(BenchmarkId(stage, point.label)) for stage, point in benchmarks(options)}
    baseline = find("meta", options.spec.model_variant)
    assert baseline is not None
    assert any(name.startswith("end_to_end") for name in names)
    assert names <= {name for one in baseline.exact for name in one.points}


@pytest.mark.parametrize(
    ("device", "told"),
    [("meta", "--device meta --preset tiny"), ("cuda", f"--device cuda {SELECTION}")],
)
def test_a_refresh_by_hand_measures_exact_results_or_the_selection(tmp_path: Path, device: str, told: str) -> None:
    (tmp_path / "nox").write_text('#!/usr/bin/env bash\nprintf "%s " "$@" >> "$TOLD"; echo >> "$TOLD"\n')
    (tmp_path / "nox").chmod(0o755)
    (script,) = [script for script in scripts(ALL_JOBS["baseline.measure"]) if "refresh" in script]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TOLD": str(tmp_path / "told"),
        "DEVICE": device,
        "PRESET": "tiny",
    }
    command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "told").read_text().splitlines()[0] == f"--no-venv -s baseline -- refresh {told} "


def test_the_gpu_runner_is_held_to_a_baseline_and_leaves_its_results() -> None:
    job = ALL_JOBS["gpu.bench_gpu"]
    (command,) = [script for script in scripts(job) if "nox" in script]
    for part in ("-s bench_gpu", "--require-baseline", "--report-format github", "--junitxml"):
        assert part in command
    assert any("upload-artifact" in step.get("uses", "") for step in job["steps"])
