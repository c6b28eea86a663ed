"""A prompt in one step, held against the fastest product of matrices in this process (MFU)."""

from __future__ import annotations

from functools import partial

import torch

from labkit import formulas, published
from labkit.gpu import clock
from labkit.step import Step

COLUMNS = {
    "model": "model",
    "tokens": "tokens",
    "milliseconds": "ms|.2f",
    "teraflops": "TFLOP/s|.1f",
    "peak_teraflops": "fastest product|.1f",
    "mfu": "MFU|.1%",
}


@torch.inference_mode()
def measure(
    device: str = "cuda",
    *,
    presets=("qwen3-0.6b", "llama3-8b"),
    lengths=(512, 2048, 8192),
    repeats: int = 5,
) -> list[dict]:
    """A row for each model and prompt length."""
    torch.manual_seed(0)
    peak = fastest_product(device)
    return [row for preset in presets for row in rows_of(preset, device, lengths, repeats, peak)]


def rows_of(preset: str, device: str, lengths, repeats: int, peak: float) -> list[dict]:
    """A row for each prompt length of one model. peak: FLOP/s."""
    config = published.presets[preset]
    model = clock.random_model(config, device)
    rows = []
    for tokens in lengths:
        caches = model.caches("static", 1, tokens)
        step = Step.of([(0, 0, [1] * tokens)], device)
        run = partial(model, step, caches, step.last)
        seconds = clock.per_call(run, device, calls=2, blocks=repeats)
        flops = formulas.prefill_flops(config, tokens)
        rows.append(
            {
                "model": preset,
                "tokens": tokens,
                "milliseconds": seconds * 1e3,
                "flops": flops,
                "teraflops": flops / seconds / 1e12,
                "peak_teraflops": peak / 1e12,
                "mfu": flops / seconds / peak,
            }
        )
    return rows


def fastest_product(device: str) -> float:
    """FLOP/s of the best of some large square products, in the dtype of `clock.random_model`."""
    gpu = clock.on_gpu(device)
    best = 0.0
    for side in (4096, 8192) if gpu else (256,):
        dtype = torch.bfloat16 if gpu else torch.float32
        a = torch.randn(side, side, device=device, dtype=dtype)
        best = max(best, 2 * side**3 / clock.per_call(partial(torch.mm, a, a), device, 5))
    return best
