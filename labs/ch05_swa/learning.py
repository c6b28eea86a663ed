"""The recall task of `labkit_labs.common.recall`, learned by models of other windows and depths.

As there, but for the rate: six layers that all see everything learn nothing at its 6e-3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit import GPT, ModelConfig
from labkit_labs.common import recall


def trained(config: ModelConfig, seed: int, steps: int, rate: float) -> GPT:
    """A model after so many steps: AdamW, clipped; the rate rises over 100 steps, stays, and falls
    to a twentieth over the last 40 %.
    """
    torch.manual_seed(seed)
    model = GPT(config)
    data = torch.Generator().manual_seed(1000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.01)
    for done in range(steps):
        share = min((done + 1) / 100, 1, max(0.05, (1 - done / steps) / 0.4))
        for group in optimiser.param_groups:
            group["lr"] = rate * share
        pairs = recall.PAIRS[int(torch.randint(len(recall.PAIRS), (), generator=data))]
        step, asked, right = recall.batch(pairs, recall.TOKENS // (3 * pairs), data)
        loss = F.cross_entropy(recall.answers(model, step, asked), right)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def learn(types: tuple[str, ...], window: int, seed: int, steps: int, rate: float) -> dict:
    """Train a model of these layers, and what it recalls: {pairs: share}."""
    config = recall.SHELL.replace(n_layers=len(types))
    if "sliding" in types:
        config = config.replace(layer_types=types, window=window)
    model = trained(config, seed, steps, rate)
    return {str(pairs): recall.recall(model, pairs) for pairs in recall.PAIRS}
