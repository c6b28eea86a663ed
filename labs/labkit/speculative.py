"""Drafts are cheap guesses, checked many at once: the text stays the target's own, and arrives in
fewer forwards.

Checking k drafts costs one forward of k + 1 tokens. Where a forward is bound by reading the
weights, that is hardly more than a forward of one; where a batch keeps the arithmetic busy, every
draft costs its full price, and speculation loses.
"""

from __future__ import annotations

from array import array
from typing import Protocol

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
        if q is None:
            drawn_from = (torch.arange(p.shape[1], device=p.device) == x).to(p.dtype)  # [V]
        else:
            drawn_from = q[i]
        u = torch.rand((), generator=generator, device=p.device)
        if u * drawn_from[x] >= p[i, x]:
            # what the draft takes from too seldom; multinomial scales it
            missing = (p[i] - drawn_from).clamp(min=0)
            return [*drafts[:i], int(torch.multinomial(missing, 1, generator=generator))]
    return [*drafts, int(torch.multinomial(p[len(drafts)], 1, generator=generator))]


class Proposer(Protocol):
    """Whatever can guess."""

    def propose(self, asked: list[tuple], caches: list) -> list[list[int]]:
        """Drafts for each (request, how many it may have).

        `caches` are the target's, `request.row` its row in them; its tokens up to `request.done`
        are there.
        """


def as_proposer(speculative: str | Proposer | None) -> Proposer | None:
    """What an engine is given: None, "ngram", or a proposer of yours."""
    if speculative == "ngram":
        return NGram()
    if not (speculative is None or hasattr(speculative, "propose")):
        raise ValueError(f"speculative must be None, 'ngram' or a Proposer, not {speculative!r}")
    return speculative


class NGram:
    """Prompt lookup: what followed the last few tokens when they last occurred in this text (Saxena
    2023).
    """

    def __init__(self, longest: int = 3, shortest: int = 2):
        self.longest = longest
        self.shortest = shortest

    def propose(self, asked, caches=()):
        return [self.lookup(r.tokens, k) for r, k in asked]

    def lookup(self, tokens: list[int], k: int) -> list[int]:
        """Up to k tokens; none if the end of the text is new."""
        text = array("i", tokens).tobytes()  # 4 a token; bytes are searched faster than lists
        for n in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            at = len(text) - 4 * n
            # backwards, until a hit lies on a token's first byte, or there is none (-1 % 4 is 3)
            while (at := text.rfind(text[-4 * n :], 0, at + 4 * n - 1)) % 4:
                if at < 0:
                    break
            if at >= 0:
                follows = at // 4 + n
                return tokens[follows : follows + k]
        return []


class DraftModel:
    """A model that guesses for another: its first `layers` layers (early exit), or a quantised copy
    with all of them.

    It reads the target's own keys and values, and writes its drafts' into the same blocks, where
    the check overwrites them.
    """

    def __init__(self, model, layers: int | None = None):
        self.model = model
        self.layers = layers

    def propose(self, asked, caches):
        texts = [[r.tokens[-1]] for r, _ in asked]
        for j in range(max(k for _, k in asked)):
            live = [(r, text) for (r, k), text in zip(asked, texts) if k > j]
            step = Step.of([(r.row, r.done + j, text[-1:]) for r, text in live], self.model.device)
            best = self.model(step, caches[: self.layers], step.last).argmax(-1).tolist()
            for (_, text), token in zip(live, best):
                text.append(token)
        return [text[1:] for text in texts]
