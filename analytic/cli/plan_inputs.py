"""What a plan is made from, as its command line gives it: model, kernels, device, memory, pages and times.

A record and a file of rates hold the preset, the dtype and more; what they hold need not be repeated, and a contradiction
is refused with both values.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from analytic.cli.arguments import (
    ATTENTION,
    DTYPE,
    EXPERT,
    PRESET,
    PROMPT_TOKENS,
    SEQ_LEN,
    positions_of,
    selected_page,
    selected_rule,
)
from analytic.cli.pages import FoundPages, found_pages
from analytic.cli.planned_device import datasheet_of, memory_of, rates_of
from analytic.core.checks import whole
from analytic.core.execution import Execution
from analytic.io.documents import naming
from analytic.models.deepseek_ocr.workload import PageFormat, VisionWorkload
from analytic.models.registry import load_spec
from analytic.models.spec import ModelSpec
from analytic.planning.mix import Loop, Mix
from analytic.planning.page_counts import by_views, counted, mix_of, read_mix
from analytic.planning.recorded_times import RecordedChoices, recorded_choices, recorded_times
from analytic.planning.times import Times, floor_times, predicted_times
from analytic.prediction.hardware import DevicePeaks
from analytic.prediction.rates import Rates

DEFAULTS: Final = {"preset": PRESET, "dtype": DTYPE, "attention": ATTENTION, "experts": EXPERT}
NEEDS_TIMES: Final = (
    *("times", "mix", "price_per_hour", "output_dir", "token_s", "first_token_s", "pages_per_s", "loop_share"),
    *("images", "pdf"),
)
"""Options of which each asks for pages/s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the record or the rates of a command line hold; `choices` by the name of the option, as `file` says them."""

    file: Path
    choices: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanInputs:
    """A plan's model, kernels, device, memory, pages and source of times; None where there is none."""

    spec: ModelSpec
    run: Execution
    mix: Mix
    device: str | None
    memory_bytes: int
    times: Times | None
    files: FoundPages | None


def plan_inputs(args: argparse.Namespace) -> PlanInputs:
    """The inputs of a plan. Raises ValueError naming the option that is missing, wrong or contradicted."""
    record = None if args.record is None else _record(args)
    known = rates_of(args)
    held = None
    if record is not None:
        held = Held(file=record.file, choices=record.choices)
    elif known is not None:
        path, found = known
        held = Held(file=path, choices={"preset": found.model_variant, "dtype": found.dtype})
    preset, dtype, attention, experts = (choice(args, name, held) for name in DEFAULTS)
    spec = spec_of(args, preset, held)
    # on a serving device SDPA is one fused kernel
    run = Execution(device="cuda", attention=attention, experts=experts, dtype=dtype)  # type: ignore[arg-type]  # checked there
    datasheet = datasheet_of(args, known)
    memory_bytes = memory_of(args, datasheet, record)
    files = given_files(args)
    mix = selected_mix(args, spec, record, files)
    device = None if datasheet is None else datasheet.name
    return PlanInputs(
        spec=spec,
        run=run,
        mix=mix,
        device=device,
        memory_bytes=memory_bytes,
        times=_times(args, mix, spec, run, datasheet, known, record),
        files=files,
    )


def given_files(args: argparse.Namespace) -> FoundPages | None:
    """The pages of `--images` and `--pdf`; None if neither is given."""
    if not (args.images or args.pdf):
        return None
    _require_files_alone(args)
    return found_pages(args)


def files_lines(files: FoundPages | None) -> list[str]:
    """What the pages of a plan were read from; nothing if not from files."""
    return [] if files is None else [f"read {files.told}", *files.details]


def _record(args: argparse.Namespace) -> RecordedChoices:
    for option in ("times", "rates"):
        if getattr(args, option) is not None:
            raise ValueError(
                f"{option}: got {getattr(args, option)} beside --record, accepted: one of them; sources are never mixed"
            )
    return recorded_choices(args.record)


def choice(args: argparse.Namespace, name: str, held: Held | None) -> str:
    """The value of an option: as given, else as held, else the default. Raises ValueError if the first two differ."""
    given: str | None = getattr(args, name)
    kept = None if held is None else held.choices.get(name)
    if held is not None and kept is not None and given not in (None, kept):
        raise ValueError(
            f"{name}: got {given}, accepted: {kept}, which {held.file} holds; leave --{name} out, or give a file of {given}"
        )
    return given or kept or DEFAULTS[name]


def spec_of(args: argparse.Namespace, preset: str, held: Held | None) -> ModelSpec:
    """The dimensions of `preset`. Raises ValueError, naming the file if it is a file that names the preset."""
    with nullcontext() if held is None or args.preset is not None else naming(held.file):
        return load_spec(preset)


def selected_mix(
    args: argparse.Namespace, spec: ModelSpec, record: RecordedChoices | None, files: FoundPages | None
) -> Mix:
    """The mix, the pages of files, or the single page; text alone has SEQ_LEN positions by default."""
    known, new_tokens = spec.pages, args.new_tokens
    rule = selected_rule(args, known)
    prompt = PROMPT_TOKENS if args.prompt_tokens is None else args.prompt_tokens
    whole("prompt_tokens", prompt, least=0)
    seq_len = args.seq_len
    if files is not None:
        sizes = counted((page.width_px, page.height_px, page.name) for page in files.pages)
        mix = mix_of(sizes, seq_len=seq_len, prompt_tokens=prompt, new_tokens=new_tokens, crop_rule=rule, known=known)
    elif args.mix is not None:
        from_file = len(args.mix) == 1 and "=" not in args.mix[0]
        texts = read_mix(Path(args.mix[0])) if from_file else args.mix
        try:
            counts = {"seq_len": seq_len, "prompt_tokens": prompt, "new_tokens": new_tokens}
            mix = Mix.parsed(texts, **counts, crop_rule=rule, known=known)
        except ValueError as error:
            raise ValueError(f"{error}; in {args.mix[0]}") if from_file else error from error
        mix = by_views(mix, known) if from_file else mix
    else:
        page = selected_page(args, known)
        if page is None and record is not None and not args.no_image:
            page = _recorded_page(record, known)
        if record is not None and seq_len is None and args.prompt_tokens is None:
            seq_len = _recorded_length(record)
        if seq_len is None and page is None and args.prompt_tokens is None:
            seq_len = SEQ_LEN
        seq_len = positions_of(page, seq_len, prompt_tokens=prompt)
        mix = Mix.of_one(page, seq_len=seq_len, new_tokens=new_tokens, crop_rule=rule)
    mix = _with_loop(args, mix, spec)
    for part in mix.classes:
        # the first new token comes from the prefill, and the last is not fed back
        given = f"new_tokens {part.new_tokens}, of which the last is not fed back,"
        spec.require_window(f"seq_len of {part.page.label}", part.page.seq_len, decoded=part.new_tokens - 1, given=given)
    return mix


def _require_files_alone(args: argparse.Namespace) -> None:
    for option in ("mix", "crop_grid", "image_size", "image", "mode", "no_image"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise ValueError(
                f"{option}: got it beside --images or --pdf, accepted: one source of pages; leave --{name} out"
            )


def _with_loop(args: argparse.Namespace, mix: Mix, spec: ModelSpec) -> Mix:
    window = spec.text.max_position_embeddings
    if args.loop_share is None:
        if args.loop_tokens is not None:
            raise ValueError(
                f"loop_tokens: got {args.loop_tokens} without --loop-share, accepted: both, such as --loop-share 0.05"
            )
        return mix
    tokens = window if args.loop_tokens is None else args.loop_tokens
    return Mix(
        pages=mix.pages,
        new_tokens=mix.new_tokens,
        crop_rule=mix.crop_rule,
        loop=Loop(share=args.loop_share, tokens=tokens, window=window),
    )


def _recorded_length(record: RecordedChoices) -> int | None:
    """The only length of prefill that was timed; None if there is none. Raises ValueError for several."""
    lengths = record.points("prefill")
    if len(lengths) > 1:
        raise ValueError(
            f"seq_len: got none, and {record.file} timed prefill at {', '.join(lengths)}, accepted: one of them; choose it "
            f"with --seq-len"
        )
    return int(lengths[0]) if lengths else None


def _recorded_page(record: RecordedChoices, known: PageFormat) -> VisionWorkload | None:
    """The only page whose vision was timed; None if there is none. Raises ValueError for several."""
    pages = record.points("vision")
    if len(pages) > 1:
        raise ValueError(
            f"crop_grid: got none, and {record.file} timed vision of {', '.join(pages)}, accepted: some of them; choose "
            f"one with --crop-grid or --mode, or several with --mix"
        )
    return known.of_label(pages[0]) if pages else None


def _times(
    args: argparse.Namespace,
    mix: Mix,
    spec: ModelSpec,
    run: Execution,
    datasheet: DevicePeaks | None,
    known: tuple[Path, Rates] | None,
    record: RecordedChoices | None,
) -> Times | None:
    """The selected source of times; the floor by default if there is a datasheet; None if only memory is planned."""
    device = None if datasheet is None else datasheet.name
    if record is not None:
        return recorded_times(args.record, mix, spec, run, device=device)
    if known is not None:
        path, found = known
        return predicted_times(spec, run, found, file=str(path), device=device)
    wanted = any(getattr(args, name) not in (None, []) for name in NEEDS_TIMES) or args.devices != 1
    if datasheet is not None:
        return floor_times(spec, run, datasheet) if wanted or datasheet.flops_per_s(run.dtype) is not None else None
    if wanted:
        raise ValueError(
            "--on: got none, accepted: a device with a datasheet for the floor, such as --on h200; or give --memory-gb "
            "with --times predicted --rates FILE, or --record PATH"
        )
    return None
