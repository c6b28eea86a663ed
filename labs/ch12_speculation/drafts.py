"""CH12-DRAFTS: five ways to guess, their price, and what comes of them: a draft has to be right
often, and cost next to nothing.
"""

import statistics

from labkit.lab import Lab

LAYERS = (6, 12, 20)
TASKS = {"copy-editing": 0, "free chat": 1}  # which of CH12-LOOKUP's prompts


def run(device="cpu", quick=False):
    import torch

    from labkit import bench
    from labkit.quant import quantize
    from labkit.quant.linear import kernels
    from labkit.speculative import DraftModel, NGram
    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation.lookup import tasks
    from labkit_labs.ch12_speculation.watch import K, Noted, acceptance, engine, serve

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    new, rounds, layers = (4, 1, LAYERS[:1]) if quick else (24, 3, LAYERS)
    eight = quantize(
        smollm2("fp32", device, packed=False)[0],
        "int8",
        kernel=kernels("int8", device)[0] if quick else None,
    )
    proposers = {
        "n-gram": NGram(),
        **{f"first {n} layers": DraftModel(model, n) for n in layers},
        "int8 copy": DraftModel(eight),
    }
    rows = []
    for task, i in TASKS.items():
        prompt = tokenizer.chat(tasks()[task][i][: 240 if quick else None])
        notes = {name: Noted(K) for name in proposers}
        ways = {("without", "never"): engine(model, 1)}
        for name, proposer in proposers.items():
            ways[name, "switch"] = engine(model, 1, proposer)
            ways[name, "forced"] = engine(model, 1, proposer, drafts=notes[name])
        runs = {way: [] for way in ways}
        for r in progress(range(0 if quick else -1, rounds), f"{task}, rounds"):
            for (name, when), one in ways.items():
                if r >= 0:
                    runs[name, when].append(serve(one, [prompt], new, stop=()))
                elif when != "forced":
                    serve(one, [prompt], new, stop=())  # tells the switch what a draft costs
        took = {
            way: bench.summarise([sum(s.decodes) for s in served]) for way, served in runs.items()
        }
        without = took["without", "never"]
        plain = runs["without", "never"]
        step = statistics.median(seconds for s in plain for seconds in s.decodes)
        for name in proposers:
            switch = runs[name, "switch"][-1]
            forced = runs[name, "forced"][-1]
            a = acceptance(forced.checks) or 0.0
            share = len(forced.checks) / len(forced.decodes)
            check = sum(a**j for j in range(K + 1))
            v = notes[name].check / step
            c = notes[name].draft / step
            rows.append(
                took[name, "switch"].to_row(
                    task=task,
                    draft=name,
                    acceptance=a,
                    cost=c,
                    tokens_per_check=check,
                    paper=check / (1 + K * c),
                    check_price=v,
                    share=share,
                    predicted=(share * check + 1 - share) / (share * (v + K * c) + 1 - share),
                    tokens_per_forward=(new - 1) / len(forced.decodes),
                    forced_multiple=bench.multiple(without, took[name, "forced"]),
                    multiple=bench.multiple(without, took[name, "switch"]),
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
    of, few = {(r["task"], r["draft"]): r["acceptance"] for r in rows}, f"first {LAYERS[0]} layers"
    for task in TASKS:
        if of[task, "int8 copy"] <= of[task, few]:
            return (
                f"{task}: the int8 copy is no more often right than the {few}: look at which"
                " positions and caches drafts read"
            )


def plot(rows):
    from labkit import plotting

    chat = [r for r in rows if r["task"] == "free chat"]
    return plotting.bars(
        {r["draft"]: r["forced_multiple"] for r in chat},
        x_label="times as fast, always guessing, free chat",
        form="{:.2f}",
        alt="Speed with guesses over speed without, in free chat: "
        + ", ".join(f"{r['draft']} {r['forced_multiple']:.2f}" for r in chat),
    )


LAB = Lab(
    asks=(
        "Are the tokens the same whoever guesses, and is a copy with all layers right more often"
        " than the first few?"
    ),
    title="What a draft costs",
    minutes=3,
    objective=(
        "Let five proposers guess for SmolLM2: how often they are right, what a draft costs, what"
        " the formula makes of it, and what happens."
    ),
    notice=(
        "The n-gram's drafts cost nothing, so they may be wrong. The first layers of a model that"
        " was not trained to stop there are cheap and almost never right: always guessing with them"
        " more than halves the speed. A copy with all layers in 8 bits was right every time and"
        " cost over two thirds of its target: it gains a tenth. None has both a small c and a large"
        " a; made for it, a draft model or a head (EAGLE, MTP) would."
    ),
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
    plot=plot,
    go=go,
)
