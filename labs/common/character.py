"""A model that writes character by character: its sizes, its training, what of it is kept.

Small enough for a page to run it in plain JavaScript, and trained on `novels`.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor

from labkit import GPT, ModelConfig, Step
from labkit.widgets import model_file
from labkit_labs.common.novels import ALPHABET

WEIGHTS = Path(__file__).parent / "data" / "character.safetensors"  # trained, in fp16
CONFIG = ModelConfig(
    vocab_size=len(ALPHABET),
    d_model=128,
    n_layers=4,
    n_heads=4,
    n_kv_heads=2,
    head_dim=32,
    d_ff=136,
    max_context=256,
    embed_scale=128**0.5,
)
CHARACTERS = 2048  # of one training step, however long its pieces are
LENGTHS = (64, 64, 128, 256)  # of the pieces, one drawn for each step
RATE = 6e-3
COOLING = 0.12  # share of the steps over which the rate falls to nothing
SAVED_EVERY = 100  # steps


def encode(text: str) -> list[int]:
    """Character -> its place in the alphabet. ValueError for one that is not in it."""
    outside = sorted({c for c in text if c not in ALPHABET})
    if outside:
        raise ValueError(f"the model knows no {', '.join(map(repr, outside))}")
    return [ALPHABET.index(c) for c in text]


def batch(ids: Tensor, generator: torch.Generator) -> tuple[Step, Tensor]:
    """(a step of pieces from anywhere in the text, the character after each of their own)."""
    T = LENGTHS[int(torch.randint(len(LENGTHS), (), generator=generator))]
    texts = CHARACTERS // T
    at = torch.randint(len(ids) - T, (texts,), generator=generator)
    pieces = ids[at[:, None] + torch.arange(T + 1)]
    return packed(pieces[:, :-1]), pieces[:, 1:].flatten()


def packed(ids: Tensor) -> Step:
    """Texts of equal length as one step: ids [R,T]."""
    R, T = ids.shape
    return Step(
        ids=ids.flatten(),
        pos=torch.arange(T).repeat(R),
        rows=torch.arange(R),
        cu=torch.arange(R + 1) * T,
    )


def bits(model, step: Step, wanted: Tensor) -> Tensor:
    """Mean bits per character: how surprised the model is by what comes next."""
    logits = model(step, model.caches("none", len(step.rows), step.T))
    return F.cross_entropy(logits, wanted) / math.log(2)


class Muon(torch.optim.Optimizer):
    """Momentum whose directions are made orthogonal, so that no direction of a matrix is left
    behind (Jordan et al. 2024); steps as large as AdamW's (Liu et al. 2025).

    torch's own works in bf16, which most CPUs only emulate.
    """

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                alike.setdefault(p.shape, []).append(p)
            for shape, params in alike.items():
                steps = torch.stack([self.gathered(p, group["momentum"]) for p in params])
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, step in zip(params, orthogonal(steps)):
                    p.sub_(step, alpha=size)

    def gathered(self, p: Tensor, momentum: float) -> Tensor:
        past = self.state[p].setdefault("past", torch.zeros_like(p))
        past.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(past, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all about 1, by five steps of Newton and
    Schulz: [n,rows,columns] -> the same.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    for _ in range(5):
        square = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if x.shape[1] <= x.shape[2] else wide.mT


def optimisers(model) -> list:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    inside, rest = [], []
    for name, weight in model.named_parameters():
        (inside if name.startswith("blocks") and weight.ndim == 2 else rest).append(weight)
    adam = torch.optim.AdamW(rest, RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(inside, RATE), adam]


def train(text: str, steps: int, kept: Path, say=None) -> tuple[GPT, dict]:
    """Train from random weights: (model, {"steps", "seconds" of the processor}).

    The rate rises over 100 steps, stays, and falls to nothing over the last COOLING of them. What
    has been done is kept in the file `kept` every SAVED_EVERY steps, and goes on from there.
    """
    torch.manual_seed(0)
    model = GPT(CONFIG)
    data = torch.Generator().manual_seed(1)
    ids = torch.tensor(encode(text))
    both = optimisers(model)
    first, seconds = 0, 0.0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(both, state["optimisers"]):
            optimiser.load_state_dict(saved)
        data.set_state(state["data"])
        first, seconds = state["steps"], state["seconds"]
    for done in range(first, steps):
        start = time.process_time()
        share = min((done + 1) / 100, 1, (1 - done / steps) / COOLING)
        for optimiser in both:
            for group in optimiser.param_groups:
                group["lr"] = RATE * share
        loss = bits(model, *batch(ids, data))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in both:
            optimiser.step()
        seconds += time.process_time() - start
        if (done + 1) % SAVED_EVERY == 0 or done + 1 == steps:
            state = {
                "model": model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in both],
                "data": data.get_state(),
                "steps": done + 1,
                "seconds": seconds,
            }
            part = kept.with_suffix(f".{os.getpid()}.part")
            torch.save(state, part)
            part.replace(kept)
            if say:
                say(done + 1, loss.item(), seconds)
    return model.eval(), {"steps": steps, "seconds": seconds}


@torch.no_grad()
def held_out_bits(model: GPT, ids: list[int], seen: int = 128) -> float:
    """Mean bits per character: each has at least `seen` characters before it, at most what the
    model reads.
    """
    T = CONFIG.max_context
    pieces = torch.tensor(ids).unfold(0, T + 1, T - seen)
    total = 0.0
    for some in pieces.split(32):
        step = packed(some[:, :-1])
        logits = model(step, model.caches("none", len(some), T)).view(len(some), T, -1)
        late = logits[:, seen:].flatten(0, 1)
        total += F.cross_entropy(late, some[:, seen + 1 :].flatten(), reduction="sum").item()
    return total / (len(pieces) * (T - seen)) / math.log(2)


# -- what is kept --------------------------------------------------------------------------


def keep(model: GPT, made: dict, path: Path = WEIGHTS) -> None:
    """Write the weights in fp16, and with them how they were `made`."""
    weights = {name: w.detach().numpy() for name, w in model.state_dict().items()}
    # NumPy's model and the page's have no scale behind the embedding
    weights["embed.weight"] = weights["embed.weight"] * CONFIG.embed_scale
    halves = {name: w.astype(np.float16) for name, w in weights.items()}
    save_file(halves, path, metadata={name: str(value) for name, value in made.items()})


def kept(path: Path = WEIGHTS) -> tuple[ModelConfig, dict[str, np.ndarray], dict[str, float]]:
    """(sizes, fp32 weights by name, how they were made) of what was kept."""
    weights = {name: w.astype(np.float32) for name, w in sorted(load_file(path).items())}
    with safe_open(path, "np") as file:
        made = {name: float(value) for name, value in file.metadata().items()}
    return CONFIG.replace(embed_scale=1.0), weights, made


def for_browser(path: Path = WEIGHTS) -> dict:
    """The model as a page loads it, in 8 bits."""
    config, weights, _ = kept(path)
    return model_file.pack(config, weights, ALPHABET)


def in_torch(config: ModelConfig, weights: dict[str, np.ndarray]) -> GPT:
    """A labkit.GPT with these weights."""
    model = GPT(config)
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    return model.eval()
