"""CH06-BALANCE: what evens out a router's load, and what that costs in quality.

The same small mixture learns to read Jane Austen four times from each seed: with nothing that
balances it; with the loss of Switch transformers, which pulls on the weights; with DeepSeek-V3's
correction, a number for each expert that helps to choose, never weighs, and is moved after each
step by what the expert got; and, as a control, with the same correction moved by what *another*
expert got. Of the corrected model two more readings are taken: with its correction out, and with
the correction weighing too.
"""

import statistics

from labkit import ModelConfig, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only
from labkit_labs.common import pieces
from labkit_labs.common.novels import ALPHABET

NOTHING, LOSS, BIAS, MIXED = TRAINED = (
    "nothing",
    "auxiliary loss",
    "correction",
    "correction by another's load",
)
OUT, WEIGHS = "correction, then taken out", "correction that weighs, too"
CONFIG = ModelConfig(
    vocab_size=len(ALPHABET),
    d_model=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=4,
    head_dim=16,
    d_ff=64,
    max_context=128,
    n_experts=16,
    n_active_experts=2,
    d_expert=32,
    router="sigmoid",
    router_bias=True,
)
TEXTS, LENGTH = 16, 64  # of one training step
RATE = 4e-3
MOVE = 0.01  # of a correction, at each step
PULL = 0.01  # of the auxiliary loss: Switch transformers' own
SAID = 32  # neighbouring characters whose experts are counted together


def routers(model) -> list:
    return [block.ffn.router for block in model.blocks]


def balance_loss(scores, load):
    """X times the sum of each expert's share of choices times its mean score: scores [N,X] · load
    [X] -> 1 where both are even, more where the favoured are chosen (Fedus et al. 2022, section
    2.2).
    """
    shares = scores / scores.sum(1, keepdim=True)
    return len(load) * (load / load.sum() * shares.mean(0)).sum()


def moved(correction, load, rate: float = MOVE):
    """Up where an expert got less than its even part, down where more (DeepSeek-AI 2024)."""
    load = load.float()
    return correction + rate * (load.mean() - load).sign()


def trained(text, balance: str, steps: int, seed: int):
    """A model after so many steps from one seed, balanced in one of the ways."""
    import torch
    import torch.nn.functional as F

    from labkit import GPT
    from labkit.moe import expert_load, watch_routing
    from labkit_labs.common import character

    torch.manual_seed(seed)
    model = GPT(CONFIG)
    data = torch.Generator().manual_seed(1000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    scores = []
    hooks = [
        router.score.register_forward_hook(lambda _, __, out: scores.append(out.sigmoid()))
        for router in routers(model)
    ]
    for done in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((done + 1) / 20, 2 * (1 - done / steps), 1)
        at = torch.randint(len(text) - LENGTH, (TEXTS,), generator=data)
        pieces = text[at[:, None] + torch.arange(LENGTH + 1)]
        step = character.packed(pieces[:, :-1])
        scores.clear()
        with watch_routing(model) as seen:
            said = model(step, model.caches("none", TEXTS, LENGTH))
        loads = [expert_load(experts, CONFIG.n_experts) for _, experts, _ in seen]
        loss = F.cross_entropy(said, pieces[:, 1:].flatten())
        if balance == LOSS:
            loss = loss + PULL * sum(map(balance_loss, scores, loads))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if balance in (BIAS, MIXED):
            for router, load in zip(routers(model), loads):
                router.correction = moved(
                    router.correction, load if balance == BIAS else load.roll(1)
                )
    for hook in hooks:
        hook.remove()
    return model.eval()


def read(model, text) -> dict:
    """What a model makes of text that it has not seen: its loss, and where its tokens went."""
    import math

    import torch
    import torch.nn.functional as F

    from labkit.moe import expert_load, watch_routing
    from labkit_labs.common import character

    rows = (len(text) - 1) // LENGTH
    pieces = text[: rows * LENGTH].view(rows, LENGTH)
    wanted = text[1 : rows * LENGTH + 1]
    with watch_routing(model) as seen, torch.inference_mode():
        said = model(character.packed(pieces), model.caches("none", rows, LENGTH))
    X, A = CONFIG.n_experts, CONFIG.n_active_experts
    loads = [expert_load(experts, X) / (rows * LENGTH) * X / A for _, experts, _ in seen]
    touched = [len(part.unique()) for _, experts, _ in seen for part in experts.split(SAID)]
    return {
        "bits": F.cross_entropy(said, wanted).item() / math.log(2),
        "busiest": statistics.mean(load.max().item() for load in loads),
        "idle": statistics.mean(int((load < 0.1).sum()) for load in loads),
        "touched": statistics.mean(touched),
        "load": [round(x, 3) for x in sorted(loads[-1].tolist(), reverse=True)],
        "correction": max(r.correction.abs().max().item() for r in routers(model)),
    }


def out(model):
    """The model without its corrections."""
    for router in routers(model):
        router.correction = router.correction * 0
    return model


def weighing(model):
    """The model with the published bug: what is added for choosing weighs the answers as well."""

    def route(self, x):
        scores = self.score(x).float().sigmoid() + self.correction
        weights, experts = scores.topk(self.config.n_active_experts, dim=1)
        return experts, (weights / weights.sum(1, keepdim=True)).to(x.dtype)

    for router in routers(model):
        router.register_forward_hook(lambda module, given, _: route(module, given[0]), prepend=True)
    return model


def readings(balance: str, steps: int, seed: int, characters: int) -> dict:
    """variant -> what one trained model, and what is read of it besides, comes out at on so many
    held-out characters.
    """
    import copy

    import torch

    from labkit_labs.common import character, novels

    text, held_out = (torch.tensor(character.encode(part)) for part in novels.split())
    unseen = held_out[:characters]
    model = trained(text, balance, steps, seed)
    found = {balance: read(model, unseen)}
    if balance == BIAS:
        found[WEIGHS] = read(weighing(copy.deepcopy(model)), unseen)
        found[OUT] = read(out(copy.deepcopy(model)), unseen)
    return found


def run(device, *, steps, seeds, characters):
    """A row for each way to balance, the median of its seeds. steps: of training, from each seed.
    characters: of text that was held out.
    """
    jobs = {
        (balance, seed): (balance, steps, seed, characters)
        for seed in range(seeds)
        for balance in TRAINED
    }
    found = {}
    for made in pieces.each("ch06-balance", readings, jobs).values():
        for name, reading in made.items():
            found.setdefault(name, []).append(reading)
    return [
        {
            "variant": name,
            "experts": CONFIG.n_experts,
            "active": CONFIG.n_active_experts,
            "steps": steps,
            "seeds": seeds,
            "even": formulas.experts_read(CONFIG.n_experts, CONFIG.n_active_experts, SAID),
            **{
                key: statistics.median(r[key] for r in all_seeds)
                for key in ("bits", "busiest", "idle", "touched", "correction")
            },
            "least": min(r["bits"] for r in all_seeds),
            "most": max(r["bits"] for r in all_seeds),
            "load": all_seeds[0]["load"],
        }
        for name, all_seeds in found.items()
    ]


def go(rows):
    nothing, mixed = only(rows, variant=NOTHING), only(rows, variant=MIXED)
    for name in (LOSS, BIAS):
        r = only(rows, variant=name)
        if not r["busiest"] < 0.8 * nothing["busiest"]:
            return (
                f"by {name} the busiest expert gets {r['busiest']:.1f} times its part, with nothing"
                f" {nothing['busiest']:.1f}: look whether what balances reaches the router"
            )
        if not r["busiest"] < 0.8 * mixed["busiest"]:
            return (
                f"by {name} the busiest expert gets {r['busiest']:.1f} times its part, and"
                f" {mixed['busiest']:.1f} where another's load moves the correction: the control"
                " balances as well, so look what was balanced"
            )
    if not all(r["bits"] < 4 for r in rows):
        return "a model needs 4 bits a character or more, which is no reading yet: train it longer"


def notice(rows):
    nothing, loss, bias, mixed = (only(rows, variant=name) for name in TRAINED)
    weighs = only(rows, variant=WEIGHS)
    apart = max(r["most"] - r["least"] for r in rows if r["variant"] in TRAINED)
    return (
        f"With nothing, the busiest of {nothing['experts']} experts gets"
        f" {nothing['busiest']:.1f} times its even part; by the auxiliary loss"
        f" {loss['busiest']:.1f}, by the correction {bias['busiest']:.1f}, and"
        f" {mixed['busiest']:.1f} in the control, whose correction follows another's load. Bits a"
        f" character: {nothing['bits']:.3f}, {loss['bits']:.3f}, {bias['bits']:.3f}; the seeds lie"
        f" up to {apart:.3f} apart. A correction that weighs, too, takes the same model to"
        f" {weighs['bits']:.3f}."
    )


def plot(rows):
    ranks = [1, 2, 4, 8, 16]
    return plotting.lines(
        ranks,
        {
            r["variant"]: [r["load"][rank - 1] for rank in ranks]
            for r in rows
            if r["variant"] in TRAINED
        },
        log_x=True,
        x_label="experts, busiest first",
        y_label="times an even part",
        alt="Load of the experts of the last layer, busiest first, in even parts: "
        + "; ".join(
            f"{r['variant']} from {r['load'][0]:.1f} to {r['load'][-1]:.1f}"
            for r in rows
            if r["variant"] in TRAINED
        ),
    )


LAB = Lab(
    title="Balance: four ways to train a router",
    objective=(
        "Train a small mixture with nothing that evens out its load, with an auxiliary loss, with a"
        " correction for choosing and with one that follows another's load, and compare load and"
        " quality."
    ),
    asks="Do loss and correction even out the load, and does the control not?",
    notice=notice,
    columns={
        "variant": "balanced by",
        "busiest": "busiest, even parts|.2f",
        "idle": "idle experts|.1f",
        "touched": f"touched by {SAID}|.1f",
        "bits": "bits a character|.3f",
        "least": "least|.3f",
        "most": "most|.3f",
    },
    run=run,
    sizes={
        "full": {"steps": 500, "seeds": 3, "characters": 20_000},
        "quick": {"steps": 3, "seeds": 1, "characters": 1_000},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3,
    cpu_only=True,
)
