"""CH05-RATIOS: how many layers must see everything?

Models of six layers learn to recall pairs; what differs is which layers see everything and which
only a window. Quality beside the bytes of the cache.

Every training is kept as soon as it is done: stopped half-way, the same command goes on.
"""

import statistics

from labkit import formulas, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, where

STEPS = 800  # of a training after which patterns are compared
RATE = 3e-3
WINDOW = 8
S, F = "sliding", "full"
PATTERNS = {
    "all full": (F,) * 6,
    "1 sliding : 1 full": (S, F) * 3,
    "3 sliding : 1 full": (S, S, S, F, S, S),
    "5 sliding : 1 full": (S, S, S, S, S, F),
    "all sliding": (S,) * 6,
}
LEARNED = 0.95


def run(device, *, seeds=2, steps=STEPS):
    """A row for each pattern. seeds: trainings of each. steps: of each."""
    from labkit_labs.ch05_swa import learning
    from labkit_labs.common import recall
    from labkit_labs.common.pieces import each

    jobs = {
        (name, seed): (types, WINDOW, seed, steps, RATE)
        for seed in range(seeds)
        for name, types in PATTERNS.items()
    }
    made = each("ch05-ratios", learning.learn, jobs)
    context = 3 * recall.MAIN
    shell = recall.SHELL.replace(n_layers=6)
    whole = formulas.kv_cache_bytes(shell, context, 1, "fp32")
    rows = []
    for name, types in PATTERNS.items():
        config = shell.replace(layer_types=types, window=WINDOW if S in types else None)
        runs = [made[name, seed] for seed in range(seeds)]
        scores = [r[str(recall.MAIN)] for r in runs]
        held = formulas.kv_cache_bytes(config, context, 1, "fp32")
        rows.append(
            {
                "pattern": name,
                "full_layers": types.count(F),
                "layers": len(types),
                "window": WINDOW,
                "reach": formulas.receptive_field(len(types), WINDOW),
                "pairs": recall.MAIN,
                "context": context,
                "recall": statistics.median(scores),
                "recall_min": min(scores),
                "recall_max": max(scores),
                **{f"recall_{n}": statistics.median(r[str(n)] for r in runs) for n in recall.PAIRS},
                "parameters": formulas.parameters(config),
                "cache_bytes": held,
                "saving": whole / held,
                "seeds": seeds,
                "steps": steps,
                "ranked": steps >= STEPS,
            }
        )
    return rows


def go(rows):
    if len({r["parameters"] for r in rows}) > 1:
        return "the patterns differ in parameters: a window costs none, so look at the config"
    if not rows[0]["ranked"]:
        return None
    full = only(rows, pattern="all full")
    if full["recall_min"] <= LEARNED:
        return (
            f"six full layers recall {full['recall_min']:.0%} from one seed: they have not learned"
            " the task, so no pattern can be judged against them"
        )
    alone = only(rows, pattern="all sliding")
    if alone["recall_64"] > 0.5:
        return (
            f"windows alone recall {alone['recall_64']:.0%} of 64 pairs, most of which lie outside"
            f" the {alone['reach']} tokens that they hear of: look for a leak in the mask"
        )


def plot(rows):
    return plotting.bars(
        {r["pattern"]: r["recall"] for r in rows},
        x_label=f"recall of {rows[0]['pairs']} pairs",
        form="{:.0%}",
        alt=f"Recall of {rows[0]['pairs']} pairs: "
        + "; ".join(
            f"{r['pattern']} {r['recall']:.0%} in {r['cache_bytes']:,} bytes" for r in rows
        ),
    )


def ratio(row) -> str:
    """A pattern as one says it: 5:1."""
    return row["pattern"].replace(" sliding : ", ":").removesuffix(" full")


def notice(rows):
    if not rows[0]["ranked"]:
        return (
            f"After {rows[0]['steps']} of {STEPS} steps no pattern is judged: six full layers"
            f" recall {rows[0]['recall']:.0%} of {rows[0]['pairs']} pairs."
        )
    full, alone = (only(rows, pattern=name) for name in ("all full", "all sliding"))
    mixed = [r for r in rows if r not in (full, alone)]
    said = listed(
        f"{ratio(r)} {r['recall']:.0%} in {r['saving']:.1f} times fewer bytes" for r in mixed
    )
    seeds = where(rows, seeds=full["seeds"])
    apart = max(r["recall_max"] - r["recall_min"] for r in seeds)
    return (
        f"Of {full['pairs']} pairs six full layers recall {full['recall']:.0%}; {said}; windows"
        f" alone, which together hear of {alone['reach']} tokens, {alone['recall']:.0%}. Two"
        f" seeds of one pattern lie up to {apart:.0%} apart."
    )


LAB = Lab(
    title="How many layers must see everything",
    objective=(
        "Train six layers with sliding windows in none, some and all of them on a recall task, and"
        " set what they recall beside the bytes of their cache."
    ),
    asks="Have six full layers learned the task, and do windows alone forget?",
    notice=notice,
    columns={
        "pattern": "layers",
        "full_layers": "full layers",
        "window": "window",
        "reach": "windows hear of",
        "recall_8": "8 pairs|.2f",
        "recall": "32 pairs|.2f",
        "recall_min": "worst seed|.2f",
        "recall_max": "best seed|.2f",
        "recall_64": "64 pairs|.2f",
        "cache_bytes": "cache bytes",
        "saving": "times less than full|.1f",
        "seeds": "seeds",
        "steps": "steps",
    },
    run=run,
    sizes={"full": {"seeds": 2}, "quick": {"seeds": 1, "steps": 1}},
    threads=1,
    go=go,
    plot=plot,
    minutes=14,
    cpu_only=True,
)
