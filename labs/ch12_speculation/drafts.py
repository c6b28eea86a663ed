"""CH12-DRAFTS: five ways to guess, their price, and what comes of them: a draft has to be right
often, and cost next to nothing.
"""

import statistics
from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import only, span, where

LAYERS = (6, 12, 20)
TASKS = {"copy-editing": 0, "free chat": 1}  # which of its prompts
WITHOUT = ("without", "never")


def proposers(model, layers, device: str) -> dict:
    """Who guesses, by name."""
    from labkit.quant import quantize
    from labkit.speculative import DraftModel, NGram
    from labkit.weights import smollm2

    eight = quantize(smollm2("fp32", device, packed=False)[0], "int8")
    return {
        "n-gram": NGram(),
        **{f"first {n} layers": DraftModel(model, n) for n in layers},
        "int8 copy": DraftModel(eight),
    }


def run(device, *, layers, characters, new, repeats):
    """A row for each task and proposer.

    layers: of the drafts that stop early. characters: kept of a prompt; None = all. new: tokens of
    a reply.
    """
    from labkit.weights import smollm2
    from labkit_labs.common.tasks import tasks

    model, tokenizer = smollm2("fp32", device)
    who = proposers(model, layers, device)
    rows = []
    for task, i in TASKS.items():
        prompt = tokenizer.chat(tasks()[task][i][:characters])
        rows += guessed(model, who, prompt, new, repeats, task)
    return rows


def guessed(model, who: dict, prompt: list[int], new: int, repeats: int, task: str) -> list[dict]:
    """The rows of one task: each proposer as the engine decides, and always, in turn with none."""
    from labkit_labs.ch12_speculation import watch

    notes = {name: watch.Noted(watch.K) for name in who}
    engines = {WITHOUT: watch.engine(model, 1)}
    for name, proposer in who.items():
        engines[name, "switch"] = watch.engine(model, 1, proposer)
        engines[name, "forced"] = watch.engine(model, 1, proposer, drafts=notes[name])
    ways = {way: partial(watch.serve, one, [prompt], new, stop=()) for way, one in engines.items()}
    # a round that tells the switches what a draft costs; who always guesses need not know
    warm = {way: serve for way, serve in ways.items() if way[1] != "forced"}
    runs = bench.rounds(ways, repeats=repeats, warmup=warm, label=f"{task}, rounds")
    took = {
        way: bench.summarise([sum(served.decodes) for served in each]) for way, each in runs.items()
    }
    plain = runs[WITHOUT]
    step = statistics.median(seconds for served in plain for seconds in served.decodes)
    rows = []
    for name in who:
        switch = runs[name, "switch"][-1]
        forced = runs[name, "forced"][-1]
        a = watch.acceptance(forced.checks) or 0.0
        c = notes[name].draft / step
        check = sum(a**j for j in range(watch.K + 1))  # tokens of a check
        price = notes[name].check / step
        share = len(forced.checks) / len(forced.decodes)
        with_drafts = share * (price + watch.K * c)
        rows.append(
            took[name, "switch"].to_row(
                task=task,
                draft=name,
                acceptance=a,
                cost=c,
                tokens_per_check=check,
                paper=check / (1 + watch.K * c),
                check_price=price,
                share=share,
                predicted=(share * check + 1 - share) / (with_drafts + 1 - share),
                tokens_per_forward=(new - 1) / len(forced.decodes),
                forced_multiple=bench.multiple(took[WITHOUT], took[name, "forced"]),
                multiple=bench.multiple(took[WITHOUT], took[name, "switch"]),
                same_tokens=plain[-1].tokens == switch.tokens == forced.tokens,
            )
        )
    return rows


def go(rows):
    for r in rows:
        if not r["same_tokens"]:
            return (
                f"{r['task']}: the drafts of {r['draft']} changed the tokens; look whether the"
                " check overwrites the keys that drafts wrote"
            )
    few = f"first {LAYERS[0]} layers"
    for task in TASKS:
        copy = only(rows, task=task, draft="int8 copy")
        if copy["acceptance"] <= only(rows, task=task, draft=few)["acceptance"]:
            return (
                f"{task}: the int8 copy is no more often right than the {few}: look at which"
                " positions and caches drafts read"
            )


def plot(rows):
    times = {r["draft"]: r["forced_multiple"] for r in where(rows, task="free chat")}
    return plotting.bars(
        times,
        x_label="times as fast, always guessing, free chat",
        form="{:.2f}",
        alt="Speed with guesses over speed without, in free chat: "
        + ", ".join(f"{draft} {x:.2f}" for draft, x in times.items()),
    )


def notice(rows):
    lookup = only(rows, task="free chat", draft="n-gram")
    early = [r for r in rows if r["draft"].startswith("first ")]
    copy = where(rows, draft="int8 copy")

    def of(rows, key):
        return span([r[key] for r in rows])

    return (
        f"The n-gram's drafts cost {lookup['cost']:.1e} of a step each, so they may be wrong: in"
        f" free chat {lookup['acceptance']:.0%} of them are right, and always guessing gives"
        f" {lookup['forced_multiple']:.2f} times the speed. The first layers of a model that was"
        f" not trained to stop there cost {of(early, 'cost')} and are right in at most"
        f" {max(r['acceptance'] for r in early):.0%}: {of(early, 'forced_multiple')} times the"
        f" speed. A copy with all layers in 8 bits costs {of(copy, 'cost')}, is right in at least"
        f" {min(r['acceptance'] for r in copy):.0%}, and gives {of(copy, 'forced_multiple')} times"
        " the speed. What pays has both a small c and a large a: made for it, a draft model or a"
        " head (EAGLE, MTP)."
    )


LAB = Lab(
    title="What a draft costs",
    objective=(
        "Let five proposers guess for SmolLM2: how often they are right, what a draft costs, what"
        " the formula makes of it, and what happens."
    ),
    asks=(
        "Are the tokens the same whoever guesses, and is a copy with all layers right more often"
        " than the first few?"
    ),
    notice=notice,
    columns={
        "task": "task",
        "draft": "draft",
        "acceptance": "a|.0%",
        "cost": "c|.3f",
        "tokens_per_check": "tokens a check|.2f",
        "paper": "/ (1 + kc)|.2f",
        "check_price": "a check's price|.2f",
        "share": "steps with drafts|.0%",
        "predicted": "predicted|.2f",
        "tokens_per_forward": "tokens a forward|.2f",
        "forced_multiple": "always, times|.2f",
        "multiple": "switch, times|.2f",
        "same_tokens": "same tokens",
    },
    run=run,
    sizes={
        "full": {"layers": LAYERS, "characters": None, "new": 24, "repeats": 3},
        "quick": {
            "layers": LAYERS[:1],
            "characters": 240,
            "new": 4,
            "repeats": 1,
        },
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3,
)
