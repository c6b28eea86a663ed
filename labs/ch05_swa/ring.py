"""CH05-RING: what a window costs, and what it saves.

A ring holds the window and nothing else: does a step take as long at the longest context as at the
shortest? Measured on one layer with a window of 1,024; computed for Gemma-3-27B with other windows
and other shares of full layers.
"""

from labkit import ModelConfig, bench, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import listed, only, progress, series, where

GEMMA = presets["gemma3-27b"]
WINDOW = 1024
SLIDING = ModelConfig(
    vocab_size=1024,
    d_model=1024,
    n_layers=1,
    n_heads=16,
    n_kv_heads=8,
    head_dim=64,
    d_ff=2816,
    max_context=32768,
    layer_types=("sliding",),
    window=WINDOW,
)
LAYERS = {"ring": SLIDING, "full": SLIDING.replace(layer_types=("full",), window=None)}
HYBRIDS = {  # (full, sliding) layers of a pattern that repeats
    "all full": (1, 0),
    "1 sliding : 1 full": (1, 1),
    "3 sliding : 1 full": (1, 3),
    "5 sliding : 1 full": (1, 5),
    "all sliding": (0, 1),
}


def estimate(pattern: str, window: int, context: int) -> dict:
    """The cache of Gemma-3-27B with its layers in another pattern, in bf16."""
    full, sliding = HYBRIDS[pattern]
    kinds = ["sliding"] * sliding + ["full"] * full
    types = tuple(kinds[i % len(kinds)] for i in range(GEMMA.n_layers))

    def bytes_with(types) -> int:
        return formulas.kv_cache_bytes(GEMMA.replace(layer_types=types, window=window), context)

    bytes = bytes_with(types)
    return {
        "what": "gemma3-27b",
        "kind": pattern,
        "window": window,
        "context": context,
        "cache_bytes": bytes,
        "saving": bytes_with(("full",) * GEMMA.n_layers) / bytes,
    }


def layer_flops(config: ModelConfig, context: int) -> int:
    """FLOPs of one decoded token in the mixer alone: the model's, less the FFN and the head."""
    ffn = 3 * config.d_model * config.d_ff
    head = config.vocab_size * config.d_model
    return formulas.decode_flops(config, context) - 2 * (ffn + head)


def measured(device, contexts, repeats) -> list[dict]:
    """Rows of one layer's decode step, with a ring and with a full cache."""
    from labkit_labs.common import layer

    rows = []
    for kind, config in LAYERS.items():
        mixer = layer.make(config, device=device)
        caches = {
            T: layer.full_cache(mixer, T, "ring" if kind == "ring" else "static")
            for T in progress(contexts, f"{kind} caches")
        }
        # kinds apart: a full layer's long cache would throw the ring's out of the processor's own
        times = bench.interleave(
            {T: layer.decoder(mixer, T, cache) for T, cache in caches.items()},
            warmup=3,
            repeats=repeats,
            device=device,
            flops={T: layer_flops(config, T) for T in contexts},
            bytes={T: cache.allocated_bytes for T, cache in caches.items()},
        )
        rows += [
            m.to_row(
                what="one layer",
                kind=kind,
                window=config.window,
                context=T,
                cache_bytes=caches[T].allocated_bytes,
                multiple=m.median / times[contexts[0]].median,
            )
            for T, m in times.items()
        ]
    return rows


def run(device, *, contexts, repeats, estimated, windows):
    """Rows that are measured, by context, and rows that are computed.

    estimated: contexts of the computed ones. windows: those of their sliding layers.
    """
    rows = measured(device, contexts, repeats)
    for T in estimated:
        for pattern in HYBRIDS:
            # no layer has a window there: one row says all
            used = windows[:1] if pattern == "all full" else windows
            rows += [estimate(pattern, window, T) for window in used]
    return rows


def go(rows):
    ring = where(rows, kind="ring")
    if len({r["cache_bytes"] for r in ring}) > 1:
        return (
            f"the ring takes {ring[0]['cache_bytes']:,} bytes at first and"
            f" {ring[-1]['cache_bytes']:,} at last: a ring has the size of its window"
        )
    low = min(r["multiple"] for r in ring)
    high = max(r["multiple"] for r in ring)
    # 10 %, and what this machine's noise explains
    if high / low > 1.1 + max(r["iqr"] / r["median"] for r in ring):
        return (
            f"a step of the ring takes {low:.2f} to {high:.2f} times the shortest context's: look"
            " at what is read, it must be the window"
        )
    if rows[-1]["saving"] <= 1:
        return (
            "a model of sliding layers stores as much as one of full ones: look whether"
            " min(context, window) was forgotten"
        )


def plot(rows):
    layers = where(rows, what="one layer")
    contexts = sorted({r["context"] for r in layers})
    milliseconds = series(layers, "kind", "median", 1e3)
    return plotting.lines(
        contexts,
        milliseconds,
        x_label="tokens of context",
        y_label="milliseconds",
        alt="Milliseconds of one layer's decode step, from"
        f" {contexts[0]:,} to {contexts[-1]:,} tokens of context: "
        + "; ".join(f"{kind} {ms[0]:.2f} to {ms[-1]:.2f}" for kind, ms in milliseconds.items()),
    )


def notice(rows):
    layers = where(rows, what="one layer")
    short = min(r["context"] for r in layers)
    long = max(r["context"] for r in layers)
    ring = only(layers, kind="ring", context=long)
    full = only(layers, kind="full", context=long)
    hybrids = where(rows, kind="5 sliding : 1 full")
    longest = max(r["context"] for r in hybrids)
    saved = listed(
        f"{r['saving']:.1f} times less with a window of {r['window']:,}"
        for r in where(hybrids, context=longest)
    )
    return (
        f"From {short:,} to {long:,} tokens the ring's bytes do not move, and its step takes"
        f" {ring['multiple']:.2f} times as long. The full layer's bytes grow with every token, to"
        f" {full['cache_bytes'] / ring['cache_bytes']:.0f} times the ring's, and its step takes"
        f" {full['multiple']:.2f} times as long. In a hybrid the few full layers soon are most of"
        f" the cache, and the pattern sets the limit: at {longest:,} tokens, five sliding layers to"
        f" one full let Gemma-3-27B store {saved}."
    )


LAB = Lab(
    title="A window on a ring",
    objective=(
        "Measure a sliding layer's decode step from 1,000 to 16,000 tokens, and compute what"
        " windows and hybrid patterns save."
    ),
    asks="Is the ring as fast and as small at the longest context as at the shortest?",
    notice=notice,
    columns={
        "what": "what",
        "kind": "cache or layers",
        "window": "window",
        "context": "context",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times its shortest|.2f",
        "flops": "FLOPs|,",
        "cache_bytes": "cache bytes",
        "saving": "times less than full|.1f",
    },
    run=run,
    sizes={
        "full": {
            "contexts": [1024, 2048, 4096, 8192, 16384],
            "repeats": 41,
            "estimated": [8192, 131072],
            "windows": [1024, 4096],
        },
        "quick": {
            "contexts": [1024, 4096],
            "repeats": 15,
            "estimated": [4096],
            "windows": [1024],
        },
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=0.2,
)
