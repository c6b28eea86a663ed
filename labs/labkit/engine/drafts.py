"""How many drafts a request may have in the next step: a fixed number, or as many as pay.

No number is right everywhere. Where one user's reply copies its prompt, dozens pay; where many
share a step, and arithmetic is its limit, none does (CH12-LOOKUP and CH12-BATCH show both). So an
engine that is not told a number measures.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from itertools import accumulate
from typing import Protocol

import numpy as np

from labkit.config import whole
from labkit.engine.request import Request

# drafts of one request in one step: a text that is copied with one error in 50 tokens goes on for
# about as many
MOST = 48
# times scatter by some percent, and a gain smaller than this share of a token may be none
MARGIN = 0.05
# a request's own record is trusted little before this many of its drafts were looked at
PRIOR = 2
# a median of five outlives two steps that somebody else held up
LATELY = 5
# sizes 19 % apart are one class: enough of its steps come by to have a median
CLASSES_PER_DOUBLING = 4
# before anything larger was seen: so many tokens cost what one costs, for weights are read once
CHEAP = 8


class Policy(Protocol):
    """Whoever says how many drafts are made. One engine's: it may remember its requests."""

    def allow(self, running: list[Request], token_budget: int) -> dict[int, int]:
        """Drafts that requests may have in a step which only decodes, by request id; 0 if absent.

        The scheduler gives fewer where blocks, the budget or the end of a reply leave less room.
        """

    def observe(self, tokens: int, seconds: float, drafting: float, checks: list[tuple]) -> None:
        """Hear what a step of decodes and checks took.

        tokens: fed, drafts included · seconds: in all, of which `drafting` for making drafts ·
        checks: (request, its drafts, how many were accepted) each.
        """


def as_policy(drafts: int | Policy | None) -> Policy:
    """What an engine is given: None = `Measured`, a number = `Fixed`, or a policy."""
    if drafts is None:
        return Measured()
    if hasattr(drafts, "allow") and hasattr(drafts, "observe"):
        return drafts
    whole(drafts=drafts)
    return Fixed(drafts)


class Fixed:
    """So many drafts for each request in each step, whatever they cost."""

    def __init__(self, drafts: int):
        self.drafts = drafts

    def allow(self, running, token_budget):
        return {r.id: self.drafts for r in running}

    def observe(self, tokens, seconds, drafting, checks):
        pass


class Measured:
    """As many drafts as pay, by what was measured: where speculation loses it is off.

    Drafts pay when the tokens that they should save, at the seconds a token now takes, are worth
    more than the seconds they add. Both sides are known from earlier steps: which drafts were
    accepted, and what a step of N tokens took.
    """

    def __init__(self, most: int = MOST):
        self.most = most
        self.times = StepTimes()
        self.draft_seconds = 0.0  # of one draft
        # Memory, in checks and in steps. A request's is short, for its text changes; everybody's
        # says what to expect of a new request, and at first that one draft in two is right.
        self.everybody = Record(kept=1.0, tried=2.0, checks=100, steps=200)
        self.records: dict[int, Record] = {}  # of the running requests, by id

    def allow(self, running, token_budget):
        known = self.records
        self.records = {r.id: known.get(r.id) or Record(checks=10, steps=50) for r in running}
        for record in (self.everybody, *self.records.values()):
            record.fade()
        if not self.times:
            return {}
        fed = len(running)  # and the drafts that were given so far
        most = min(fed * (1 + self.most), max(fed, token_budget))
        seconds = self.times.seconds(most)
        token = seconds[fed] / fed  # what one takes without drafts
        allowed = {}
        # the likeliest first: later ones find a fuller, dearer step
        for r in sorted(running, key=self.rate, reverse=True):
            pays = self.best(self.rate(r), seconds[fed:], token)
            drafts = min(pays, r.draftable)
            if not drafts:  # then the others' don't pay either, or will in the next step
                break
            allowed[r.id] = drafts
            fed += drafts
        return allowed

    def observe(self, tokens, seconds, drafting, checks):
        self.times.add(tokens, seconds - drafting)
        made = sum(len(drafts) for _, drafts, _ in checks)
        if made:
            self.draft_seconds += (drafting / made - self.draft_seconds) / LATELY
        for r, drafts, accepted in checks:
            self.everybody.add(len(drafts), accepted)
            self.records[r.id].add(len(drafts), accepted)

    def rate(self, r: Request) -> float:
        """How likely a draft of this request is accepted: by its own record, and at first by
        everybody's.
        """
        own = self.records[r.id]
        expected = self.everybody.kept / self.everybody.tried
        return (own.kept + PRIOR * expected) / (own.tried + PRIOR)

    def best(self, rate: float, seconds: np.ndarray, token: float) -> int:
        """The number of drafts that gains most; 0 if none gains enough.

        seconds: what the step takes with 0, 1, … more tokens · token: seconds that one is worth.
        """
        # the k-th draft counts only if all before it were right
        saved = accumulate((rate**k for k in range(1, self.most + 1)), initial=0.0)
        gains = [
            tokens * token - (after - seconds[0]) - k * self.draft_seconds
            for k, (tokens, after) in enumerate(zip(saved, seconds))
        ]
        return gains.index(max(gains)) if max(gains) > MARGIN * token else 0


class Record:
    """How many drafts were right, of those looked at, lately.

    checks: how many it remembers, about · steps: after about so many without a check it is back
    where it began, so that what lost is tried again some day.
    """

    def __init__(self, kept: float = 0.0, tried: float = 0.0, *, checks: int, steps: int):
        self.start = kept, tried
        self.kept = kept
        self.tried = tried
        self.checks = checks
        self.steps = steps

    def fade(self) -> None:
        """A step has passed."""
        kept, tried = self.start
        self.kept += (kept - self.kept) / self.steps
        self.tried += (tried - self.tried) / self.steps

    def add(self, drafts: int, accepted: int) -> None:
        """A check: it looked at those accepted, and at the first that was refused."""
        self.kept += accepted - self.kept / self.checks
        self.tried += min(accepted + 1, drafts) - self.tried / self.checks


class StepTimes:
    """What a step of N tokens takes, from the last ones of about that size.

    Times scatter, and what counts here are their differences: so steps of about one size share a
    median, and more tokens never cost less.
    """

    def __init__(self):
        self.took: dict[int, deque] = {}  # class of size -> (tokens, seconds) of the last ones

    def __bool__(self) -> bool:
        return bool(self.took)

    def add(self, tokens: int, seconds: float) -> None:
        size = round(CLASSES_PER_DOUBLING * math.log2(tokens))
        self.took.setdefault(size, deque(maxlen=LATELY)).append((tokens, seconds))

    def seconds(self, most: int) -> np.ndarray:
        """Of steps of 0 to `most` tokens: interpolated, and in proportion beyond the largest."""
        classes = [zip(*self.took[size]) for size in sorted(self.took)]
        sizes, medians = [], []
        for tokens, seconds in classes:
            sizes.append(statistics.mean(tokens))
            medians.append(statistics.median(seconds))
        N = np.arange(most + 1)
        known = np.interp(N, sizes, np.maximum.accumulate(medians))
        return known * np.maximum(1, N / max(sizes[-1], CHEAP))
