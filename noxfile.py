"""The sessions of the project: `nox -l` lists them, `nox -s NAME -- ARGUMENTS` runs one."""

import re
import shutil
import sys

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
UV = "uv==0.13.9"


def require(session: nox.Session, *needs: str) -> None:
    """End the session at once, in a sentence, where this machine lacks one of `needs`: gpu, or a tool."""
    said = session.run("python", "-m", "fixtures.config.needs", *needs, silent=True, success_codes=(0, 2), log=False)
    if said:
        session.error(str(said).strip())


def device_extra(session: nox.Session) -> str:
    """The extra that the device asked for takes: [gpu], so that the driver can be asked, for CUDA.

    Ends the session at once where it is to run on a CUDA device and there is none.
    """
    if not re.search(r"--device[= ]cuda\b", " ".join(session.posargs)):
        return ""
    if session.name != "baseline":  # what is stored of another machine can be shown on this one
        require(session, "gpu")
    return "[gpu]"


def install(session: nox.Session, extras: str = "") -> None:
    """The project with `extras` at their pins, unless nox runs in an environment that is prepared already (--no-venv).

    Ends the session at once, in a sentence, where constraints.txt is damaged or pyproject.toml asks for something else.
    """
    if session.virtualenv.is_sandboxed:
        # by nox's own interpreter: the session's is still empty
        check = (sys.executable, "-m", "fixtures.config.lock", "--check", "--offline")
        said = session.run(*check, silent=True, success_codes=(0, 1, 2), log=False, external=True)
        if said:
            session.error(str(said).strip())
        session.install("--quiet", "--constraint", "constraints.txt", "--editable", f".{extras}")


def run_module(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a command of the project; its progress, on stderr, stays out of a file that its result is piped to.

    When interrupted it has the time to say what it learnt, and to remove what it made.
    """
    session.run("python", "-m", name, *arguments, stderr=None, interrupt_timeout=30.0)


def profile(session: nox.Session) -> None:
    """Run the profiler that the session is named after."""
    if "--help" not in session.posargs:
        require(session, "gpu", session.name)
    install(session, "[gpu]")
    run_module(session, "fixtures.profiling.nsight", session.name, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the CPU, a process a core."""
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
    """Pin every package in constraints.txt, which keeps what fits: -- --upgrade, --upgrade-package NAME or --check."""
    if session.virtualenv.is_sandboxed:
        session.install("--quiet", UV, "packaging", silent=True, success_codes=(0, 1))
        if shutil.which("uv", path=session.bin) is None:
            session.error(f"needs {UV}, which can not be installed here: check the network, then try again")
    run_module(session, "fixtures.config.lock", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site, site/index.html, that needs no network; a broken link or anchor fails it."""
    install(session, "[docs]")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # a notice on the future of mkdocs, on every build
    session.run("mkdocs", "build", "--strict", "--config-file", "docs/site/mkdocs.yml", *session.posargs, env=quiet)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare closed form and real model; takes the options of `pytest benchmarks`."""
    install(session, device_extra(session))
    session.run("pytest", "benchmarks", *session.posargs)


@nox.session
def static_compute(session: nox.Session) -> None:
    """Parameters and FLOPs of a page by stage and block from torch's own counter; --help after -- lists options."""
    install(session)
    session.run("python", "-m", "fixtures.cross_check.static_compute", *session.posargs)


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Time the full size on the CUDA device, held to stored baselines (-- --no-require-baseline: where there are any)."""
    require(session, "gpu")
    install(session, "[gpu]")
    free = "--no-require-baseline"
    held = [] if free in session.posargs else ["--require-baseline"]
    session.run(
        "pytest", "benchmarks", "--device", "cuda", *held, *(argument for argument in session.posargs if argument != free)
    )


@nox.session
def nsys(session: nox.Session) -> None:
    """Top kernels of one decode window by time, under Nsight Systems; --help after -- lists options."""
    profile(session)


@nox.session
def ncu(session: nox.Session) -> None:
    """Kernels of one decode window on the roofline and their DRAM bytes, under Nsight Compute; --help lists options."""
    profile(session)


@nox.session
def calibrate(session: nox.Session) -> None:
    """Measure what this device reaches (product, copy, launch) and keep it; -- cpu or cuda."""
    if "cuda" in session.posargs:
        require(session, "gpu")
    install(session)
    session.run("python", "-m", "fixtures.machine.calibration", *session.posargs)


@nox.session
def baseline(session: nox.Session) -> None:
    """Accepted results: -- refresh, show, diff [REF] or check; each has --help."""
    install(session, device_extra(session))
    run_module(session, "fixtures.baseline.command", *(session.posargs or ["--help"]))


@nox.session
def report(session: nox.Session) -> None:
    """Pages from records: -- RUN_DIR, -- RUN_A RUN_B side by side, or a folder of runs for its index."""
    install(session)
    session.run("python", "-m", "fixtures.report", *(session.posargs or ["--help"]))


@nox.session
def merge(session: nox.Session) -> None:
    """Join the runs of separate runners into one: -- RUN_DIR... [--whole]; it fails where they disagree."""
    install(session)
    session.run("python", "-m", "fixtures.distributed.merge", *(session.posargs or ["--help"]))


@nox.session
def fleet(session: nox.Session) -> None:
    """Run the benchmarks on many workers with Ray: -- [--address ADDRESS] and the options of `pytest benchmarks`."""
    install(session, "[fleet]")
    session.run("python", "-m", "fixtures.distributed", *session.posargs)


@nox.session
def noise(session: nox.Session) -> None:
    """Time the same build in fresh processes, cold and warm, and keep its spread; --help after -- lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.noise", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Is this checkout slower than another commit? -- BASE_REF [--threshold 5]."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.compare_builds", *(session.posargs or ["--help"]))


@nox.session
def drift(session: nox.Session) -> None:
    """What another release costs: -- transformers==5.24.0 [torch==2.14.1], with --device cpu its time too."""
    install(session, device_extra(session))
    run_module(session, "fixtures.drift", *(session.posargs or ["--help"]))


@nox.session
def frameworks(session: nox.Session) -> None:
    """The exact suite over every pair of known releases: makes docs/verified-releases.md; half an hour, unattended."""
    install(session)
    run_module(session, "fixtures.drift.pairs", *session.posargs)


@nox.session
def scaling(session: nox.Session) -> None:
    """Costs against length and views, closed form beside measurement, with plots; --help after -- lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.scaling", *session.posargs)


@nox.session
def backends(session: nox.Session) -> None:
    """Rank ways to run the model against the floor: eager, compiled, CUDA graphs; --help after -- lists options."""
    install(session, device_extra(session))
    run_module(session, "fixtures.profiling.backends", *session.posargs)


@nox.session
def predict_study(session: nox.Session) -> None:
    """Predicted against measured time of every stage, from microbenchmarks of single operators alone."""
    install(session, device_extra(session))
    run_module(session, "fixtures.profiling.predict_study", *session.posargs)


@nox.session
def gate_study(session: nox.Session) -> None:
    """Measure false alarms and detections of the time gate, beside two usual gates; unattended, under an hour."""
    install(session, device_extra(session))
    run_module(session, "fixtures.ab_testing.gate_study", *session.posargs)


@nox.session
def full_size(session: nox.Session) -> None:
    """Run a page on the full-size model in float32 on the CPU (needs 16 GB of memory and minutes)."""
    install(session, "[tests]")
    session.run("pytest", "-m", "full_size", *session.posargs)


@nox.session
def workflows(session: nox.Session) -> None:
    """Check .github/workflows with the actionlint on PATH, which takes shellcheck along where it is there too."""
    require(session, "actionlint")
    session.run("actionlint", external=True)
