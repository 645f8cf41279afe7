"""The workflows of .github: what they may do, what they run, and on whose behalf."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_only_the_job_that_proposes_a_baseline_may_write_and_it_runs_nothing_of_the_project() -> None:
    writers = {name: job for name, job in ALL_JOBS.items() if "write" in job["permissions"].values()}
    assert set(writers) == {"baseline.propose"}
    job = writers["baseline.propose"]
    assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
    assert not any(re.search(r"\b(nox|pip|python|pytest)\b", script) for script in scripts(job))


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


def test_the_gpu_runner_is_held_to_a_baseline_and_leaves_its_results() -> None:
    job = ALL_JOBS["gpu.bench_gpu"]
    (command,) = [script for script in scripts(job) if "nox" in script]
    for part in ("-s bench_gpu", "--require-baseline", "--report-format github", "--junitxml"):
        assert part in command
    assert any("upload-artifact" in step.get("uses", "") for step in job["steps"])
