"""CH03-POOL: fewer heads after training.

The key/value heads of a trained model are made into fewer, and what that costs is measured: each
group is averaged, or its first head kept.

Ainslie et al. (2023, section 2.1) start their GQA models by averaging, and then train on. Here
nobody trains on: this is the price before repair. Two models pay it: SmolLM2, scored by its
perplexity, and a small MHA that was trained to recall, scored by what it recalls.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import where

AVERAGED, FIRST = "averaged", "first kept"  # how a group of heads becomes one


def pool(model, n_kv_heads: int, how: str = AVERAGED):
    """A copy with each group of key/value heads made into one.

    ValueError if the heads don't divide.
    """
    import torch

    import labkit

    old = model.config
    if n_kv_heads < 1 or old.n_kv_heads % n_kv_heads:
        raise ValueError(
            f"{old.n_kv_heads} key/value heads can't be averaged into {n_kv_heads}: the number must"
            " divide them"
        )
    made = labkit.GPT(old.replace(n_kv_heads=n_kv_heads)).to(model.device, model.dtype).eval()
    H, G, E = old.n_heads, old.n_kv_heads, old.head_dim
    weights = model.state_dict()
    for name, weight in weights.items():
        if ".mixer.qkv." in name:
            # queries, keys, values (and gates), head by head
            heads = weight.unflatten(0, (-1, E))
            queries = heads[:H]
            groups = heads[H : H + 2 * G].unflatten(0, (2 * n_kv_heads, -1))
            pooled = groups.mean(1) if how == AVERAGED else groups[:, 0]
            gates = heads[H + 2 * G :]
            weights[name] = torch.cat([queries, pooled, gates]).flatten(0, 1)
    made.load_state_dict(weights)
    return made


@dataclass(frozen=True)
class Subject:
    """A trained model, how it is scored, and the numbers of heads that it is pooled into."""

    name: str
    model: object
    unit: str
    score: Callable
    heads: tuple[int, ...]  # its own number first


def subjects(device: str, tokens: int, steps: int) -> list[Subject]:
    """The two models. tokens: how much text perplexity is measured on. steps: of training."""
    from labkit.weights import smollm2
    from labkit_labs.common import corpus, recall

    model, tokenizer = smollm2("fp32", device, packed=False)
    prose = corpus.prose(tokenizer, tokens)

    def perplexity(model) -> float:
        return math.exp(corpus.losses(model, prose).mean())

    trained, recalled = recall.trained("MHA", device, steps)
    heads = trained.config.n_heads
    return [
        Subject("smollm2-135m", model, "perplexity", perplexity, (3, 1)),
        Subject("recall, MHA", trained, "recall", recalled, (heads, heads // 2, 1)),
    ]


def run(device, *, tokens, context, new, repeats, steps):
    """A row for each model, number of heads, and way to make them.

    tokens: of the text that is scored. context, new: tokens of the prompt, and those generated.
    steps: that the model which recalls is trained for.
    """
    rows = []
    for subject in subjects(device, tokens, steps):
        own, *fewer = subject.heads
        made = [(own, AVERAGED), *((G, how) for G in fewer for how in (AVERAGED, FIRST))]
        models = {(G, how): pool(subject.model, G, how) for G, how in made}
        asked = min(context, subject.model.config.max_context - 9)
        runs = bench.rounds(
            {of: partial(bench.time_decode, m, [[1] * asked], new) for of, m in models.items()},
            repeats=repeats,
            device=device,
            label="rounds",
        )
        before = subject.score(subject.model)
        for (G, how), model in models.items():
            time = bench.summarise(
                [seconds for times in runs[G, how] for seconds in times.each],
                flops=formulas.decode_flops(model.config, asked),
                bytes=formulas.decode_bytes(model.config, asked, 1, "fp32"),
            )
            rows.append(
                time.to_row(
                    model=subject.name,
                    kv_heads=G,
                    how=how,
                    unit_of_score=subject.unit,
                    score=subject.score(model),
                    before=before,
                    context=asked,
                    cache_bytes=formulas.kv_cache_bytes(model.config, asked, 1, "fp32"),
                    parameters=formulas.parameters(model.config),
                )
            )
    return rows


def go(rows):
    for name in {r["model"] for r in rows}:
        same, *fewer = sorted(where(rows, model=name), key=lambda r: -r["kv_heads"])
        if abs(same["score"] - same["before"]) > 1e-3 * abs(same["before"]):
            return (
                f"{name} pooled into its own {same['kv_heads']} heads scores {same['score']:.4g}"
                f" instead of {same['before']:.4g}: look at the order of rows in qkv"
            )
        for r in fewer:
            if r["cache_bytes"] * same["kv_heads"] != same["cache_bytes"] * r["kv_heads"]:
                return (
                    f"{r['kv_heads']} of {same['kv_heads']} heads need {r['cache_bytes']:,} of"
                    f" {same['cache_bytes']:,} bytes: look at the model that was built"
                )
            if abs(r["score"] - r["before"]) <= 1e-3 * abs(r["before"]):
                return (
                    f"{name} scores the same with {r['kv_heads']} heads as with {same['kv_heads']}:"
                    " look whether its heads were pooled at all"
                )


def plot(rows):
    first = where(rows, model=rows[0]["model"])
    scores = {f"G = {r['kv_heads']}, {r.get('how', AVERAGED)}": r["score"] for r in first}
    unit = first[0]["unit_of_score"]
    return plotting.bars(
        scores,
        x_label=f"{unit} by key/value heads kept",
        form="{:,.4g}",
        alt=f"{unit} of {first[0]['model']} by key/value heads kept: "
        + ", ".join(f"{heads} {score:,.4g}" for heads, score in scores.items()),
    )


def notice(rows):
    def price(name) -> str:
        averaged = [r for r in where(rows, model=name) if r.get("how", AVERAGED) == AVERAGED]
        same, *_, fewest = averaged
        less = same["cache_bytes"] / fewest["cache_bytes"]
        return (
            f"{name} averaged into {fewest['kv_heads']} of {same['kv_heads']} heads stores"
            f" {less:.0f} times less, and its {fewest['unit_of_score']} goes from"
            f" {fewest['before']:,.4g} to {fewest['score']:,.4g}"
        )

    prices = "; ".join(price(name) for name in dict.fromkeys(r["model"] for r in rows))
    return (
        f"The cache shrinks at once; what it costs is the score: {prices}. Heads that learned"
        " different things don't average. Decide the number of heads before training, or pay for"
        " some training after."
    )


LAB = Lab(
    title="Pooling a trained model's heads",
    objective=(
        "Average SmolLM2's 3 key/value heads into 1 and measure what is saved, and what is lost"
        " when nobody trains on."
    ),
    asks="Does pooling into as many heads change nothing, and into fewer something?",
    notice=notice,
    columns={
        "model": "model",
        "kv_heads": "key/value heads",
        "how": "how",
        "unit_of_score": "score",
        "score": "after|,.4g",
        "before": "before|,.4g",
        "context": "context",
        "cache_bytes": "cache bytes",
        "median": "s per token|.4f",
        "iqr": "quartiles apart|.4f",
        "parameters": "parameters",
    },
    run=run,
    sizes={
        "full": {"tokens": 1024, "context": 1024, "new": 9, "repeats": 3, "steps": 1000},
        "quick": {"tokens": 200, "context": 64, "new": 5, "repeats": 1, "steps": 4},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=1.2,
)
