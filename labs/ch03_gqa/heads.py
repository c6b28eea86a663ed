"""CH03-HEADS: MHA, GQA and MQA under matched settings: same queries, same context, same kernel;
only the key/value heads differ.

One layer of Llama-3-8B's attention, from its cache. Grouped attention reads each key once for all
the queries that share it. *Expanded* attention first copies keys and values out to every query
head, as many programs do: it keeps the small cache and gives its speed away.
"""

from labkit import presets
from labkit.lab import Lab

CONTEXTS, VARIANTS = [1024, 2048, 4096, 8000], {"MHA": 32, "GQA": 8, "MQA": 1}


def attention(G: int, context: int, device: str):
    """The two ways to attend from one token over a cache of G heads, and the cache's bytes."""
    import torch

    from labkit.ops import attend
    from labkit.step import Step
    from labkit_labs.common import layer

    # narrow: only its attention is timed
    mixer = layer.make(presets["llama3-8b"].replace(n_kv_heads=G, d_model=64), device=device)
    cache = layer.full_cache(mixer, context)
    q = torch.randn(1, mixer.H, mixer.E, generator=torch.Generator().manual_seed(1)).to(device)
    copies = mixer.H // G

    @torch.inference_mode()
    def grouped():
        step = Step.of([(0, context - 1, [0])], device)
        return attend(q, *cache.read(step), step, mixer.scale)

    @torch.inference_mode()
    def expanded():
        step = Step.of([(0, context - 1, [0])], device)
        k, v, kpos = cache.read(step)
        return attend(
            q,
            k.repeat_interleave(copies, 2),
            v.repeat_interleave(copies, 2),
            kpos,
            step,
            mixer.scale,
        )

    return {"grouped": grouped, "expanded": expanded}, cache.allocated_bytes


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.tables import progress

    torch.set_num_threads(1)
    ceilings, rows = bench.hardware("fp32", device), []
    for T in progress(CONTEXTS[:1] if quick else CONTEXTS, "contexts"):
        fns, held, gap = {}, {}, {}
        for name, G in VARIANTS.items():
            ways, held[name] = attention(G, T, device)
            gap[name] = (ways["grouped"]() - ways["expanded"]()).abs().max().item()
            fns |= {(name, way): fn for way, fn in ways.items() if G < 32 or way == "grouped"}
        flops = formulas.symbols.attention_flops(1, T, 32, 128)
        # copies are written, then read
        moved = {
            (name, way): held[name] + (2 * held["MHA"] if way == "expanded" else 0)
            for name, way in fns
        }
        times = bench.interleave(
            fns,
            warmup=2,
            repeats=5 if quick else 15,
            device=device,
            flops=dict.fromkeys(fns, flops),
            bytes=moved,
            hardware=ceilings,
        )
        for (name, way), m in times.items():
            rows.append(
                m.to_row(
                    variant=name,
                    kv_heads=VARIANTS[name],
                    way=way,
                    context=T,
                    cache_bytes=held[name],
                    gap=gap[name],
                    multiple=bench.multiple(times["MHA", "grouped"], m),
                    over_expanded=(
                        bench.multiple(times[name, "expanded"], m)
                        if (name, "expanded") in times
                        else None
                    ),
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
    from labkit import plotting

    series = {}
    for r in rows:
        series.setdefault(f"{r['variant']}, {r['way']}", []).append(r["median"] * 1e3)
    return plotting.lines(
        sorted({r["context"] for r in rows}),
        series,
        x_label="tokens of context",
        y_label="milliseconds",
        alt=(
            "Milliseconds of one layer's attention by context: expanded GQA is slower than MHA,"
            " grouped GQA several times faster."
        ),
    )


LAB = Lab(
    asks=(
        "Do both ways give the same numbers? Is grouped attention as much faster as the keys are"
        " fewer?"
    ),
    title="MHA, GQA and MQA side by side",
    minutes=0.5,
    objective=(
        "Decode one token over the same context with 32, 8 and 1 key/value heads, grouped and"
        " expanded, and compare time and bytes."
    ),
    notice=(
        "All rows do the same FLOPs. Time follows the bytes: fewer heads, fewer bytes, less time."
        " Expanded GQA is slower than MHA, because it writes what MHA had stored. A small cache"
        " makes a fast decode only if nobody unpacks it."
    ),
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
        "mbu": "MBU|.0%",
        "gap": "largest difference|.1e",
    },
    run=run,
    plot=plot,
    go=go,
    pays=pays,
)
