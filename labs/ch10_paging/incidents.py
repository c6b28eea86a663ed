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
from labkit.speculative import Speculation
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
    speculation: Speculation | None = None


class Wrong:
    """A proposer with another tokenizer: every id that it drafts is one off."""

    def __init__(self, vocab: int):
        self.vocab = vocab

    def propose(self, asked, caches) -> list[list[int]]:
        return [[(r.tokens[-1] + 1) % self.vocab] * k for r, k in asked]


class Stubborn(Speculation):
    """Four drafts for every request, whatever was measured: the engine's own switch is taken out."""

    def best(self, rate, cost, token) -> int:
        return 4


def drills(work: list[Job], long: Job, clock, setup: dict, pool: int, vocab: int) -> list[Drill]:
    """The healthy run, and one for each fault.

    Half of the requests that share a beginning come before `long`, which does not, and half after
    it. clock: request number -> tokens of a line that changes · setup: of a healthy engine, with a
    token budget far below `long` · pool: blocks that are too few.
    """
    half = len(work) // 2
    mixed = [*work[:half], long, *work[half:]]
    stamped = [Job(clock(i) + job.prompt, job.new) for i, job in enumerate(mixed)]
    unchunked = setup | {"token_budget": setup["token_budget"] + len(long.prompt)}
    return [
        Drill("healthy", "healthy", mixed, setup),
        Drill("the time at the head of every prompt", "prefix not found", stamped, setup),
        Drill(f"{pool} blocks", "pool too small", mixed, setup | {"n_blocks": pool}),
        Drill(f"{len(long.prompt):,} tokens in one step", "prefill not chunked", mixed, unchunked),
        Drill(
            "wrong drafts, never switched off",
            "drafts refused",
            mixed,
            setup,
            Stubborn(Wrong(vocab)),
        ),
        Drill(
            "wrong drafts, switched off by the engine",
            None,
            mixed,
            setup,
            Speculation(Wrong(vocab)),
        ),
    ]


def play(model, drill: Drill) -> dict:
    """Run a drill on a new engine: the row that a dashboard shows of it. Times in seconds."""
    engine, coming, marks, steps = Engine(model, **drill.setup), list(drill.work), {}, 0
    if drill.speculation:
        # a new one: it learns from what it measures
        engine.speculation = type(drill.speculation)(drill.speculation.proposer)
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
    schedule, blocks, checks = (
        engine.trace(kind).steps for kind in ("schedule", "blocks", "speculation")
    )
    fed = lambda step: sum(n for *_, n, _, _ in step.rows)
    prefilled = sum(n for s in schedule for _, _, kind, n, _, _ in s.rows if kind == "prefill")
    hits, total = engine.stats.prefix_hit_tokens, engine.stats.blocks_total
    return {
        "hit_rate": hits / (hits + prefilled),
        "preemptions": engine.stats.preemptions,
        "blocks_total": total,
        "blocks_used": max(total - s.free - len(s.kept) for s in blocks),
        "drafts": sum(len(d) for s in checks for _, d, _ in s.checks),
        "accepted": sum(a for s in checks for _, _, a in s.checks),
        "longest_step": max(
            fed(s) for s in schedule if any(kind != "prefill" for _, _, kind, *_ in s.rows)
        ),
        "steps": len(schedule),
        "tokens": sum(out for s in schedule for *_, out in s.rows),
    }


def times(engine: Engine, marks: dict[int, list[float]], seconds: float) -> dict:
    """What users felt. longest_gap: between two tokens of one request."""
    at = lambda xs, q: sorted(xs)[min(len(xs) - 1, int(q * len(xs)))]
    ttft, tpot = list(engine.stats.ttft.values()), list(engine.stats.tpot.values())
    return {
        "ttft_p50": at(ttft, 0.5),
        "ttft_p99": at(ttft, 0.99),
        "tpot_p50": at(tpot, 0.5),
        "tpot_p99": at(tpot, 0.99),
        "longest_gap": max(b - a for each in marks.values() for a, b in pairwise(each)),
        "tokens_per_second": sum(len(tokens) for tokens in engine.run().values()) / seconds,
    }


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
