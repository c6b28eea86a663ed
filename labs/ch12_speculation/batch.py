"""CH12-BATCH: what a check costs as its step fills up, and what is left of the gain when many share
a step.
"""

from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import listed, progress

PASSAGE = 40  # tokens of a text to correct


def run(device, *, batches, new, repeats, timings):
    """Rows of what a forward costs by its tokens, and a row for each number of users.

    new: tokens of a reply. repeats: rounds of serving. timings: of each forward.
    """
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation import watch
    from labkit_labs.common.tasks import COPY, paragraphs

    model, tokenizer = smollm2("fp32", device)
    price = watch.prices(model, timings)
    rows = [{"tokens": n, "seconds": s, "times_one": s / price[1]} for n, s in price.items()]
    passages = [tokenizer.decode(tokenizer.encode(p)[:PASSAGE]) for p in paragraphs()]
    prompts = [tokenizer.chat(COPY + passage) for passage in passages[: max(batches)]]
    for batch in progress(batches, "batches"):
        rows.append(shared(model, prompts[:batch], new, repeats, price))
    return rows


def shared(model, prompts, new: int, repeats: int, price: dict[int, float]) -> dict:
    """The row of as many users as prompts: without guesses, as the engine decides, and always."""
    import numpy as np

    from labkit_labs.ch12_speculation import watch

    batch = len(prompts)
    engines = {
        "without": watch.engine(model, batch),
        "switch": watch.engine(model, batch, "ngram"),
        "forced": watch.engine(model, batch, "ngram", drafts=watch.K),
    }
    # the round that warms up reads the prompts; later ones find them in the blocks
    runs = bench.rounds(
        {way: partial(watch.serve, one, prompts, new, stop=()) for way, one in engines.items()},
        repeats=repeats,
    )
    took = {
        way: bench.summarise([sum(served.decodes) for served in each]) for way, each in runs.items()
    }
    last = {way: each[-1] for way, each in runs.items()}

    def seconds(tokens: int) -> float:
        return float(np.interp(tokens, list(price), list(price.values())))

    return took["forced"].to_row(
        batch=batch,
        acceptance=watch.acceptance(last["forced"].checks),
        check_price=seconds(batch * (1 + watch.K)) / seconds(batch),
        tokens_per_forward=(new - 1) / len(last["forced"].decodes),
        without=batch * (new - 1) / took["without"].median,
        forced_multiple=bench.multiple(took["without"], took["forced"]),
        multiple=bench.multiple(took["without"], took["switch"]),
        same_tokens=last["without"].tokens == last["switch"].tokens == last["forced"].tokens,
    )


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
    users = [r for r in rows if "batch" in r]
    times = {
        "always": [r["forced_multiple"] for r in users],
        "switch": [r["multiple"] for r in users],
    }
    return plotting.lines(
        [r["batch"] for r in users],
        times,
        x_label="users in a step",
        y_label="times as fast as without",
        log_x=True,
        marks={"no guesses": 1.0},
        alt="Speed with guesses over speed without, by the number of users in a step: "
        + "; ".join(f"{name} " + ", ".join(f"{x:.2f}" for x in xs) for name, xs in times.items()),
    )


def notice(rows):
    forwards = [f"{r['times_one']:.2f} for {r['tokens']}" for r in rows if "tokens" in r]
    users = [r for r in rows if "batch" in r]

    def from_to(key):
        return f"from {users[0][key]:.2f} to {users[-1][key]:.2f}"

    return (
        "Every forward reads every weight, however many tokens it is fed: beside one of 1 token it"
        f" takes {listed(forwards[1:])}. Checks live on that slack, which a batch can use up. From"
        f" {users[0]['batch']} to {users[-1]['batch']} users the price of a check goes"
        f" {from_to('check_price')} steps, what a forward gives each of them"
        f" {from_to('tokens_per_forward')} tokens. Always guessing goes"
        f" {from_to('forced_multiple')} times the speed without guesses, the engine's own choice"
        f" {from_to('multiple')}."
    )


LAB = Lab(
    title="A full step has no room for guesses",
    objective=(
        "Price a forward by its tokens; then serve copy-editing to 1 to 16 users without guesses,"
        " always with 3, and as the engine decides."
    ),
    asks=(
        "Is a full step cheaper by the token than a step of one, and are the tokens the same with"
        " and without guesses?"
    ),
    notice=notice,
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
    sizes={
        "full": {"batches": (1, 2, 4, 8, 16), "new": 32, "repeats": 3, "timings": 7},
        "quick": {"batches": (1, 2), "new": 6, "repeats": 1, "timings": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3.5,
)
