"""Arrivals drive the real scheduler.

Only the model is replaced: by what its steps were measured to take.
"""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(frozen=True)
class Arrival:
    """A request in traffic: when it comes, how long its own prompt and its reply are, and which
    system prompt it shares.
    """

    at: float  # seconds
    own: int
    new: int
    group: int = 0
    shared: int = 256

    def prompt(self, i: int, vocab: int = 49152) -> list[int]:
        """Token ids: the same for all of a group, then request `i`'s own."""
        return system(self.group, self.shared, vocab) + random.Random(i).choices(
            range(vocab), k=self.own
        )


@functools.cache
def system(group: int, length: int, vocab: int) -> list[int]:
    return random.Random(-1 - group).choices(range(vocab), k=length)


def lengths(rnd, own=(20, 120), mean=64, new=(8, 256)) -> tuple[int, int]:
    """Own prompt tokens, uniform, and new tokens, geometric: the ladder's workload."""
    return rnd.randint(*own), min(new[1], max(new[0], round(rnd.expovariate(1 / mean))))


def poisson(rate: float, n: int, seed: int = 0, groups: int = 1, draw=lengths) -> list[Arrival]:
    """`n` requests that come independently of each other, `rate` a second on average."""
    rnd = random.Random(seed)
    times = accumulate(rnd.expovariate(rate) for _ in range(n))
    return [Arrival(at, *draw(rnd), rnd.randrange(groups)) for at in times]


def bursts(
    rate: float, n: int, size: int, seed: int = 0, groups: int = 1, draw=lengths
) -> list[Arrival]:
    """The same average rate, but `size` at once."""
    rnd = random.Random(seed)
    times = list(accumulate(rnd.expovariate(rate / size) for _ in range(-(-n // size))))
    return [Arrival(times[i // size], *draw(rnd), rnd.randrange(groups)) for i in range(n)]


def recorded(rows, speed: float = 1.0) -> list[Arrival]:
    """Traffic from a log: (seconds, prompt tokens, new tokens) rows, in order; replayed `speed`
    times as fast; nothing is shared.
    """
    return [Arrival(at / speed, own, new, shared=0) for at, own, new in rows]


@dataclass(frozen=True)
class CostModel:
    """Seconds of a step: `base + per_token * tokens fed + per_context * tokens attended to`."""

    base: float
    per_token: float
    per_context: float

    def __call__(self, tokens: int, context: int) -> float:
        return self.base + self.per_token * tokens + self.per_context * context

    @classmethod
    def fit(cls, *traces) -> CostModel:
        """Least squares over the steps of an engine's schedule traces, no part below 0."""
        import numpy as np

        steps = [s for trace in traces for s in trace.steps]
        X = np.array(
            [[1, sum(r[3] for r in s.rows), sum(r[4] for r in s.rows)] for s in steps], float
        )
        y, use = np.array([s.seconds for s in steps]), [0, 1, 2]
        weight = 1 / y  # every step's relative error counts the same
        while True:
            part = np.zeros(3)
            part[use] = np.linalg.lstsq(X[:, use] * weight[:, None], y * weight, rcond=None)[0]
            if part.min() >= 0:
                return cls(*part.tolist())
            use = [i for i in use if part[i] > 0]


@dataclass
class Report:
    """What the users saw, in seconds per request, and how busy the machine was."""

    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0  # of the traffic, simulated or real
    steps: int = 0
    row_steps: int = 0
    preemptions: int = 0
    hit_tokens: int = 0

    def goodput(self, ttft: float, tpot: float) -> float:
        """Requests a second that had their first token within `ttft`, and each later one within
        `tpot`.
        """
        return sum(a <= ttft and b <= tpot for a, b in zip(self.ttft, self.tpot)) / self.seconds

    def row(self, **more) -> dict:
        """As a row of results: medians and 99th percentiles."""
        at = lambda xs, q: sorted(xs)[min(len(xs) - 1, int(q * len(xs)))]
        return {
            **more,
            "requests": len(self.ttft),
            "tokens_per_second": self.tokens / self.seconds,
            "ttft_p50": at(self.ttft, 0.5),
            "ttft_p99": at(self.ttft, 0.99),
            "tpot_p50": at(self.tpot, 0.5),
            "tpot_p99": at(self.tpot, 0.99),
            "steps": self.steps,
            "rows_per_step": self.row_steps / self.steps,
            "preemptions": self.preemptions,
            "hit_tokens": self.hit_tokens,
        }


def simulate(
    arrivals: list[Arrival],
    cost,
    *,
    max_batch: int,
    n_blocks: int,
    block_size: int = 16,
    token_budget: int = 256,
    prefix_cache: bool = True,
    static: bool = False,
) -> Report:
    """Run the traffic through the real `Scheduler`; each step takes `cost(tokens fed, tokens
    attended to)` seconds.

    `static`: a batch starts when the one before it is done, as engines did before Orca.
    """
    from labkit.engine.request import Request
    from labkit.engine.scheduler import Scheduler

    longest = max(a.shared + a.own + a.new for a in arrivals)
    if -(-longest // block_size) > n_blocks:
        raise ValueError(
            f"the longest request has {longest} tokens; {n_blocks} blocks of {block_size} hold"
            f" {n_blocks * block_size}"
        )
    scheduler = Scheduler(
        max_batch=max_batch,
        n_blocks=n_blocks,
        block_size=block_size,
        token_budget=token_budget,
        longest=longest,
        prefix_cache=prefix_cache,
    )
    report = Report()
    now = 0.0
    i = 0
    queue = scheduler.waiting
    while i < len(arrivals) or scheduler.running or queue:
        while i < len(arrivals) and (arrivals[i].at <= now or not (scheduler.running or queue)):
            now = max(now, arrivals[i].at)
            queue.append(Request(i, arrivals[i].prompt(i), arrivals[i].new, arrived=arrivals[i].at))
            i += 1
        held, scheduler.waiting = (
            (queue, type(queue)()) if static and scheduler.running else (None, queue)
        )
        work = scheduler.schedule().work
        if held is not None:
            held.extendleft(reversed(scheduler.waiting))  # preempted
            scheduler.waiting = held
        tokens = context = 0
        for w in work:
            tokens += w.fed
            context += w.request.done + w.fed
        now += cost(tokens, context)
        report.steps += 1
        report.row_steps += len(work)
        for w in work:
            r = w.request
            made = [-1] if w.ends else []
            scheduler.advance(r, w.fed, made)
            if made and r.first_token is None:
                r.first_token = now
            if r.finished:
                report.ttft.append(r.first_token - r.arrived)
                report.tpot.append((now - r.first_token) / max(1, r.max_new_tokens - 1))
                report.tokens += r.max_new_tokens
    report.seconds = now
    report.preemptions = scheduler.preemptions
    report.hit_tokens = scheduler.hit_tokens
    return report


def live(engine, arrivals: list[Arrival], progress=lambda done: None) -> Report:
    """The same traffic on a real engine, in real time."""
    report, start, i, vocab = Report(), time.perf_counter(), 0, engine.model.config.vocab_size
    ids, late = [], {}
    while i < len(arrivals) or engine.stats.running or engine.stats.waiting:
        now = time.perf_counter() - start
        while i < len(arrivals) and arrivals[i].at <= now:
            ids.append(engine.add(arrivals[i].prompt(i, vocab), arrivals[i].new, stop=()))
            late[ids[-1]] = now - arrivals[i].at  # it came while a step ran
            i += 1
        if not (engine.stats.running or engine.stats.waiting):
            time.sleep(max(0.0, min(0.01, arrivals[i].at - now)))
            continue
        report.row_steps += len({e.id for e in engine.step()})
        report.steps += 1
        progress(len(engine.stats.ttft))
    stats = engine.stats
    report.ttft = [stats.ttft[id] + late[id] for id in ids]
    report.tpot = [stats.tpot.get(id, 0.0) for id in ids]
    report.tokens = sum(a.new for a in arrivals)
    report.seconds = time.perf_counter() - start
    report.preemptions = stats.preemptions
    report.hit_tokens = stats.prefix_hit_tokens
    return report
