"""CH07-STATE: a layer that keeps a state instead of tokens.

Decode takes as long at 16,000 tokens as at 1,000; a prompt is read in chunks.

One layer of Qwen3-Next's shapes: gated DeltaNet (32 heads of 128 x 128) against the attention layer
that stands beside it in the model. Prompts also go through a small layer (4 heads of 64 x 64),
because how much chunks gain depends on the size of a single token's work.
"""

import itertools

from labkit import formulas, presets
from labkit.lab import Lab

NEXT, CONTEXTS = presets["qwen3-next-80b-a3b"], [1024, 2048, 4096, 8192, 16384]
SHAPES, CHUNK = {"small": (4, 64, 64), "Qwen3-Next": (32, 128, 128)}, 32


def prefills(T: int, H: int, dk: int, dv: int, device: str):
    """The two ways through a prompt of T tokens, on the same inputs: token by token, and a chunk at
    once.
    """
    import torch
    import torch.nn.functional as F

    from labkit.mixers import delta

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(1, T, H, *shape, generator=generator).to(device)
    q, k, v = F.normalize(draw(dk), dim=-1) * dk**-0.5, F.normalize(draw(dk), dim=-1), draw(dv)
    g = -F.softplus(draw() - 4)
    beta = draw().sigmoid()
    state = torch.zeros(1, H, dk, dv, device=device)
    inside = torch.inference_mode()
    return {
        "recurrent": inside(lambda: delta.recurrent(q, k, v, g, beta, state)),
        "chunked": inside(lambda: delta.chunked(q, k, v, g, beta, state, CHUNK)),
    }


def run(device="cpu", quick=False):
    import torch

    from labkit import bench
    from labkit.tables import progress
    from labkit_labs.common import layer

    torch.set_num_threads(1)
    rows, contexts = [], [CONTEXTS[0], CONTEXTS[2]] if quick else CONTEXTS
    one = {
        kind: NEXT.replace(n_layers=1, layer_types=(kind,), d_model=512)
        for kind in ("delta", "full")
    }
    mixers, fns = {kind: layer.make(c, device=device) for kind, c in one.items()}, {}
    for T in progress(contexts, "contexts"):
        fns |= {(kind, T): layer.decoder(m, T) for kind, m in mixers.items()}
    held = {(kind, T): formulas.kv_cache_bytes(one[kind], T, 1, "fp32") for kind, T in fns}
    flops = {(kind, T): formulas.attention_flops(one[kind], 1, T) for kind, T in fns}
    times = {}
    # the long cache of one would throw the other's weights out of the processor's own
    for kind in mixers:
        times |= bench.interleave(
            {k: fn for k, fn in fns.items() if k[0] == kind},
            warmup=3,
            repeats=11 if quick else 41,
            device=device,
            flops=flops,
            bytes=held,
        )
    as_full = NEXT.replace(layer_types=("full",) * NEXT.n_layers)
    for (kind, T), m in times.items():
        rows.append(
            m.to_row(
                what="decode",
                kind=kind,
                tokens=T,
                multiple=m.median / times[kind, contexts[0]].median,
                layer_bytes=held[kind, T],
                model_bytes=formulas.kv_cache_bytes(NEXT, T),
                model_bytes_if_full=formulas.kv_cache_bytes(as_full, T),
            )
        )
    f = formulas.symbols
    for T, (name, shape) in itertools.product((256,) if quick else (256, 1024), SHAPES.items()):
        ways = prefills(T, *shape, device)
        (a, s), (b, t) = ways["recurrent"](), ways["chunked"]()
        gap = max((a - b).abs().max() / a.abs().max(), (s - t).abs().max() / s.abs().max()).item()
        work = {
            "recurrent": f.delta_flops(T, *shape),
            "chunked": f.delta_flops(T, *shape) + f.delta_chunk_flops(T, CHUNK, *shape),
        }
        took = bench.interleave(
            ways, warmup=1, repeats=3 if quick else 7, device=device, flops=work
        )
        rows += [
            m.to_row(
                what=f"prefill, {name}",
                kind=way,
                tokens=T,
                over_recurrent=bench.multiple(took["recurrent"], m),
                gap=gap,
            )
            for way, m in took.items()
        ]
    return rows


def go(rows):
    flat = [r for r in rows if r["kind"] == "delta"]
    low, high = min(r["multiple"] for r in flat), max(r["multiple"] for r in flat)
    # 10 %, and what this machine's noise explains
    if high / low > 1.1 + max(r["iqr"] / r["median"] for r in flat):
        return (
            f"a delta step takes {low:.2f} to {high:.2f} times the shortest context's: look at what"
            " is read; a state has no length to depend on"
        )
    for r in rows:
        if r["what"].startswith("prefill"):
            if not r["gap"] <= 1e-3:
                return (
                    f"chunked and recurrent differ by {r['gap']:.1e} of the largest number: look at"
                    " what a chunk passes on"
                )
            need = 5 if (r["what"], r["tokens"]) == ("prefill, small", 1024) else 1.2
            if r["kind"] == "chunked" and r["over_recurrent"] < need:
                return (
                    f"chunks are {r['over_recurrent']:.1f} times as fast as single tokens at"
                    f" {r['tokens']:,}, where {need} is usual: look at the chunk's size"
                )


def plot(rows):
    from labkit import plotting

    rows = [r for r in rows if r["what"] == "decode"]
    series = {
        name: [r["median"] * 1e3 for r in rows if r["kind"] == kind]
        for name, kind in (("state", "delta"), ("full attention", "full"))
    }
    return plotting.lines(
        sorted({r["tokens"] for r in rows}),
        series,
        x_label="tokens of context",
        y_label="milliseconds",
        alt=(
            "Milliseconds of one layer's decode step by context: flat for the delta layer, growing"
            " for full attention."
        ),
    )


LAB = Lab(
    asks="Is decode flat, are the two prefills one function, and do chunks pay?",
    title="A state instead of a cache",
    minutes=0.3,
    objective=(
        "Measure a gated DeltaNet's decode step by context, its prompt read token by token and in"
        " chunks, and its bytes against a cache's."
    ),
    notice=(
        "The state costs the same after a thousand tokens and after a million; at short contexts it"
        " is the larger of the two. Chunks do more FLOPs than the recurrence in a fraction of its"
        " time, because they are large matrix products. They gain most where one token's work is"
        " small. In the model every fourth layer still keeps its tokens."
    ),
    columns={
        "what": "what",
        "kind": "layer or way",
        "tokens": "tokens",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times its shortest|.2f",
        "over_recurrent": "times recurrent|.1f",
        "flops": "FLOPs|,",
        "layer_bytes": "layer keeps",
        "model_bytes": "Qwen3-Next keeps",
        "model_bytes_if_full": "all full it would",
        "gap": "largest difference|.1e",
    },
    run=run,
    plot=plot,
    go=go,
)
