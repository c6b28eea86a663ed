"""A decode loop: a row for each step, a column for each token's key."""

from __future__ import annotations

from itertools import accumulate

from labkit.traces import Trace
from labkit.traces.decode import DecodeStep
from labkit.widgets.scene import Box, Meter, Scene

CACHES = {"none": "No cache", "static": "KV cache", "paged": "Paged KV cache"}
MOST_CELLS = 48  # columns that can still be seen one by one


def scene(trace: Trace) -> Scene:
    """What each step computes and what it reads back, and the running totals."""
    prompt = trace.meta["prompt"]
    columns = len(prompt) + len(trace.steps) - 1
    back = [max(s.read - s.computed, 0) for s in trace.steps]  # stored by earlier steps
    boxes = []
    for k, step in enumerate(trace.steps):
        own = len(prompt) + k - step.computed  # the first key that this step computes
        boxes.append(Box(k, "computed", own, k, step.computed, 1))
        if back[k]:
            boxes.append(Box(k, "read", own - back[k], k, back[k], 1))
    return Scene(
        label=CACHES.get(trace.meta.get("cache", ""), "The loop"),
        axes="one key per token across, one step per row",
        columns=columns,
        rows=len(trace.steps),
        boxes=boxes,
        says=[_say(step, read) for step, read in zip(trace.steps, back)],
        meters=_meters(trace.steps, back),
        legend=[
            ("computed", "now", "computed now"),
            ("read", "now", "read back now"),
            ("computed", "past", "computed by an earlier step"),
        ],
        named=True,
        cells=columns <= MOST_CELLS,
        words=[(visible(token), -1) for token in prompt]
        + [(visible(step.token), k) for k, step in enumerate(trace.steps)],
    )


def _say(step: DecodeStep, back: int) -> str:
    fed = f"{len(step.fed)} tokens" if len(step.fed) > 1 else f"one token, “{visible(step.fed[0])}”"
    keys = "key" if step.computed == 1 else "keys"
    return (
        f"is fed {fed}: computes **{step.computed}** {keys}, reads **{back}** back, stores"
        f" {step.written}. Next: “{visible(step.token)}”."
    )


def _meters(steps: list[DecodeStep], back: list[int]) -> list[Meter]:
    counts = {
        "computed": [s.computed for s in steps],
        "read back": back,
        "stored": [s.written for s in steps],
    }
    totals = {verb: list(accumulate(values)) for verb, values in counts.items()}
    full = max(values[-1] for values in totals.values())
    return [Meter(f"keys {verb} so far", values, full) for verb, values in totals.items()]


def visible(token: str) -> str:
    """A token's text without its spaces, or a sign for one that is nothing else."""
    return token.strip(" ").replace("\n", "⏎").replace("\t", "⇥") or "␣"
