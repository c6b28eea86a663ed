"""CH02-LOOPS: the two decode loops side by side, step by step, on the real model.

The loops are `labkit.decode.naive` and `labkit.decode.cached`. This lab runs them on one prompt,
checks that they write the same tokens, and counts what each step feeds, computes, reads and stores.
Its traces drive the chapter's player and its clip.
"""

from labkit import formulas
from labkit.lab import Lab

PROMPT, NEW = "A cache is a place to", 6


def traces(device="cpu"):
    """The naive and the cached decode of the same prompt, recorded."""
    from labkit.trace import record_decode
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", device)
    prompt = tokenizer.encode(PROMPT)
    return model.config, {
        kind: record_decode(model, prompt, NEW, cache=cache, decode=tokenizer.decode)
        for kind, cache in (("naive", "none"), ("cached", "static"))
    }


def run(device="cpu", quick=False):
    config, recorded = traces(device)
    naive, cached = recorded["naive"].steps, recorded["cached"].steps
    if [s.token for s in naive] != [s.token for s in cached]:
        raise ValueError("the two loops wrote different tokens: a cache must not change the text")
    rows, spent = [], 0
    for i, (n, c) in enumerate(zip(naive, cached)):
        spent += n.computed
        context = len(naive[0].fed) + i
        rows.append(
            {
                "step": i + 1,
                "token": n.token,
                "naive_computed": n.computed,
                "cached_computed": c.computed,
                "read": c.read,
                "written": c.written,
                "held": c.held,
                "naive_flops": formulas.prefill_flops(config, context),
                "cached_flops": (
                    formulas.prefill_flops(config, context)
                    if i == 0
                    else formulas.decode_flops(config, context)
                ),
            }
        )
    return rows


def go(rows):
    for r in rows[1:]:
        if r["cached_computed"] != 1 or r["read"] != r["naive_computed"]:
            return (
                f"in step {r['step']} the cached loop computes {r['cached_computed']} keys and"
                f" reads {r['read']}: look at what it feeds, and at the append"
            )


def plot(rows):
    from labkit import plotting

    series = {
        "naive": [r["naive_computed"] for r in rows],
        "cached": [r["cached_computed"] for r in rows],
    }
    chart = plotting.lines(
        [r["step"] for r in rows],
        series,
        x_label="step",
        y_label="keys and values computed",
        alt="Keys and values computed in each step: "
        + "; ".join(f"{k} {', '.join(map(str, n))}" for k, n in series.items()),
    )
    chart.figure.axes[0].set_ylim(bottom=0)
    return chart


def store(folder):
    """Keep the two traces, for the player and the clip."""
    _, recorded = traces()
    return [
        trace.save(folder / f"ch02/decode_{kind}.trace.json") for kind, trace in recorded.items()
    ]


LAB = Lab(
    asks=(
        "Does the cached loop compute one key a step, after the first, and read as many as the"
        " naive one computes?"
    ),
    title="Two loops, one text",
    minutes=0.5,
    objective="Read the naive and the cached loop line by line, and count what each step does.",
    notice=(
        "From step 2 on, the cached loop computes one key and value where the naive one computes"
        " them all again; both queries read equally many. The tokens are the same."
    ),
    columns={
        "step": "step",
        "token": "token",
        "naive_computed": "keys computed, naive",
        "cached_computed": "cached",
        "read": "keys read",
        "held": "keys held",
        "naive_flops": "FLOPs, naive|,",
        "cached_flops": "cached|,",
    },
    run=run,
    plot=plot,
    store=store,
    go=go,
)
