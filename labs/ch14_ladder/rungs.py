"""The ladder: one workload, one model, one machine, and the course's ideas switched on one after
another.

Every rung writes the same replies to the same requests. What is compared runs in turn, round after
round, in one process; the naive loop is too slow for that, so it is run at several lengths, a few
tokens at each, and summed over the lengths it would meet.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from labkit import bench, formulas
from labkit.decode import generate
from labkit.quant import perplexity, read_text
from labkit_labs.common.workload import Job, one_by_one


def naive_seconds(model, work: list[Job], points: int, new: int = 4) -> tuple[float, float]:
    """Seconds that the naive loop needs for the work: it is run at `points` lengths (2 or more),
    for `new` tokens each, and interpolated between.

    Also how far a run at a length between two of them was off (1 = not at all).
    """
    shortest = min(len(job.prompt) for job in work)
    longest = max(len(job.prompt) + job.new for job in work)
    lengths = np.linspace(shortest, longest - new, points).astype(int)
    prompt = max((job.prompt for job in work), key=len) * 8

    def each(n: int) -> float:
        """Seconds of a token, at n of them."""
        seconds, _ = bench.timed(
            lambda: generate(model, [prompt[:n]], new, cache="none", stop=()), str(model.device)
        )
        return seconds / new

    each(lengths[0])  # warm up
    took = [each(n) for n in lengths]
    middles = lengths + (new - 1) / 2

    def interpolated(first: int, last: int) -> float:
        return float(np.interp(np.arange(first, last), middles, took).sum())

    total = sum(interpolated(len(job.prompt), len(job.prompt) + job.new) for job in work)
    between = (lengths[0] + lengths[1]) // 2
    off = each(between) * new / interpolated(between, between + new)
    return total, off


# -- climbing ----------------------------------------------------------------------------


@dataclass
class Rung:
    """A name, what runs, the precision it runs in, how many share a step, and which jobs it is
    timed on.
    """

    name: str
    serve: Callable[[list[Job]], list[list[int]]]  # jobs -> their new tokens
    dtype: str = "fp32"
    batch: int = 1
    sample: int = 1  # every so-manieth job: the slow rungs are timed on a part of the work

    def bytes_per_token(self, config, context: int) -> float:
        """Read for a token after `context` others, with everybody in the step."""
        weights = {"w8a8": "int8"}.get(self.dtype, self.dtype)
        cache = "bf16" if self.dtype == "bf16" else "fp32"
        return formulas.decode_bytes(config, context, self.batch, weights, cache) / self.batch


def climb(
    model,
    ladder: str,
    work: list[Job],
    rungs: list[Rung],
    *,
    qualities: dict[str, dict],
    points: int,
    repeats: int,
    compared: int = 1,
) -> list[dict]:
    """Run all rungs in turn; a row for each, with its multiple of the naive loop and of the rung
    below.

    model: of the naive loop. ladder: what the rows are called. qualities: of each dtype, for its
    rows. points: lengths that the naive loop is run at. repeats: rounds. compared: of every
    so-manieth job the tokens are compared with those of one user and a cache in fp32.
    """
    device = str(model.device)
    parts = {rung.name: work[:: rung.sample] for rung in rungs}
    fns = {"naive": partial(naive_seconds, model, work, points)}
    for rung in rungs:
        fns[rung.name] = partial(bench.timed, partial(rung.serve, parts[rung.name]), device)
    # a round takes minutes: nothing warms up
    runs = bench.rounds(fns, repeats=repeats, warmup=0, device=device, label=f"{ladder}, rounds")
    config = model.config
    context = round(statistics.mean(len(job.prompt) + job.new / 2 for job in work))

    def each_token(name: str, part: list[Job]) -> bench.Measurement:
        tokens = sum(job.new for job in part)
        return bench.summarise([seconds / tokens for seconds, _ in runs[name]], device=device)

    naive = each_token("naive", work)
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
            extrapolation=runs["naive"][-1][1],
            **qualities["fp32"],
        )
    ]
    truth = dict(zip(range(0, len(work), compared), one_by_one(model, work[::compared])))
    below = naive
    for rung in rungs:
        m = each_token(rung.name, parts[rung.name])
        _, replies = runs[rung.name][-1]
        made = dict(zip(range(0, len(work), rung.sample), replies))
        rows.append(
            m.to_row(
                ladder=ladder,
                rung=rung.name,
                dtype=rung.dtype,
                batch=rung.batch,
                tokens_per_second=1 / m.median,
                multiple=bench.multiple(naive, m),
                step=bench.multiple(below, m),
                agreement=agreement(made, truth),
                bytes_per_token=rung.bytes_per_token(config, context),
                **qualities[rung.dtype],
            )
        )
        below = m
    return rows


def agreement(made: dict[int, list[int]], truth: dict[int, list[int]]) -> float:
    """Share of tokens that are the same, at the same place, in the jobs that both served."""
    both = made.keys() & truth.keys()
    pairs = [pair for i in both for pair in zip(made[i], truth[i], strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def quality(model, tokenizer, tokens: int) -> dict:
    """Perplexity on the first tokens of the two texts."""
    return {
        f"perplexity_{name}": perplexity(model, tokenizer.encode(read_text(name))[:tokens])
        for name in ("course", "milton")
    }
