"""The ladder: one workload, one model, one machine, and the course's ideas switched on one after another.

Every rung writes the same replies to the same requests. What is compared runs in turn, round after round, in one process; the
naive loop is too slow for that, so its forwards are timed at several lengths and summed over the lengths it would meet.
"""
from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from labkit import decode, formulas
from labkit.bench import summarise
from labkit.quant import perplexity, text
from labkit.step import Step
from labkit_labs.serving import Job, greedy, one_by_one


@torch.inference_mode()
def naive_seconds(model, work: list[Job], points: int = 4, repeats: int = 3) -> tuple[float, float]:
    """Seconds the naive loop needs for the work, and how far a real run of a few tokens was off (1 = not at all)."""
    lengths = np.linspace(min(len(j.prompt) for j in work), max(len(j.prompt) + j.new for j in work), points).astype(int)

    def forward(n: int) -> float:
        start = time.perf_counter()
        step = Step.of([(0, 0, [7] * int(n))])
        model(step, model.caches("none", 1, 1), step.last)
        return time.perf_counter() - start

    forward(lengths[0])
    took = [statistics.median(forward(n) for _ in range(repeats)) for n in lengths]
    predict = lambda job, new: float(np.interp(np.arange(len(job.prompt), len(job.prompt) + new), lengths, took).sum())
    start = time.perf_counter()
    decode.naive(model, [work[0].prompt], 8, greedy)
    return sum(predict(job, job.new) for job in work), (time.perf_counter() - start) / predict(work[0], 8)


# -- climbing ------------------------------------------------------------------------------------------------------------------------


@dataclass
class Rung:
    """A name, what runs, the precision it runs in, how many share a step, and which jobs it is timed on."""

    name: str
    run: object  # (jobs) -> tokens
    dtype: str = "fp32"
    batch: int = 1
    sample: int = 1  # every so-manieth job: the slow rungs are timed on a part of the work


def climb(ladder: str, model, work: list[Job], rungs: list[Rung], qualities: dict[str, dict], rounds: int) -> list[dict]:
    """Run all rungs in turn; a row for each, with its multiple of the naive loop and of the rung below."""
    from labkit.cli import progress

    seconds: dict[str, list[float]] = {r.name: [] for r in rungs}
    replies, naive_runs, off = {}, [], 1.0
    for _ in progress(range(rounds), f"{ladder}, rounds"):
        total, off = naive_seconds(model, work, repeats=1 if rounds == 1 else 3)
        naive_runs.append(total)
        for rung in rungs:
            part = work[:: rung.sample]
            start = time.perf_counter()
            replies[rung.name] = rung.run(part)
            seconds[rung.name].append((time.perf_counter() - start) / sum(job.new for job in part))
    tokens, config = sum(job.new for job in work), model.config
    context = round(statistics.mean(len(job.prompt) + job.new / 2 for job in work))
    naive = summarise([s / tokens for s in naive_runs])
    rows = [naive.to_row(ladder=ladder, rung="naive", dtype="fp32", batch=1, tokens_per_second=1 / naive.median, multiple=1.0, step=1.0,
                         agreement=1.0,
                         bytes_per_token=formulas.weight_bytes(config, "fp32"), extrapolation=off, **qualities["fp32"])]
    truth = dict(enumerate(one_by_one(model, work) if rungs[0].sample > 1 else replies[rungs[0].name]))
    below = naive
    for rung in rungs:
        m = summarise(seconds[rung.name])
        wanted = [truth[i] for i in range(0, len(work), rung.sample)]
        pairs = [pair for reply, want in zip(replies[rung.name], wanted) for pair in zip(reply, want, strict=True)]
        weights, cache = {"int8": ("int8", "fp32"), "w8a8": ("int8", "fp32")}.get(rung.dtype, (rung.dtype, rung.dtype))
        rows.append(m.to_row(ladder=ladder, rung=rung.name, dtype=rung.dtype, batch=rung.batch, tokens_per_second=1 / m.median,
                             multiple=naive.median / m.median, step=below.median / m.median, agreement=sum(a == b for a, b in pairs) / len(pairs),
                             bytes_per_token=formulas.decode_bytes(config, context, rung.batch, weights, cache) / rung.batch,
                             **qualities[rung.dtype]))
        below = m
    return rows


def quality(model, tokenizer, quick: bool) -> dict:
    """Perplexity on the two texts."""
    return {f"perplexity_{name}": perplexity(model, tokenizer.encode(text(name))[: 64 if quick else 2000]) for name in ("course", "milton")}
