"""Which test sees which fault: the table that a chapter shows of its breakages."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def bench(faults: Iterable, tests: dict[str, Callable], symptom: Callable) -> list[dict]:
    """A row for each fault: what it breaks, how, what one sees, and the tests that fail.

    A fault, a class or one made of it, says its `condition` and its `switch`; tests and symptom are
    asked about it.
    """
    return [
        {
            "condition": fault.condition,
            "switch": fault.switch,
            "symptom": symptom(fault),
            "seen by": ", ".join(name for name, test in tests.items() if not test(fault))
            or "no test here",
        }
        for fault in faults
    ]
