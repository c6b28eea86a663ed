"""CH12-BATCH: what a check costs as its step fills up, and what is left of the gain when many share
a step.
"""

from labkit.lab import Lab

SIZES = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (1, 2, 4, 8, 16)


def prices(model, repeats: int) -> dict[int, float]:
    """Tokens in a forward of one request, after 128 others -> seconds."""
    import torch

    from labkit import bench
    from labkit.step import Step

    caches = model.caches("static", 1, 128 + SIZES[-1])

    def forward(n):
        step = Step.of([(0, 128, [5] * n)], model.device)
        with torch.inference_mode():
            model(step, caches)

    times = bench.interleave(
        {n: lambda n=n: forward(n) for n in SIZES},
        warmup=1,
        repeats=repeats,
        device=str(model.device),
    )
    return {n: m.median for n, m in times.items()}


def run(device="cpu", quick=False):
    import numpy as np
    import torch

    from labkit import bench
    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation.lookup import COPY, paragraphs
    from labkit_labs.ch12_speculation.watch import K, acceptance, engine, serve

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    new, rounds, batches = (6, 1, (1, 2)) if quick else (32, 3, BATCHES)
    price = prices(model, 1 if quick else 7)
    rows = [{"tokens": n, "seconds": s, "times_one": s / price[1]} for n, s in price.items()]
    prompts = [
        tokenizer.chat(COPY + tokenizer.decode(tokenizer.encode(p)[:40]))
        for p in paragraphs()[: max(batches)]
    ]
    for batch in progress(batches, "batches"):
        ways = {
            "without": engine(model, batch),
            "switch": engine(model, batch, "ngram"),
            "forced": engine(model, batch, "ngram", drafts=K),
        }
        runs = {way: [] for way in ways}
        for i in range(-1, rounds):
            for way, one in ways.items():
                served = serve(one, prompts[:batch], new, stop=())
                # the first round reads the prompts; later ones find them in the blocks
                runs[way] += [served] if i >= 0 else []
        took = {
            way: bench.summarise([sum(s.decodes) for s in served]) for way, served in runs.items()
        }
        last = {way: served[-1] for way, served in runs.items()}
        step = lambda n: float(np.interp(n, list(price), list(price.values())))
        rows.append(
            took["forced"].to_row(
                batch=batch,
                acceptance=acceptance(last["forced"].checks),
                check_price=step(batch * (1 + K)) / step(batch),
                tokens_per_forward=(new - 1) / len(last["forced"].decodes),
                without=batch * (new - 1) / took["without"].median,
                forced_multiple=bench.multiple(took["without"], took["forced"]),
                multiple=bench.multiple(took["without"], took["switch"]),
                same_tokens=last["without"].tokens
                == last["switch"].tokens
                == last["forced"].tokens,
            )
        )
    return rows


def go(rows):
    full = max((r for r in rows if "tokens" in r), key=lambda r: r["tokens"])
    if not full["times_one"] < full["tokens"]:
        return (
            f"a forward of {full['tokens']} tokens takes {full['times_one']:.0f} times one of 1:"
            " look for a kernel that goes token by token"
        )
    for r in rows:
        if not r.get("same_tokens", True):
            return (
                f"{r['batch']} requests: guesses changed the tokens; at the first that differs,"
                " compare the check's logits with single steps"
            )


def plot(rows):
    from labkit import plotting

    shared = [r for r in rows if "batch" in r]
    series = {
        "always": [r["forced_multiple"] for r in shared],
        "switch": [r["multiple"] for r in shared],
    }
    return plotting.lines(
        [r["batch"] for r in shared],
        series,
        x_label="users in a step",
        y_label="times as fast as without",
        log_x=True,
        marks={"no guesses": 1.0},
        alt="Speed with guesses over speed without, by the number of users in a step: "
        + "; ".join(f"{name} " + ", ".join(f"{x:.2f}" for x in xs) for name, xs in series.items()),
    )


LAB = Lab(
    asks=(
        "Is a full step cheaper by the token than a step of one, and are the tokens the same with"
        " and without guesses?"
    ),
    title="A full step has no room for guesses",
    minutes=3.5,
    objective=(
        "Price a forward by its tokens; then serve copy-editing to 1 to 16 users without guesses,"
        " always with 3, and as the engine decides."
    ),
    notice=(
        "A forward of a few tokens costs little more than one of 1, because both read every weight."
        " Checks live on that slack, and a batch uses it up: the price of a check rises with the"
        " batch, the tokens that it brings do not, and the gain melts."
    ),
    columns={
        "tokens": "tokens in a forward",
        "seconds": "seconds|.3f",
        "times_one": "times one|.2f",
        "batch": "users",
        "acceptance": "acceptance|.0%",
        "tokens_per_forward": "tokens a forward|.2f",
        "check_price": "a check's price|.2f",
        "without": "tokens/s without|.1f",
        "forced_multiple": "always, times|.2f",
        "multiple": "switch, times|.2f",
        "same_tokens": "same tokens",
    },
    run=run,
    plot=plot,
    go=go,
)
