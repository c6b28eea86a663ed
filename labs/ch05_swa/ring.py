"""CH05-RING: what a window costs, and what it saves.

A ring holds the window and nothing else, so a step takes as long at 16,000 tokens as at 1,000.
Measured on one layer with a window of 1,024; computed for Gemma-3-27B with other windows and other
shares of full layers.
"""

from labkit import ModelConfig, formulas, presets
from labkit.lab import Lab

WINDOW, CONTEXTS = 1024, [1024, 2048, 4096, 8192, 16384]
LAYER = ModelConfig(1024, 1024, 1, 16, 8, 64, 2816, 32768, layer_types=("sliding",), window=WINDOW)
HYBRIDS = {
    "all full": (1, 0),
    "1 sliding : 1 full": (1, 1),
    "3 sliding : 1 full": (1, 3),
    "5 sliding : 1 full": (1, 5),
    "all sliding": (0, 1),
}


def estimate(pattern: str, window: int, context: int) -> dict:
    """The cache of Gemma-3-27B with its layers in another pattern, in bf16."""
    base, (full, sliding) = presets["gemma3-27b"], HYBRIDS[pattern]
    kinds = ["sliding"] * sliding + ["full"] * full
    types = tuple(kinds[i % len(kinds)] for i in range(base.n_layers))
    bytes, whole = (
        formulas.kv_cache_bytes(base.replace(layer_types=t, window=window), context)
        for t in (types, ("full",) * base.n_layers)
    )
    return {
        "what": "gemma3-27b",
        "kind": pattern,
        "window": window,
        "context": context,
        "cache_bytes": bytes,
        "saving": whole / bytes,
    }


def run(device="cpu", quick=False):
    import torch

    from labkit import bench
    from labkit.tables import progress
    from labkit_labs.common import layer

    torch.set_num_threads(1)
    contexts = [CONTEXTS[0], CONTEXTS[2]] if quick else CONTEXTS
    mixer, fns, held = layer.make(LAYER, device=device), {}, {}
    full = layer.make(LAYER.replace(layer_types=("full",), window=None), device=device)
    for T in progress(contexts, "contexts"):
        for kind, m in (("ring", mixer), ("full", full)):
            cache = layer.full_cache(m, T, "ring" if kind == "ring" else "static")
            fns[kind, T], held[kind, T] = layer.decoder(m, T, cache), cache.allocated_bytes
    flops = {
        (kind, T): (
            formulas.decode_flops(
                LAYER if kind == "ring" else LAYER.replace(layer_types=("full",), window=None), T
            )
            # less the FFN and head, which this layer alone has not
            - 2 * (3 * 1024 * 2816 + 1024 * 1024)
        )
        for kind, T in fns
    }
    times = {}
    # apart: a full layer's long cache would throw the ring's out of the processor's own
    for kind in ("ring", "full"):
        times |= bench.interleave(
            {k: fn for k, fn in fns.items() if k[0] == kind},
            warmup=3,
            repeats=15 if quick else 41,
            device=device,
            flops=flops,
            bytes=held,
        )
    rows = [
        m.to_row(
            what="one layer",
            kind=kind,
            window=WINDOW if kind == "ring" else None,
            context=T,
            cache_bytes=held[kind, T],
            multiple=m.median / times[kind, contexts[0]].median,
        )
        for (kind, T), m in times.items()
    ]
    for T in contexts[-1:] if quick else (8192, 131072):
        for pattern in HYBRIDS:
            rows += [
                estimate(pattern, w, T)
                for w in ((1024,) if pattern == "all full" or quick else (1024, 4096))
            ]
    return rows


def go(rows):
    ring = [r for r in rows if r["kind"] == "ring"]
    if len({r["cache_bytes"] for r in ring}) > 1:
        return (
            f"the ring takes {ring[0]['cache_bytes']:,} bytes at first and"
            f" {ring[-1]['cache_bytes']:,} at last: a ring has the size of its window"
        )
    low, high = min(r["multiple"] for r in ring), max(r["multiple"] for r in ring)
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
    from labkit import plotting

    rows = [r for r in rows if r["what"] == "one layer"]
    series = {
        kind: [r["median"] * 1e3 for r in rows if r["kind"] == kind] for kind in ("ring", "full")
    }
    return plotting.lines(
        sorted({r["context"] for r in rows}),
        series,
        x_label="tokens of context",
        y_label="milliseconds",
        alt=(
            "Milliseconds of one layer's decode step by context: flat with a ring, growing with"
            " full attention."
        ),
    )


LAB = Lab(
    asks="Is the ring as fast and as small at the longest context as at the shortest?",
    title="A window on a ring",
    minutes=0.2,
    objective=(
        "Measure a sliding layer's decode step from 1,000 to 16,000 tokens, and compute what"
        " windows and hybrid patterns save."
    ),
    notice=(
        "The ring's time and bytes do not move; the full layer's grow with every token. In a hybrid"
        " the few full layers soon are all of the cache: at long contexts the pattern decides, and"
        " the window hardly matters."
    ),
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
    plot=plot,
    go=go,
)
