"""An engine's blocks: who holds which, which are free, kept or copied. `Engine.step` records it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlocksStep:
    """The blocks after one step of an engine."""

    tables: dict  # request -> its blocks, in order
    free: int
    kept: list[int]  # held by nobody, findable by their contents; oldest first
    copied: list  # [from, to] each, by copy on write
    hit_tokens: int  # found by prefix so far

    @classmethod
    def of(cls, scheduler, plan) -> BlocksStep:
        """After the step that `plan` asked for."""
        tables = {r.id: list(r.blocks) for r in scheduler.running}
        pool = scheduler.pool
        return cls(tables, len(pool.free), list(pool.kept), plan.copies, scheduler.hit_tokens)
