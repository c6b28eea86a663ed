"""CH01-FLOPS: where the work goes.

FLOPs of one decoded token by component, for real models and contexts; no clock, only counting.

The formulas are proved first: on small models torch's own counter must find the same number, to the
FLOP.
"""

from labkit import formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import span, where

MODELS = ["gpt2-124m", "smollm2-135m", "llama3-8b", "qwen3-30b-a3b", "deepseek-v3"]
CONTEXTS = [1024, 8192, 131072]
PROOFS = ["tiny", "tiny-gpt2", "tiny-mla", "tiny-moe"]
PROMPT = 96  # tokens of a proof
PARTS = {
    "projections": ("attention", "latent attention", "delta rule"),
    "ffn": ("dense FFN", "router", "routed experts", "shared experts"),
    "head": ("embedding and head", "head"),
}


def by_component(name: str, context: int) -> dict:
    """FLOPs of one decoded token and the shares of projections, attention over the context,
    feed-forward layers and head.
    """
    config = presets[name]
    held = formulas.parts(config)
    work = {
        group: sum(2 * held[part].matrices for part in parts if part in held)
        for group, parts in PARTS.items()
    }
    if "routed experts" in held:
        # a token meets A of X
        expert = 2 * held["routed experts"].matrices // config.n_experts
        work["ffn"] -= expert * (config.n_experts - config.n_active_experts)
    work["attention"] = formulas.attention_flops(config, 1, context)
    total = sum(work.values())
    row = {
        "model": name,
        "context": context,
        "work": "one decoded token",
        "parameters": formulas.parameters(config),
        "active": formulas.active_parameters(config),
        "flops": total,
        "formula": formulas.decode_flops(config, context),
        "per_parameter": total / formulas.active_parameters(config),
    }
    return row | {f"share_{group}": flops / total for group, flops in work.items()}


def parts_of(name: str, context: int, dtype: str = "bf16") -> list[dict]:
    """A row for each part of a dense model: what it holds, what one token reads of it and
    multiplies with it. The cache, which is no parameter, comes last.
    """
    config = presets[name]
    read = formulas.read_parts(config, 1, dtype)
    rows = [
        {
            "part": part,
            "parameters": held.elements,
            "bytes": formulas.bytes_of(held.elements, dtype),
            "read": read[part],
            "flops": 2 * held.matrices,
        }
        for part, held in formulas.parts(config).items()
    ]
    if config.n_experts:
        # a token meets A of X
        for row in rows:
            if row["part"] == "routed experts":
                row["flops"] = row["flops"] * config.n_active_experts // config.n_experts
    cache = formulas.kv_cache_bytes(config, context, 1, dtype)
    looked = formulas.attention_flops(config, 1, context)
    cached = {"part": f"cache of {context:,} tokens", "parameters": 0, "bytes": cache}
    return [*rows, cached | {"read": cache, "flops": looked}]


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


def run(device, *, proofs, models):
    """Rows of the proofs, then of the models at each of CONTEXTS."""
    proved = [counted(name, PROMPT, device) for name in proofs]
    return proved + [by_component(name, context) for name in models for context in CONTEXTS]


def go(rows):
    for r in rows:
        if r["flops"] != r["formula"]:
            return (
                f"{r['model']}: {r['work']} takes {r['flops']:,} FLOPs, but the formula says"
                f" {r['formula']:,}; look for a part of the model that one of them leaves out"
            )


def plot(rows):
    tokens = where(rows, work="one decoded token", context=8192)
    shares = {r["model"]: 100 * r["share_attention"] for r in tokens}
    return plotting.bars(
        shares,
        form="{:.0f} %",
        x_label="attention's share of a decoded token's FLOPs at 8,192 tokens, in %",
        alt="Share of a decoded token's FLOPs that attention over 8,192 tokens takes: "
        + ", ".join(f"{name} {share:.0f} %" for name, share in shares.items()),
    )


def notice(rows):
    short = where(rows, work="one decoded token", context=CONTEXTS[0])
    long = where(rows, work="one decoded token", context=CONTEXTS[-1])
    each = span([r["per_parameter"] for r in short], ".1f")
    feed_forward = span([r["share_ffn"] for r in short], ".0%")
    attention = span([r["share_attention"] for r in long], ".0%")
    return (
        f"At {CONTEXTS[0]:,} tokens a token costs {each} FLOPs for each parameter it meets: two for"
        " each number that it is multiplied with, none for an embedding that is only looked up, and"
        f" attention. Feed-forward layers take {feed_forward} of them. At {CONTEXTS[-1]:,} tokens"
        f" attention takes {attention}, and the more the less a token does besides: in small"
        " models, and in mixtures of experts."
    )


LAB = Lab(
    title="Where the FLOPs go",
    objective=(
        "Count the parameters of real models and the FLOPs of one decoded token by component, and"
        " prove the count with torch's own."
    ),
    asks="Do the components add up to the formula, and does torch count the same?",
    notice=notice,
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
    sizes={
        "full": {"proofs": PROOFS, "models": MODELS},
        "quick": {"proofs": PROOFS[:2], "models": MODELS[1:3]},
    },
    go=go,
    plot=plot,
    minutes=0.1,
)
