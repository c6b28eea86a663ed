"""A window on a ring: the slots and who lies in them, and below the text, how far back each number
of layers hears.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

from labkit import formulas
from labkit.traces import Trace
from labkit.traces.window import WindowStep
from labkit.widgets.scene import Box, Meter, Scene

# rows of the grid, from above; those of 1, 2, … layers follow
SLOT, RING, LOST, TEXT, LAYERS = 0, 1, 2, 4, 5


def scene(trace: Trace) -> Scene:
    """The ring, what falls out of it, and how far the newest query hears."""
    meta, steps = trace.meta, trace.steps
    T, cap, layers = len(meta["words"]), meta["slots"], len(meta["layers"])
    boxes = [Box(-1, "label", x, SLOT, w, 1, str(slot)) for slot, (x, w) in _slots(T, cap)]
    boxes += [Box(-1, "slot", x, RING, w, 1) for _, (x, w) in _slots(T, cap)]
    boxes += [Box(-1, "slot", 0, TEXT, T, 1)]
    for position in range(T):
        boxes += _life(position, steps, dict(_slots(T, cap)))
    for k, step in enumerate(steps):
        boxes += _heard(k, step)
    many = ["1 layer"] + [f"{n} layers" for n in range(2, layers + 1)]
    return Scene(
        label="A window on a ring",
        axes="above, which token each slot holds; below, how much of the text the newest one hears",
        columns=T,
        rows=LAYERS + layers,
        boxes=boxes,
        says=[_say(step, meta) for step in steps],
        meters=_meters(steps, meta),
        legend=[
            ("held", "now", "written now"),
            ("held", "past", "in the ring, seen by the query"),
            ("kept", "past", "in the ring, seen no more"),
            ("lost", "past", "overwritten now"),
            ("mark", "past", "tokens that the newest hears of"),
        ],
        row=1.6,
        down=["slot", "ring", "lost", "", "text", *many],
    )


def _slots(T: int, cap: int) -> list[tuple[int, tuple[int, int]]]:
    """Each slot, with its first column and its width: the ring is as wide as the text."""
    edges = [slot * T // cap for slot in range(cap + 1)]
    return [(slot, (a, b - a)) for slot, (a, b) in enumerate(pairwise(edges))]


def _life(position: int, steps: list[WindowStep], slots: dict) -> list[Box]:
    """A position in the ring: seen, then only held, then overwritten."""
    where = next(s.written[s.fed.index(position)] for s in steps if position in s.fed)
    x, w = slots[where]
    held = [k for k, s in enumerate(steps) if position in s.held]
    seen = [k for k, s in enumerate(steps) if position in s.seen]
    text = str(position)
    boxes = []
    if not held:  # written and overwritten within one step
        return boxes
    unseen, gone = (seen or held)[-1] + 1, held[-1] + 1
    if seen:
        boxes.append(Box(seen[0], "held", x, RING, w, 1, text, unseen))
    if gone > unseen:
        boxes.append(Box(unseen, "kept", x, RING, w, 1, text, gone))
    if gone < len(steps):
        boxes.append(Box(gone, "lost", x, LOST, w, 1, text, gone + 1))
    return boxes


def _heard(k: int, step: WindowStep) -> list[Box]:
    """Where the ring's tokens stand in the text, and how far each number of layers hears."""
    last = step.fed[-1]
    oldest = min(position for position in step.held if position >= 0)
    boxes = [
        Box(k, "kept", oldest, TEXT, last + 1 - oldest, 1, until=k + 1),
        Box(k, "held", step.fed[0], TEXT, len(step.fed), 1, until=k + 1),
    ]
    for layer, first in enumerate(step.reach):
        n = last + 1 - first
        boxes.append(Box(k, "mark", first, LAYERS + layer, n, 1, str(n), k + 1))
    return boxes


def _counted(n: int) -> str:
    return f"{n} token" if n == 1 else f"{n} tokens"


def _say(step: WindowStep, meta: dict) -> str:
    last = step.fed[-1]
    slots = ", ".join(map(str, step.written))
    if len(step.fed) == 1:
        wrote = f"Token {last}, “{meta['words'][last]}”, takes **slot {slots}**"
    else:
        wrote = f"Tokens {step.fed[0]}–{last} take **slots {slots}**"
    if step.lost:
        many = "token" if len(step.lost) == 1 else "tokens"
        wrote += f" and overwrites {many}" if len(step.fed) == 1 else f" and overwrite {many}"
        wrote += f" {', '.join(map(str, step.lost))}"
    if step.lost and 0 in step.written:
        wrote += ": the ring has gone round"
    depth = _counted_layers(len(step.reach))
    return (
        f"{wrote}. Token {last} sees {_counted(len(step.seen))}; through {depth} it hears of"
        f" **{last + 1 - step.reach[-1]}** of {last + 1}."
    )


def _counted_layers(n: int) -> str:
    return f"{n} layer" if n == 1 else f"{n} layers"


def _meters(steps: list[WindowStep], meta: dict) -> list[Meter]:
    T, W, cap, layers = len(meta["words"]), meta["window"], meta["slots"], len(meta["layers"])
    most = min(T, formulas.receptive_field(layers, W)) if set(meta["layers"]) == {"sliding"} else T
    context = [s.fed[-1] + 1 for s in steps]
    heard = [n - s.reach[-1] for n, s in zip(context, steps)]
    lost = list(accumulate(len(s.lost) for s in steps))
    byte = meta["token_bytes"]
    return [
        Meter("slots in use", [cap - s.held.count(-1) for s in steps], cap),
        Meter("tokens overwritten", lost, T - cap),
        Meter(f"tokens seen, at most {W}", [len(s.seen) for s in steps], T),
        Meter(f"tokens heard of, at most {most}", heard, T),
        Meter("bytes of a ring", [cap * byte] * len(steps), T * byte),
        Meter("bytes of a full cache", [n * byte for n in context], T * byte),
    ]
