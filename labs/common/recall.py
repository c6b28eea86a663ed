"""Multi-query associative recall (Arora et al. 2023, "Zoology"): the task on which every kind of
layer is trained in one shell.

A text is `pairs` keys, each followed by its value, and then the same keys in another order: `k3 v8
k7 v1 … k7 k3 …`. At each asked key the model must say the value that stood behind it. Keys and
values are drawn anew for every text, so nothing can be learned by heart: what is not in the cache
or the state is lost. One training run mixes texts of 4 to 64 pairs. The short ones teach the rule
early, the long ones then show how much each memory holds.

All variants share the shell, the data, the optimiser, its schedule and the number of parameters.
Nothing helps attention along (no token shift, no convolution): two layers find the rule by
themselves, the first looking one token back, the second for its key.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import GPT, ModelConfig, Step, formulas
from labkit.config import UnknownName
from labkit.paths import cache_folder

KEYS = 128
VALUES = 32  # a guess is right once in 32
PAIRS = (4, 8, 16, 32, 64)  # trained on and scored at
MAIN = 32  # what `recall` means where no number of pairs is named
TOKENS = 1536  # of one training step, however long its texts are
STEPS = 1000
RATE = 6e-3
LEARNED = 0.95  # recall from which on a number of pairs counts as learned
TOLERANCE = 0.01  # how far apart matched parameters may be

SHELL = ModelConfig(
    vocab_size=KEYS + VALUES,
    d_model=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=4,
    head_dim=16,
    d_ff=128,
    max_context=512,
    embed_scale=8.0,
)
MLA = {"kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
DELTA = {
    "delta_n_key_heads": 4,
    "delta_n_value_heads": 4,
    "delta_key_dim": 16,
    "delta_value_dim": 16,
}
# as many weights, four times the state
WIDE = {
    "delta_n_key_heads": 1,
    "delta_n_value_heads": 1,
    "delta_key_dim": 64,
    "delta_value_dim": 64,
}
INSIDES = {
    "MHA": {},
    "GQA": {"n_kv_heads": 2},
    "MQA": {"n_kv_heads": 1},
    "MLA": {"layer_types": ("mla", "mla"), **MLA},
    "SWA": {"layer_types": ("sliding", "sliding"), "window": 16},
    "SWA hybrid": {"layer_types": ("sliding", "full"), "window": 16},
    "DeltaNet": {"layer_types": ("delta", "delta"), **DELTA},
    "DeltaNet wide": {"layer_types": ("delta", "delta"), **WIDE},
    "DeltaNet hybrid": {"layer_types": ("delta", "full"), **DELTA},
    "MoE": {"n_experts": 4, "n_active_experts": 2, "d_expert": 32},
}


def variants() -> dict[str, ModelConfig]:
    """Every variant by name, with as many parameters as the MHA."""
    whole = formulas.parameters(SHELL)
    return {name: matched(SHELL.replace(**inside), whole) for name, inside in INSIDES.items()}


def matched(config: ModelConfig, parameters: int) -> ModelConfig:
    """The config with the feed-forward size (of its experts, if it has some) that brings it nearest
    to a number of parameters.

    What a mixer saves the FFN gets, so that quality is not bought with weights. ValueError if that
    is not within 1 %.
    """
    size = "d_expert" if config.n_experts else "d_ff"

    def parameters_at(n: int) -> int:
        return formulas.parameters(config.replace(**{size: n}))

    # they grow by the same number with every further n
    slope = parameters_at(2) - parameters_at(1)
    n = max(1, round(1 + (parameters - parameters_at(1)) / slope))
    made = parameters_at(n)
    if abs(made - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"{size} = {n} makes {made:,} parameters, not within {TOLERANCE:.0%} of"
            f" {parameters:,}: give the mixer another size"
        )
    return config.replace(**{size: n})


# -- the task ----------------------------------------------------------------------------


def batch(
    pairs: int, texts: int, generator: torch.Generator, device="cpu"
) -> tuple[Step, Tensor, Tensor]:
    """(a step of `texts` texts of 3 * pairs tokens, packed index [texts*pairs] of each asked key,
    the right value [texts*pairs] in 0…VALUES).
    """
    keys = torch.rand(texts, KEYS, generator=generator).topk(pairs, dim=1).indices  # each key once
    values = torch.randint(VALUES, (texts, pairs), generator=generator)
    order = torch.rand(texts, pairs, generator=generator).argsort(1)
    shown = torch.stack([keys, KEYS + values], dim=2).flatten(1)
    questions = keys.gather(1, order)
    ids = torch.cat([shown, questions], dim=1).to(device)
    T = ids.shape[1]
    start = torch.arange(texts + 1, device=device) * T
    step = Step(
        ids=ids.flatten(),
        pos=torch.arange(T, device=device).repeat(texts),
        rows=torch.arange(texts, device=device),
        cu=start,
    )
    asked = start[:-1, None] + torch.arange(2 * pairs, T, device=device)
    right = values.gather(1, order)
    return step, asked.flatten(), right.flatten().to(device)


def answers(model, step: Step, asked: Tensor) -> Tensor:
    """Logits [asked, VALUES] of the values, through the cache that keeps nothing: every text is one
    step.
    """
    return model(step, model.caches("none", len(step.rows), step.T), asked)[:, KEYS:]


@torch.no_grad()
def recall(model, pairs: int = MAIN, questions: int = 2048) -> float:
    """Share of questions that the model answers rightly, on texts of so many pairs that it was not
    trained on.
    """
    generator = torch.Generator().manual_seed(pairs)
    texts = max(8, questions // pairs)
    step, asked, right = batch(pairs, texts, generator, model.device)
    return (answers(model, step, asked).argmax(1) == right).float().mean().item()


# -- training ----------------------------------------------------------------------------


def train(
    config: ModelConfig, seed: int = 0, steps: int = STEPS, device: str = "cpu", every: int = 25
) -> tuple[GPT, dict]:
    """Train a model from random weights: (model, {"seconds", "learned": pairs -> the first step
    seen above LEARNED, or None}).

    AdamW, clipped; the rate rises over 50 steps, stays, and falls to a twentieth over the last 40
    %. Recall is looked at `every` so many steps; `seconds` leaves that out.
    """
    torch.manual_seed(seed)
    model = GPT(config).to(device)
    data = torch.Generator().manual_seed(1000 + seed)
    learned = dict.fromkeys(PAIRS)
    seconds = 0.0
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.01)

    def share_of_rate(done: int) -> float:
        rising = (done + 1) / 50
        falling = max(0.05, (1 - done / steps) / 0.4)
        return min(rising, 1, falling)

    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, share_of_rate)
    for done in range(1, steps + 1):
        start = time.perf_counter()
        pairs = PAIRS[int(torch.randint(len(PAIRS), (), generator=data))]
        step, asked, right = batch(pairs, TOKENS // (3 * pairs), data, device)
        loss = F.cross_entropy(answers(model, step, asked), right)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        loss.item()  # waits for the device
        seconds += time.perf_counter() - start
        if done % every == 0:
            for pairs in PAIRS:
                if learned[pairs] is None and recall(model, pairs, 512) > LEARNED:
                    learned[pairs] = done
    return model.eval(), {"seconds": seconds, "learned": learned}


def job(name: str, seed: int, steps: int, questions: int, device: str) -> dict:
    """Train and score one variant from one seed, in a process of its own with one thread."""
    torch.set_num_threads(1)
    model, made = train(variants()[name], seed, steps, device)
    return made | {
        "variant": name,
        "seed": seed,
        "recall": {pairs: recall(model, pairs, questions) for pairs in PAIRS},
    }


def trained(variant: str = "MHA", device: str = "cpu", steps: int = STEPS):
    """(a trained variant of seed 0, score: model -> recall of MAIN pairs).

    Trained at the first call, then kept in the user's cache folder. Raises ValueError for a variant
    that does not exist.
    """
    if variant not in INSIDES:
        raise UnknownName("variant", variant, INSIDES)
    config = variants()[variant]
    recipe = (config, steps, Path(__file__).read_text())  # another recipe is another model
    path = cache_folder() / f"recall-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}.pt"
    model = GPT(config).eval()
    if path.exists():
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    else:
        model, _ = train(config, 0, steps, device, every=steps + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        torch.save(model.state_dict(), part)
        part.replace(path)
    return model.to(device), recall
