"""CH07-TRAIN: is a state too small, or was it trained too short?

CH08-QUALITY stops every training at the same step. Here a state of 4 matrices of 16 by 16 learns
three times as long, beside full attention and a state of four times the size, from the same seeds
and data. The rate falls at the end of each training, so a longer one is a training of its own.

Every training is kept as soon as it is done: stopped half-way, the same command goes on.
"""

import statistics

from labkit import formulas, plotting
from labkit.lab import Lab
from labkit.tables import only, where

VARIANTS = ("MHA", "DeltaNet wide", "DeltaNet")
LENGTHS = (1000, 3000)  # steps of the trainings that are compared
TRAINED_ON = "DeltaNet"  # the others have nothing left to learn after the first length
LEARNED = 0.95


def run(device, *, lengths, seeds=3):
    """A row for each variant and length of training; what keeps every token is trained for the
    first length only. seeds: trainings of each.
    """
    from labkit_labs.ch07_deltanet import longer
    from labkit_labs.common import recall
    from labkit_labs.common.pieces import each

    configs = recall.variants()
    trainings = [
        (name, steps)
        for steps in lengths
        for name in VARIANTS
        if name == TRAINED_ON or steps == lengths[0]
    ]
    jobs = {
        (name, steps, seed): (name, seed, steps)
        for seed in range(seeds)
        for name, steps in trainings
    }
    made = each("ch07-train", longer.learn, jobs)
    context = 3 * recall.MAIN
    rows = []
    for name, steps in sorted(trainings, key=lambda each: VARIANTS.index(each[0])):
        runs = [made[name, steps, seed] for seed in range(seeds)]
        scores = [r[str(recall.MAIN)] for r in runs]
        config = configs[name]
        rows.append(
            {
                "variant": name,
                "steps": steps,
                "pairs": recall.MAIN,
                "recall": statistics.median(scores),
                "recall_min": min(scores),
                "recall_max": max(scores),
                **{f"recall_{n}": statistics.median(r[str(n)] for r in runs) for n in recall.PAIRS},
                "parameters": formulas.parameters(config),
                "state_bytes": formulas.kv_cache_bytes(config, context, 1, "fp32"),
                "context": context,
                "seeds": seeds,
                "ranked": lengths[0] >= LENGTHS[0],
            }
        )
    return rows


def go(rows):
    most = max(r["parameters"] for r in rows)
    for r in rows:
        if r["parameters"] < 0.99 * most:
            return (
                f"{r['variant']} has {r['parameters']:,} parameters and another {most:,}: match"
                " them before you compare what they recall"
            )
    if not rows[0]["ranked"]:
        return None
    whole = only(rows, variant="MHA")
    if whole["recall_min"] <= LEARNED:
        return (
            f"MHA recalls {whole['recall_min']:.0%} from one seed: look at the training before you"
            " judge a state"
        )
    first, *_, last = where(rows, variant=TRAINED_ON)
    if last["recall"] < first["recall"] - 0.1:
        return (
            f"{TRAINED_ON} recalls {last['recall']:.0%} after {last['steps']:,} steps and"
            f" {first['recall']:.0%} after {first['steps']:,}: a longer training must not unlearn,"
            " so look at the rate"
        )


def plot(rows):
    """Recall by number of pairs."""
    pairs = sorted(int(k[7:]) for k in rows[0] if k.removeprefix("recall_").isdigit())
    lines = {
        f"{r['variant']}, {r['steps']:,} steps": [r[f"recall_{n}"] for n in pairs] for r in rows
    }
    return plotting.lines(
        pairs,
        lines,
        x_label="pairs to keep",
        y_label="recall",
        log_x=True,
        alt=f"Recall of {pairs} pairs: "
        + "; ".join(f"{name} {', '.join(f'{y:.0%}' for y in ys)}" for name, ys in lines.items()),
    )


def notice(rows):
    if not rows[0]["ranked"]:
        return (
            f"After {rows[0]['steps']} of {LENGTHS[0]} steps nothing is judged: MHA recalls"
            f" {rows[0]['recall']:.0%} of {rows[0]['pairs']} pairs."
        )
    first, *_, last = where(rows, variant=TRAINED_ON)
    wide = only(rows, variant="DeltaNet wide")
    return (
        f"After {first['steps']:,} steps the small state recalls {first['recall']:.0%} of"
        f" {first['pairs']} pairs ({first['recall_min']:.0%} to {first['recall_max']:.0%} by seed),"
        f" after {last['steps']:,} {last['recall']:.0%} ({last['recall_min']:.0%} to"
        f" {last['recall_max']:.0%}); of 64 pairs {first['recall_64']:.0%} and"
        f" {last['recall_64']:.0%}. Four times the state recalls {wide['recall']:.0%} and"
        f" {wide['recall_64']:.0%} of them after {wide['steps']:,} steps. What a longer training"
        " closes was patience; what stays open is room."
    )


LAB = Lab(
    title="Too small, or trained too short",
    objective=(
        "Train a small state three times as long, and see which part of what it forgets was a lack"
        " of training."
    ),
    asks="Are the parameters matched, has full attention learned, and does no training unlearn?",
    notice=notice,
    columns={
        "variant": "variant",
        "steps": "steps",
        "recall_8": "8 pairs|.2f",
        "recall_16": "16 pairs|.2f",
        "recall": "32 pairs|.2f",
        "recall_min": "worst seed|.2f",
        "recall_max": "best seed|.2f",
        "recall_64": "64 pairs|.2f",
        "state_bytes": "cache bytes",
        "parameters": "parameters",
        "seeds": "seeds",
    },
    run=run,
    sizes={
        "full": {"lengths": list(LENGTHS), "seeds": 2},
        "quick": {"lengths": [1, 2], "seeds": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=13,
    cpu_only=True,
)
