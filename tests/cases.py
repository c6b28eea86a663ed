"""What a chapter tells the tests of every chapter (`tests/every`) about itself: data, no tests.

`tests/chapters/ch05_swa.py` holds

    LABS                    {file of a lab: LabCase}
    wrong_answers(right)    [(exercise, a wrong answer, words of the hint)] for {exercise: answer}

and what only one chapter tests lies beside it, in `tests/chapters/test_ch05_swa.py`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType

from labkit import chapters, results
from labkit.chapters import Chapter
from labkit.lab import Lab, labs


@dataclass(frozen=True)
class LabCase:
    """How one lab is tested."""

    real: bool = False  # it runs SmolLM2
    # its checkpoint asks for what neither a clock nor a last bit decides: a quick run says go,
    # wherever it is run
    steady: bool = False
    # in the first row that has these values, others; and words of the reason why to stop
    doctored: list[tuple[dict, dict, str]] = field(default_factory=list)
    # in all rows that have these values, others for keys they have: the clock taken out of it, as a
    # quiet machine would give the rows
    calm: list[tuple[dict, dict]] = field(default_factory=list)
    # where a quick run must not decide: made by hand if it is too small for the checkpoint,
    # `stored` if that asks what a real model comes out at, which a last bit may change
    rows: list[dict] | None = None


def stored(name: str) -> list[dict]:
    """The rows of a stored result, such as `ch05/sinks`."""
    return results.load(name)["rows"]


def is_begun(lab: Lab) -> bool:
    """A lab of a chapter that has measured nothing yet: only there may a result be missing."""
    return not any(results.folder().glob(f"ch{lab.chapter}/*.json"))


def of(chapter: Chapter) -> ModuleType:
    """A chapter's module of data. LookupError, in one sentence, when it has none."""
    try:
        return import_module(f"tests.chapters.{chapter.folder}")
    except ModuleNotFoundError:
        raise LookupError(
            f"chapter {chapter.number} has labs or a page, so tests/chapters/{chapter.folder}.py"
            " must say how they are tested"
        ) from None


def lab_cases() -> dict[str, LabCase]:
    """Every lab's case by the lab's id. LookupError for a lab that has none."""
    found = {}
    for chapter in chapters.every():
        if not chapter.lab_names:
            continue
        cases = of(chapter).LABS
        for name in chapter.lab_names:
            if name not in cases:
                raise LookupError(f"tests/chapters/{chapter.folder}.py has no LabCase for {name!r}")
            found[f"CH{chapter.number}-{name.upper()}"] = cases[name]
    return found


@functools.cache
def quick_rows(id: str) -> list[dict]:
    """One quick run of a lab, shared by all tests of a process. Copy it before you change it.

    It has the threads that the tests have: no time it takes is quoted, and several processes share
    the cores.
    """
    return replace(labs()[id], threads=None).measure(quick=True)


def reads_well(text: str) -> bool:
    """Can a reader be shown it? Whole sentences in one line, with every gap filled."""
    gap = re.search(r"[{}\n]|  |\bnan\b|\binf\b|, ?[.,]| [.,;:]", text)
    return len(text) > 60 and text.endswith(".") and not text[0].islower() and not gap


@functools.cache
def report(scene_class: type):
    """What the audit says of a scene: each is inspected once, whatever is asked of it."""
    from animations.stage.audit import inspect

    return inspect(scene_class)
