"""CH08-PRETRAINING: what to fix before pretraining.

A target for serving decides sizes that no later trick can change.

Given a GPU, a context, users at once and tokens per second for each: which key/value heads,
windows, latents, states and experts meet it, by formula. One card, weights and cache in bf16, the
roofline's time: what fails here fails on the machine too.
"""

from labkit import ModelConfig, formulas, plotting, presets
from labkit.lab import Lab
from labkit_labs.common import gpus

BASE = presets["llama3-8b"].replace(max_context=131072)
EXPERTS = {"n_experts": 32, "n_active_experts": 4, "d_expert": BASE.d_ff // 4, "d_ff": 0}


def layers(pattern: str) -> tuple[str, ...]:
    """A pattern of layer types, repeated over all layers."""
    return tuple((pattern.split() * BASE.n_layers)[: BASE.n_layers])


DESIGNS = {
    "MHA, G = 32": BASE.replace(n_kv_heads=32),
    "GQA, G = 8": BASE,
    "GQA, G = 4": BASE.replace(n_kv_heads=4),
    "MQA, G = 1": BASE.replace(n_kv_heads=1),
    "MLA, latent 512 + 64": BASE.replace(
        layer_types=layers("mla"),
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
    "GQA 8, window 4,096 on all": BASE.replace(layer_types=layers("sliding"), window=4096),
    "GQA 8, window 1,024, 5 : 1": BASE.replace(
        layer_types=layers("sliding sliding sliding sliding sliding full"), window=1024
    ),
    "GQA 8, gated DeltaNet 3 : 1": BASE.replace(
        layer_types=layers("delta delta delta full"),
        delta_n_key_heads=16,
        delta_n_value_heads=32,
        delta_key_dim=128,
        delta_value_dim=128,
    ),
    "GQA 8, 32 experts, 4 active": BASE.replace(**EXPERTS),
    "GQA 4, window 1,024, 5 : 1, 8 experts": BASE.replace(
        n_kv_heads=4,
        window=1024,
        layer_types=layers("sliding sliding sliding sliding sliding full"),
        **EXPERTS | {"n_experts": 8, "n_active_experts": 1},
    ),
}


def meets(
    config: ModelConfig, card: gpus.GPU, context: int, users: int, tokens_per_second: float
) -> dict:
    """What one design needs, what it reaches, and the first reason why it fails."""
    cache = formulas.kv_cache_bytes(config, context, users)
    read = formulas.decode_bytes(config, context, users)
    flops = users * formulas.decode_flops(config, context)
    reaches = 1 / formulas.roofline_seconds(flops, read, card.ceilings)
    largest = card.largest_batch(config, context)
    if card.room(config) <= 0:
        why = "its weights don't fit"
    elif cache > card.room(config):
        why = f"fits {largest} users"
    elif reaches < tokens_per_second:
        why = f"reads {read / 1e9:,.0f} GB a step"
    else:
        why = ""
    return {
        "parameters": formulas.parameters(config),
        "active": formulas.active_parameters(config),
        "weight_bytes": formulas.weight_bytes(config),
        "cache_bytes": cache,
        "largest_batch": largest,
        "reaches": reaches,
        "meets": not why,
        "why_not": why or "–",
    }


def run(device="cpu", *, gpu="H100", context=32768, users=16, tokens_per_second=30.0):
    """A row for each design. The target: so many users of so many tokens, each at such a speed."""
    if min(context, users, tokens_per_second) <= 0:
        raise ValueError(
            f"context, users and tokens_per_second must be above 0, not {context}, {users} and"
            f" {tokens_per_second}"
        )
    card = gpus.named(gpu)
    target = {"gpu": gpu, "context": context, "users": users, "wanted": tokens_per_second}
    return [
        {"design": name} | target | meets(config, card, context, users, tokens_per_second)
        for name, config in DESIGNS.items()
    ]


def go(rows):
    if not any(r["meets"] for r in rows):
        near = max(rows, key=lambda r: r["largest_batch"])
        return (
            f"no design serves {rows[0]['users']} users of {rows[0]['context']:,} tokens on one"
            f" {rows[0]['gpu']} at {rows[0]['wanted']:g} tokens/s; nearest is {near['design']},"
            f" which {near['why_not']}: change the target before you train"
        )


def plot(rows):
    gigabytes = {r["design"]: r["cache_bytes"] / 1e9 for r in rows}
    return plotting.bars(
        gigabytes,
        x_label="GB of cache for all users",
        form="{:,.1f}",
        alt="Cache of each design for the target's users: "
        + ", ".join(f"{design} {gb:,.1f} GB" for design, gb in gigabytes.items()),
    )


def notice(rows):
    target = rows[0]
    met = sum(r["meets"] for r in rows)
    return (
        f"{met} of {len(rows)} designs serve {target['users']} users of {target['context']:,}"
        f" tokens on one {target['gpu']} at {target['wanted']:g} tokens/s. Heads, windows, latents,"
        " layer types and experts are fixed with the first training step; batch size, paging and"
        " number formats are not. Quality is not in this table: a design that meets the target"
        " still has to win on your task. Change the target with --set gpu=L4, --set context=8192,"
        " --set users=64 or --set tokens_per_second=50."
    )


LAB = Lab(
    title="What to fix before pretraining",
    objective=(
        "State a serving target, and see which sizes meet it before a single step is trained."
    ),
    asks="Does any design meet the target?",
    notice=notice,
    columns={
        "design": "design",
        "parameters": "parameters",
        "active": "active",
        "cache_bytes": "cache bytes",
        "largest_batch": "largest batch",
        "reaches": "tokens/s a user, at most|,.0f",
        "meets": "meets it",
        "why_not": "why not",
    },
    run=run,
    go=go,
    plot=plot,
    minutes=0,
    cpu_only=True,
)
