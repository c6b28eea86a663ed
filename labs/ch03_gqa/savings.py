"""CH03-SAVINGS: what fewer key/value heads save.

Bytes by heads, context and batch, and the largest batch that a named GPU holds.

Arithmetic, but proved: a real cache is allocated for each number of heads and must have the bytes
that the formula says.
"""

from labkit import formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import only, series, where
from labkit_labs.common import gpus

HEADS = [32, 8, 4, 1]
BATCHES = [1, 32]


def allocated(heads: int, device: str) -> tuple[int, int]:
    """Bytes that a small model's caches take on this machine, and what the formula says."""
    import labkit

    config = presets["tiny"].replace(n_heads=32, n_kv_heads=heads)
    caches = labkit.GPT(config).to(device).caches("static", 3, 100)
    held = sum(cache.allocated_bytes for cache in caches)
    return held, formulas.kv_cache_bytes(config, 100, 3, "fp32")


def run(device, *, contexts, model="llama3-8b", gpu="H100", dtype="bf16"):
    """A row for each number of heads, context and batch. dtype: of the cache."""
    base = presets[model]
    card = gpus.named(gpu)
    if base.n_kv_heads < 1 or "mla" in base.types:
        raise ValueError(
            f"{model} has no key/value heads to take away: choose a model with attention layers"
        )
    whole = base.replace(n_kv_heads=base.n_heads)
    rows = []
    for G in [heads for heads in HEADS if base.n_heads % heads == 0]:
        config = base.replace(n_kv_heads=G)
        held, formula = allocated(G, device)
        for T in contexts:
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
                        "multiple": formulas.kv_cache_bytes(whole, T, B, dtype) / bytes,
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
    contexts = sorted({r["context"] for r in rows})
    largest = series(where(rows, batch=1), "kv_heads", "largest_batch")
    return plotting.lines(
        contexts,
        {f"G = {G}": batches for G, batches in largest.items()},
        log_x=True,
        log_y=True,
        x_label="tokens of context",
        y_label="largest batch",
        alt=f"Largest batch on the {rows[0]['gpu']} from {contexts[0]:,} to {contexts[-1]:,} tokens"
        " of context, by key/value heads: "
        + "; ".join(f"G = {G} {b[0]:,} to {b[-1]:,}" for G, b in largest.items()),
    )


def notice(rows):
    long = max(r["context"] for r in rows)
    many, few = (
        only(rows, kv_heads=choose(r["kv_heads"] for r in rows), context=long, batch=1)
        for choose in (max, min)
    )
    return (
        "The saving is exactly the share of heads left out, at every context and batch: with"
        f" {few['kv_heads']} of {many['kv_heads']} heads a cache is {few['multiple']:.0f} times"
        f" smaller. The largest batch of {long:,} tokens goes from {many['largest_batch']:,} to"
        f" {few['largest_batch']:,}: the projections shrink too, and leave their room to"
        " caches. Change the question with --set gpu=L4, --set model=llama3-70b or --set"
        " dtype=int8."
    )


LAB = Lab(
    title="Cache savings by heads",
    objective=(
        "Compute the cache of one model with 32, 8, 4 and 1 key/value heads, and how many requests"
        " fit on a GPU beside its weights."
    ),
    asks=(
        "Has a real cache the bytes that the formula says, and is the saving the number of heads"
        " left out?"
    ),
    notice=notice,
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
    sizes={"full": {"contexts": [2048, 8192, 32768]}, "quick": {"contexts": [8192]}},
    go=go,
    plot=plot,
    minutes=0.1,
)
