"""CH02-BASELINE: the baseline against the cache, both measured, in one interleaved run with plain
kernels on both sides.
"""

from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only

CONTEXT = 300
CACHES = {"naive": "none", "cached": "static"}


def run(device, *, new, repeats):
    """A row for each loop. new: tokens generated after CONTEXT others. repeats: rounds."""
    from labkit.weights import smollm2

    # F.linear on both sides: the cache is all that differs
    model, tokenizer = smollm2("fp32", device, packed=False)
    prompt = bench.prompt(tokenizer, CONTEXT)

    def loops(new):
        return {
            name: partial(bench.time_decode, model, [prompt], new, cache)
            for name, cache in CACHES.items()
        }

    runs = bench.rounds(loops(new), repeats=repeats, warmup=loops(2), label="rounds")
    if runs["naive"][-1].tokens != runs["cached"][-1].tokens:
        raise ValueError("the two loops wrote different tokens: a cache must not change the text")
    made = {
        name: bench.summarise(
            [times.seconds for times in each],
            flops=formulas.loop_flops(model.config, CONTEXT, new, cached=name == "cached"),
        )
        for name, each in runs.items()
    }
    return [
        m.to_row(
            variant=name,
            context=CONTEXT,
            new=new,
            tokens_per_second=new / m.median,
            multiple=bench.multiple(made["naive"], m),
        )
        for name, m in made.items()
    ]


def pays(rows):
    multiple = only(rows, variant="cached")["multiple"]
    if multiple < 2:
        return (
            f"the cached loop is {multiple:.1f} times as fast as the naive one: look whether it"
            " feeds one token a step"
        )


def plot(rows):
    speeds = {r["variant"]: r["tokens_per_second"] for r in rows}
    return plotting.bars(
        speeds,
        x_label="tokens per second",
        form="{:,.1f}",
        highlight="cached",
        alt="Tokens per second without and with a KV cache: "
        + ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items()),
    )


def notice(rows):
    naive = only(rows, variant="naive")
    cached = only(rows, variant="cached")
    return (
        f"The naive loop does {naive['flops'] / cached['flops']:.1f} times the FLOPs and takes"
        f" {cached['multiple']:.1f} times as long. Were both bound by arithmetic, these would be"
        " one number. But decode reads all weights for one token, and a model this small waits on"
        " a GPU for its kernels to be handed over."
    )


LAB = Lab(
    title="Baseline against cache",
    objective=(
        "Measure the naive and the cached loop on the same prompt, machine and kernels, and"
        " compare."
    ),
    asks="Is the cached loop at least twice as fast as the naive one?",
    notice=notice,
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
    sizes={"full": {"new": 128, "repeats": 3}, "quick": {"new": 2, "repeats": 1}},
    threads=1,
    pays=pays,
    plot=plot,
    minutes=12,
)
