"""A batch, routed: tokens down, experts across, each choice with its weight; below, the load."""

from __future__ import annotations

from labkit import formulas
from labkit.traces import Trace
from labkit.traces.routing import RoutingStep
from labkit.widgets.scene import Box, Meter, Scene
from labkit.widgets.views.decode import visible


def scene(trace: Trace) -> Scene:
    """Who goes where, which experts are touched, and what that reads."""
    meta, steps = trace.meta, trace.steps
    X, rows = meta["experts"], len(steps)
    forwards = steps[-1].forward + 1
    busiest = max(max(step.load) for step in steps)
    boxes = [box for k, step in enumerate(steps) for box in _choices(k, step)]
    boxes += [box for expert in range(X) for box in _load(expert, rows, steps)]
    boxes += [
        Box(-1, "level", e, rows + 1, 1, 1, level=[s.load[e] / busiest for s in steps])
        for e in range(X)
    ]
    return Scene(
        label="A batch, routed",
        axes="one token per row, one expert per column; each choice with its weight",
        columns=X,
        rows=rows + 2,
        boxes=boxes,
        says=[_say(step, meta, forwards) for step in steps],
        meters=_meters(steps, meta),
        legend=[
            ("solid", "past", "first choice"),
            ("held", "past", "further choice; below: touched"),
            ("slot", "past", "not touched"),
            ("level", "+", "load, as an area"),
        ],
        head=["expert", "weight", "tokens so far"],
        readings=[_readings(step) for step in steps],
        row=1.45,
        widest=3.4,
        down=[*(visible(step.token) for step in steps), "load", ""],
        across=[str(e) for e in range(X)],
    )


def _choices(k: int, step: RoutingStep) -> list[Box]:
    return [
        Box(k, "held" if place else "solid", expert, k, 1, 1, _short(weight))
        for place, (expert, weight) in enumerate(zip(step.experts, step.weights))
    ]


def _short(weight: float) -> str:
    """Two digits, without the zero before the point."""
    return f"{weight:.2f}".removeprefix("0")


def _load(expert: int, row: int, steps: list[RoutingStep]) -> list[Box]:
    """How many tokens an expert has got: a box for each number that it reaches."""
    loads = [step.load[expert] for step in steps]
    changes = [k for k, load in enumerate(loads) if load != (loads[k - 1] if k else 0)]
    begins = [(-1, 0), *((k, loads[k]) for k in changes)]
    return [
        Box(k, "held" if load else "slot", expert, row, 1, 1, str(load), until)
        for (k, load), until in zip(begins, [*changes, None])
    ]


def _say(step: RoutingStep, meta: dict, forwards: int) -> str:
    first, *others = (
        f"{expert} ({_short(weight)})" for expert, weight in zip(step.experts, step.weights)
    )
    where = f"“{visible(step.token)}” goes to expert **{first}**"
    where += f" and to {', '.join(others)}" if others else ""
    new = [str(e) for e in step.experts if step.load[e] == 1]
    if new:
        read = f"Expert{'s' * (len(new) > 1)} {' and '.join(new)} must be read for it"
    else:
        read = f"{'Both' if len(step.experts) == 2 else 'All'} have been read already"
    lead = f"Forward {step.forward + 1}: " if forwards > 1 else ""
    return f"{lead}{where}. {read}: **{step.touched}** of {meta['experts']} are touched."


def _readings(step: RoutingStep) -> list[list[str]]:
    return [
        [str(expert), f"{weight:.3f}", str(step.load[expert])]
        for expert, weight in zip(step.experts, step.weights)
    ]


def _meters(steps: list[RoutingStep], meta: dict) -> list[Meter]:
    X, A, size = meta["experts"], meta["active"], meta["expert_bytes"]
    tokens = [sum(step.load) // A for step in steps]  # of this forward, so far
    even = [round(formulas.experts_read(X, A, n), 2) for n in tokens]
    read = [step.read_bytes / 1000 for step in steps]
    alone = [(k + 1) * A * size / 1000 for k in range(len(steps))]
    busiest = [max(step.load) for step in steps]
    return [
        Meter("experts touched", [step.touched for step in steps], X),
        Meter("by the formula, if even", even, X),
        Meter("kB of experts read", read, alone[-1]),
        Meter("kB, if each token read its own", alone, alone[-1]),
        Meter("tokens at the busiest expert", busiest, max(tokens)),
        Meter("tokens at each, if even", [round(n * A / X, 2) for n in tokens], max(tokens)),
    ]
