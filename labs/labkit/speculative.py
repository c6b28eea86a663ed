"""Drafts are cheap guesses, checked many at once: the text stays the target's own, and arrives in
fewer forwards.

Checking k drafts costs one forward of k + 1 tokens. Where a forward is bound by reading the
weights, that is hardly more than a forward of one; where a batch keeps the arithmetic busy, every
draft costs its full price, and speculation loses.
"""

from __future__ import annotations

import math
import statistics
import time
from array import array
from collections import deque
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from labkit.step import Step


def accept(
    drafts: list[int], p: Tensor, q: Tensor | None = None, generator: torch.Generator | None = None
) -> list[int]:
    """The tokens that follow from k drafts: those accepted, and one more of the target's own.

    p [k+1,V] the target's distributions after 0..k drafts · q [k,V] those the drafts were drawn
    from (None: drafts are certain). Draft x is kept with probability min(1, p(x) / q(x)); after the
    first refusal the token is drawn from max(0, p - q), scaled. Whatever q is, the tokens are
    distributed as p (Leviathan et al. 2023, appendix A.1; Chen et al. 2023).
    """
    for i, x in enumerate(drafts):
        guess = (torch.arange(p.shape[1], device=p.device) == x).to(p.dtype) if q is None else q[i]
        if torch.rand((), generator=generator, device=p.device) * guess[x] >= p[i, x]:
            return [
                *drafts[:i],
                int(torch.multinomial((p[i] - guess).clamp(min=0), 1, generator=generator)),
            ]
    return [*drafts, int(torch.multinomial(p[len(drafts)], 1, generator=generator))]


class Proposer(Protocol):
    """Whatever can guess."""

    def propose(self, asked: list[tuple], caches: list) -> list[list[int]]:
        """Drafts for each (request, how many it may have).

        `caches` are the target's, `request.row` its row in them.
        """


class NGram:
    """Prompt lookup: what followed the last few tokens when they last occurred in this text (Saxena
    2023).
    """

    def __init__(self, longest: int = 3, shortest: int = 2):
        self.longest, self.shortest = longest, shortest

    def propose(self, asked, caches=()):
        return [self.lookup(r.tokens, k) for r, k in asked]

    def lookup(self, tokens: list[int], k: int) -> list[int]:
        """Up to k tokens; none if the end of the text is new."""
        text = array("i", tokens).tobytes()  # bytes are searched faster than lists
        for n in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            at = len(text) - 4 * n
            while (at := text.rfind(text[-4 * n :], 0, at + 4 * n - 1)) % 4:  # -1 % 4 is 3
                if at < 0:
                    break
            if at >= 0:
                return tokens[at // 4 + n : at // 4 + n + k]
        return []


class DraftModel:
    """A model that guesses for another: its first `layers` layers (early exit), or a quantised copy
    with all of them.

    It reads the target's own keys and values, and writes its drafts' into the same blocks, where
    the check overwrites them.
    """

    def __init__(self, model, layers: int | None = None):
        self.model, self.layers = model, layers

    def propose(self, asked, caches):
        texts = [[r.tokens[-1]] for r, _ in asked]
        for j in range(max(k for _, k in asked)):
            live = [(r, text) for (r, k), text in zip(asked, texts) if k > j]
            step = Step.of([(r.row, r.done + j, text[-1:]) for r, text in live], self.model.device)
            for (_, text), token in zip(
                live, self.model(step, caches[: self.layers], step.last).argmax(-1).tolist()
            ):
                text.append(token)
        return [text[1:] for text in texts]


class Speculation:
    """Who may draft how much, decided by what was measured: where speculation loses it is off.

    Drafts pay when the tokens that they should save, at the seconds a token now takes, are worth
    more than the seconds they add. Both sides are known from earlier steps: which drafts were
    accepted, and what a step of N tokens took.
    """

    def __init__(self, proposer, most: int = 48):
        self.proposer = NGram() if proposer == "ngram" else proposer
        self.most = most
        if not (proposer is None or hasattr(self.proposer, "propose")):
            raise ValueError(f"speculative must be None, 'ngram' or a Proposer, not {proposer!r}")
        # size of a step of decodes and checks, in classes 19 % apart -> (tokens, seconds) of the
        # last ones
        self.took: dict[int, deque] = {}
        self.drafting = self.spent = 0.0  # seconds per draft; on drafts in this step
        # drafts of all requests lately: what is expected of a new one
        self.kept = 1.0
        self.tried = 2.0

    def allow(self, scheduler) -> None:
        """Set every running request's `drafts`.

        None while there are prompts to read: the budget is theirs.
        """
        for r in scheduler.running:
            # forget: what lost may win some day
            r.drafts = 0
            r.kept = 0.98 * r.kept
            r.tried = 0.98 * r.tried
        if not (
            self.proposer
            and self.took
            and scheduler.running
            and all(r.decoding for r in scheduler.running)
        ):
            return
        self.kept = 0.995 * self.kept + 0.005
        self.tried = 0.995 * self.tried + 0.01
        N = len(scheduler.running)
        cost = self.seconds(min(N * (1 + self.most), max(N, scheduler.token_budget)))
        for r in sorted(scheduler.running, key=self.rate, reverse=True):
            r.drafts = min(
                self.best(
                    self.rate(r), cost[N:], cost[len(scheduler.running)] / len(scheduler.running)
                ),
                r.limit - len(r.tokens) - 1,
            )
            N += r.drafts
            if not r.drafts:
                break

    def rate(self, r) -> float:
        """How likely a draft of this request is accepted: by its own record, and at first by
        everybody's.
        """
        return (r.kept + 2 * self.kept / self.tried) / (r.tried + 2)

    def best(self, rate: float, cost, token: float) -> int:
        """The number of drafts that gains most, when k more tokens in a step cost `cost[k]` and one
        is worth `token` seconds; 0 below 5 %.
        """
        saved = accumulate((rate**k for k in range(1, self.most + 1)), initial=0.0)
        gains = [
            s * token - (c - cost[0]) - k * self.drafting
            for k, (s, c) in enumerate(zip(saved, cost))
        ]
        return gains.index(max(gains)) if max(gains) > 0.05 * token else 0

    def seconds(self, most: int) -> np.ndarray:
        """What steps of 0 to `most` tokens take: interpolated; in proportion beyond what was
        measured, but a few cost what one costs.

        Times scatter, and what counts here are their differences: so steps of about one size share
        a median, and more never costs less.
        """
        classes = [list(zip(*self.took[size])) for size in sorted(self.took)]
        N = np.arange(most + 1)
        sizes = [statistics.mean(tokens) for tokens, _ in classes]
        known = np.interp(
            N, sizes, np.maximum.accumulate([statistics.median(seconds) for _, seconds in classes])
        )
        return known * np.maximum(1, N / max(sizes[-1], 8))

    def propose(self, work, caches) -> dict[int, list[int]]:
        """Drafts by request id, for those of the step's requests that have room for them."""
        asked = [(r, n - 1) for r, n in work if r.drafts and n > 1]
        started, drafts = time.perf_counter(), self.proposer.propose(asked, caches) if asked else []
        self.spent = time.perf_counter() - started
        if made := sum(map(len, drafts)):
            self.drafting += 0.2 * (self.spent / made - self.drafting)
        return {r.id: draft for (r, _), draft in zip(asked, drafts) if draft}

    def observe(self, tokens: int, seconds: float, checks: list[tuple]) -> None:
        """A step of decodes and checks took so long; checks: (request, drafts, how many were
        accepted).
        """
        self.took.setdefault(round(4 * math.log2(tokens)), deque(maxlen=5)).append(
            (tokens, seconds - self.spent)
        )
        for r, draft, accepted in checks:
            for who, weight in (r, 0.9), (self, 0.99):
                who.kept = weight * who.kept + accepted
                who.tried = weight * who.tried + accepted + (accepted < len(draft))
