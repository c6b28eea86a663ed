"""Drafts are cheap guesses, checked many at once: the text stays the target's own, and arrives in fewer forwards.

Checking k drafts costs one forward of k + 1 tokens. Where a forward is bound by reading the weights, that is hardly more than a
forward of one; where a batch keeps the arithmetic busy, every draft costs its full price, and speculation loses.
"""
from __future__ import annotations

import time
from array import array
from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from labkit.step import Step


def accept(drafts: list[int], p: Tensor, q: Tensor | None = None, generator: torch.Generator | None = None) -> list[int]:
    """The tokens that follow from k drafts: those accepted, and one more of the target's own.

    p [k+1,V] the target's distributions after 0..k drafts · q [k,V] those the drafts were drawn from (None: drafts are certain).
    Draft x is kept with probability min(1, p(x) / q(x)); after the first refusal the token is drawn from max(0, p - q), scaled.
    Whatever q is, the tokens are distributed as p (Leviathan et al. 2023, appendix A.1; Chen et al. 2023).
    """
    for i, x in enumerate(drafts):
        guess = torch.zeros_like(p[i]).scatter_(0, torch.tensor(x), 1.0) if q is None else q[i]
        if torch.rand((), generator=generator) * guess[x] >= p[i, x]:
            return drafts[:i] + [int(torch.multinomial((p[i] - guess).clamp(min=0), 1, generator=generator))]
    return drafts + [int(torch.multinomial(p[len(drafts)], 1, generator=generator))]


class Proposer(Protocol):
    """Whatever can guess. `propose` gets requests, with how many drafts each may have, and the target's caches."""

    def propose(self, asked: list[tuple], caches: list) -> list[list[int]]: ...


class NGram:
    """Prompt lookup: what followed the last few tokens when they last occurred in this text (Saxena 2023)."""

    def __init__(self, longest: int = 3, shortest: int = 2):
        self.longest, self.shortest = longest, shortest

    def propose(self, asked, caches=()):
        return [self.lookup(r.tokens, k) for r, k in asked]

    def lookup(self, tokens: list[int], k: int) -> list[int]:
        """Up to k tokens; none if the end of the text is new."""
        text = array("i", tokens)
        size, text = text.itemsize, text.tobytes()
        for n in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            at, end = text.rfind(text[-n * size :], 0, -size), len(text)
            while at > 0 and at % size:  # between two tokens
                at = text.rfind(text[-n * size :], 0, at + n * size - 1)
            if at >= 0:
                return tokens[at // size + n : at // size + n + k]
        return []


class DraftModel:
    """A model that guesses for another: its first `layers` layers (early exit), or a quantised copy with all of them.

    It reads the target's own keys and values, and writes its drafts' into the same blocks, where the check overwrites them.
    """

    def __init__(self, model, layers: int | None = None):
        self.model, self.layers = model, layers

    def propose(self, asked, caches):
        drafts = [[] for _ in asked]
        for j in range(max(k for _, k in asked)):
            live = [i for i, (_, k) in enumerate(asked) if k > j]
            step = Step.of([(asked[i][0].row, asked[i][0].done + j, [(asked[i][0].tokens + drafts[i])[-1]]) for i in live], self.model.device)
            for i, token in zip(live, self.model(step, caches[: self.layers], step.last).argmax(-1).tolist()):
                drafts[i].append(token)
        return drafts


class Speculation:
    """Who may draft how much, decided by what was measured; so it is off where it loses.

    A request's drafts pay when the tokens they are expected to save, at the present seconds per token, are worth more than the
    seconds they add. Both sides are measured: `accepted` per request, `seconds` by the number of tokens in a step.
    """

    def __init__(self, proposer, most: int = 8):
        if isinstance(proposer, str):
            if proposer != "ngram":
                raise ValueError(f"speculative must be None, 'ngram' or a Proposer, not {proposer!r}")
            proposer = NGram()
        if proposer is not None and not hasattr(proposer, "propose"):
            raise ValueError(f"speculative must be None, 'ngram' or a Proposer, not {proposer!r}")
        self.proposer, self.most = proposer, most
        self.seconds: dict[int, deque] = {}  # tokens in a step of decodes and checks -> what the last ones took
        self.drafting = 0.0  # seconds per draft
        self.kept, self.tried = 1.0, 2.0  # of all requests lately: what is expected of a new one

    def allow(self, scheduler) -> None:
        """Set `drafts` of every running request. None while prompts wait: the budget is theirs."""
        if self.proposer is None:
            return
        decoding = [r for r in scheduler.running if len(r.tokens) - r.done == 1]
        busy = len(decoding) < len(scheduler.running) or (scheduler.waiting and scheduler.rows)
        for r in scheduler.running:
            r.drafts = 0
        if not decoding or busy or not self.seconds:
            return
        self.kept, self.tried = 0.995 * self.kept + 0.005, 0.995 * self.tried + 0.01  # forget slowly: try again some day
        N, per_token = len(decoding), self.predict(len(decoding)) / len(decoding)
        for r in sorted(decoding, key=self.rate, reverse=True):
            r.drafts = min(self.best(self.rate(r), N, per_token), r.limit - len(r.tokens) - 1)
            r.tried, r.kept = 0.98 * r.tried, 0.98 * r.kept
            N += r.drafts
            if not r.drafts:
                break

    def rate(self, r) -> float:
        """How likely a draft of this request is accepted: its own record, and at first everybody's."""
        return (r.kept + 2 * self.kept / self.tried) / (r.tried + 2)

    def best(self, rate: float, N: int, per_token: float) -> int:
        """The number of drafts with the largest gain, in a step that has N tokens already; 0 if none gains."""
        best, most, base = 0, 0.05 * per_token, self.predict(N)
        for k in range(1, self.most + 1):
            saved = rate * (1 - rate**k) / (1 - rate) * per_token if rate < 1 else k * per_token
            gain = saved - (self.predict(N + k) - base) - k * self.drafting
            if gain > most:
                best, most = k, gain
        return best

    def predict(self, N: int) -> float:
        """Seconds of a step of N tokens, from the nearest counts measured; beyond one, in proportion."""
        known = {n: sorted(s)[len(s) // 2] for n, s in self.seconds.items()}
        below = max((n for n in known if n <= N), default=None)
        above = min((n for n in known if n > N), default=None)
        if below is None or below == N:
            return known[above if below is None else N]
        if above is None:
            return known[below] * (N / below if below > 4 else 1)  # a few tokens cost what one costs, until measured
        return known[below] + (known[above] - known[below]) * (N - below) / (above - below)

    def propose(self, work, caches) -> dict[int, list[int]]:
        """Drafts by request id, for the work that has room for them."""
        asked = [(r, n - 1) for r, n in work if r.drafts and n > 1]
        if not asked:
            return {}
        started = time.perf_counter()
        drafts = self.proposer.propose(asked, caches)
        made = sum(map(len, drafts))
        if made:
            self.drafting += 0.2 * ((time.perf_counter() - started) / made - self.drafting)
        return {r.id: d[:k] for (r, k), d in zip(asked, drafts) if d}

    def observe(self, tokens: int, seconds: float, checked: list[tuple]) -> None:
        """A step of decodes and checks took `seconds`; checked: (request, drafts, accepted)."""
        self.seconds.setdefault(tokens, deque(maxlen=5)).append(seconds)
        for r, k, accepted in checked:
            for who, weight in (r, 0.9), (self, 0.99):
                who.kept = weight * who.kept + accepted
                who.tried = weight * who.tried + accepted + (accepted < k)
