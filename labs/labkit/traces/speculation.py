"""An engine's guesses: which drafts each step checks, and what comes of them. `Engine.step` records
it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeculationStep:
    """The drafts that one step of an engine checked."""

    seconds: float
    checks: list  # [request, drafts, how many were accepted] each

    @classmethod
    def of(cls, checks: list, seconds: float) -> SpeculationStep:
        """After a step: `checks` is [(request, its drafts, how many were accepted)]."""
        return cls(seconds, [[r.id, list(drafts), accepted] for r, drafts, accepted in checks])
