"""The text that labs measure quality on, and how: the course's own prose, which no model has
memorised.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.step import Step


def prose(tokenizer, n: int) -> list[int]:
    """The first n tokens of `data/prose.txt`. ValueError if it is shorter."""
    tokens = tokenizer.encode((Path(__file__).parent / "data" / "prose.txt").read_text())
    if n > len(tokens):
        raise ValueError(f"the prose has {len(tokens)} tokens, which is fewer than {n}")
    return tokens[:n]


@torch.inference_mode()
def losses(model, tokens: list[int]) -> Tensor:
    """Negative log-likelihood of tokens 1, 2, … given all before them: [T-1], in nats.

    Its mean's exponential is the perplexity.
    """
    step = Step.of([(0, 0, tokens)], model.device)
    x = model(step, model.caches("none", 1, 1))[:-1].float()
    return F.cross_entropy(x, step.ids[1:], reduction="none").cpu()
