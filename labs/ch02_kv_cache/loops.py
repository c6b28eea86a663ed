"""CH02-LOOPS: the two decode loops side by side, step by step, on the real model.

The loops are `labkit.decode.naive` and `labkit.decode.cached`. This lab runs them on one prompt,
checks that they write the same tokens, and counts what each step feeds, computes, reads and stores.
Its traces drive the chapter's player and its clip.
"""

from labkit import formulas, plotting
from labkit.lab import Lab, Recorded

PROMPT = "A cache is a place to"
NEW = 6


def run(device):
    """A row for each step, and the traces of both loops."""
    from labkit.trace import record_decode
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", device)
    config, prompt = model.config, tokenizer.encode(PROMPT)
    naive, cached = (
        record_decode(model, prompt, NEW, cache=cache, decode=tokenizer.decode)
        for cache in ("none", "static")
    )
    if [s.token for s in naive.steps] != [s.token for s in cached.steps]:
        raise ValueError("the two loops wrote different tokens: a cache must not change the text")
    rows = []
    for i, (n, c) in enumerate(zip(naive.steps, cached.steps)):
        context = len(prompt) + i
        whole = formulas.prefill_flops(config, context)
        rows.append(
            {
                "step": i + 1,
                "token": n.token,
                "naive_computed": n.computed,
                "cached_computed": c.computed,
                "read": c.read,
                "written": c.written,
                "held": c.held,
                "naive_flops": whole,
                # its first step is the prefill
                "cached_flops": formulas.decode_flops(config, context) if i else whole,
            }
        )
    return Recorded(rows, decode_naive=naive, decode_cached=cached)


def go(rows):
    for r in rows[1:]:
        if r["cached_computed"] != 1 or r["read"] != r["naive_computed"]:
            return (
                f"in step {r['step']} the cached loop computes {r['cached_computed']} keys and"
                f" reads {r['read']}: look at what it feeds, and at the append"
            )


def plot(rows):
    computed = {kind: [r[f"{kind}_computed"] for r in rows] for kind in ("naive", "cached")}
    chart = plotting.lines(
        [r["step"] for r in rows],
        computed,
        x_label="step",
        y_label="keys and values computed",
        alt="Keys and values computed in each step: "
        + "; ".join(f"{kind} {', '.join(map(str, keys))}" for kind, keys in computed.items()),
    )
    chart.figure.axes[0].set_ylim(bottom=0)
    return chart


def notice(rows):
    naive, cached = (sum(r[f"{kind}_computed"] for r in rows) for kind in ("naive", "cached"))
    return (
        "From step 2 on, the cached loop computes one key and value where the naive one computes"
        f" them all again: {cached} in all where it takes {naive}. Both queries read equally many."
        " The tokens are the same."
    )


LAB = Lab(
    title="Two loops, one text",
    objective="Read the naive and the cached loop line by line, and count what each step does.",
    asks=(
        "Does the cached loop compute one key a step, after the first, and read as many as the"
        " naive one computes?"
    ),
    notice=notice,
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
    go=go,
    plot=plot,
    minutes=0.5,
)
