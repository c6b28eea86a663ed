"""Checks for the exercises: they say pass, or why not.

They never raise, least of all on a cell that is not solved yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import import_module

from labkit import chapters
from labkit.config import UnknownName

SIGNS = {True: "✓", False: "✗", None: "…"}
KINDS = {True: "pass", False: "fail", None: "open"}


@dataclass(frozen=True)
class Verdict:
    """What a check found. `passed` is True, False, or None for an exercise not solved yet."""

    exercise: str
    passed: bool | None
    message: str

    def __str__(self):
        return f"{SIGNS[self.passed]} Exercise {self.exercise}: {self.message}"

    __repr__ = __str__

    def _repr_html_(self):
        kind = f"lk-verdict lk-verdict-{KINDS[self.passed]}"
        return f'<p class="{kind}">{escape(str(self))}</p>'


class Wrong(Exception):
    """An answer that is not right yet, and why."""


class Unsolved(Exception):
    """An answer that is not there yet."""


def expect(condition: bool, why_not: str) -> None:
    """Raise Wrong with a sentence that helps, unless the condition holds."""
    if not condition:
        raise Wrong(why_not)


def of_chapter(number: str) -> dict:
    """A chapter's checks by exercise; none where it has none, or where there is no such chapter."""
    chapter = next((c for c in chapters.every() if c.number == number), None)
    if chapter is None or not chapter.checks.exists():
        return {}
    return import_module(f"{chapter.package}.checks").CHECKS


def check(exercise: str, answer) -> Verdict:
    """Check an answer: `check("02.2", my_function)`.

    Raises ValueError for an exercise that does not exist, and nothing else.
    """
    known = of_chapter(exercise.split(".")[0])
    if exercise not in known:
        raise UnknownName("exercise", exercise, known)
    try:
        if answer is None or answer is Ellipsis:
            raise Unsolved
        return Verdict(exercise, True, known[exercise](answer))
    except Unsolved:
        return Verdict(exercise, None, "not solved yet. Fill in the ... and run the cell again.")
    except Wrong as e:
        return Verdict(exercise, False, str(e))
    except Exception as e:  # the learner's code may fail in any way
        return Verdict(exercise, False, f"your code stopped with {type(e).__name__}: {e}")


def call(function, *args, **kwargs):
    """The learner's function on some input; an unfilled body is no puzzle."""
    result = function(*args, **kwargs)
    if result is None or result is Ellipsis:
        raise Unsolved
    return result
