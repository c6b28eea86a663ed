"""CH05-WINDOWS: how large a window must be depends on what is asked.

The loss of SmolLM2 on the course's prose, when it sees only the last 64 to 1,024 tokens, with its
first 4 and without: nothing is trained anew, only the mask differs. And small models trained with
windows of 8 to 128 on a task that asks for one exact word from further back.

Every view and every training is kept as soon as it is done: stopped half-way, the same command goes
on.
"""

import statistics

from labkit import formulas, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, where

SINKS = 4
STEPS = 400  # of a training after which windows are compared
RATE = 6e-3
LEARNED = 0.95


def run(device, *, tokens, windows, small, seeds=3, steps=STEPS):
    """A row for each view of SmolLM2, and one for each window of the trained models.

    tokens: of the prose; the loss is that of the part that the largest window has left behind.
    windows: of SmolLM2. small: of the trained ones. seeds: trainings of each, of `steps` steps.
    """
    from labkit_labs.ch05_swa import views as through
    from labkit_labs.common.pieces import each

    views = [(None, 0)] + [(window, kept) for window in windows for kept in (0, SINKS)]
    after = max(windows)
    losses = each("ch05-windows", through.loss, {view: (tokens, after, *view) for view in views})
    rows = []
    for window, kept in views:
        nll = losses[window, kept]["nll"]
        rows.append(
            {
                "what": "SmolLM2",
                "window": window,
                "sinks": kept,
                "kept": tokens if window is None else window + kept,
                "first": after,
                "tokens": tokens,
                "nll": nll,
                "lost": nll - losses[None, 0]["nll"],
            }
        )
    return rows + recalled(small, seeds, steps)


def recalled(windows: list[int], seeds: int, steps: int) -> list[dict]:
    """Rows of two sliding layers that were trained to recall."""
    from labkit_labs.ch05_swa import learning
    from labkit_labs.common import recall
    from labkit_labs.common.pieces import each

    jobs = {
        (window, seed): (("sliding",) * 2, window, seed, steps, RATE)
        for seed in range(seeds)
        for window in windows
    }
    made = each("ch05-windows-recall", learning.learn, jobs)
    rows = []
    for window in windows:
        runs = [made[window, seed] for seed in range(seeds)]
        scores = {n: [r[str(n)] for r in runs] for n in recall.PAIRS}
        learned = [n for n in recall.PAIRS if min(scores[n]) > LEARNED]
        rows.append(
            {
                "what": "recall",
                "window": window,
                "reach": formulas.receptive_field(2, window),
                **{f"recall_{n}": statistics.median(each) for n, each in scores.items()},
                "recall_min": min(scores[recall.MAIN]),
                "recall_max": max(scores[recall.MAIN]),
                "recalls": max(learned, default=0),
                "furthest": 3 * max(learned, default=0) - 1,
                "seeds": seeds,
                "steps": steps,
                "ranked": steps >= STEPS,
            }
        )
    return rows


def go(rows):
    large = where(rows, what="SmolLM2")
    for r in large[1:]:
        if r["lost"] < -0.02:
            return (
                f"a window of {r['window']:,} reads better than all the text, by"
                f" {-r['lost']:.3f} nats: look whether the mask hides what was seen"
            )
    for window in {r["window"] for r in large[1:]}:
        alone = only(large, window=window, sinks=0)
        kept = only(large, window=window, sinks=SINKS)
        if kept["nll"] >= alone["nll"]:
            return (
                f"the first {SINKS} tokens do not help a window of {window:,}: look whether they"
                " are still seen"
            )
    small = where(rows, what="recall")
    if not small[0]["ranked"]:
        return None
    if small[-1]["recall_32"] <= LEARNED:
        return (
            f"a window of {small[-1]['window']} recalls {small[-1]['recall_32']:.0%} of 32 pairs,"
            " all of which it sees: train longer before you judge the small ones"
        )
    for r in small:
        if r["reach"] < 64 and r["recall_64"] > 0.5:
            return (
                f"a window of {r['window']} recalls {r['recall_64']:.0%} of 64 pairs, most of"
                f" which lie outside the {r['reach']} tokens that it hears of: look for a leak in"
                " the mask"
            )


def plot(rows):
    """SmolLM2's loss by window, with the first tokens and without."""
    large = where(rows, what="SmolLM2")
    views = {
        "window": where(large[1:], sinks=0),
        f"window + {SINKS} sinks": where(large[1:], sinks=SINKS),
    }
    lost = {name: [r["lost"] for r in each] for name, each in views.items()}
    return plotting.lines(
        [r["window"] for r in views["window"]],
        lost,
        x_label="window",
        y_label="nats a token lost",
        log_x=True,
        alt="Nats a token lost against seeing everything, by window: "
        + "; ".join(f"{name} {', '.join(f'{y:.2f}' for y in ys)}" for name, ys in lost.items()),
    )


def plot_recall(rows):
    """Recall by window of the trained models, for each number of pairs."""
    small = where(rows, what="recall")
    pairs = sorted(int(k[7:]) for k in small[0] if k.removeprefix("recall_").isdigit())
    lines = {f"{n} pairs": [r[f"recall_{n}"] for r in small] for n in pairs}
    return plotting.lines(
        [r["window"] for r in small],
        lines,
        x_label="window of both layers",
        y_label="recall",
        log_x=True,
        alt="Recall by window: "
        + "; ".join(f"{name} {', '.join(f'{y:.0%}' for y in ys)}" for name, ys in lines.items()),
    )


def notice(rows):
    large = where(rows, what="SmolLM2")
    alone = where(large[1:], sinks=0)
    kept = where(large[1:], sinks=SINKS)
    said = (
        f"SmolLM2, trained to see everything, loses {alone[0]['lost']:.2f} nats a token with a"
        f" window of {alone[0]['window']} and {alone[-1]['lost']:.2f} with one of"
        f" {alone[-1]['window']:,}; with its first {SINKS} tokens kept {kept[0]['lost']:.2f} and"
        f" {kept[-1]['lost']:.2f}."
    )
    small = where(rows, what="recall")
    if not small[0]["ranked"]:
        return f"{said} After {small[0]['steps']} of {STEPS} steps no small model is judged."
    return said + (
        " An exact word from further back is another task. Two layers trained with windows of"
        f" {listed(r['window'] for r in small)} recall {listed(r['recalls'] for r in small)} pairs:"
        f" of 32 pairs {listed(format(r['recall_32'], '.0%') for r in small)}. What is outside the"
        " window is not worse remembered, it is gone."
    )


LAB = Lab(
    title="How large a window must be",
    objective=(
        "Measure what windows of 64 to 1,024 cost SmolLM2 on prose, and what windows of 8 to 128"
        " cost small models that must recall."
    ),
    asks="Do the first tokens help every window, and is only what fits recalled?",
    notice=notice,
    columns={
        "what": "what",
        "window": "window",
        "sinks": "first tokens kept",
        "nll": "nats a token|.3f",
        "lost": "lost|.3f",
        "reach": "two layers hear of",
        "recall_4": "4 pairs|.2f",
        "recall_8": "8 pairs|.2f",
        "recall_16": "16 pairs|.2f",
        "recall_32": "32 pairs|.2f",
        "recall_64": "64 pairs|.2f",
        "recalls": "pairs recalled",
        "seeds": "seeds",
        "steps": "steps",
    },
    run=run,
    sizes={
        "full": {
            "tokens": 2048,
            "windows": [64, 128, 256, 512, 1024],
            "small": [8, 16, 32, 64, 128],
        },
        "quick": {"tokens": 200, "windows": [32, 64], "small": [8, 128], "seeds": 1, "steps": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=8,
    cpu_only=True,
)
