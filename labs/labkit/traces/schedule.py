"""An engine's schedule: who runs in each step, who waits, who leaves. `Engine.step` records it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleStep:
    """One step of an engine: who ran."""

    seconds: float
    # [row, request, "prefill" | "decode" | "check", tokens fed, context, tokens out] each
    rows: list
    waiting: list[int]
    preempted: list[int]
    finished: dict  # request -> reason

    @classmethod
    def of(cls, scheduler, plan, rows: list, seconds: float) -> ScheduleStep:
        """After the step that `plan` asked for; `rows` say what came of it."""
        waiting = [r.id for r in scheduler.waiting]
        requests = [w.request for w in plan.work]
        finished = {r.id: r.finished for r in requests if r.finished}
        return cls(seconds, rows, waiting, plan.preempted, finished)
