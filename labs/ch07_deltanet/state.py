"""CH07-STATE: a layer that keeps a state instead of tokens.

Does decode take as long at the longest context as at the shortest? A prompt is read in chunks.

One layer of Qwen3-Next's shapes: gated DeltaNet (32 heads of 128 x 128) against the attention layer
that stands beside it in the model. Prompts also go through a small layer (4 heads of 64 x 64),
because how much chunks gain depends on the size of a single token's work.
"""

from functools import partial
from itertools import product

from labkit import bench, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import only, series, where

NEXT = presets["qwen3-next-80b-a3b"]
ALL_FULL = NEXT.replace(layer_types=("full",) * NEXT.n_layers)
LAYERS = {
    kind: NEXT.replace(n_layers=1, layer_types=(kind,), d_model=512) for kind in ("delta", "full")
}
SHAPES = {"small": (4, 64, 64), "Qwen3-Next": (32, 128, 128)}  # heads, key size, value size
CHUNK = 32


def decodes(device, contexts, repeats) -> list[dict]:
    """Rows of one layer's decode step, with a state and with a cache."""
    from labkit_labs.common import layer

    rows = []
    # kinds apart: one's long cache would throw the other's weights out of the processor's own
    for kind, config in LAYERS.items():
        mixer = layer.make(config, device=device)
        held = {T: formulas.kv_cache_bytes(config, T, 1, "fp32") for T in contexts}
        times = bench.interleave(
            {T: layer.decoder(mixer, T) for T in contexts},
            warmup=3,
            repeats=repeats,
            device=device,
            flops={T: formulas.attention_flops(config, 1, T) for T in contexts},
            bytes=held,
        )
        rows += [
            m.to_row(
                what="decode",
                kind=kind,
                tokens=T,
                multiple=m.median / times[contexts[0]].median,
                layer_bytes=held[T],
                model_bytes=formulas.kv_cache_bytes(NEXT, T),
                model_bytes_if_full=formulas.kv_cache_bytes(ALL_FULL, T),
            )
            for T, m in times.items()
        ]
    return rows


def ways(T: int, H: int, dk: int, dv: int, device: str) -> dict:
    """The two ways through a prompt of T tokens, on the same inputs: token by token, and a chunk at
    once.
    """
    import torch
    import torch.nn.functional as F

    from labkit.mixers import delta

    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(1, T, H, *shape, generator=generator).to(device)

    q = F.normalize(draw(dk), dim=-1) * dk**-0.5
    k = F.normalize(draw(dk), dim=-1)
    v = draw(dv)
    g = -F.softplus(draw() - 4)
    beta = draw().sigmoid()
    inputs = q, k, v, g, beta, torch.zeros(1, H, dk, dv, device=device)
    inside = torch.inference_mode()
    return {
        "recurrent": inside(partial(delta.recurrent, *inputs)),
        "chunked": inside(partial(delta.chunked, *inputs, CHUNK)),
    }


def prefills(device, prompts, repeats) -> list[dict]:
    """Rows of both ways through prompts, in layers of both shapes."""
    f = formulas.symbols
    rows = []
    for T, (name, shape) in product(prompts, SHAPES.items()):
        fns = ways(T, *shape, device)
        # outputs and the states they end in
        each = zip(fns["recurrent"](), fns["chunked"](), strict=True)
        gap = max(((a - b).abs().max() / a.abs().max()).item() for a, b in each)
        alone = f.delta_flops(T, *shape)
        times = bench.interleave(
            fns,
            warmup=1,
            repeats=repeats,
            device=device,
            flops={
                "recurrent": alone,
                "chunked": alone + f.delta_chunk_flops(T, CHUNK, *shape),
            },
        )
        rows += [
            m.to_row(
                what=f"prefill, {name}",
                kind=way,
                tokens=T,
                over_recurrent=bench.multiple(times["recurrent"], m),
                gap=gap,
            )
            for way, m in times.items()
        ]
    return rows


def run(device, *, contexts, steps, prompts, prefill_repeats):
    """Rows of decode by context, then of prefill by length of the prompt.

    steps: how often each decode step is timed.
    """
    return decodes(device, contexts, steps) + prefills(device, prompts, prefill_repeats)


def go(rows):
    flat = where(rows, kind="delta")
    low = min(r["multiple"] for r in flat)
    high = max(r["multiple"] for r in flat)
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
    decode = where(rows, what="decode")
    contexts = sorted({r["tokens"] for r in decode})
    milliseconds = series(decode, "kind", "median", 1e3)
    named = {"state": milliseconds["delta"], "full attention": milliseconds["full"]}
    return plotting.lines(
        contexts,
        named,
        x_label="tokens of context",
        y_label="milliseconds",
        alt="Milliseconds of one layer's decode step, from"
        f" {contexts[0]:,} to {contexts[-1]:,} tokens of context: "
        + "; ".join(f"{name} {ms[0]:.2f} to {ms[-1]:.2f}" for name, ms in named.items()),
    )


def notice(rows):
    decode = where(rows, what="decode")
    short = min(r["tokens"] for r in decode)
    long = max(r["tokens"] for r in decode)
    state = only(decode, kind="delta", tokens=long)
    full = only(decode, kind="full", tokens=long)
    # a cache grows by as many bytes a token
    outgrown = state["layer_bytes"] * long / full["layer_bytes"]
    chunks = where(rows, kind="chunked")
    longest = max(r["tokens"] for r in chunks)

    def gain(shape) -> str:
        one, other = (
            only(rows, what=f"prefill, {shape}", kind=way, tokens=longest)
            for way in ("recurrent", "chunked")
        )
        return (
            f"{other['flops'] / one['flops']:.1f} times the FLOPs at"
            f" {other['over_recurrent']:.1f} times the speed"
        )

    return (
        f"From {short:,} to {long:,} tokens a step of the state takes {state['multiple']:.2f} times"
        f" as long, one of full attention {full['multiple']:.2f} times. The state keeps the same"
        f" bytes after a thousand tokens and after a million: a cache outgrows it after"
        f" {outgrown:,.0f} tokens, in fp32. Chunks do more FLOPs than the recurrence, as large"
        f" matrix products: over {longest:,} tokens {gain('small')} in the small layer,"
        f" {gain('Qwen3-Next')} in"
        " Qwen3-Next's. In the model every fourth layer still keeps its tokens."
    )


LAB = Lab(
    title="A state instead of a cache",
    objective=(
        "Measure a gated DeltaNet's decode step by context, its prompt read token by token and in"
        " chunks, and its bytes against a cache's."
    ),
    asks="Is decode flat, are the two prefills one function, and do chunks pay?",
    notice=notice,
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
    sizes={
        "full": {
            "contexts": [1024, 2048, 4096, 8192, 16384],
            "steps": 41,
            "prompts": [256, 1024],
            "prefill_repeats": 7,
        },
        "quick": {"contexts": [1024, 4096], "steps": 11, "prompts": [256], "prefill_repeats": 3},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=0.3,
)
