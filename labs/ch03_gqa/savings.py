"""CH03-SAVINGS: what fewer key/value heads save.

Bytes by heads, context and batch, and the largest batch that a named GPU holds.

Arithmetic, but proved: a real cache is allocated for each number of heads and must have the bytes
that the formula says.
"""

from labkit import formulas, presets
from labkit.lab import Lab

HEADS, CONTEXTS, BATCHES = [32, 8, 4, 1], [2048, 8192, 32768], [1, 32]


def allocated(heads: int, device: str) -> tuple[int, int]:
    """Bytes that a small model's caches take on this machine, and what the formula says for them."""
    import labkit

    config = presets["tiny"].replace(n_heads=32, n_kv_heads=heads)
    caches = labkit.GPT(config).to(device).caches("static", 3, 100)
    return sum(cache.allocated_bytes for cache in caches), formulas.kv_cache_bytes(
        config, 100, 3, "fp32"
    )


def run(device="cpu", quick=False, model="llama3-8b", gpu="H100", dtype="bf16"):
    from labkit_labs.common import gpus

    base, card, rows = presets[model], gpus.named(gpu), []
    if base.n_kv_heads < 1 or "mla" in base.types:
        raise ValueError(
            f"{model} has no key/value heads to take away: choose a model with attention layers"
        )
    for G in [h for h in HEADS if base.n_heads % h == 0]:
        config = base.replace(n_kv_heads=G)
        held, formula = allocated(G, device)
        for T in CONTEXTS[1:2] if quick else CONTEXTS:
            for B in BATCHES:
                bytes = formulas.kv_cache_bytes(config, T, B, dtype)
                rows.append(
                    {
                        "model": model,
                        "gpu": gpu,
                        "kv_heads": G,
                        "context": T,
                        "batch": B,
                        "cache_bytes": bytes,
                        "bytes_per_token": formulas.kv_cache_bytes(config, 1, 1, dtype),
                        "multiple": (
                            formulas.kv_cache_bytes(
                                base.replace(n_kv_heads=base.n_heads), T, B, dtype
                            )
                            / bytes
                        ),
                        "largest_batch": card.largest_batch(config, T, "bf16", dtype),
                        "held": held,
                        "formula": formula,
                        "fits": bytes <= card.room(config),
                    }
                )
    return rows


def go(rows):
    for r in rows:
        if r["held"] != r["formula"]:
            return (
                f"with {r['kv_heads']} heads a cache took {r['held']:,} bytes, the formula says"
                f" {r['formula']:,}; find out which of them forgets something"
            )
    most = max(r["kv_heads"] for r in rows)
    for r in rows:
        if abs(r["multiple"] - most / r["kv_heads"]) > 0.01 * r["multiple"]:
            return (
                f"{r['kv_heads']} of {most} heads save {r['multiple']:.2f} times: look whether"
                " query heads were counted for key/value heads"
            )


def plot(rows):
    from labkit import plotting

    rows = [r for r in rows if r["batch"] == 1]
    contexts = sorted({r["context"] for r in rows})
    series = {
        f"{G} heads": [r["largest_batch"] for r in rows if r["kv_heads"] == G]
        for G in dict.fromkeys(r["kv_heads"] for r in rows)
    }
    return plotting.lines(
        contexts,
        series,
        log_x=True,
        log_y=True,
        x_label="tokens of context",
        y_label="largest batch",
        alt=(
            "Largest batch on the GPU by context, one line for each number of key/value heads: each"
            " halving of heads doubles it."
        ),
    )


LAB = Lab(
    asks=(
        "Has a real cache the bytes that the formula says, and is the saving the number of heads"
        " left out?"
    ),
    title="Cache savings by heads",
    minutes=0.1,
    objective=(
        "Compute the cache of one model with 32, 8, 4 and 1 key/value heads, and how many requests"
        " fit on a GPU beside its weights."
    ),
    notice=(
        "The saving is exactly the share of heads left out, at every context and batch. The largest"
        " batch grows by a little more, because the projections shrink too. Change the question"
        " with --set gpu=L4, --set model=llama3-70b or --set dtype=int8."
    ),
    columns={
        "kv_heads": "key/value heads",
        "context": "context",
        "batch": "batch",
        "bytes_per_token": "bytes a token",
        "cache_bytes": "cache bytes",
        "multiple": "times smaller|.1f",
        "fits": "fits beside the weights",
        "largest_batch": "largest batch",
        "held": "held by a small one",
        "formula": "by the formula",
    },
    run=run,
    plot=plot,
    go=go,
)
