"""CH02-LOSES: the cache's own bill.

How much slower a decoded token gets as what it reads grows, and where the cache outweighs the
model.
"""

from labkit.lab import Lab

CONTEXTS = [128, 512, 1024, 2048, 4096, 8000]


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.step import Step
    from labkit.tables import progress
    from labkit.weights import smollm2

    torch.set_num_threads(1)
    model, _ = smollm2("fp32", device)
    contexts = CONTEXTS[:2] if quick else CONTEXTS
    caches = model.caches("static", 1, max(contexts) + 1)
    for cache in caches:
        for buffer in cache.buffers:
            # keys of any text: reading them costs the same
            buffer.normal_(generator=torch.Generator(device).manual_seed(0))

    def step_at(context):
        def fn():
            with torch.inference_mode():
                model(Step.of([(0, context - 1, [1])], model.device), caches, None)

        return fn

    ceilings, config = bench.hardware("fp32", device), model.config
    with progress(None, "rounds of all contexts", 2 + (3 if quick else 15)) as bar:
        fns = {context: step_at(context) for context in contexts}
        fns[contexts[-1]] = lambda last=fns[contexts[-1]]: (last(), bar.update(1))[0]
        times = bench.interleave(fns, warmup=2, repeats=3 if quick else 15, device=device)
    base = times[contexts[0]]
    return [
        bench.Measurement(m.median, m.iqr, m.n).to_row(
            context=c,
            tokens_per_second=1 / m.median,
            cache_bytes=formulas.kv_cache_bytes(config, c, 1, "fp32"),
            cache_share=formulas.kv_cache_bytes(config, c, 1, "fp32")
            / formulas.decode_bytes(config, c, 1, "fp32"),
            mbu=formulas.decode_bytes(config, c, 1, "fp32") / m.median / ceilings.bytes_per_second,
            multiple=m.median / base.median,
        )
        for c, m in times.items()
    ]


def pays(rows):
    for r in rows:
        if r["cache_share"] > 0.25 and r["multiple"] < 1.05:
            return (
                f"at {r['context']:,} tokens {r['cache_share']:.0%} of the bytes are cache, but a"
                " token takes no longer: look whether the cache is read"
            )


def plot(rows):
    from labkit import plotting

    chart = plotting.lines(
        [r["context"] for r in rows],
        {"one token": [r["median"] * 1e3 for r in rows]},
        x_label="tokens of context",
        y_label="milliseconds",
        alt="Milliseconds for one decoded token by context.",
    )
    chart.figure.axes[0].set_ylim(bottom=0)
    return chart


LAB = Lab(
    asks="Does a token cost more once the cache outweighs the model?",
    title="The cache's own bill",
    minutes=2,
    objective=(
        "Measure one decoded token at growing contexts, and see the cache take over from the"
        " weights."
    ),
    notice=(
        "A cached token is not free and not constant: it reads the whole cache. The share of bytes"
        " that is cache says where the next chapters (fewer heads, windows, states, fewer bits)"
        " start to pay."
    ),
    columns={
        "context": "context",
        "median": "s per token|.4f",
        "tokens_per_second": "tokens/s|.1f",
        "multiple": "times the shortest|.2f",
        "cache_bytes": "cache bytes|,",
        "cache_share": "share of bytes read|.0%",
        "mbu": "MBU|.0%",
    },
    run=run,
    plot=plot,
    pays=pays,
)
