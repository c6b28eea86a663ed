"""transformers on the same weights, in the same run: its static cache, that cache compiled, and its
continuous batching; beside a labkit decode, eager and captured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from time import perf_counter

import torch

from labkit import bench, decode, rivals
from labkit.bench import LoopTimes
from labkit.gpu import clock
from labkit.graphs.cuda import CudaGraphs
from labkit.model import GPT
from labkit.published import presets

COLUMNS = {
    "model": "model",
    "requests": "requests",
    "engine": "engine",
    "step_milliseconds": "a step, ms|.2f",
    "seconds": "all, s|.2f",
    "tokens_per_second": "tokens/s|,.0f",
    "note": "note",
}


def measure(
    device: str = "cuda",
    *,
    preset: str = "smollm2-135m",
    requests: int = 32,
    context: int = 300,
    new: int = 64,
    repeats: int = 3,
) -> list[dict]:
    """A row for each engine: `new` tokens for each of so many prompts of `context` tokens, in
    turn, round after round. One that fails has a row that says why.
    """
    torch.manual_seed(0)
    config = presets[preset]
    model = clock.random_model(config, device)
    twin = rivals.transformers_twin(model)
    prompts = torch.randint(1, config.vocab_size, (requests, context)).tolist()
    engines = {
        "labkit, eager": partial(bench.time_decode, model, prompts, new),
        "labkit, graph": partial(replayed, model, prompts, new),
        "transformers, static": partial(rivals.time_transformers, twin, prompts, new),
        "transformers, compiled": partial(rivals.time_transformers, twin, prompts, new, True),
        "transformers, continuous": partial(rivals.time_continuous, twin, prompts, new),
    }
    failed = {}
    for name, engine in engines.items():
        if reason := _fails(engine):
            failed[name] = reason
    runs = bench.rounds(
        {name: engine for name, engine in engines.items() if name not in failed},
        repeats=repeats,
        warmup=0,  # each has run once by now
        device=device,
    )
    rows = [_row(name, times, requests * new) for name, times in runs.items()]
    rows += [{"engine": name, "note": reason} for name, reason in failed.items()]
    return [{"model": preset, "requests": requests, **row} for row in rows]


def _fails(engine: Callable) -> str:
    """Why an engine does not run here, once it has been tried; empty if it has run."""
    try:
        engine()
    except Exception as e:  # somebody else's code, or a GPU that can't: the others go on
        return " ".join(f"{type(e).__name__}: {e}".split())[:200]
    return ""


def _row(name: str, times: list[LoopTimes | float], tokens: int) -> dict:
    seconds = [t.seconds if isinstance(t, LoopTimes) else t for t in times]
    whole = statistics.median(seconds)
    row = {"engine": name, "seconds": whole, "tokens_per_second": tokens / whole}
    each = [step for t in times if isinstance(t, LoopTimes) for step in t.each]
    if each:
        row["step_milliseconds"] = statistics.median(each) * 1e3
    return row


class Replaying:
    """A model whose decode steps are replayed; prompts go as ever. ValueError where they can't."""

    def __init__(self, model: GPT, caches: list, batch: int):
        self.model = model
        self.device = model.device
        self.graphs = CudaGraphs(model, caches, batch)

    def __call__(self, step, caches, last):
        if self.graphs.refuses(step):
            return self.model(step, caches, last)
        return self.graphs(step)


def replayed(model: GPT, prompts: list[list[int]], new: int) -> LoopTimes:
    """`bench.time_decode` with every decode step replayed; capturing counts as the first token."""
    start = perf_counter()
    caches = model.caches("static", len(prompts), len(prompts[0]) + new)
    running = Replaying(model, caches, len(prompts))
    marks, tokens = [], []
    for step in decode.cached(running, caches, prompts, new):
        marks.append(perf_counter())
        tokens.append(step.tokens)
    each = [b - a for a, b in pairwise(marks)]
    # the second step waits for the capture
    return LoopTimes(marks[0] - start + sum(each[:1]), each[1:], decode.replies(tokens))
