"""An engine's guesses: which drafts each step checks, and what comes of them. `Engine.step` records
it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeculationStep:
    """The drafts that one step of an engine checked, and the tokens it gave.

    A request's new tokens are its accepted drafts and one more of the model's own: the right one
    where a draft was refused, a bonus where all were accepted. A stop token ends them earlier.
    """

    seconds: float
    checks: list  # [request, drafts, how many were accepted] each
    new: list  # [request, its new tokens] each, with drafts or without

    @classmethod
    def of(cls, checks: list, new: list, seconds: float) -> SpeculationStep:
        """After a step: `checks` is [(request, its drafts, how many were accepted)], `new` is as it
        is kept.
        """
        checked = [[r.id, list(drafts), accepted] for r, drafts, accepted in checks]
        return cls(seconds, checked, new)
