"""What the labs of paging share: the scheduler without a model, an engine with a clock on every
step, and one that reads prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch

from labkit import Engine, bench
from labkit.engine.request import Request
from labkit.engine.scheduler import Scheduler


def occupancy(
    work, slots: int, block_size: int, prefix: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Serve jobs (`serving.Job`) with the real scheduler and no model.

    At each step, when its tokens are written: tokens that the held blocks have room for, tokens
    that lie in them, and requests that run. A block that several requests hold counts once.
    """
    longest = max(len(job.prompt) + job.new for job in work)
    scheduler = Scheduler(
        max_batch=slots,
        n_blocks=slots * -(-longest // block_size),
        block_size=block_size,
        token_budget=512,
        longest=longest,
        prefix_cache=prefix,
    )
    scheduler.waiting.extend(Request(i, job.prompt, job.new) for i, job in enumerate(work))
    while scheduler.running or scheduler.waiting:
        plan = scheduler.schedule()
        fed = {w.request.id: w.fed for w in plan.work}
        filled = {
            block: min(block_size, r.done + fed.get(r.id, 0) - i * block_size)
            for r in scheduler.running
            for i, block in enumerate(r.blocks)
        }
        yield scheduler.pool.used * block_size, sum(filled.values()), len(scheduler.running)
        for w in plan.work:
            scheduler.advance(w.request, w.fed, [-1] if w.ends else [])


def time_engine(model, prompts: list[list[int]], new: int) -> bench.LoopTimes:
    """What `bench.time_decode` measures, on the engine: all prompts in the first step, each in
    blocks of its own.
    """
    blocks = len(prompts) * -(-(max(map(len, prompts)) + new) // 16)
    engine = Engine(
        model,
        max_batch=len(prompts),
        n_blocks=blocks,
        block_size=16,
        token_budget=sum(map(len, prompts)),
        prefix_cache=False,
    )
    for prompt in prompts:
        engine.add(prompt, new, stop=())
    marks = [time.perf_counter()]
    for _ in range(new):
        engine.step()
        marks.append(time.perf_counter())
    first, *each = [b - a for a, b in pairwise(marks)]
    return bench.LoopTimes(first, each, list(engine.run().values()))


def one_row(model, longest: int, prefix: bool = True) -> Engine:
    """An engine for one prompt at a time, in one step; it has room to keep four of them."""
    return Engine(
        model,
        max_batch=1,
        n_blocks=4 * -(-(longest + 1) // 16),
        block_size=16,
        token_budget=longest,
        prefix_cache=prefix,
    )


def read(engine: Engine, prompts: list[list[int]]) -> tuple[int, int, list[float]]:
    """One prompt after another, each up to its first token: tokens computed, tokens found by
    prefix, seconds to each first token.
    """
    before, ids = engine.stats.prefix_hit_tokens, []
    for prompt in prompts:
        ids.append(engine.add(prompt, 1, stop=()))
        engine.run()
    found = engine.stats.prefix_hit_tokens - before
    return sum(map(len, prompts)) - found, found, [engine.stats.ttft[id] for id in ids]


def served(model, work, n_blocks: int, block_size: int) -> Engine:
    """An engine that has served the jobs, all at once, from so many blocks."""
    engine = Engine(
        model,
        max_batch=len(work),
        n_blocks=n_blocks,
        block_size=block_size,
        token_budget=128,
        prefix_cache=False,
    )
    for job in work:
        engine.add(job.prompt, job.new, stop=())
    engine.run()
    return engine


def swapper(model, length: int, device: str = "cpu") -> tuple[Callable[[], None], int]:
    """A function that copies the cache of `length` tokens to the host's memory and back, and the
    bytes that it moves.
    """
    buffers = [b for cache in model.caches("paged", 1, length) for b in cache.buffers]
    aside = [torch.zeros(b.shape, dtype=b.dtype, pin_memory=str(device) != "cpu") for b in buffers]

    def swap() -> None:
        for b, out in zip(buffers, aside):
            out.copy_(b)
        for b, out in zip(buffers, aside):
            b.copy_(out)

    return swap, 2 * sum(b.nbytes for b in buffers)
