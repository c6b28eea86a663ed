"""CH06-UNION: how many experts a batch touches.

A token reads A of X experts; a batch reads the union of what its tokens chose.

Measured by a real router, counted by `watch_routing`, against X (1 - (1 - A/X)^B). The formula
holds for tokens that choose evenly and on their own. Tokens of real text share a direction, so they
agree more often: the second router input has that.
"""

from labkit import ModelConfig, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import only, series, where

MODELS = ("mixtral-8x7b", "qwen3-30b-a3b")
TOKENS_ARE = {"independent": 0.0, "alike": 1.0}  # how much of one direction all tokens share


def router_of(name: str) -> ModelConfig:
    """The router of a real model over narrow experts: the choice is all that counts here."""
    base = presets[name]
    return ModelConfig(
        vocab_size=8,
        d_model=256,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim=8,
        d_ff=8,
        max_context=8,
        n_experts=base.n_experts,
        n_active_experts=base.n_active_experts,
        d_expert=1,
        router=base.router,
    )


def touched_by(moe, batch: int, shared: float, draws: int, device: str) -> float:
    """Experts that a batch of tokens touches: the mean over so many draws of the tokens."""
    import torch

    from labkit.moe import expert_load, watch_routing

    c = moe.router.config
    with watch_routing(moe) as seen, torch.inference_mode():
        for draw in range(draws):
            generator = torch.Generator().manual_seed(draw)
            direction = torch.randn(1, c.d_model, generator=generator)
            x = torch.randn(batch, c.d_model, generator=generator)
            moe((x + shared * direction).to(device))
    touched = [int((expert_load(experts, c.n_experts) > 0).sum()) for _, experts, _ in seen]
    return sum(touched) / draws


def run(device, *, batches, draws):
    """A row for each model, kind of tokens and batch."""
    import torch

    from labkit.moe import MoE

    rows = []
    for name in MODELS:
        c = router_of(name)
        torch.manual_seed(0)
        moe = MoE(c, "loop").to(device).eval()
        for kind, shared in TOKENS_ARE.items():
            for B in batches:
                touched = touched_by(moe, B, shared, draws, device)
                expected = formulas.experts_read(c.n_experts, c.n_active_experts, B)
                rows.append(
                    {
                        "model": name,
                        "tokens_are": kind,
                        "batch": B,
                        "experts": c.n_experts,
                        "active": c.n_active_experts,
                        "draws": draws,
                        "touched": touched,
                        "formula": expected,
                        "of_formula": touched / expected,
                        "share": touched / c.n_experts,
                        "a_token": touched / B,
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
    last = where(rows, model=MODELS[-1])
    batches = sorted({r["batch"] for r in last})
    touched = series(last, "tokens_are", "touched")
    return plotting.lines(
        batches,
        touched,
        log_x=True,
        x_label="tokens in the batch",
        y_label="experts touched",
        alt=f"Experts of {MODELS[-1]} that a batch touches, of {batches[0]} to {batches[-1]}"
        " tokens: "
        + "; ".join(
            f"{kind} {', '.join(f'{n:.1f}' for n in counts)}" for kind, counts in touched.items()
        ),
    )


def notice(rows):
    model = where(rows, model=MODELS[-1], batch=8)
    apart = only(model, tokens_are="independent")
    alike = only(model, tokens_are="alike")
    return (
        f"A token touches {apart['active']} experts of {MODELS[-1]}, eight of them touch"
        f" {apart['touched']:.1f}: the bytes saved per token shrink exactly where batching should"
        " help. Tokens that resemble each other agree on experts: eight that share a direction"
        f" touch {alike['touched']:.1f}, {alike['of_formula']:.0%} of what the formula says for"
        " independent ones. So text stays below the formula, and load becomes uneven."
    )


LAB = Lab(
    title="The experts a batch touches",
    objective=(
        "Count the experts that batches of 1 to 256 tokens touch, and hold the formula against the"
        " count."
    ),
    asks="Does the formula hold where its assumptions do?",
    notice=notice,
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
    sizes={
        "full": {"batches": [1, 2, 4, 8, 16, 32, 64, 256], "draws": 100},
        "quick": {"batches": [1, 8, 64], "draws": 20},
    },
    go=go,
    plot=plot,
    minutes=0.1,
)
