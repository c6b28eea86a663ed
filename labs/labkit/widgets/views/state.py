"""A memory that corrects itself, beside one that only adds: two matrices of squares, and what each
answers to the key of the moment, before and after it is written.
"""

from __future__ import annotations

from labkit.traces import Trace
from labkit.traces.state import StateStep
from labkit.widgets.scene import Box, Meter, Scene
from labkit.widgets.views.decode import visible

KEY, LEFT = 0, 2  # columns of the key and of the first memory


def scene(trace: Trace) -> Scene:
    """Both memories after every token, what they were to answer, and what they do answer.

    `meta["asked"]`, if a trace has it, says at which positions the model is asked something, and
    the right answer: {"8": "v3"}.
    """
    steps = trace.steps
    dk, dv = len(steps[0].key), len(steps[0].value)
    right = LEFT + dv + 1
    told = {
        "state": [(s.before, s.value, s.after) for s in steps],
        "plain": [_plain_answers(s) for s in steps],
    }
    # one scale for both memories, one for all answers
    largest = max(abs(n) for s in steps for m in (s.state, s.plain) for row in m for n in row)
    loudest = max(abs(n) for vectors in told.values() for v in vectors for row in v for n in row)
    boxes = _squares(KEY, 0, [[[n] for n in s.key] for s in steps], 1)
    for x, name in ((LEFT, "state"), (right, "plain")):
        boxes += _squares(x, 0, [getattr(step, name) for step in steps], largest)
        boxes += _squares(x, dk + 1, told[name], loudest)
    boxes += [
        Box(-1, "label", KEY, dk, LEFT - KEY, 1, "key"),
        Box(-1, "label", LEFT, dk, dv, 1, "delta rule"),
        Box(-1, "label", right, dk, dv, 1, "only adds"),
    ]
    return Scene(
        label="Two memories of one text",
        axes="the key, and each memory; below, its answer to the key, before and after the write",
        columns=right + dv,
        rows=dk + 4,
        boxes=boxes,
        says=[_say(k, step, trace.meta) for k, step in enumerate(steps)],
        meters=_meters(steps, trace.meta),
        legend=[
            ("level", "+", "above zero"),
            ("level", "-", "below zero"),
        ],
        head=["error of the answer", "delta rule", "only adds"],
        readings=[_readings(step) for step in steps],
        row=1.1,
        widest=1.1,
        down=[""] * (dk + 1) + ["before", "value", "after"],
    )


def _squares(x: int, y: int, matrices: list[list[list[float]]], full: float) -> list[Box]:
    """A square for each cell of a matrix, as it is after each step: [step][row][column]."""
    rows, columns = len(matrices[0]), len(matrices[0][0])
    return [
        Box(-1, "level", x + j, y + i, 1, 1, level=[m[i][j] / full for m in matrices])
        for i in range(rows)
        for j in range(columns)
    ]


def _plain_answers(step: StateStep) -> tuple[list[float], list[float], list[float]]:
    """What the plain memory answers to the key, before and after, and between them the value: k S,
    and that less what was added.
    """
    after = [sum(k * n for k, n in zip(step.key, column)) for column in zip(*step.plain)]
    added = step.beta * sum(k * k for k in step.key)
    return [a - added * v for a, v in zip(after, step.value)], step.value, after


def _say(k: int, step: StateStep, meta: dict) -> str:
    told = (
        f"“{visible(step.token)}”: asked by its key, the memory is off by **{step.error:.0%}** of"
        f" the value; {step.beta:.0%} of that is repaired, **{step.left:.0%}** stay. The one that"
        f" only adds is off by {step.plain_error:.0%}, then by {step.plain_left:.0%}."
    )
    answer = meta.get("asked", {}).get(str(k))
    if answer is None:
        return told
    verdict = "rightly" if step.next == answer else f"where {answer} is right"
    return f"{told} The model says **{step.next}**, {verdict}."


def _readings(step: StateStep) -> list[list[str]]:
    return [
        ["before the write", f"{step.error:.1%}", f"{step.plain_error:.1%}"],
        ["after it", f"{step.left:.1%}", f"{step.plain_left:.1%}"],
    ]


def _meters(steps: list[StateStep], meta: dict) -> list[Meter]:
    def length(matrix) -> float:
        return round(sum(n * n for row in matrix for n in row) ** 0.5, 2)

    kept = [length(s.state) for s in steps]
    plain = [length(s.plain) for s in steps]
    cache = [(k + 1) * meta["cache_bytes_per_token"] for k in range(len(steps))]
    state = [meta["state_bytes"]] * len(steps)
    most = max(*cache, *state)
    return [
        Meter("bytes of the layer's states", state, most),
        Meter("bytes of all keys and values", cache, most),
        Meter("length of the memory, delta rule", kept, max(*kept, *plain)),
        Meter("length of the one that only adds", plain, max(*kept, *plain)),
    ]
