"""The ladder: one workload, one model, one machine, and the course's ideas switched on one after
another.

Every rung writes the same replies to the same requests. What is compared runs in turn, round after
round, in one process; the naive loop is too slow for that, so it is run at several lengths, a few
tokens at each, and summed over the lengths it would meet.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from labkit import formulas
from labkit.bench import summarise
from labkit.decode import generate
from labkit.quant import perplexity, text
from labkit_labs.common.workload import Job, one_by_one


def naive_seconds(model, work: list[Job], points: int = 4, new: int = 4) -> tuple[float, float]:
    """Seconds that the naive loop needs for the work: it is run at several lengths, for `new`
    tokens each, and interpolated between.

    Also how far a run at a length between two of them was off (1 = not at all).
    """
    shortest = min(len(job.prompt) for job in work)
    longest = max(len(job.prompt) + job.new for job in work)
    lengths = np.linspace(shortest, longest - new, points).astype(int)
    text = max((job.prompt for job in work), key=len) * 8

    def run(n: int) -> float:
        start = time.perf_counter()
        generate(model, [text[:n]], new, cache="none", stop=())
        return (time.perf_counter() - start) / new

    run(lengths[0])
    took, between = [run(n) for n in lengths], (lengths[0] + lengths[1]) // 2
    seconds = lambda a, b: float(np.interp(np.arange(a, b), lengths + (new - 1) / 2, took).sum())
    return sum(seconds(len(job.prompt), len(job.prompt) + job.new) for job in work), run(
        between
    ) * new / seconds(between, between + new)


# -- climbing ----------------------------------------------------------------------------


@dataclass
class Rung:
    """A name, what runs, the precision it runs in, how many share a step, and which jobs it is
    timed on.
    """

    name: str
    run: object  # (jobs) -> tokens
    dtype: str = "fp32"
    batch: int = 1
    sample: int = 1  # every so-manieth job: the slow rungs are timed on a part of the work


def climb(
    ladder: str,
    model,
    work: list[Job],
    rungs: list[Rung],
    qualities: dict[str, dict],
    rounds: int,
    compared: int = 1,
) -> list[dict]:
    """Run all rungs in turn; a row for each, with its multiple of the naive loop and of the rung
    below.

    compared: of every so-manieth job the tokens are compared with those of one user and a cache in
    fp32.
    """
    from labkit.tables import progress

    seconds: dict[str, list[float]] = {r.name: [] for r in rungs}
    replies, naive_runs, off = {}, [], 1.0
    for _ in progress(range(rounds), f"{ladder}, rounds"):
        total, off = naive_seconds(model, work)
        naive_runs.append(total)
        for rung in rungs:
            part = work[:: rung.sample]
            start = time.perf_counter()
            replies[rung.name] = rung.run(part)
            seconds[rung.name].append((time.perf_counter() - start) / sum(job.new for job in part))
    tokens, config = sum(job.new for job in work), model.config
    context = round(statistics.mean(len(job.prompt) + job.new / 2 for job in work))
    naive = summarise([s / tokens for s in naive_runs])
    rows = [
        naive.to_row(
            ladder=ladder,
            rung="naive",
            dtype="fp32",
            batch=1,
            tokens_per_second=1 / naive.median,
            multiple=1.0,
            step=1.0,
            agreement=1.0,
            bytes_per_token=formulas.weight_bytes(config, "fp32"),
            extrapolation=off,
            **qualities["fp32"],
        )
    ]
    truth = dict(zip(range(0, len(work), compared), one_by_one(model, work[::compared])))
    below = naive
    for rung in rungs:
        m = summarise(seconds[rung.name])
        made = dict(zip(range(0, len(work), rung.sample), replies[rung.name]))
        pairs = [
            pair for i in made.keys() & truth.keys() for pair in zip(made[i], truth[i], strict=True)
        ]
        weights = {"w8a8": "int8"}.get(rung.dtype, rung.dtype)
        cache = "bf16" if rung.dtype == "bf16" else "fp32"
        rows.append(
            m.to_row(
                ladder=ladder,
                rung=rung.name,
                dtype=rung.dtype,
                batch=rung.batch,
                tokens_per_second=1 / m.median,
                multiple=naive.median / m.median,
                step=below.median / m.median,
                agreement=sum(a == b for a, b in pairs) / len(pairs),
                bytes_per_token=formulas.decode_bytes(config, context, rung.batch, weights, cache)
                / rung.batch,
                **qualities[rung.dtype],
            )
        )
        below = m
    return rows


def quality(model, tokenizer, quick: bool) -> dict:
    """Perplexity on the two texts."""
    return {
        f"perplexity_{name}": perplexity(
            model, tokenizer.encode(text(name))[: 64 if quick else 2000]
        )
        for name in ("course", "milton")
    }
