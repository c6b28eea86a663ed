"""CH06-UNION: how many experts a batch touches.

A token reads A of X experts; a batch reads the union of what its tokens chose.

Measured by a real router, counted by `watch_routing`, against X (1 - (1 - A/X)^B). The formula
holds for tokens that choose evenly and on their own. Tokens of real text share a direction, so they
agree more often: the second router input has that.
"""

from labkit import ModelConfig, formulas, presets
from labkit.lab import Lab

MODELS = ("mixtral-8x7b", "qwen3-30b-a3b")
BATCHES = [1, 2, 4, 8, 16, 32, 64, 256]


def router_of(name: str) -> ModelConfig:
    """The router of a real model over narrow experts: the choice is all that counts here."""
    base = presets[name]
    return ModelConfig(
        8,
        256,
        1,
        1,
        1,
        8,
        8,
        8,
        n_experts=base.n_experts,
        n_active_experts=base.n_active_experts,
        d_expert=1,
        router=base.router,
    )


def run(device="cpu", quick=False):
    import torch

    from labkit.moe import MoE, expert_load, watch_routing

    rows = []
    for name in MODELS:
        c = router_of(name)
        torch.manual_seed(0)
        moe = MoE(c, "loop").to(device).eval()
        for kind, common in (("independent", 0.0), ("alike", 1.0)):
            for B in BATCHES[::3] if quick else BATCHES:
                touched, draws = 0, 20 if quick else 100
                with watch_routing(moe) as seen, torch.inference_mode():
                    for draw in range(draws):
                        generator = torch.Generator().manual_seed(draw)
                        one = torch.randn(1, c.d_model, generator=generator)
                        x = torch.randn(B, c.d_model, generator=generator)
                        moe((x + common * one).to(device))
                for _, experts, _ in seen:
                    touched += int((expert_load(experts, c.n_experts) > 0).sum())
                expected = formulas.experts_read(c.n_experts, c.n_active_experts, B)
                rows.append(
                    {
                        "model": name,
                        "tokens_are": kind,
                        "batch": B,
                        "experts": c.n_experts,
                        "active": c.n_active_experts,
                        "draws": draws,
                        "touched": touched / draws,
                        "formula": expected,
                        "of_formula": touched / draws / expected,
                        "share": touched / draws / c.n_experts,
                        "a_token": touched / draws / B,
                    }
                )
    return rows


def go(rows):
    for r in rows:
        if r["tokens_are"] == "independent" and abs(r["of_formula"] - 1) > 0.1:
            return (
                f"{r['batch']} tokens touch {r['touched']:.1f} experts of {r['model']}, the formula"
                f" says {r['formula']:.1f}: look whether the router is even"
            )
        if r["touched"] > min(r["experts"], r["batch"] * r["active"]):
            return (
                f"{r['batch']} tokens touch {r['touched']:.1f} experts, more than they chose: look"
                " at how choices are counted"
            )


def plot(rows):
    from labkit import plotting

    rows = [r for r in rows if r["model"] == MODELS[-1]]
    batches = sorted({r["batch"] for r in rows})
    series = {
        kind: [r["touched"] for r in rows if r["tokens_are"] == kind]
        for kind in ("independent", "alike")
    }
    return plotting.lines(
        batches,
        series,
        log_x=True,
        x_label="tokens in the batch",
        y_label="experts touched",
        alt=(
            f"Experts of {MODELS[-1]} that a batch touches: measured close to the formula for"
            " independent tokens, fewer for tokens that are alike."
        ),
    )


LAB = Lab(
    asks="Does the formula hold where its assumptions do?",
    title="The experts a batch touches",
    minutes=0.1,
    objective=(
        "Count the experts that batches of 1 to 256 tokens touch, and hold the formula against the"
        " count."
    ),
    notice=(
        "Eight tokens touch far more than one token's experts: the bytes saved per token shrink"
        " exactly where batching should help. Tokens that resemble each other agree on experts, so"
        " text stays below the formula, and load becomes uneven."
    ),
    columns={
        "model": "model",
        "tokens_are": "tokens are",
        "batch": "batch",
        "touched": "experts touched|.1f",
        "formula": "by the formula|.1f",
        "of_formula": "of the formula|.0%",
        "share": "of all experts|.0%",
        "a_token": "for each token|.2f",
    },
    run=run,
    plot=plot,
    go=go,
)
