"""An engine's schedule: a row for each step, a column for each seat of the batch."""

from __future__ import annotations

from itertools import accumulate

from labkit.tables import listed
from labkit.traces import Trace
from labkit.traces.schedule import ScheduleStep
from labkit.widgets.scene import Box, Meter, Scene

MOST_ROWS = 24  # that still have room for words; more are drawn thinner, and without them
LOOKS = {"prefill": "solid", "decode": "held", "check": "held"}
HEAD = ["request", "seat", "does", "tokens", "context", "new"]


def scene(trace: Trace) -> Scene:
    """Who sits where in each step, who reads its prompt in pieces, who comes and goes, and what of
    the token budget is used.
    """
    steps, seats = trace.steps, trace.meta["max_batch"]
    written = len(steps) <= MOST_ROWS
    late = _late(steps)
    boxes = [Box(-1, "slot", seat, k, 1, 1) for k, _ in enumerate(steps) for seat in range(seats)]
    for k, step in enumerate(steps):
        boxes += _row(k, step, seats, late, written)
    return Scene(
        label="The engine",
        axes="a seat per column, a step per row",
        columns=seats + 1,
        rows=len(steps),
        boxes=boxes,
        says=[_say(k, steps, late, trace.meta) for k in range(len(steps))],
        meters=_meters(steps, trace.meta),
        legend=[
            ("solid", "past", "reads so many tokens of its prompt"),
            ("held", "past", "writes a token"),
            ("waiting", "past", "waits"),
            *([("mark", "past", "joins while others run")] if late else []),
            *([("lost", "past", "set back")] if any(s.preempted for s in steps) else []),
        ],
        head=HEAD,
        readings=[[_reading(row) for row in sorted(step.rows)] for step in steps],
        row=1.35 if written else 0.45,
        down=[str(k + 1) if written else "" for k in range(len(steps))],
        across=[*(f"seat {seat + 1}" for seat in range(seats)), "queue"],
    )


def _late(steps: list[ScheduleStep]) -> dict[int, int]:
    """Requests that come while others run, and the step at which they are first seen."""
    first = {}
    for k, step in enumerate(steps):
        for id in [*(row[1] for row in step.rows), *step.waiting]:
            first.setdefault(id, k)
    return {id: k for id, k in first.items() if k}


def _row(k: int, step: ScheduleStep, seats: int, late: dict, written: bool) -> list[Box]:
    boxes = []
    for seat, id, kind, tokens, *_ in step.rows:
        text = f"r{id}" + (f" +{tokens}" if kind != "decode" else "")
        if _ended(step, id):
            text += " ✓"
        boxes.append(Box(k, LOOKS[kind], seat, k, 1, 1, text if written else ""))
        if late.get(id) == k:
            boxes.append(Box(k, "mark", seat, k, 1, 1))
    queue = [id for id in step.waiting if id not in step.preempted]
    if step.preempted:
        text = f"✕ {_names(step.preempted)}" if written else ""
        boxes.append(Box(k, "lost", seats, k, 1, 1, text))
    elif queue:
        text = _names(queue) if len(queue) < 3 else f"{len(queue)} wait"
        boxes.append(Box(k, "waiting", seats, k, 1, 1, text if written else ""))
        if any(late.get(id) == k for id in queue):
            boxes.append(Box(k, "mark", seats, k, 1, 1))
    return boxes


def _ended(step: ScheduleStep, id: int) -> bool:
    """A trace that was stored has words where a live one has numbers."""
    return id in {int(other) for other in step.finished}


def _names(ids: list[int]) -> str:
    return " ".join(f"r{id}" for id in ids)


def _say(k: int, steps: list[ScheduleStep], late: dict, meta: dict) -> str:
    step = steps[k]
    rows = sorted(step.rows, key=lambda row: row[1])
    parts = []
    if come := [id for id, first in late.items() if first == k]:
        parts.append(f"{_list(come)} **join{'s' if len(come) == 1 else ''}** while others run.")
    if step.preempted:
        parts.append(
            f"Blocks ran out: {_list(step.preempted)} is **set back**, and will be computed again."
        )
    readers = [row for row in rows if row[2] == "prefill"]
    writers = [row[1] for row in rows if row[2] == "decode"]
    checkers = [row for row in rows if row[2] == "check"]
    if writers:
        verb = "writes one token" if len(writers) == 1 else "write a token each"
        parts.append(f"{_list(writers)} {verb}.")
    for _, id, _, tokens, _, out in checkers:
        parts.append(f"r{id} checks {tokens - 1} drafts and writes {out} tokens.")
    for _, id, _, tokens, context, out in readers:
        rest = ", to its prompt's end" if out else ", and **not yet its last**"
        first = " its first" if context == tokens else ""
        parts.append(f"r{id} reads{first} **{tokens}** tokens{rest}.")
    if step.finished:
        done = [int(id) for id in step.finished]
        verb = "is done and its seat free" if len(done) == 1 else "are done and their seats free"
        parts.append(f"{_list(done)} {verb}.")
    fed = sum(row[3] for row in step.rows)
    parts.append(f"{fed} of {meta['token_budget']} tokens.")
    return " ".join(parts)


def _list(ids: list[int]) -> str:
    return listed([f"r{id}" for id in ids])


def _meters(steps: list[ScheduleStep], meta: dict) -> list[Meter]:
    fed = [sum(row[3] for row in s.rows) for s in steps]
    new = list(accumulate(sum(row[5] for row in s.rows) for s in steps))
    return [
        Meter("tokens in this step", fed, meta["token_budget"]),
        Meter("seats taken", [len(s.rows) for s in steps], meta["max_batch"]),
        Meter("requests waiting", [len(s.waiting) for s in steps], meta["max_batch"]),
        Meter("new tokens so far", new, new[-1]),
    ]


def _reading(row: list) -> list[str]:
    seat, id, kind, tokens, context, out = row
    does = {"prefill": "reads", "decode": "writes", "check": "checks"}[kind]
    return [f"r{id}", str(seat + 1), does, str(tokens), str(context), str(out)]
