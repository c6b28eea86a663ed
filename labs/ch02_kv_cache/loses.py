"""CH02-LOSES: the cache's own bill.

How much slower a decoded token gets as what it reads grows, and where the cache outweighs the
model.
"""

from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab


def run(device, *, contexts, repeats):
    """A row for each number of tokens in the cache."""
    import torch

    from labkit.graphs import capture
    from labkit.step import Step
    from labkit.weights import smollm2

    model, _ = smollm2("fp32", device)
    config = model.config
    caches = model.caches("static", 1, max(contexts) + 1)
    for cache in caches:
        for buffer in cache.buffers:
            # keys of any text: reading them costs the same
            buffer.normal_(generator=torch.Generator(device).manual_seed(0))

    decode_step = capture(model, caches, 1)

    @torch.inference_mode()
    def token_at(context):
        decode_step(Step.of([(0, context - 1, [1])], model.device), caches)

    ceilings = bench.hardware("fp32", device)
    runs = bench.rounds(
        {context: partial(token_at, context) for context in contexts},
        warmup=2,
        repeats=repeats,
        device=device,
        label="rounds of all contexts",
    )
    times = {context: bench.summarise(seconds) for context, seconds in runs.items()}
    rows = []
    for context, m in times.items():
        cache = formulas.kv_cache_bytes(config, context, 1, "fp32")
        read = formulas.decode_bytes(config, context, 1, "fp32")
        rows.append(
            m.to_row(
                context=context,
                tokens_per_second=1 / m.median,
                cache_bytes=cache,
                cache_share=cache / read,
                mbu=read / m.median / ceilings.bytes_per_second,
                multiple=m.median / times[contexts[0]].median,
            )
        )
    return rows


def pays(rows):
    for r in rows:
        if r["cache_share"] > 0.25 and r["multiple"] < 1.05:
            return (
                f"at {r['context']:,} tokens {r['cache_share']:.0%} of the bytes are cache, but a"
                " token takes no longer: look whether the cache is read"
            )


def plot(rows):
    contexts = [r["context"] for r in rows]
    milliseconds = [1e3 * r["median"] for r in rows]
    chart = plotting.lines(
        contexts,
        {"one token": milliseconds},
        x_label="tokens of context",
        y_label="milliseconds",
        alt="Milliseconds for one decoded token by context: "
        + ", ".join(f"{ms:.1f} at {context:,}" for context, ms in zip(contexts, milliseconds)),
    )
    chart.figure.axes[0].set_ylim(bottom=0)
    return chart


def notice(rows):
    short = rows[0]
    long = rows[-1]
    return (
        "A cached token is not free and not constant: it reads the whole cache. At"
        f" {long['context']:,} tokens that is {long['cache_share']:.0%} of the bytes read, and a"
        f" token takes {long['multiple']:.2f} times as long as at {short['context']:,}. The share"
        " says where the next chapters (fewer heads, windows, states, fewer bits) start to pay."
    )


LAB = Lab(
    title="The cache's own bill",
    objective=(
        "Measure one decoded token at growing contexts, and see the cache take over from the"
        " weights."
    ),
    asks="Does a token cost more where a large share of what it reads is cache?",
    notice=notice,
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
    sizes={
        "full": {"contexts": [128, 512, 1024, 2048, 4096, 8000], "repeats": 15},
        "quick": {"contexts": [128, 512], "repeats": 3},
    },
    threads=1,
    pays=pays,
    plot=plot,
    minutes=2,
)
