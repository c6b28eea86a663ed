"""CH03-POOL: fewer heads after training.

The key/value heads of a trained model are averaged into fewer, and what that costs is measured.

Ainslie et al. (2023, section 2.1) start their GQA models this way, and then train on. Here nobody
trains on: this is the price before repair. Where `labs/recall.py` is present, its trained MHA is
pooled too, and scored by what it recalls.
"""

import math
from importlib.util import find_spec

from labkit.lab import Lab


def pool(model, n_kv_heads: int):
    """A copy with each group of key/value heads averaged into one.

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
    for name, t in weights.items():
        if ".mixer.qkv." in name:
            heads = t.unflatten(0, (-1, E))  # queries, keys, values (and gates), head by head
            q, kv, rest = heads[:H], heads[H : H + 2 * G], heads[H + 2 * G :]
            weights[name] = torch.cat(
                [q, kv.unflatten(0, (2 * n_kv_heads, -1)).mean(1), rest]
            ).flatten(0, 1)
    made.load_state_dict(weights)
    return made


def subjects(device: str, tokens: int) -> list[tuple]:
    """[(model's name, model, what is scored, score: model -> number, numbers of heads), …]"""
    from labkit.weights import smollm2
    from labkit_labs.common import corpus as text

    model, tokenizer = smollm2("fp32", device, packed=False)
    prose = text.prose(tokenizer, tokens)
    found = [
        (
            "smollm2-135m",
            model,
            "perplexity",
            lambda m: math.exp(text.losses(m, prose).mean()),
            (3, 1),
        )
    ]
    if find_spec("labkit_labs.common.recall"):
        from labkit_labs.common import recall

        # a GPT with H key/value heads, and: model -> share recalled
        trained, score = recall.trained("MHA", device)
        heads = trained.config.n_heads
        found.append(
            (
                "recall, MHA",
                trained,
                "recall",
                score,
                tuple(h for h in (heads, heads // 2, 1) if heads % h == 0),
            )
        )
    return found


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.tables import progress

    torch.set_num_threads(1)
    rows, context = [], 64 if quick else 1024
    for name, model, unit, score, heads in subjects(device, 200 if quick else 1024):
        models = {G: pool(model, G) for G in heads}
        asked, longest = min(context, model.config.max_context - 9), 5 if quick else 9
        runs = {G: [] for G in heads}
        for round_ in progress(range(-1, 1 if quick else 3), "rounds"):
            for G, m in models.items():
                took = bench.time_decode(m, [[1] * asked], longest)
                runs[G] += took.each if round_ >= 0 else []
        before = score(model)
        for G, m in models.items():
            time = bench.summarise(
                runs[G],
                flops=formulas.decode_flops(m.config, asked),
                bytes=formulas.decode_bytes(m.config, asked, 1, "fp32"),
            )
            rows.append(
                time.to_row(
                    model=name,
                    kv_heads=G,
                    unit_of_score=unit,
                    score=score(m),
                    before=before,
                    context=asked,
                    cache_bytes=formulas.kv_cache_bytes(m.config, asked, 1, "fp32"),
                    parameters=formulas.parameters(m.config),
                )
            )
    return rows


def go(rows):
    for name in {r["model"] for r in rows}:
        same, *fewer = sorted((r for r in rows if r["model"] == name), key=lambda r: -r["kv_heads"])
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
    from labkit import plotting

    rows = [r for r in rows if r["model"] == rows[0]["model"]]
    return plotting.bars(
        {f"{r['kv_heads']} heads": r["score"] for r in rows},
        x_label=rows[0]["unit_of_score"],
        alt=f"{rows[0]['unit_of_score']} of {rows[0]['model']} by key/value heads kept: "
        + ", ".join(f"{r['kv_heads']} heads {r['score']:,.3g}" for r in rows),
    )


LAB = Lab(
    asks="Does pooling into as many heads change nothing, and into fewer something?",
    title="Pooling a trained model's heads",
    minutes=1.2,
    objective=(
        "Average SmolLM2's 3 key/value heads into 1 and measure what is saved, and what is lost"
        " when nobody trains on."
    ),
    notice=(
        "The cache shrinks by three, at once and for free. The perplexity says what free means:"
        " heads that learned different things don't average. Decide the number of heads before"
        " training, or pay for some training after."
    ),
    columns={
        "model": "model",
        "kv_heads": "key/value heads",
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
    plot=plot,
    go=go,
)
