"""CH06-ROUTE: where a trained router sends the characters of a text.

CH06-UNION counts the experts that a batch touches where tokens choose evenly. Here a small model of
characters learns its router on the course's own prose, with nothing that evens out the load, and
then routes prose that it has not seen. Its trace drives the chapter's player.
"""

from pathlib import Path

from labkit import ModelConfig, formulas
from labkit.lab import Lab, Recorded
from labkit.tables import only, progress, where
from labkit_labs.common import corpus

SHOWN = "cached token"
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.:-0123456789"
SHELL = ModelConfig(
    vocab_size=len(LETTERS),
    d_model=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=4,
    head_dim=16,
    d_ff=128,
    max_context=128,
    n_experts=8,
    n_active_experts=2,
    d_expert=32,
)
TEXTS, LENGTH = 16, 64  # of one training step


def ids(text: str) -> list[int]:
    """Characters as tokens; those that are not in the alphabet are left out."""
    return [LETTERS.index(c) for c in text.lower() if c in LETTERS]


def prose() -> tuple[list[int], list[int]]:
    """What the router learns on, and what it has not seen."""
    tokens = ids((Path(corpus.__file__).parent / "data" / "prose.txt").read_text())
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:]


def trained(tokens: list[int], steps: int, device: str):
    """A model that has learned for so many steps to say the next character."""
    import torch
    import torch.nn.functional as F

    from labkit import GPT, Step

    torch.manual_seed(0)
    model = GPT(SHELL).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    data = torch.Generator().manual_seed(0)
    for _ in progress(range(steps), "training steps"):
        starts = torch.randint(len(tokens) - LENGTH - 1, (TEXTS,), generator=data).tolist()
        step = Step.of([(row, 0, tokens[a : a + LENGTH]) for row, a in enumerate(starts)], device)
        right = torch.tensor([i for a in starts for i in tokens[a + 1 : a + LENGTH + 1]])
        said = model(step, model.caches("none", TEXTS, LENGTH))
        loss = F.cross_entropy(said, right.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), loss.item()


def chosen(model, tokens: list[int]):
    """The experts of each token in each layer, [layers][T,A], the text read in pieces."""
    import torch

    from labkit import Step
    from labkit.moe import watch_routing

    with watch_routing(model) as seen, torch.inference_mode():
        for a in range(0, len(tokens) - LENGTH, LENGTH):
            step = Step.of([(0, 0, tokens[a : a + LENGTH])], model.device)
            model(step, model.caches("none", 1, LENGTH))
    return [
        torch.cat([experts for _, experts, _ in seen[layer :: SHELL.n_layers]]).cpu()
        for layer in range(SHELL.n_layers)
    ]


def run(device, *, training, batches):
    """A row for each layer and number of neighbouring characters, and the trace of a few.

    training: steps that the model learns.
    """
    from labkit import Step
    from labkit.moe import expert_load
    from labkit.traces.routing import record_routing

    X, A = SHELL.n_experts, SHELL.n_active_experts
    known, unseen = prose()
    model, loss = trained(known, training, device)
    rows = []
    for layer, experts in enumerate(chosen(model, unseen)):
        busiest = expert_load(experts, X).max().item() / len(experts)
        for B in batches:
            parts = [part for part in experts.split(B) if len(part) == B]
            touched = sum(len(part.unique()) for part in parts) / len(parts)
            expected = formulas.experts_read(X, A, B)
            rows.append(
                {
                    "layer": layer,
                    "batch": B,
                    "touched": touched,
                    "formula": expected,
                    "of_formula": touched / expected,
                    "busiest": busiest,
                    "even": A / X,
                    "loss": loss,
                }
            )
    step = Step.of([(0, 0, ids(SHOWN))], device)
    trace = record_routing(
        model,
        [step],
        model.caches("static", 1, len(SHOWN)),
        layer=SHELL.n_layers - 1,
        decode=lambda ids: LETTERS[ids[0]],
    )
    return Recorded(rows, routing_characters=trace)


def go(rows):
    for r in rows:
        if r["batch"] == 1 and r["touched"] != SHELL.n_active_experts:
            return (
                f"one token touches {r['touched']:.1f} experts, where it chooses"
                f" {SHELL.n_active_experts}: look at how choices are counted"
            )
        if r["touched"] > min(SHELL.n_experts, r["batch"] * SHELL.n_active_experts):
            return (
                f"{r['batch']} tokens touch {r['touched']:.1f} experts, more than they chose: look"
                " at how choices are counted"
            )


def notice(rows):
    last = where(rows, layer=max(r["layer"] for r in rows))
    some = last[len(last) // 2]
    first = only(rows, layer=0, batch=some["batch"])
    return (
        f"{some['batch']} neighbouring characters touch {some['touched']:.1f} of"
        f" {SHELL.n_experts} experts in the last layer and {first['touched']:.1f} in the first; the"
        f" formula says {some['formula']:.1f}, for tokens that choose evenly and on their own. The"
        f" busiest expert gets {some['busiest']:.0%} of the last layer's tokens, where an even"
        f" router would send {some['even']:.0%}: nothing in this training evens it out."
    )


LAB = Lab(
    title="Where a router sends a text",
    objective="Train a small router on characters, and watch where it sends text it has not seen.",
    asks="Does a trained router touch as many experts as the formula says?",
    notice=notice,
    columns={
        "layer": "layer",
        "batch": "characters",
        "touched": "experts touched|.1f",
        "formula": "by the formula|.1f",
        "of_formula": "of the formula|.0%",
        "busiest": "tokens at the busiest|.0%",
        "even": "if even|.0%",
    },
    run=run,
    sizes={
        "full": {"training": 150, "batches": [1, 2, 4, 8, 16, 32]},
        "quick": {"training": 8, "batches": [1, 4, 16]},
    },
    threads=1,
    go=go,
    minutes=0.5,
    cpu_only=True,
)
