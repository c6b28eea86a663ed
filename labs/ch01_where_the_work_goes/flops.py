"""CH01-FLOPS: where the work goes.

FLOPs of one decoded token by component, for real models and contexts; no clock, only counting.

The formulas are proved first: on small models torch's own counter must find the same number, to the
FLOP.
"""

from labkit import formulas, presets
from labkit.lab import Lab

MODELS = ["gpt2-124m", "smollm2-135m", "llama3-8b", "qwen3-30b-a3b", "deepseek-v3"]
CONTEXTS = [1024, 8192, 131072]
PROOFS = ["tiny", "tiny-gpt2", "tiny-mla", "tiny-moe"]
PARTS = {
    "projections": ("attention", "latent attention", "delta rule"),
    "ffn": ("dense FFN", "router", "routed experts", "shared experts"),
    "head": ("embedding and head", "head"),
}


def by_component(name: str, context: int) -> dict:
    """FLOPs of one decoded token and the shares of projections, attention over the context,
    feed-forward layers and head.
    """
    c, held = presets[name], formulas.parts(presets[name])
    work = {
        group: sum(2 * held[p].matrices for p in parts if p in held)
        for group, parts in PARTS.items()
    }
    if "routed experts" in held:  # a token meets A of X
        work["ffn"] -= (
            2 * held["routed experts"].matrices // c.n_experts * (c.n_experts - c.n_active_experts)
        )
    work["attention"] = formulas.attention_flops(c, 1, context)
    total = sum(work.values())
    return {
        "model": name,
        "context": context,
        "work": "one decoded token",
        "parameters": formulas.parameters(c),
        "active": formulas.active_parameters(c),
        "flops": total,
        "formula": formulas.decode_flops(c, context),
        "per_parameter": total / formulas.active_parameters(c),
    } | {f"share_{group}": n / total for group, n in work.items()}


def counted(name: str, tokens: int, device: str) -> dict:
    """FLOPs of a prompt by torch's counter: with plain attention and a loop over experts, because
    it sees into nothing fused.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    import labkit

    config = presets[name]
    model = labkit.GPT(config).to(device).eval()
    for block in model.blocks:
        if hasattr(block.ffn, "execution"):
            block.ffn.execution = "loop"
    step = labkit.Step.of([(0, 0, [1] * tokens)], device)
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.inference_mode(),
    ):
        model(step, model.caches("none", 1, 1), step.last)
    return {
        "model": name,
        "context": tokens,
        "work": "a prompt, counted by torch",
        "parameters": formulas.parameters(config),
        "active": formulas.active_parameters(config),
        "flops": counter.get_total_flops(),
        "formula": formulas.prefill_flops(config, tokens),
    }


def run(device="cpu", quick=False):
    proofs = [counted(name, 96, device) for name in (PROOFS[:2] if quick else PROOFS)]
    return proofs + [
        by_component(name, T) for name in (MODELS[1:3] if quick else MODELS) for T in CONTEXTS
    ]


def go(rows):
    for r in rows:
        if r["flops"] != r["formula"]:
            return (
                f"{r['model']}: {r['work']} takes {r['flops']:,} FLOPs, but the formula says"
                f" {r['formula']:,}; look for a part of the model that one of them leaves out"
            )


def plot(rows):
    from labkit import plotting

    shares = {
        r["model"]: 100 * r["share_attention"]
        for r in rows
        if "share_attention" in r and r["context"] == 8192
    }
    return plotting.bars(
        shares,
        form="{:.0f} %",
        x_label="attention's share of a decoded token's FLOPs at 8,192 tokens, in %",
        alt="Share of a decoded token's FLOPs that attention over 8,192 tokens takes: "
        + ", ".join(f"{name} {share:.0f} %" for name, share in shares.items()),
    )


LAB = Lab(
    asks="Do the components add up to the formula, and does torch count the same?",
    title="Where the FLOPs go",
    minutes=0.1,
    objective=(
        "Count the parameters of real models and the FLOPs of one decoded token by component, and"
        " prove the count with torch's own."
    ),
    notice=(
        "At short contexts a token costs two FLOPs for each parameter it meets, and most of them"
        " lie in the feed-forward layers. At long contexts attention takes over, first where a"
        " token does little else: in small models, and in mixtures of experts."
    ),
    columns={
        "model": "model",
        "work": "work",
        "context": "context",
        "parameters": "parameters",
        "active": "active",
        "flops": "FLOPs|,",
        "per_parameter": "per active parameter|.2f",
        "share_projections": "projections|.0%",
        "share_attention": "attention|.0%",
        "share_ffn": "feed-forward|.0%",
        "share_head": "head|.0%",
    },
    run=run,
    plot=plot,
    go=go,
)
