"""Measured times for planning: medians of a record, at its batch size. Nothing is interpolated.

A batch passes every stage together, as timed. A decode step is the mean over the tokens decoded after the prefill; later
tokens of a page, with a longer cache, are assumed to take the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from analytic.core.execution import Execution
from analytic.io import shell
from analytic.io.json_text import parsed, read_text
from analytic.io.run_record import RECORD, RecordError
from analytic.io.schemas import kind_of
from analytic.models.deepseek_ocr.workload import BASE_PX, ViewGroup, VisionWorkload
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Mix, PageShare
from analytic.planning.times import Source, require_device

_KERNELS: Final = ("dtype", "attention", "experts")
_MADE: Final = (
    f"the record of a run that was timed on a device, such as one of "
    f"`{shell.pytest('benchmarks', '--device', 'cuda', '--crop-grid', '2x3', '--seq-len', '1024')}`"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedChoices:
    """What a record says of its run, so that a plan need not repeat it; `timed` holds the stages with a time.

    choices       preset, dtype, attention and experts by name
    memory_bytes  of its device; None if the record does not say
    """

    file: Path
    choices: Mapping[str, str]
    device_name: str | None
    memory_bytes: int | None
    timed: tuple[tuple[str, str], ...]

    def points(self, stage: str) -> tuple[str, ...]:
        """The points at which `stage` was timed, each once."""
        return tuple(dict.fromkeys(point for timed, point in self.timed if timed == stage))


def recorded_choices(path: Path) -> RecordedChoices:
    """What the record in `path`, or of the run in that folder, says of its run. Raises ValueError without times."""
    file = path / "record.json" if path.is_dir() else path
    loaded = _checked(file)
    timed, device = loaded["timed"], loaded["environment"]["device"] or {}
    if timed is None:
        raise ValueError(
            f"record: got {file}, a run on {loaded['execution']['device']} that counted and timed nothing, "
            f"accepted: {_MADE}"
        )
    choices = {"preset": timed["model"]["model_variant"], **{name: timed["execution"][name] for name in _KERNELS}}
    return RecordedChoices(
        file=file,
        choices=choices,
        device_name=device.get("name"),
        memory_bytes=device.get("memory_bytes"),
        timed=tuple((timing["stage"], timing["point"]) for timing in loaded["timings"]),
    )


class RecordedTimes:
    """A `Times` of the medians in a record; `decoded` is the number of tokens that a decode step is the mean of."""

    source: Source = "measured"

    def __init__(self, loaded: Mapping[str, Any], *, file: str) -> None:
        """Read a validated record that has times. Raises ValueError if it timed a stage more than once."""
        self.file: str | None = file
        self.batch_size: int | None = loaded["timed"]["batch_size"]
        self.device_name = (loaded["environment"]["device"] or {}).get("name")
        self._times: dict[str, float] = {}
        self._energy_j: dict[str, float | None] = {}
        self.decoded: int | None = None
        decoded: set[int | None] = set()
        for timing in loaded["timings"]:
            name = f"{timing['stage']}[{timing['point']}]"
            if name in self._times:
                raise ValueError(f"record: got {file}, which timed {name} more than once, accepted: a record of one run")
            self._times[name], self._energy_j[name] = timing["time_s"], timing["energy_j"]
            if timing["stage"] == "decode":
                decoded.add(timing["units"])
                self.decoded = timing["units"]
        try:
            self._labels = _labels_by_views(loaded["points"], self._times)
        except ValueError as error:
            raise ValueError(
                f"record: got {file}, with a page that no model has, accepted: a record of a run; {error}"
            ) from error
        self.backend: str = loaded["timed"]["execution"]["backend"]
        tokens = " or ".join(str(units) for units in sorted(steps for steps in decoded if steps is not None)) or "some"
        self.description = (
            f"measured, medians of {file} on {self.device_name or 'a device without a name'}, {self.backend}, batch "
            f"{self.batch_size}; a decode step is the mean of the first {tokens} after the prefill"
        )

    def vision_s(self, page: PageShare) -> float:
        return 0.0 if page.page is None else self._times[self._vision(page)]

    def prefill_s(self, page: PageShare) -> float:
        return self._times[f"prefill[{page.seq_len}]"]

    def step_s(self, mix: Mix, pages: int) -> float:
        """The mean over batches, each of one shape. Raises ValueError for another batch size than the measured one."""
        if pages != self.batch_size:
            raise ValueError(f"pages: got {pages}, accepted: {self.batch_size}, the batch that was measured")
        return sum(shape.share * self._times[f"decode[{shape.seq_len}]"] for shape in mix.pages)

    def watts(self, page: PageShare) -> dict[str, float | None]:
        """Power drawn in each stage of a page: joules over seconds; None where the device reported no energy."""
        names = {"prefill": f"prefill[{page.seq_len}]", "decode": f"decode[{page.seq_len}]"}
        if page.page is not None:
            names["vision"] = self._vision(page)
        energies = {stage: (self._energy_j.get(name), self._times.get(name)) for stage, name in names.items()}
        return {stage: joules / seconds if joules and seconds else None for stage, (joules, seconds) in energies.items()}

    def missing(self, mix: Mix) -> list[str]:
        """The stages of the mix that were not timed; decode only if there is a token to decode."""
        wanted = [self._vision(shape) for shape in mix.pages if shape.page is not None]
        wanted += [f"prefill[{shape.seq_len}]" for shape in mix.pages]
        wanted += [f"decode[{shape.seq_len}]" for shape in mix.pages if mix.mean_decode_steps]
        return [name for name in dict.fromkeys(wanted) if name not in self._times]

    def _vision(self, page: PageShare) -> str:
        """The stage at the page's label, or at another page with the same views."""
        name = f"vision[{page.label}]"
        if name in self._times or page.page is None:
            return name
        return self._labels.get(page.page.view_groups, name)


def recorded_times(path: Path, mix: Mix, spec: ModelSpec, run: Execution, *, device: str | None) -> RecordedTimes:
    """The times in `path`, a record or the folder of a run.

    Raises ValueError for a file that is not a record, for times of another model, dtype, kernel or device, and for a stage
    of the mix that was not timed, with the command that times it.
    """
    file = path / "record.json" if path.is_dir() else path
    loaded = _checked(file)
    timed = loaded["timed"]
    if timed is None:
        raise ValueError(
            f"record: got {file}, which has no times, accepted: a record of a run with --device cpu or cuda; measure them "
            f"with {_commands('cuda', 1, spec, run, mix.pages, backend='eager')}"
        )
    found = {"preset": timed["model"]["model_variant"], **{name: timed["execution"][name] for name in _KERNELS}}
    planned = {"preset": spec.model_variant, **{name: getattr(run, name) for name in _KERNELS}}
    for field, value in found.items():
        if planned[field] != value:
            raise ValueError(f"{field}: got {planned[field]}, accepted: {value}, which {file} timed; add --{field} {value}")
    times = RecordedTimes(loaded, file=str(file))
    require_device("record", str(file), measured_on=times.device_name, device=device)
    missing = times.missing(mix)
    if missing:
        place = timed["execution"]["device"], timed["batch_size"]
        command = _commands(*place, spec, run, mix.pages, backend=times.backend)
        raise ValueError(
            f"record: got {file}, which did not time {', '.join(missing)}, accepted: a record with every stage of the mix; "
            f"measure them with {command}"
        )
    return times


def _checked(file: Path) -> dict[str, Any]:
    """The record in `file`, in the current version."""
    if not file.is_file():
        raise ValueError(f"record: got {file}, accepted: a record.json, or the folder of a run that has one: {_MADE}")
    try:
        return RECORD.read(file)
    except RecordError as error:
        if (kind := _other_kind(file)) is not None:
            raise ValueError(f"record: got {file}, a file of kind {kind}, accepted: {_MADE}") from error
        raise ValueError(f"record: {error}") from error


def _other_kind(file: Path) -> str | None:
    """The kind of another document of the project; None if the file is not one."""
    try:
        kind = kind_of(parsed(read_text(file)))
    except ValueError:
        return None
    return None if kind == "record" else kind


def _labels_by_views(points: list[Mapping[str, Any]], times: Mapping[str, float]) -> dict[tuple[ViewGroup, ...], str]:
    """The timed vision stage of each page, by its views."""
    found: dict[tuple[ViewGroup, ...], str] = {}
    for point in points:
        name = f"vision[{point['point']}]"
        if point["stage"] == "vision" and point["page"] is not None and name in times:
            found.setdefault(VisionWorkload.of_record(point["page"]).view_groups, name)
    return found


def _commands(
    device: str, batch_size: int, spec: ModelSpec, run: Execution, pages: Sequence[PageShare], *, backend: str
) -> str:
    """The commands whose merged runs time every stage of `pages`: the pages, then the lengths."""
    named = {
        "--device": device,
        "--preset": spec.model_variant,
        "--batch-size": batch_size,
        "--attention": run.attention,
        "--experts": run.experts,
        "--backend": backend,
    }
    words = shell.flags(named, {"--attention": "sdpa", "--experts": "grouped_mm", "--backend": "eager"})
    labels = dict.fromkeys(_point(shape.page) for shape in pages if shape.page is not None)
    lengths = ",".join(str(length) for length in sorted({shape.seq_len for shape in pages}))
    needed = [shell.pytest("benchmarks", *words, "--seq-len", lengths, "-k", "prefill or decode")]
    if labels:  # without a length, the points include every grid and mode
        needed.insert(0, shell.pytest("benchmarks", *words, "-k", " or ".join(f"vision[{label}]" for label in labels)))
    return f"{' and '.join(f'`{command}`' for command in needed)}; `{shell.nox('merge', 'RUN', 'RUN')}` merges the runs"


def _point(page: VisionWorkload) -> str:
    """The point of `pytest benchmarks` with the views of the page."""
    whole_page = replace(page, base_size=BASE_PX, image_size=BASE_PX, grid=None)
    return whole_page.label if page.view_groups == whole_page.view_groups else page.label
