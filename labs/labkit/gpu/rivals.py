"""transformers on the same weights, in the same run: its static cache, that cache compiled, and its
continuous batching; beside a labkit decode, eager and captured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch

from labkit import bench, graphs
from labkit.bench import LoopTimes
from labkit.gpu import clock
from labkit.published import presets
from labkit.rivals import transformers

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
    twin = transformers.transformers_twin(model)
    prompts = torch.randint(1, config.vocab_size, (requests, context)).tolist()
    engines = {
        "labkit, eager": partial(bench.time_decode, model, prompts, new, captured=False),
        "labkit, graph": partial(bench.time_decode, model, prompts, new),
        "transformers, static": partial(transformers.time_transformers, twin, prompts, new),
        "transformers, compiled": partial(transformers.time_transformers, twin, prompts, new, True),
        "transformers, continuous": partial(transformers.time_continuous, twin, prompts, new),
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
    if why := graphs.why_not(model, model.caches("static", requests, context + new)):
        next(r for r in rows if r["engine"] == "labkit, graph")["note"] = f"not captured: {why}"
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
