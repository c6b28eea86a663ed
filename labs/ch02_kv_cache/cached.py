"""CH02-CACHED: generate with a cache on the real model; tokens per second, and where the memory
goes.
"""

from labkit.lab import Lab

CONTEXTS = [64, 300, 1024, 2048]


def growth(prompt: list[int], new: int, device: str) -> int:
    """Bytes that this process grows by while it generates: call it in a fresh one, where no memory
    freed earlier could hide a copy.
    """
    from labkit import bench
    from labkit.weights import smollm2

    model, _ = smollm2("fp32", device)
    bench.time_decode(model, [prompt[:8]], 2)
    before = bench.resident_bytes()
    with bench.PeakMemory() as peak:
        bench.time_decode(model, [prompt], new)
    return peak.bytes - before


def run(device="cpu", quick=False):
    import multiprocessing

    import torch

    from labkit import bench, formulas
    from labkit.tables import progress
    from labkit.weights import smollm2

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    config, new, rows = model.config, 4 if quick else 32, []
    ceilings = bench.hardware("fp32", device)
    text = (
        tokenizer.encode(
            "A cache keeps a copy of what was slow to get, close to where it is needed again. "
        )
        * 200
    )
    contexts = CONTEXTS[:2] if quick else CONTEXTS
    taken = {context: [] for context in contexts}
    bench.time_decode(model, [text[:64]], 4)  # warm up
    for _ in progress(range(1 if quick else 3), "rounds"):
        for context in contexts:
            taken[context].append(bench.time_decode(model, [text[:context]], new))
    grown = {}
    for context in progress(contexts, "memory"):
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            grown[context] = pool.apply(growth, (text[:context], new, device))
    for context, runs in taken.items():
        last = context + new
        decode = bench.summarise(
            [s for r in runs for s in r.each],
            flops=formulas.decode_flops(config, context + new // 2),
            bytes=formulas.decode_bytes(config, context + new // 2, 1, "fp32"),
            hardware=ceilings,
        )
        prefill = bench.summarise([r.first for r in runs])
        rows.append(
            decode.to_row(
                context=context,
                new=new,
                prefill_seconds=prefill.median,
                tokens_per_second=1 / decode.median,
                prefill_tokens_per_second=context / prefill.median,
                cache_bytes=formulas.kv_cache_bytes(config, last, 1, "fp32"),
                activation_bytes=round(formulas.activation_bytes(config, context, "fp32")),
                grown_bytes=grown[context],
            )
        )
    return rows


def go(rows):
    for r in rows:
        if r["prefill_tokens_per_second"] <= r["tokens_per_second"]:
            return (
                f"at {r['context']:,} tokens prefill is no faster per token than decode: look"
                " whether the prompt is fed in one step"
            )


def plot(rows):
    from labkit import plotting

    return plotting.lines(
        [r["context"] for r in rows],
        {"a decoded token": [r["median"] * 1e3 for r in rows]},
        x_label="tokens of context",
        y_label="milliseconds",
        alt=(
            "Milliseconds per decoded token by context: the weights' share is constant, the cache's"
            " grows."
        ),
    )


LAB = Lab(
    asks="Does prefill take more tokens a second than decode?",
    title="Cached generation: speed and memory",
    minutes=2,
    objective=(
        "Generate with a cache on SmolLM2-135M; record tokens per second for prefill and decode,"
        " and what the memory grows by."
    ),
    notice=(
        "Decode slows as the context grows, because the cache is read at every step; prefill does"
        " many tokens for one reading of the weights. Memory grows by the cache and by a prompt's"
        " activations, and by little else: nothing copies the cache."
    ),
    columns={
        "context": "context",
        "prefill_tokens_per_second": "prefill tokens/s|,.0f",
        "median": "s per token|.4f",
        "tokens_per_second": "tokens/s|.1f",
        "mbu": "MBU|.0%",
        "cache_bytes": "cache bytes|,",
        "activation_bytes": "activations|,",
        "grown_bytes": "memory grew|,",
    },
    run=run,
    plot=plot,
    go=go,
)
