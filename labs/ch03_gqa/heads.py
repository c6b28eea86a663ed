"""CH03-HEADS: MHA, GQA and MQA under matched settings: same queries, same context, same kernel;
only the key/value heads differ.

One layer of Llama-3-8B's attention, from its cache. Grouped attention reads each key once for all
the queries that share it. *Expanded* attention first copies keys and values out to every query
head, as many programs do: it keeps the small cache, and reads and writes the large one. A copy can
go to new memory at each step, or to memory that is kept for it.
"""

from labkit import bench, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import only, progress, series

LLAMA = presets["llama3-8b"]
VARIANTS = {"MHA": 32, "GQA": 8, "MQA": 1}  # and its key/value heads
NEW, KEPT = "expanded", "expanded, memory kept"  # where the copy goes


def attention(G: int, context: int, device: str):
    """The ways to attend from one token over a cache of G heads, and the cache's bytes."""
    import torch

    from labkit.ops import attend
    from labkit.step import Step
    from labkit_labs.common import layer

    # narrow: only its attention is timed
    mixer = layer.make(LLAMA.replace(n_kv_heads=G, d_model=64), device=device)
    cache = layer.full_cache(mixer, context)
    q = torch.randn(1, mixer.H, mixer.E, generator=torch.Generator().manual_seed(1)).to(device)
    copies = mixer.H // G
    kept = []  # made at the first call, then written again and again

    @torch.inference_mode()
    def grouped():
        step = Step.of([(0, context - 1, [0])], device)
        return attend(q, *cache.read(step), step, mixer.scale)

    @torch.inference_mode()
    def expanded():
        step = Step.of([(0, context - 1, [0])], device)
        k, v, kpos = cache.read(step)
        k = k.repeat_interleave(copies, 2)
        v = v.repeat_interleave(copies, 2)
        return attend(q, k, v, kpos, step, mixer.scale)

    @torch.inference_mode()
    def expanded_into_kept():
        step = Step.of([(0, context - 1, [0])], device)
        k, v, kpos = cache.read(step)
        if not kept:
            R, S, _, E = k.shape
            kept.extend(torch.empty(R, S, G, copies, E, device=device) for _ in range(2))
        for memory, heads in zip(kept, (k, v)):
            memory.copy_(heads[:, :, :, None])  # copies of a head lie side by side
        k, v = (memory.flatten(2, 3) for memory in kept)
        return attend(q, k, v, kpos, step, mixer.scale)

    ways = {"grouped": grouped, NEW: expanded, KEPT: expanded_into_kept}
    return ways, cache.allocated_bytes


def warm(fn, device: str):
    """`fn` twice in a row; the seconds of the second.

    In turn, each way would find what the one before it left: memory just given back to the system
    is paid for by whoever comes next.
    """

    def second() -> float:
        fn()
        return bench.timed(fn, device)[0]

    return second


def new_pages(fn) -> int:
    """Pages of memory that the system has to hand out, and clear, in one warm call."""
    import resource

    fn()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fn()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def run(device, *, contexts, repeats):
    """A row for each context, variant and way; MHA has nothing to expand."""
    ceilings = bench.hardware("fp32", device)
    rows = []
    for T in progress(contexts, "contexts"):
        fns = {}
        held = {}
        gap = {}
        for name, G in VARIANTS.items():
            ways, held[name] = attention(G, T, device)
            made = {way: fn() for way, fn in ways.items()}
            gap[name] = max((made["grouped"] - o).abs().max().item() for o in made.values())
            if name == "MHA":
                ways = {"grouped": ways["grouped"]}
            fns |= {(name, way): fn for way, fn in ways.items()}
        pages = {which: new_pages(fn) for which, fn in fns.items()}
        # copies are written, then read
        copied = {"grouped": 0, NEW: 2 * held["MHA"], KEPT: 2 * held["MHA"]}
        times = bench.interleave(
            {which: warm(fn, device) for which, fn in fns.items()},
            warmup=2,
            repeats=repeats,
            device=device,
            flops=dict.fromkeys(
                fns, formulas.symbols.attention_flops(1, T, LLAMA.n_heads, LLAMA.head_dim)
            ),
            bytes={(name, way): held[name] + copied[way] for name, way in fns},
            hardware=ceilings,
        )
        for (name, way), m in times.items():
            expanded = times.get((name, NEW))
            rows.append(
                m.to_row(
                    variant=name,
                    kv_heads=VARIANTS[name],
                    way=way,
                    context=T,
                    cache_bytes=held[name],
                    gap=gap[name],
                    new_pages=pages[name, way],
                    multiple=bench.multiple(times["MHA", "grouped"], m),
                    over_expanded=bench.multiple(expanded, m) if expanded else None,
                )
            )
    return rows


def go(rows):
    for r in rows:
        if not r["gap"] <= 1e-4:
            return (
                f"grouped and expanded {r['variant']} differ by {r['gap']:.1e}: look at which query"
                " head reads which key head"
            )


def pays(rows):
    for r in rows:
        need = 4 if r["context"] >= 8000 else 1.2
        if (r["variant"], r["way"]) == ("GQA", "grouped") and r["over_expanded"] < need:
            return (
                f"at {r['context']:,} tokens grouped attention is {r['over_expanded']:.1f} times as"
                f" fast as expanded, where {need} is usual: look whether something copies the keys"
                " after all"
            )


def plot(rows):
    named = [r | {"name": f"{r['variant']}, {r['way']}"} for r in rows]
    contexts = sorted({r["context"] for r in rows})
    milliseconds = series(named, "name", "median", 1e3)
    return plotting.lines(
        contexts,
        milliseconds,
        x_label="tokens of context",
        y_label="milliseconds",
        alt=f"Milliseconds of one layer's attention at {contexts[-1]:,} tokens of context: "
        + "; ".join(f"{name} {ms[-1]:.2f}" for name, ms in milliseconds.items()),
    )


def notice(rows):
    long = max(r["context"] for r in rows)
    mha, grouped, expanded = (
        only(rows, variant=variant, way=way, context=long)
        for variant, way in (("MHA", "grouped"), ("GQA", "grouped"), ("GQA", "expanded"))
    )
    return (
        "All rows do the same FLOPs; what differs is how many bytes they move. At"
        f" {long:,} tokens GQA's cache is {mha['cache_bytes'] / grouped['cache_bytes']:.0f} times"
        f" smaller than MHA's, and its attention runs at {grouped['multiple']:.2f} times MHA's"
        " speed. Expanded, it first writes out what MHA had stored, and runs at"
        f" {expanded['multiple']:.2f} times that speed. A small cache makes a fast decode only if"
        " nobody unpacks it."
    )


LAB = Lab(
    title="MHA, GQA and MQA side by side",
    objective=(
        "Decode one token over the same context with 32, 8 and 1 key/value heads, grouped and"
        " expanded, and compare time and bytes."
    ),
    asks=(
        "Do both ways give the same numbers, and is grouped attention faster than expanded, as its"
        " fewer bytes promise?"
    ),
    notice=notice,
    columns={
        "variant": "variant",
        "kv_heads": "key/value heads",
        "way": "attention",
        "context": "context",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times MHA's speed|.2f",
        "over_expanded": "times expanded's|.2f",
        "cache_bytes": "cache bytes",
        "flops": "FLOPs|,",
        "bytes": "bytes moved|,",
        "new_pages": "new pages|,",
        "mbu": "MBU|.0%",
        "gap": "largest difference|.1e",
    },
    run=run,
    sizes={
        "full": {"contexts": [1024, 2048, 4096, 8000], "repeats": 15},
        "quick": {"contexts": [1024], "repeats": 5},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=0.5,
)
