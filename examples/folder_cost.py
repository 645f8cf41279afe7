"""What the pages of a folder cost on a device: tokens, FLOPs, the least time that they can take, and its price.

    python examples/folder_cost.py scans --on h200 --price-per-hour 3.5

Nothing is run: sizes are read from the headers of the images, the rest is the closed form. Pages are taken one at a time;
`python -m analytic capacity --on h200 --images scans` plans for many in flight. Needs the extra `pages`.
"""

import argparse
from functools import cache
from pathlib import Path

from analytic import DeepseekOCRModel, Execution, ModelSpec, VisionWorkload
from analytic.core.cost import in_sequence
from analytic.io.page_files import in_folder
from analytic.io.table import aligned
from analytic.prediction.hardware import device
from analytic.prediction.roofline import Ceilings, floor_s

PROMPT_TOKENS = 17  # a BOS and 16 tokens of text
RUN = Execution(device="cuda", attention="sdpa", experts="grouped_mm", dtype="bfloat16")

parser = argparse.ArgumentParser(description="What the pages of a folder cost on a device.")
parser.add_argument("folder", type=Path, help="folder of page images")
parser.add_argument("--on", default="h200", help="device with a datasheet (default: h200)")
parser.add_argument("--new-tokens", type=int, default=512, help="tokens that a page is read as (default: 512)")
parser.add_argument("--price-per-hour", type=float, default=3.5, help="of the device, in any currency (default: 3.5)")
given = parser.parse_args()

spec = ModelSpec.from_preset("deepseek-ocr-v1-base")
model = DeepseekOCRModel.from_spec(spec, run=RUN)
peaks = device(given.on, field="--on")
ceilings = Ceilings(flops_per_s=peaks.flops_per_s(RUN.dtype), bytes_per_s=peaks.bandwidth_bytes_per_s)


@cache  # pages that are cut alike cost the same
def cost_of(page: VisionWorkload) -> tuple[int, float]:
    """FLOPs of a page, and the least seconds: of each call the FLOPs over the peak, or its bytes over the bandwidth."""
    length, steps = page.image_tokens + PROMPT_TOKENS, given.new_tokens - 1  # the first token comes from the prefill
    calls = model.walk(page, seq_len=length, batch_size=1, decode_steps=steps)
    costs = [model.forward_cost() for _ in calls]  # of vision, of the prefill, of each decoded token
    return int(in_sequence(costs).executed_flops), sum(floor_s(cost, ceilings) or 0.0 for cost in costs)


rows, total_s = [("page", "views", "tokens", "TFLOP", "ms at least", "price of 1,000")], 0.0
for scan in in_folder(given.folder).pages:
    page = spec.pages.of_size(scan.width_px, scan.height_px)  # as transformers cuts it; vLLM cuts fewer tiles
    flops, least_s = cost_of(page)
    price = 1_000 * least_s / 3_600 * given.price_per_hour
    counts = (f"{page.num_views}", f"{page.image_tokens:,}", f"{flops / 1e12:.2f}")
    rows.append((scan.name, *counts, f"{least_s * 1e3:,.1f}", f"{price:.3f}"))
    total_s += least_s
print("\n".join(aligned(rows)))
price = total_s / 3_600 * given.price_per_hour
print(f"{len(rows) - 1} pages: at least {total_s:,.3f} s on {peaks.name}, at a price of {price:.3g}")
