"""An engine's guesses: in each step a column of drafts, and beside it what the model says."""

from __future__ import annotations

from itertools import accumulate

from labkit.traces import Trace
from labkit.traces.speculation import SpeculationStep
from labkit.widgets.scene import Box, Meter, Scene
from labkit.widgets.views.decode import visible

MOST_REQUESTS = 3  # side by side; others are counted
MOST_DRAFTS = 11  # below one another; others are counted


def scene(trace: Trace) -> Scene:
    """Which drafts are accepted and which refused, the model's own token after them, and how many
    tokens a forward gives.
    """
    steps, words = trace.steps, Words(trace.meta.get("words", {}))
    requests = sorted({id for s in steps for id, *_ in [*s.checks, *s.new]})
    shown = {id: i for i, id in enumerate(requests[:MOST_REQUESTS])}
    drafts = max((len(d) for s in steps for id, d, _ in s.checks if id in shown), default=0)
    depth = min(drafts, MOST_DRAFTS) + 1
    alone = len(shown) == 1
    return Scene(
        label="A round a step",
        axes="drafts beside what the model says",
        columns=2 * len(shown) or 1,
        rows=depth,
        boxes=[box for k, step in enumerate(steps) for box in _round(k, step, shown, depth, words)],
        says=[_say(step, words) for step in steps],
        meters=_meters(steps),
        legend=[
            ("held", "now", "draft, accepted"),
            ("lost", "now", "refused"),
            ("kept", "now", "behind it, not looked at"),
            ("solid", "now", "the model's own token"),
        ],
        words=[(visible(words[t]), k) for k, s in enumerate(steps) for _, new in s.new for t in new]
        if alone
        else [],
        head=["request", "drafts", "accepted", "new tokens"],
        readings=[_readings(step) for step in steps],
        row=1.45,
        down=[str(i + 1) for i in range(depth)],
        across=["drafts", "the model"]
        if alone
        else [words for id in shown for words in (f"r{id} drafts", "model")],
    )


class Words(dict):
    """Token -> its text; the number itself where the trace has none."""

    def __missing__(self, token) -> str:
        return self.get(str(token), str(token))


def _round(k: int, step: SpeculationStep, shown: dict, depth: int, words: Words) -> list[Box]:
    """The boxes of one step, which are gone with it."""
    boxes = []
    checks = {id: (drafts, accepted) for id, drafts, accepted in step.checks}
    for id, new in step.new:
        if id not in shown:
            continue
        x = 2 * shown[id]
        drafts, accepted = checks.get(id, ([], 0))
        for i, draft in enumerate(drafts[: depth - 1]):
            look, sign = _verdict(i, accepted, len(new))
            boxes.append(Box(k, look, x, i, 1, 1, f"{sign} {visible(words[draft])}", k + 1))
        if more := len(drafts[depth - 1 :]):
            boxes.append(Box(k, "label", x, depth - 1, 1, 1, f"and {more} more", k + 1))
        for i, token in enumerate(new):
            own = i == accepted
            sign = "+ " if own and i == len(drafts) > 0 else ""
            # the last row is that of the token after the last draft, however many there are
            if i < depth - 1 or own:
                y = min(i, depth - 1)
                look = "solid" if own else "slot"
                boxes.append(Box(k, look, x + 1, y, 1, 1, sign + visible(words[token]), k + 1))
    return boxes


def _verdict(i: int, accepted: int, new: int) -> tuple[str, str]:
    """How the i-th draft looks, and its sign. After a stop token nothing is looked at."""
    if i < accepted:
        return "held", "✓"
    return ("lost", "✕") if i == accepted < new else ("kept", "–")


def _bonus(drafts: list[int], accepted: int, new: list[int]) -> bool:
    """Were all accepted, and did one more token follow?"""
    return accepted == len(drafts) == len(new) - 1


def _say(step: SpeculationStep, words: Words) -> str:
    if not step.new:
        return "A prompt is read, and **no token** comes of it yet."
    if not step.checks:
        return f"No draft is made: one forward, **{_tokens(step)}**."
    if len(step.checks) > 1:
        drafts = sum(len(d) for _, d, _ in step.checks)
        accepted = sum(n for *_, n in step.checks)
        return (
            f"{len(step.checks)} requests check {drafts} drafts: **{accepted}** are accepted, and"
            f" one forward gives {_tokens(step)}."
        )
    ((id, drafts, accepted),) = step.checks
    new = dict((r, tokens) for r, tokens in step.new)[id]
    right = f"**{accepted}** of {len(drafts)} drafts are accepted"
    if _bonus(drafts, accepted, new):
        bonus = visible(words[new[-1]])
        told = f"All **{accepted}** drafts are accepted; “{bonus}” comes with them, a **bonus**."
    elif accepted < len(new):
        draft, own = (visible(words[t]) for t in (drafts[accepted], new[-1]))
        told = f"{right}. “{draft}” is **refused**: the model says “{own}”."
    else:
        told = f"{right}, and the last ends the reply."
    return f"{told} One forward, {_tokens(step)}."


def _tokens(step: SpeculationStep) -> str:
    count = sum(len(new) for _, new in step.new)
    return f"{count} token{'s' if count > 1 else ''}"


def _meters(steps: list[SpeculationStep]) -> list[Meter]:
    tokens = list(accumulate(sum(len(new) for _, new in s.new) for s in steps))
    drafted = list(accumulate(sum(len(d) for _, d, _ in s.checks) for s in steps))
    accepted = list(accumulate(sum(n for *_, n in s.checks) for s in steps))
    thrown = [a - b for a, b in zip(drafted, accepted)]
    most = max(tokens[-1], drafted[-1])
    return [
        Meter("forwards so far", [k + 1 for k in range(len(steps))], most),
        Meter("tokens so far", tokens, most),
        Meter("drafts accepted so far", accepted, most),
        Meter("drafts thrown away so far", thrown, most),
    ]


def _readings(step: SpeculationStep) -> list[list[str]]:
    checks = {id: (len(drafts), accepted) for id, drafts, accepted in step.checks}
    rows = []
    for id, new in step.new:
        drafts, accepted = checks.get(id, (0, 0))
        rows.append([f"r{id}", str(drafts), str(accepted), str(len(new))])
    return rows
