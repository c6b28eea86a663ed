"""An engine's blocks: who holds which, which are free, kept or copied. `Engine.step` records it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlocksStep:
    """The blocks after one step of an engine."""

    tables: dict  # request -> its blocks, in order
    tokens: dict  # request -> how many of its tokens have their keys and values in them
    free: int
    kept: list[int]  # held by nobody, findable by their contents; oldest first
    copied: list  # [from, to] each, by copy on write
    evicted: list[int]  # blocks that were kept, and whose contents had to go
    preempted: list[int]  # requests that gave their blocks back, and wait
    hit_tokens: int  # found by prefix so far

    @classmethod
    def of(cls, scheduler, plan) -> BlocksStep:
        """After the step that `plan` asked for."""
        pool = scheduler.pool
        return cls(
            tables={r.id: list(r.blocks) for r in scheduler.running},
            tokens={r.id: r.done for r in scheduler.running},
            free=len(pool.free),
            kept=list(pool.kept),
            copied=plan.copies,
            evicted=plan.evicted,
            preempted=plan.preempted,
            hit_tokens=scheduler.hit_tokens,
        )
