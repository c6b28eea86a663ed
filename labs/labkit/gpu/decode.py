"""A decode step, eager and captured in three ways, held against the fastest read in this process.

Share = bytes that a step must read (`formulas.decode_bytes`) over its time, over that read. A
replay is the step alone; `live` has the greedy choice in it, and the host that reads each token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from labkit import formulas
from labkit.gpu import clock
from labkit.graphs.cuda import CudaGraphs, NoRoom
from labkit.graphs.ways import FEW, Ways
from labkit.model import GPT
from labkit.published import presets
from labkit.step import Step

COLUMNS = {
    "model": "model",
    "bits": "bits",
    "batch": "batch",
    "cache": "cache",
    "way": "way",
    "milliseconds": "ms|.3f",
    "share": "of the read|.1%",
    "live_milliseconds": "live ms|.3f",
    "tokens_per_second": "tokens/s|,.0f",
}


@torch.inference_mode()
def measure(
    device: str = "cuda",
    *,
    preset: str = "llama3-8b",
    bits: int = 16,
    batches=(1, 8, 64, 256),
    context: int = 512,
    steps: int = 40,
) -> list[dict]:
    """A row for each batch, cache and way. context: tokens of each request, the new one included.
    steps: of a live loop.
    """
    torch.manual_seed(0)
    config = presets[preset]
    model = clock.random_model(config, device)
    if bits < 16:
        from labkit.quant import quantize

        kernel = "triton" if clock.on_gpu(device) else None
        quantize(model, f"int{bits}", kernel=kernel)
    reads = clock.fastest_read(device)
    name = max(reads, key=reads.get)
    found = []
    for batch in batches:
        for kind in ("static", "paged"):
            for row in rows_of(model, kind, batch, context, steps):
                row["bytes"] = formulas.decode_bytes(config, context, batch, dtype_of(bits, device))
                row["fastest_read"] = name
                row["read_bytes_per_second"] = reads[name]
                row["share"] = row["bytes"] / row["milliseconds"] * 1e3 / reads[name]
                found.append({"model": preset, "bits": bits, **row})
    return found


def rows_of(model: GPT, kind: str, batch: int, context: int, steps: int) -> list[dict]:
    """A row for each way of one batch on one kind of cache, which is gone afterwards."""
    device = str(model.device)
    caches = clock.filled_caches(model, kind, batch, context + steps + 2)
    rows = []
    for way, run, replay in ways_of(model, caches, batch, kind):
        step = clock.a_step(model, batch, context - 1)
        run(step)  # what is replayed, is replayed at these positions
        seconds = clock.per_call(replay(step), device)
        alive = clock.live(model, run, batch, context - 1, steps)
        rows.append(
            {
                "batch": batch,
                "cache": kind,
                "way": way,
                "context": context,
                "milliseconds": seconds * 1e3,
                "live_milliseconds": alive * 1e3,
                "tokens_per_second": batch / alive,
            }
        )
    return rows


def dtype_of(bits: int, device: str) -> str:
    """What `clock.random_model` keeps its weights in, as formulas call it."""
    if bits < 16:
        return f"int{bits}"
    return "bf16" if clock.on_gpu(device) else "fp32"


Run = Callable[[Step], torch.Tensor]


def ways_of(model: GPT, caches: list, batch: int, kind: str):
    """(name, step -> logits, step -> what to call again and again) of each way that there is.

    Paged, only our kernels are of interest: what they do there, they do in place.
    """

    def eager(step: Step) -> torch.Tensor:
        return model(step, caches, step.last)

    # a step remembers its masks and angles: each call gets one of its own
    if kind == "static":
        yield "eager", eager, lambda step: lambda: eager(step.cut(0, batch))
    if CudaGraphs.why_not(model, caches):
        return
    reasons = Ways(model, caches, batch).reasons
    for way in ("torch", "small", "fused"):
        if (
            reasons.get(way)
            or (way == "fused" and batch > FEW)
            or (way == "torch" and kind != "static")
        ):
            continue
        try:
            graphs = CudaGraphs(model, caches, batch, way)
            graphs(clock.a_step(model, batch, 1))
        except NoRoom as e:
            print(f"{way}, {kind}, batch {batch}: {e}", flush=True)
            continue
        yield f"graph, {way}", graphs, lambda step, graphs=graphs: graphs.graphs[batch].replay
