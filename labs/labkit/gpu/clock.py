"""How long a step takes, and the fastest read of this machine's memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from labkit import bench
from labkit.config import ModelConfig
from labkit.graphs.ways import overlaps
from labkit.kernels import cuda
from labkit.kernels.cuda.matrix import Matrix
from labkit.model import GPT
from labkit.step import Step

READ = 2**31  # bytes: many times what a cache holds


def on_gpu(device: str) -> bool:
    return str(device).startswith("cuda")


def per_call(fn: Callable[[], object], device: str, calls: int = 10, blocks: int = 5) -> float:
    """Seconds of a call, one after another: the median of some blocks, each waited for."""
    fn()
    took = []
    for _ in range(blocks):
        seconds, _ = bench.timed(lambda: [fn() for _ in range(calls)] and None, device)
        took.append(seconds / calls)
    return statistics.median(took)


def captured(fn: Callable[[], object], device: str) -> Callable[[], object]:
    """`fn` as a CUDA graph's replay; on a CPU, itself."""
    if not on_gpu(device):
        return fn
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        fn()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fn()
    return graph.replay


@torch.inference_mode()
def fastest_read(device: str) -> dict[str, float]:
    """Bytes per second by several kernels over more memory than a cache holds; the largest is the
    ceiling that a step is held against.
    """
    if not on_gpu(device):
        return {"sum": bench.hardware("fp32", device).bytes_per_second}
    side = int((READ / 2) ** 0.5)
    big = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    x = torch.randn(1, side, device=device, dtype=torch.bfloat16)
    other = torch.empty_like(big)
    kernels = {
        "copy": (2, lambda: other.copy_(big)),
        "sum": (1, lambda: big.view(torch.int32).sum(dtype=torch.int32)),
        "cuBLAS": (1, lambda: F.linear(x, big)),
    }
    if not cuda.missing(device):
        from labkit.kernels.cuda.linear import linear

        # four in a row, which may overlap, as a step's do
        early = overlaps(torch.device(device))
        four = lambda: [linear(x, Matrix(big), early=early) for _ in range(4)]
        kernels["ours"] = (4, four)
    return {
        name: times * big.nbytes / per_call(captured(fn, device), device)
        for name, (times, fn) in kernels.items()
    }


def random_model(config: ModelConfig, device: str) -> GPT:
    """A model of this shape, its weights drawn where they lie: times don't depend on them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if on_gpu(device) else torch.float32)
    try:
        with torch.device(device):
            return GPT(config).requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def filled_caches(model: GPT, kind: str, rows: int, capacity: int) -> list:
    """Caches of noise, as if all their tokens had been read; paged ones' blocks lie anywhere."""
    caches = model.caches(kind, rows, capacity)
    if kind == "paged":
        table = caches[0].table
        order = torch.randperm(table.numel(), device=table.device)
        table.copy_(order.view(table.shape))
    for cache in caches:
        for buffer in cache.buffers:
            buffer.normal_()
    return caches


def a_step(model: GPT, rows: int, position: int, tokens: list[int] | None = None) -> Step:
    """One token for each of so many requests, all at one position."""
    tokens = tokens or [1] * rows
    return Step.of([(r, position, [tokens[r]]) for r in range(rows)], model.device)


@torch.inference_mode()
def live(model: GPT, run: Callable[[Step], torch.Tensor], rows: int, first: int, steps: int):
    """Seconds of a step as a server has them: packed by the host, run, the tokens chosen greedily
    and read by the host, which packs the next.
    """
    tokens = run(a_step(model, rows, first)).argmax(-1).tolist()
    start = time.perf_counter()
    for i in range(1, steps + 1):
        tokens = run(a_step(model, rows, first + i, tokens)).argmax(-1).tolist()
    return (time.perf_counter() - start) / steps
