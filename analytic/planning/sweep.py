"""Many points in one call: prefill and decode over arrays of lengths and batches, as costs, a table or files.

The table also has vision over pages, which is not vectorised: one evaluation per page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analytic.core.checks import MOST_STEPS, accept, whole, whole_numbers
from analytic.core.cost import Cost, CostNode
from analytic.core.execution import Execution
from analytic.core.op import Count
from analytic.io import stored
from analytic.io.documents import Document
from analytic.models.deepseek_ocr.language_model import Decoder, Logits
from analytic.models.deepseek_ocr.workload import VisionWorkload
from analytic.models.registry import model_of
from analytic.models.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

SCALING: Final = Document(name="analytic_scaling")
CHUNK: Final = 16384
"""Points per evaluation: few enough that the arrays of one formula stay in a core's cache."""

ADDED: Final = (
    "executed_flops",
    "useful_flops",
    "counter_flops",
    "cuda_core_flops",
    "eager_bytes",
    "operand_bytes",
    "fused_bytes",
)
PREFILL: Final = (*ADDED, "weight_bytes", "touched_weight_bytes", "activation_bytes", "kv_bytes")
"""Quantities of prefill and vision in the scaling schema; for decode, those in `ADDED` are per token."""


def evaluate(
    spec: ModelSpec,
    run: Execution,
    *,
    batch_size: ArrayLike,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    prompt_tokens: ArrayLike | None = None,
    logits: Logits = "last",
) -> Cost:
    """The decoder's cost for every point of the broadcast arrays: one vectorised evaluation, int64 arrays in a `Cost`.

    `prompt_tokens`: positions of the prompt among past and new ones, for a model that forgets others; by default all of the
    past is the prompt, and so are several new tokens.
    Raises ValueError for shapes that do not broadcast and for counts below one (past tokens: below zero).
    """
    prompt = _all_prompt(new_tokens, past_tokens) if prompt_tokens is None else prompt_tokens
    points = (batch_size, new_tokens, past_tokens, prompt)
    columns = _columns(spec, run, points, logits, of=lambda decoder: decoder.forward_cost().as_dict())
    return Cost(**columns)


def scaling(
    spec: ModelSpec,
    run: Execution,
    *,
    seq_lens: Sequence[int],
    decode_steps: int,
    batch_size: int = 1,
    pages: Sequence[VisionWorkload] = (),
) -> dict[str, Any]:
    """Prefill at every length, the mean of `decode_steps` tokens after it, and vision on every page, in the schema's form.

    One evaluation covers all prefills and all decode steps. Raises ValueError for lengths or steps below one.
    """
    if not seq_lens:
        raise ValueError("seq_lens: got none, accepted: at least one length")
    whole("decode_steps", decode_steps, most=MOST_STEPS)
    whole("batch_size", batch_size)
    for length in seq_lens:
        whole("seq_lens", length)
    lengths = np.asarray(seq_lens, dtype=np.int64)
    steps = np.arange(decode_steps, dtype=np.int64)
    new = np.concatenate([lengths, np.ones(lengths.size * steps.size, dtype=np.int64)])
    past = np.concatenate([np.zeros_like(lengths), (lengths[:, None] + steps).ravel()])
    prompt = np.concatenate([lengths, lengths.repeat(steps.size)])
    columns = _columns(spec, run, (batch_size, new, past, prompt), "last", of=lambda decoder: _quantities(decoder.tree("")))
    points = []
    for index, length in enumerate(seq_lens):
        begin = lengths.size + index * steps.size
        window = slice(begin, begin + steps.size)
        prefill = {name: int(columns[name][index]) for name in PREFILL}
        decode = {f"{name}_per_token": sum(columns[name][window].tolist()) // decode_steps for name in ADDED}
        decode["activation_bytes_per_token"] = int(columns["activation_bytes"][window].max())
        decode["kv_bytes_final"] = int(columns["kv_bytes"][window][-1])
        points.append({"seq_len_prefill": length, "prefill": prefill, "decode": decode})
    return {
        "schema_version": SCALING.version,
        "model": {
            "model_id": spec.model_id,
            "model_variant": spec.model_variant,
            "hidden_size": spec.text.hidden_size,
            "num_layers": spec.text.num_layers,
        },
        "execution": run.choices(),
        "batch_size": batch_size,
        "decode_steps": decode_steps,
        "points": points,
        "crops": [_crop(spec, run, page, batch_size) for page in pages],
    }


def frame(scaled: dict[str, Any]) -> pd.DataFrame:
    """The points of `scaling` as one row per length, with columns `prefill_*` and `decode_*`."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "seq_len_prefill": point["seq_len_prefill"],
                **{f"prefill_{name}": value for name, value in point["prefill"].items()},
                **{f"decode_{name}": value for name, value in point["decode"].items()},
            }
            for point in scaled["points"]
        ]
    )


def write(scaled: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write `analytic_scaling.json` and `.csv` to `folder`, each atomically. Raises OSError, and ValueError if the object
    violates its schema."""
    json_path, csv_path = folder / "analytic_scaling.json", folder / "analytic_scaling.csv"
    SCALING.check(scaled, where="the scaling table")
    as_csv = frame(scaled).to_csv(index=False)
    stored.require_writable(folder, json_path, csv_path)
    SCALING.write(json_path, scaled)
    stored.write_at_once(csv_path, as_csv)
    return json_path, csv_path


def _columns(
    spec: ModelSpec,
    run: Execution,
    given: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    logits: Logits,
    *,
    of: Callable[[Decoder], dict[str, Count]],
) -> dict[str, Any]:
    """Quantities that `of` reads from the decoder at every point of the broadcast arrays, one int64 array each.

    `given`: batch size, new tokens, past tokens and tokens of the prompt.
    """
    accept("logits", logits, ("last", "all"))
    names, text = ("batch_size", "new_tokens", "past_tokens", "prompt_tokens"), spec.text
    least = (1, 1, 0, 0)
    counts = [_counts(name, value, least=low) for name, value, low in zip(names, given, least, strict=True)]
    batch, new, past, prompt = np.broadcast_arrays(*counts)
    shape = batch.shape
    batch, new, past, prompt = batch.ravel(), new.ravel(), past.ravel(), prompt.ravel()
    first = text.call_shape(batch=1, new_tokens=1, past_tokens=0, prompt_tokens=1)
    decoder = Decoder(spec=text, shape=first, logits=logits, run=run)
    columns: dict[str, Any] = {}
    for start in range(0, max(batch.size, 1), CHUNK):
        part = slice(start, start + CHUNK)
        points = text.call_shape(
            batch=batch[part], new_tokens=new[part], past_tokens=past[part], prompt_tokens=prompt[part]
        )
        for name, values in of(replace(decoder, shape=points)).items():
            if name not in columns:
                columns[name] = np.empty(batch.size, dtype=np.int64)
            columns[name][part] = values
    return {name: column.reshape(shape) for name, column in columns.items()}


def _all_prompt(new_tokens: ArrayLike, past_tokens: ArrayLike) -> NDArray[np.int64]:
    """All past positions, and the new ones of a call with several or without a past."""
    new, past = _counts("new_tokens", new_tokens), _counts("past_tokens", past_tokens, least=0)
    return np.where((new > 1) | (past == 0), past + new, past)


def _quantities(tree: CostNode) -> dict[str, Count]:
    return {**tree.total().as_dict(), "operand_bytes": tree.operand_bytes()}


def _crop(spec: ModelSpec, run: Execution, page: VisionWorkload, batch_size: int) -> dict[str, Any]:
    root = model_of(spec, run=run)
    root.start_vision(page, batch_size=batch_size)
    found = _quantities(root.tree())
    return {**page.as_json(), "vision": {name: int(found[name]) for name in PREFILL}}


def _counts(field: str, given: ArrayLike, *, least: int = 1) -> NDArray[np.int64]:
    array = np.asarray(given)
    whole_numbers(field, array if array.ndim else given, least=least)
    return array.astype(np.int64)
