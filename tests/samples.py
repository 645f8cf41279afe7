"""Values that several tests share."""

from dataclasses import replace

from analytic.cost import Cost, CostNode
from fixtures.medians import Fingerprint
from fixtures.worker import Job

JOB = Job(
    preset="tiny",
    device="cpu",
    attention="sdpa",
    experts="grouped_mm",
    batch_size=1,
    decode_steps=2,
    extra_tokens=0,
    stages=("decode[16]",),
)
PLACE = Fingerprint(
    device="cpu",
    device_name="a CPU",
    threads=2,
    model_variant="tiny",
    dtype="float32",
    attention="sdpa",
    experts="grouped_mm",
    batch_size=1,
    decode_steps=2,
    python="3.11",
    torch="2.13.0",
    transformers="5.23.0",
    driver=None,
)
COST = Cost(
    executed_flops=8_000,
    useful_flops=6_000,
    counter_flops=8_000,
    cuda_core_flops=0,
    eager_bytes=900,
    fused_bytes=600,
    weight_bytes=500,
    touched_weight_bytes=400,
    activation_bytes=50,
    kv_bytes=30,
)


def flops_by_path(tree: CostNode) -> dict[str, int]:
    """Executed FLOPs of every module of a cost tree with all below it, each copy of a layer for itself."""
    return {path: int(replace(node, copies=()).total().executed_flops) for path, node in tree.walk()}
