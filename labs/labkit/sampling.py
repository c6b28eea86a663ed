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
    min_p: float = 0.0  # keep what has this share of the top probability (Nguyen et al. 2024)
    seed: int | None = None

    def __post_init__(self):
        temperature, top_k, seed = self.temperature, self.top_k, self.seed
        rules = {
            "temperature": (isinstance(temperature, Real) and 0 <= temperature < math.inf, ">= 0"),
            "top_k": (isinstance(top_k, Integral) and top_k >= 0, ">= 0 (0 = off) and whole"),
            "top_p": (isinstance(self.top_p, Real) and 0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (isinstance(self.min_p, Real) and 0 <= self.min_p <= 1, "in [0, 1]"),
            "seed": (
                seed is None or (isinstance(seed, Integral) and -(2**63) <= seed < 2**64),
                "None or a whole number of 64 bits",
            ),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                raise ValueError(f"{name} must be {rule}, not {getattr(self, name)!r}")

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator | None:
        """This request's own source of randomness; None for greedy."""
        if self.temperature == 0:
            return None
        source = torch.Generator(device=device)
        if self.seed is None:
            source.seed()
        else:
            source.manual_seed(self.seed)
        return source


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


def greedy(logits: Tensor, live=()) -> list[int]:
    """The most likely next token of each request: logits [R,V] -> R token ids.

    `live`, which requests these are, makes no difference here.
    """
    return logits.argmax(-1).tolist()


def pick(logits: Tensor, samplings: list[Sampling], generators: list) -> list[int]:
    """The next token of each request, by its own sampling: logits [R,V] -> R token ids."""
    tokens = greedy(logits)
    for r, (sampling, source) in enumerate(zip(samplings, generators)):
        if sampling.temperature:
            chances = probabilities(logits[r], sampling)
            tokens[r] = int(torch.multinomial(chances, 1, generator=source))
    return tokens
