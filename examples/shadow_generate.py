"""What a run of your own costs: the shadow reads the shapes of its calls, whatever they are and however many.

    python examples/shadow_generate.py --new-tokens 12 --output-dir out

`read_page` stands for a loop of your own; `model.generate(...)` is shadowed the same way. The model is tiny, its weights
random, so that this runs anywhere: put yours in its place, loaded by transformers. docs/shadow.md has more.
"""

import argparse
from pathlib import Path

import torch

from analytic import Execution, ModelSpec
from analytic.models.deepseek_ocr.workload import TokenLayout
from fixtures.adapter import cache_of, forward_arguments, greedy_ids
from fixtures.model.inputs import page_inputs, token_ids
from fixtures.model.real import build
from fixtures.model.shadow import shadow

parser = argparse.ArgumentParser(description="The cost of a generate() of your own.")
parser.add_argument("--new-tokens", type=int, default=12, help="tokens that the page is read as (default: 12)")
parser.add_argument("--output-dir", type=Path, default=Path("out"), help="folder of the files by step (default: out)")
given = parser.parse_args()


def read_page(model: torch.nn.Module, ids: torch.Tensor, views: dict, new_tokens: int) -> torch.Tensor:
    """A greedy loop: the prompt with its page, then one token after the other; (1, new_tokens) ids."""
    found, cache = [], None
    for _ in range(new_tokens):
        output = model(**forward_arguments(model, ids, cache=cache, **views))
        ids, cache, views = greedy_ids(output), cache_of(output), {}  # the page is in the cache from here on
        found.append(ids)
    return torch.cat(found, dim=1)


spec = ModelSpec.from_preset("tiny")
run = Execution(device="cpu", attention="sdpa", experts="grouped_mm", dtype="float32")
model = build(spec, run)
page = spec.pages.of_size(600, 400)
prompt = token_ids(TokenLayout.of(page.image_tokens + 17, page), spec, batch_size=1, run=run)
views = page_inputs(page, batch_size=1, run=run).as_arguments(model)

with torch.no_grad(), shadow(model) as stats:
    text = read_page(model, prompt, views, given.new_tokens)

report = stats.report()
for stage, flops in report.flops_by_stage.items():
    print(f"{stage:8}{flops / 1e6:12,.3f} MFLOP{report.bytes_by_stage[stage] / 1e6:12,.3f} MB")
print(f"{text.shape[1]} tokens, {report.decoded_tokens} of them decoded after the first")
print("each call is in", *stats.write(given.output_dir))
