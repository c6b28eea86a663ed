"""What the labs of speculation share: an engine, a watch on what it serves, and on what guesses
cost.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch

from labkit import Engine, bench
from labkit.engine.drafts import Fixed, StepTimes
from labkit.step import Step

K = 3  # drafts for each request in each step, where guesses are always made
CONTEXT = 128  # tokens before a forward that is priced
SIZES = (1, 2, 4, 8, 16, 32, 64)  # tokens in it


def engine(model, seats: int, speculative=None, drafts=None) -> Engine:
    """One with room for its seats, and for prompts to stay. speculative, drafts: see `Engine`."""
    return Engine(
        model,
        max_batch=seats,
        n_blocks=24 * seats + 24,
        block_size=16,
        token_budget=512,
        speculative=speculative,
        drafts=drafts,
    )


@dataclass
class Served:
    """What serving gave and took."""

    tokens: list[list[int]]  # new ones, of each prompt
    seconds: float  # in all
    decodes: list[float]  # seconds of each forward without a prompt
    checks: list  # [request, drafts, how many were accepted] each


def serve(engine: Engine, prompts: list[list[int]], new: int, stop=None) -> Served:
    """Hand prompts to an engine, all at once, and watch it until they are done."""
    before = engine.steps
    start = time.perf_counter()
    ids = [engine.add(prompt, new, stop=stop) for prompt in prompts]
    while engine.stats.running or engine.stats.waiting:
        engine.step()
    seconds = time.perf_counter() - start
    ran = engine.steps - before
    steps = engine.trace().steps[-ran:]
    return Served(
        [engine.requests[id].new for id in ids],
        seconds,
        [s.seconds for s in steps if all(row[2] != "prefill" for row in s.rows)],
        [check for s in engine.trace("speculation").steps[-ran:] for check in s.checks],
    )


def acceptance(checks: list) -> float | None:
    """Share of drafts accepted, of those looked at: what comes after a refusal is not.

    None if there was no draft.
    """
    looked = sum(min(n + 1, len(drafts)) for _, drafts, n in checks)
    return sum(n for *_, n in checks) / looked if looked else None


class Noted(Fixed):
    """So many drafts in each step, and notes of what they and the steps took."""

    def __init__(self, drafts: int):
        super().__init__(drafts)
        self.steps = StepTimes()
        self.each: list[float] = []  # seconds of a draft, in each step that had some

    def observe(self, tokens, seconds, drafting, checks):
        self.steps.add(tokens, seconds - drafting)
        made = sum(len(drafts) for _, drafts, _ in checks)
        if made:
            self.each.append(drafting / made)

    @property
    def draft(self) -> float:
        """Seconds that one draft takes; 0 if there was none."""
        return statistics.median(self.each) if self.each else 0.0

    @property
    def check(self) -> float:
        """Seconds of a step that checks all drafts of one request, without those of making them."""
        return float(self.steps.seconds(self.drafts + 1)[-1])


def prices(model, repeats: int) -> dict[int, float]:
    """Tokens in a forward of one request, after CONTEXT others -> seconds."""
    caches = model.caches("static", 1, CONTEXT + SIZES[-1])

    @torch.inference_mode()
    def forward(n):
        model(Step.of([(0, CONTEXT, [5] * n)], model.device), caches)

    times = bench.interleave(
        {n: partial(forward, n) for n in SIZES}, repeats=repeats, device=str(model.device)
    )
    return {n: m.median for n, m in times.items()}
