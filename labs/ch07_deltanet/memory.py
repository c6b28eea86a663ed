"""CH07-MEMORY: what a head writes down, and what it says when it is asked.

A small model learns to recall pairs. Its first layer's attention sees which value follows which
key; its second keeps the pairs in matrices of 8 by 8, by the delta rule. Beside each matrix stands
one that takes the same keys, values and step sizes and only adds them up, as plain linear attention
does. Its trace drives the chapter's player.
"""

from dataclasses import replace

from labkit.lab import Lab, Recorded
from labkit.tables import progress, series, where

SMALL = {
    "layer_types": ("full", "delta"),
    "delta_n_key_heads": 4,
    "delta_n_value_heads": 4,
    "delta_key_dim": 8,
    "delta_value_dim": 8,
}
HEAD = 0
SHOWN = 6  # pairs in the trace
MEMORIES = {"delta rule": "state", "only adds": "plain"}


def trained(steps: int, device: str):
    """A model of two layers that has learned to recall, the second with small memories."""
    from labkit import formulas
    from labkit_labs.common import recall

    config = recall.matched(recall.SHELL.replace(**SMALL), formulas.parameters(recall.SHELL))
    model, _ = recall.train(config, 0, steps, device, every=steps + 1)
    return model


def word(ids: list[int]) -> str:
    """`k17` is a key, `v3` a value."""
    from labkit_labs.common import recall

    (id,) = ids
    return f"k{id}" if id < recall.KEYS else f"v{id - recall.KEYS}"


def text(pairs: int, seed: int) -> tuple[list[int], dict[str, str]]:
    """A text of so many pairs and questions; at which positions it asks, and the right answers."""
    import torch

    from labkit_labs.common import recall

    step, asked, right = recall.batch(pairs, 1, torch.Generator().manual_seed(seed))
    answers = [word([recall.KEYS + value]) for value in right.tolist()]
    return step.ids.tolist(), dict(zip(map(str, asked.tolist()), answers))


def errors(steps, pairs: int) -> dict[str, float]:
    """How far off each memory is, on average, once all pairs are written: asked by the key under
    which a pair was written, in shares of the value.
    """
    import numpy as np

    last = steps[2 * pairs - 1]  # before the first question
    told = [steps[2 * pair + 1] for pair in range(pairs)]  # a pair is written at its value
    off = {}
    for memory, name in MEMORIES.items():
        S = np.array(getattr(last, name))
        gaps = [np.array(s.key) @ S - s.value for s in told]
        sizes = [np.linalg.norm(s.value) for s in told]
        off[memory] = float(np.mean([np.linalg.norm(g) / n for g, n in zip(gaps, sizes)]))
    return off


def run(device, *, training, pairs, texts):
    """A row for each number of pairs and memory, over so many texts; and the trace of one.

    training: steps that the model learns.
    """
    from labkit.traces.state import record_state
    from labkit_labs.common import recall

    model = trained(training, device)
    rows = []
    for P in progress(pairs, "numbers of pairs"):
        seen = [record_state(model, text(P, seed)[0], head=HEAD).steps for seed in range(texts)]
        off = [errors(steps, P) for steps in seen]
        for memory in MEMORIES:
            rows.append(
                {
                    "pairs": P,
                    "memory": memory,
                    "error": sum(each[memory] for each in off) / texts,
                    "recall": recall.recall(model, P) if memory == "delta rule" else None,
                    "texts": texts,
                }
            )
    tokens, asked = text(SHOWN, 0)
    trace = record_state(model, tokens, head=HEAD, decode=word)
    return Recorded(rows, state_recall=replace(trace, meta=trace.meta | {"asked": asked}))


def go(rows):
    for r in where(rows, memory="delta rule"):
        (other,) = where(rows, memory="only adds", pairs=r["pairs"])
        if r["error"] >= other["error"]:
            return (
                f"after {r['pairs']} pairs the delta rule is off by {r['error']:.0%} and mere"
                f" adding by {other['error']:.0%}: look at what is written, it must be the value"
                " less the answer"
            )


def notice(rows):
    by = series(rows, "memory", "error")
    few, many = rows[0]["pairs"], rows[-1]["pairs"]
    exact, adds = by["delta rule"], by["only adds"]
    return (
        f"After {few} pairs the memory that only adds is off by {adds[0]:.0%} of a value, after"
        f" {many} by {adds[-1]:.0%}: what it has once added disturbs every later answer. The delta"
        f" rule asks first and writes the difference: it is off by {exact[0]:.0%} and"
        f" {exact[-1]:.0%}. Both write under the same keys, with the same step sizes."
    )


LAB = Lab(
    title="What a memory says when it is asked",
    objective=(
        "Write pairs into a matrix by the delta rule and by mere adding, then ask for all of them."
    ),
    asks="Is the delta rule's memory nearer to what it was told than one that only adds?",
    notice=notice,
    columns={
        "pairs": "pairs written",
        "memory": "memory",
        "error": "off by, of a value|.0%",
        "recall": "the model's recall|.2f",
        "texts": "texts",
    },
    run=run,
    sizes={
        "full": {"training": 600, "pairs": [2, 4, 8, 16], "texts": 16},
        "quick": {"training": 8, "pairs": [2, 4], "texts": 1},
    },
    threads=1,
    go=go,
    minutes=2,
    cpu_only=True,
)
