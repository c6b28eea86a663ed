"""CH02-BASELINE: the baseline against the cache, both measured, in one interleaved run with plain
kernels on both sides.
"""

from labkit.lab import Lab

CONTEXT, NEW = 300, 128


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.tables import progress
    from labkit.weights import smollm2

    torch.set_num_threads(1)
    # F.linear on both sides: the cache is all that differs
    model, tokenizer = smollm2("fp32", device, packed=False)
    config, new = model.config, 4 if quick else NEW
    prompt = (
        tokenizer.encode(
            "A cache keeps a copy of what was slow to get, close to where it is needed again. "
        )
        * CONTEXT
    )[:CONTEXT]
    texts, clock = {}, {}
    bench.time_decode(model, [prompt], 2)
    for _ in progress(range(1 if quick else 3), "rounds"):
        for variant, cache in (("naive", "none"), ("cached", "static")):
            took = bench.time_decode(model, [prompt], new, cache)
            clock.setdefault(variant, []).append(took.first + sum(took.each))
            texts[variant] = took.tokens
    if texts["naive"] != texts["cached"]:
        raise ValueError("the two loops wrote different tokens: a cache must not change the text")
    made = {
        v: bench.summarise(s, flops=formulas.loop_flops(config, CONTEXT, new, cached=v == "cached"))
        for v, s in clock.items()
    }
    return [
        m.to_row(
            variant=v,
            context=CONTEXT,
            new=new,
            tokens_per_second=new / m.median,
            multiple=bench.multiple(made["naive"], m),
        )
        for v, m in made.items()
    ]


def pays(rows):
    for r in rows:
        if r["variant"] == "cached" and r["multiple"] < 2:
            return (
                f"the cached loop is {r['multiple']:.1f} times as fast as the naive one: look"
                " whether it feeds one token a step"
            )


def plot(rows):
    from labkit import plotting

    return plotting.bars(
        {r["variant"]: r["tokens_per_second"] for r in rows},
        x_label="tokens per second",
        form="{:,.1f}",
        highlight="cached",
        alt="Tokens per second without and with a KV cache: "
        + ", ".join(f"{r['variant']} {r['tokens_per_second']:.1f}" for r in rows),
    )


LAB = Lab(
    asks="Is the cached loop faster?",
    title="Baseline against cache",
    minutes=12,
    objective=(
        "Measure the naive and the cached loop on the same prompt, machine and kernels, and"
        " compare."
    ),
    notice=(
        "The multiple is close to the ratio of FLOPs where both loops are bound by compute, and"
        " smaller where the cached one is bound by memory: decode reads all weights for one token."
    ),
    columns={
        "variant": "loop",
        "context": "context",
        "new": "new",
        "median": "seconds|.2f",
        "iqr": "quartiles apart|.2f",
        "tokens_per_second": "tokens/s|.2f",
        "flops": "FLOPs|.3g",
        "multiple": "times naive|.1f",
    },
    run=run,
    plot=plot,
    pays=pays,
)
