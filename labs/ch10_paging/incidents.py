"""Incident drills: the same traffic on the real engine with one fault put in, what a dashboard then
shows, and how to read it.

Requests come by the step and not by the clock, so that counts are the same on every machine. Only
seconds differ, and no rule of `symptoms` reads them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

from labkit import Engine
from labkit_labs.common.workload import Job

# of a row; the rest are counts
TIMES = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "longest_gap", "tokens_per_second")


@dataclass(frozen=True)
class Drill:
    """One run.

    `cause` is what a reader of its row has to find; None where the engine may end the fault before
    it shows.
    """

    name: str
    cause: str | None
    work: list[Job]  # in order of arrival, one every second step
    setup: dict  # of the Engine


class OffByOne:
    """A proposer with another tokenizer: every id that it drafts is one off."""

    def __init__(self, vocab: int):
        self.vocab = vocab

    def propose(self, asked, caches) -> list[list[int]]:
        return [[(r.tokens[-1] + 1) % self.vocab] * k for r, k in asked]


def drills(work: list[Job], long: Job, clock, setup: dict, pool: int, vocab: int) -> list[Drill]:
    """The healthy run, and one for each fault.

    Half of the requests that share a beginning come before `long`, which does not, and half after
    it. clock: request number -> tokens of a line that changes · setup: of a healthy engine, with a
    token budget far below `long` · pool: blocks that are too few.
    """
    half = len(work) // 2
    wrong = setup | {"speculative": OffByOne(vocab)}
    mixed = [*work[:half], long, *work[half:]]
    stamped = [Job(clock(i) + job.prompt, job.new) for i, job in enumerate(mixed)]
    unchunked = setup | {"token_budget": setup["token_budget"] + len(long.prompt)}
    return [
        Drill("healthy", "healthy", mixed, setup),
        Drill("the time at the head of every prompt", "prefix not found", stamped, setup),
        Drill(f"{pool} blocks", "pool too small", mixed, setup | {"n_blocks": pool}),
        Drill(f"{len(long.prompt):,} tokens in one step", "prefill not chunked", mixed, unchunked),
        Drill("wrong drafts, never switched off", "drafts refused", mixed, wrong | {"drafts": 4}),
        # without a number the engine measures, and stops asking for what it refuses
        Drill("wrong drafts, switched off by the engine", None, mixed, wrong),
    ]


def play(model, drill: Drill) -> dict:
    """Run a drill on a new engine: the row that a dashboard shows of it. Times in seconds."""
    engine = Engine(model, **drill.setup)
    coming = list(drill.work)
    marks: dict[int, list[float]] = {}  # when each request heard of new tokens
    steps = 0
    start = time.perf_counter()
    while coming or engine.stats.running or engine.stats.waiting:
        if coming and steps % 2 == 0:
            job = coming.pop(0)
            marks[engine.add(job.prompt, job.new, stop=())] = []
        for event in engine.step():
            marks[event.id].append(time.perf_counter())
        steps += 1
    seconds = time.perf_counter() - start
    return {
        "run": drill.name,
        "cause": drill.cause,
        **counts(engine),
        **times(engine, marks, seconds),
    }


def counts(engine: Engine) -> dict:
    """What does not depend on the machine, from the engine's own records."""
    steps = engine.trace().steps
    checks = [check for step in engine.trace("speculation").steps for check in step.checks]
    stats = engine.stats
    prefilled = 0
    longest = 0
    for step in steps:
        prefilled += sum(fed for _, _, kind, fed, _, _ in step.rows if kind == "prefill")
        # only where somebody decodes does anybody wait for the others
        if any(kind != "prefill" for _, _, kind, *_ in step.rows):
            longest = max(longest, sum(fed for _, _, _, fed, _, _ in step.rows))
    return {
        "hit_rate": stats.prefix_hit_tokens / (stats.prefix_hit_tokens + prefilled),
        "preemptions": stats.preemptions,
        "blocks_total": stats.blocks_total,
        "blocks_used": max(
            stats.blocks_total - step.free - len(step.kept) for step in engine.trace("blocks").steps
        ),
        "drafts": sum(len(drafts) for _, drafts, _ in checks),
        "accepted": sum(accepted for _, _, accepted in checks),
        "longest_step": longest,
        "steps": len(steps),
        "tokens": sum(out for step in steps for *_, out in step.rows),
    }


def times(engine: Engine, marks: dict[int, list[float]], seconds: float) -> dict:
    """What users felt. longest_gap: between two tokens of one request."""
    ttft = engine.stats.ttft.values()
    tpot = engine.stats.tpot.values()
    return {
        "ttft_p50": quantile(ttft, 0.5),
        "ttft_p99": quantile(ttft, 0.99),
        "tpot_p50": quantile(tpot, 0.5),
        "tpot_p99": quantile(tpot, 0.99),
        "longest_gap": max(b - a for each in marks.values() for a, b in pairwise(each)),
        "tokens_per_second": sum(len(tokens) for tokens in engine.run().values()) / seconds,
    }


def quantile(values, q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def symptoms(row: dict, healthy: dict) -> str:
    """The cause that a row's counts speak for, beside those of a healthy run.

    Loud faults first: they change other counts as well.
    """
    if row["preemptions"] > healthy["preemptions"]:
        return "pool too small"
    if row["drafts"] > 0.5 * row["tokens"] and row["accepted"] < 0.2 * row["drafts"]:
        return "drafts refused"
    if row["longest_step"] > 2 * healthy["longest_step"]:
        return "prefill not chunked"
    if row["hit_rate"] < 0.5 * healthy["hit_rate"]:
        return "prefix not found"
    return "healthy"
