"""The nox sessions of the project: `nox -l` lists them, `nox -s NAME -- ARGUMENTS` runs one."""

import re
import shutil
import sys
from typing import Any

import nox
from nox.command import CommandFailed

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
UV = "uv==0.13.9"
COSMIC_RAY = "cosmic-ray==8.7.0"
END_S = 30.0
"""Time for an interrupted command to write what is finished and to clean up; nox would end it after 0.3 s."""


def require(session: nox.Session, *needs: str) -> None:
    """End the session immediately, with a one-sentence reason, if this machine lacks one of `needs`: gpu, or a tool."""
    problem = session.run("python", "-m", "fixtures.config.needs", *needs, silent=True, success_codes=(0, 2), log=False)
    if problem:
        session.error(str(problem).strip())


def device_extra(session: nox.Session) -> str:
    """The extra required by the --device option: [gpu], which queries the driver, for CUDA.

    Ends the session immediately if CUDA is requested and there is no CUDA device.
    """
    if not re.search(r"--device[= ]cuda\b", " ".join(session.posargs)):
        return ""
    if session.name != "baseline":  # baselines of another machine can be shown on this one
        require(session, "gpu")
    return "[gpu]"


def install(session: nox.Session, extras: str = "") -> None:
    """Install the project with `extras` at their pins, unless nox runs in an existing environment (--no-venv).

    Ends the session immediately, with a one-sentence reason, if constraints.txt is damaged or does not fit pyproject.toml.
    """
    if session.virtualenv.is_sandboxed:
        # run by nox's own interpreter: the session's environment is still empty
        check = (sys.executable, "-m", "fixtures.config.lock", "--check", "--offline")
        problem = session.run(*check, silent=True, success_codes=(0, 1, 2), log=False, external=True)
        if problem:
            session.error(str(problem).strip())
        session.install("--quiet", "--constraint", "constraints.txt", "--editable", f".{extras}")


def run(session: nox.Session, *words: str, **options: Any) -> None:
    """Run a command that nox ends with if it fails: its exit code tells a wrong option from a failed comparison.

    When interrupted, it has time to print partial results and to clean up.
    """
    try:
        session.run(*words, interrupt_timeout=END_S, **options)
    except CommandFailed as failed:
        sys.exit(getattr(failed, "return_code", None) or 1)  # earlier releases of nox do not say


def run_module(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a command of the project; its progress goes to stderr, so that its output can be piped to a file."""
    run(session, "python", "-m", name, *arguments, stderr=None)


def profile(session: nox.Session) -> None:
    """Run the profiler that the session is named after."""
    if "--help" not in session.posargs:
        require(session, "gpu", session.name)
    install(session, "[gpu]")
    run_module(session, "fixtures.profiling.nsight", session.name, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the CPU, one process per core."""
    install(session, "[tests]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    install(session, "[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with strict mypy."""
    install(session, "[tests,types]")
    session.run("mypy")


@nox.session
def lock(session: nox.Session) -> None:
    """Pin every package in constraints.txt, keeping valid pins: -- --upgrade, --upgrade-package NAME or --check."""
    if session.virtualenv.is_sandboxed:
        session.install("--quiet", UV, "packaging", silent=True, success_codes=(0, 1))
        if shutil.which("uv", path=session.bin) is None:
            session.error(f"needs {UV}, which cannot be installed here: check the network, then try again")
    run_module(session, "fixtures.config.lock", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site, site/index.html, without network; a broken link or anchor is an error."""
    install(session, "[docs]")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # suppress the notice on the future of mkdocs
    session.run("mkdocs", "build", "--strict", "--config-file", "docs/site/mkdocs.yml", *session.posargs, env=quiet)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare closed form and real model; takes the options of `pytest benchmarks`."""
    install(session, device_extra(session))
    run(session, "pytest", "benchmarks", *session.posargs)


@nox.session
def static_compute(session: nox.Session) -> None:
    """Count parameters and FLOPs of a page by stage and block with torch's own counter; -- --help lists options."""
    install(session)
    run(session, "python", "-m", "fixtures.cross_check.static_compute", *session.posargs)


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Time the full size on the CUDA device and require stored baselines (-- --no-require-baseline: only if present)."""
    require(session, "gpu")
    install(session, "[gpu]")
    free = "--no-require-baseline"
    held = [] if free in session.posargs else ["--require-baseline"]
    given = (argument for argument in session.posargs if argument != free)
    run(session, "pytest", "benchmarks", "--device", "cuda", *held, *given)


@nox.session
def nsys(session: nox.Session) -> None:
    """List the top kernels of one decode window by time with Nsight Systems; -- --help lists options."""
    profile(session)


@nox.session
def ncu(session: nox.Session) -> None:
    """Place the kernels of one decode window on the roofline with Nsight Compute; -- --help lists options."""
    profile(session)


@nox.session
def calibrate(session: nox.Session) -> None:
    """Measure and store this device's ceilings (product, copy, launch): -- cpu or cuda."""
    if "cuda" in session.posargs:
        require(session, "gpu")
    install(session)
    run(session, "python", "-m", "fixtures.machine.calibration", *session.posargs)


@nox.session
def qualify(session: nox.Session) -> None:
    """Measure all that makes a machine a known device, in pieces of --minutes that resume: -- --device cpu or cuda."""
    install(session, device_extra(session))
    run_module(session, "fixtures.qualify", *(session.posargs or ["--help"]))


@nox.session
def baseline(session: nox.Session) -> None:
    """Manage stored baselines: -- refresh, show, diff [REF] or check; each has --help."""
    install(session, device_extra(session))
    run_module(session, "fixtures.baseline.command", *(session.posargs or ["--help"]))


@nox.session
def report(session: nox.Session) -> None:
    """Make report pages from records: -- RUN_DIR, -- RUN_A RUN_B side by side, or a folder of runs for its index."""
    install(session)
    run(session, "python", "-m", "fixtures.report", *(session.posargs or ["--help"]))


@nox.session
def explain(session: nox.Session) -> None:
    """Say why a run is slower than another, stage by stage and operator by operator: -- RUN_A RUN_B."""
    install(session)
    run_module(session, "fixtures.explain", *(session.posargs or ["--help"]))


@nox.session
def history(session: nox.Session) -> None:
    """Find where times step over many runs, and why: -- RESULTS... [--fail-on work,efficiency --within 7]."""
    install(session)
    run_module(session, "fixtures.history", *(session.posargs or ["--help"]))


@nox.session
def merge(session: nox.Session) -> None:
    """Merge separate runs into one: -- RUN_DIR... [--whole]; fails if they disagree."""
    install(session)
    run(session, "python", "-m", "fixtures.distributed.merge", *(session.posargs or ["--help"]))


@nox.session
def fleet(session: nox.Session) -> None:
    """Run the benchmarks on many workers with Ray: -- [--address ADDRESS] and the options of `pytest benchmarks`."""
    install(session, "[fleet]")
    run(session, "python", "-m", "fixtures.distributed", *session.posargs)


@nox.session
def noise(session: nox.Session) -> None:
    """Measure the noise of one build over fresh processes, cold and warm; -- --help lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.noise", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Test whether this checkout is slower than another commit: -- BASE_REF [--threshold 5]."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.compare_builds", *(session.posargs or ["--help"]))


@nox.session
def drift(session: nox.Session) -> None:
    """Compare the cost of another release: -- transformers==5.24.0 [torch==2.14.1]; --device cpu adds its time."""
    install(session, device_extra(session))
    run_module(session, "fixtures.drift", *(session.posargs or ["--help"]))


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the exact suite on every pair of known releases and write docs/verified-releases.md; takes half an hour."""
    install(session)
    run_module(session, "fixtures.drift.pairs", *session.posargs)


@nox.session
def switches(session: nox.Session) -> None:
    """Try switches of pytest-benchmark and common plugins on the benchmarks, write docs/switches.md; takes ten minutes."""
    install(session)
    run_module(session, "fixtures.plugin.matrix", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Start an engine, or take a running one (-- --url URL), hold its image tokens to the closed form and time it."""
    install(session, "[pages]")
    run_module(session, "fixtures.serving", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Count the same calls with other tools, beside the closed form, and write docs/peers.md; takes ten minutes."""
    install(session)
    run_module(session, "fixtures.peers", *session.posargs)


@nox.session
def scaling(session: nox.Session) -> None:
    """Plot cost against length and views, closed form against measurement; -- --help lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.scaling", *session.posargs)


@nox.session
def backends(session: nox.Session) -> None:
    """Rank execution variants against the floor: eager, compiled, CUDA graphs; -- --help lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.profiling.backends", *session.posargs)


@nox.session
def predict_study(session: nox.Session) -> None:
    """Compare predicted and measured time of every stage, predicted from microbenchmarks of single operators."""
    install(session, device_extra(session))
    run_module(session, "fixtures.profiling.predict_study", *session.posargs)


@nox.session
def gate_study(session: nox.Session) -> None:
    """Measure false alarms and detections of the time gate and two common gates; takes under an hour."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.gate_study", *session.posargs)


@nox.session
def history_study(session: nox.Session) -> None:
    """Simulate histories from recorded noise: how soon a step is found, false steps, labels; takes half an hour."""
    install(session)
    run_module(session, "fixtures.history.history_study", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try every reader on damaged files for -- --minutes 10, keep what shows a problem, write docs/proof.md."""
    install(session, "[tests]")
    run_module(session, "fixtures.proof.fuzz", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, interrupt and starve every long command, look at what is left, write docs/proof.md; takes half an hour."""
    install(session, "[tests]")
    run_module(session, "fixtures.proof.faults", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests under coverage.py, list what they do not reach, write it to docs/proof.md; takes half an hour."""
    install(session, "[tests]")
    run_module(session, "fixtures.proof.covered", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the code in small ways, count which changes the tests notice, write docs/proof.md; takes hours, resumes."""
    install(session, "[tests]")
    if session.virtualenv.is_sandboxed:
        session.install("--quiet", "--constraint", "constraints.txt", COSMIC_RAY)
    run_module(session, "fixtures.proof.mutants", *session.posargs)


@nox.session
def full_size(session: nox.Session) -> None:
    """Run a page on the full-size model in float32 on the CPU (needs 16 GB of memory and minutes)."""
    install(session, "[tests]")
    session.run("pytest", "-m", "full_size", *session.posargs)


@nox.session
def workflows(session: nox.Session) -> None:
    """Check .github/workflows with the actionlint on PATH, which also runs shellcheck if installed."""
    require(session, "actionlint")
    session.run("actionlint", external=True)
