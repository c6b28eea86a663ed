"""From logits to the next token.

Temperature 0 is greedy; the filters follow transformers' order: top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How one request picks its tokens.

    The same seed gives the same tokens whatever else is in the batch.
    """

    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # 0 = off: keep the k most likely
    top_p: float = 1.0  # keep the smallest set with this much probability (Holtzman et al. 2020)
    # keep what has at least this share of the top probability (Nguyen et al. 2024)
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self):
        for name, kind, fits, rule in (
            ("temperature", Real, lambda t: 0 <= t < math.inf, ">= 0"),
            ("top_k", Integral, lambda k: k >= 0, ">= 0 (0 = off) and whole"),
            ("top_p", Real, lambda p: 0 < p <= 1, "in (0, 1]"),
            ("min_p", Real, lambda p: 0 <= p <= 1, "in [0, 1]"),
            (
                "seed",
                Integral | None,
                lambda s: s is None or -(2**63) <= s < 2**64,
                "None or a whole number of 64 bits",
            ),
        ):
            value = getattr(self, name)
            if not (isinstance(value, kind) and fits(value)):
                raise ValueError(f"{name} must be {rule}, not {value!r}")

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator | None:
        """This request's own source of randomness; None for greedy."""
        if self.temperature == 0:
            return None
        g = torch.Generator(device=device)
        g.manual_seed(self.seed) if self.seed is not None else g.seed()
        return g


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that `sampling` draws from: logits [...,V] -> probabilities [...,V].

    Greedy is all on the top token.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1:
        # ascending: drop the tail whose total stays within 1 - top_p
        ordered, order = logits.sort(dim=-1)
        tail = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        tail[..., -1] = False
        logits = logits.masked_fill(tail.scatter(-1, order, tail), float("-inf"))
    if sampling.min_p:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < sampling.min_p * p.amax(-1, keepdim=True), float("-inf"))
    return logits.softmax(-1)


def pick(logits: Tensor, samplings: list[Sampling], generators: list) -> list[int]:
    """The next token of each request: logits [R,V] -> R token ids."""
    tokens = logits.argmax(-1).tolist()
    for r, (s, g) in enumerate(zip(samplings, generators)):
        if s.temperature:
            tokens[r] = int(torch.multinomial(probabilities(logits[r], s), 1, generator=g))
    return tokens
