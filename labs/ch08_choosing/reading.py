"""Every variant reads Jane Austen: one small shell, trained character by character.

The insides are those of the recall task, in a shell of two layers. What a mixer saves the FFN gets,
until a token works with as many parameters as in the MHA: of experts, those it is sent to. All see
the same characters in the same order.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import GPT, ModelConfig, formulas
from labkit_labs.common import character, novels, recall

SHELL = recall.SHELL.replace(vocab_size=len(novels.ALPHABET))
TWIN = "MHA again"  # from other seeds: what differs between it and the MHA is chance
CHARACTERS = 128  # of a piece of text; nothing is known of what is before it
PIECES = 16  # of one training step
RATE = 6e-3
BLOCKS = (8, 16, 32, 64, CHARACTERS)  # where a piece's loss is looked at apart


def variants() -> dict[str, ModelConfig]:
    """Every variant by name, the MHA's twin behind it."""
    insides = {"MHA": {}, TWIN: {}}
    insides |= {k: v for k, v in recall.INSIDES.items() if k != "DeltaNet wide"}
    return {name: matched(SHELL.replace(**inside)) for name, inside in insides.items()}


def matched(config: ModelConfig) -> ModelConfig:
    """With the feed-forward size, of its experts if it has some, that brings the parameters which a
    token works with nearest to the MHA's.
    """
    size = "d_expert" if config.n_experts else "d_ff"

    def apart(n: int) -> int:
        active = formulas.active_parameters(config.replace(**{size: n}))
        return abs(active - formulas.active_parameters(SHELL))

    return config.replace(**{size: min(range(1, 4 * SHELL.d_ff), key=apart)})


@cache
def texts() -> list[Tensor]:
    """The characters' numbers: [what is trained on, what is held out]."""
    return [torch.tensor(character.encode(text)) for text in novels.split()]


def pieces(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Pieces from anywhere in the text, each with the character after it."""
    at = torch.randint(len(ids) - CHARACTERS, (PIECES,), generator=generator)
    return ids[at[:, None] + torch.arange(CHARACTERS + 1)]


def losses(model, some: Tensor) -> Tensor:
    """Nats of each character but the first: [pieces,CHARACTERS]."""
    step = character.packed(some[:, :-1])
    logits = model(step, model.caches("none", len(some), CHARACTERS))
    nats = F.cross_entropy(logits, some[:, 1:].flatten(), reduction="none")
    return nats.view(len(some), CHARACTERS)


def trained(name: str, seed: int, steps: int) -> GPT:
    """A variant after so many steps.

    AdamW, clipped; the rate rises over 100 steps, stays, and falls to nothing over the last 30 %.
    The twin starts from seeds of its own.
    """
    torch.manual_seed(seed + 100 * (name == TWIN))
    model = GPT(variants()[name])
    data = torch.Generator().manual_seed(1000 + seed + 100 * (name == TWIN))
    ids, _ = texts()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.0)
    for done in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((done + 1) / 100, 1, (1 - done / steps) / 0.3)
        loss = losses(model, pieces(ids, data)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


@torch.no_grad()
def held_out(model: GPT, n: int) -> dict:
    """Nats of a character of n held-out pieces: {"nats": of all, "to_8": of the first 8, "to_16":
    of those behind them, …}.
    """
    _, ids = texts()
    apart = (len(ids) - CHARACTERS - 1) // n
    some = ids[torch.arange(n)[:, None] * apart + torch.arange(CHARACTERS + 1)]
    nats = torch.cat([losses(model, few) for few in some.split(32)]).mean(0)
    starts = (0, *BLOCKS)
    by_block = {f"to_{b}": nats[a:b].mean().item() for a, b in zip(starts, BLOCKS)}
    return {"nats": nats.mean().item(), **by_block}


def read(name: str, seed: int, steps: int, n: int) -> dict:
    """Train one variant from one seed, and what it is worth on text it has not seen."""
    return held_out(trained(name, seed, steps), n)
