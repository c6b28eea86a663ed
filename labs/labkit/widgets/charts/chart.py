"""What all kinds of picture share: what `explore` was told, one answer, and the order of work."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from html import escape
from numbers import Real

from labkit.widgets import markup


@dataclass(frozen=True)
class Options:
    """What `explore` was told about its picture; the same for every answer."""

    chart: str
    title: str
    x: list | None = None
    rows: list | None = None  # of a matrix
    bins: int = 40  # of a histogram
    x_label: str = ""
    y_label: str = ""
    x_unit: str = ""
    y_unit: str = ""
    log_x: bool = False
    log_y: bool = False
    lines: dict[str, float] = field(default_factory=dict)  # limits on y, by name
    x_lines: dict[str, float] = field(default_factory=dict)  # limits on x, by name


@dataclass(frozen=True)
class Answer:
    """What the function says to one choice."""

    names: list  # of its series, points or rows: the same in every answer
    series: list  # its numbers, rounded as the page has them
    say: str | None = None
    mark: tuple | None = None  # what to show in gold, as x and y
    more: dict = field(default_factory=dict)  # what only one kind takes


class Chart(ABC):
    """One kind of picture: `read` each answer, `lay` the axes over all, then draw each.

    A picture is a dict of what another answer has otherwise. explore.js puts its parts in place:
    `d` the stretched paths, `y` the table's columns as text, and what one kind alone has.
    """

    takes = ("series", "say", "mark")  # what the function may give
    noun = "series"

    def __init__(self, options: Options):
        self.options = options

    @abstractmethod
    def read(self, full: dict, call: str) -> Answer:
        """One answer, checked; `call` says in errors which. `full` holds `takes` only.

        Raises ValueError, one sentence.
        """

    @abstractmethod
    def lay(self, answers: list[Answer]) -> None:
        """Axes that hold all answers, so that a change is seen as a change.

        Raises ValueError for what they cannot show.
        """

    @abstractmethod
    def picture(self, answer: Answer) -> dict:
        """What the browser draws for an answer."""

    @abstractmethod
    def sentence(self, answer: Answer) -> str:
        """What the picture shows in words, where the function says nothing."""

    @abstractmethod
    def body(self, picture: dict) -> str:
        """Legend and picture as HTML."""

    @abstractmethod
    def table(self, picture: dict) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the numbers behind the picture."""

    def notes(self, picture: dict) -> list[str]:
        """What stands under the table besides."""
        return []

    def weight(self, answer: Answer):
        """What of an answer is surely shipped: enough to refuse a page that gets too heavy."""
        return answer.series

    def spec(self) -> dict:
        """What the browser needs to know besides its pictures."""
        return {}

    def box(self, svg: str, gutter: int, cls: str = "", foot: str = "") -> str:
        """A picture between the labels of its axes; `gutter` is the widest of y, in letters."""
        parts = [
            markup.tag("p", escape(self.options.y_label), class_="lk-y"),
            svg,
            markup.tag("p", escape(self.options.x_label), class_="lk-x"),
            foot,
        ]
        style = f"--gutter: {gutter + 2}ch"
        return markup.tag("div", "".join(parts), class_=f"lk-chart {cls}".strip(), style=style)


def finite(value) -> bool:
    """Is it a number that a picture can show? Of Python, NumPy or torch."""
    if isinstance(value, bool) or not (isinstance(value, Real) or hasattr(value, "item")):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):  # an array
        return False


def pair(value) -> bool:
    """Is it an x and a y?"""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(finite, value))


def checked_mark(full: dict, call: str) -> tuple | None:
    """The point to show in gold, an x and a y."""
    mark = full.get("mark")
    if mark is not None and not pair(mark):
        raise ValueError(f"{call} has the mark {mark!r}: give two finite numbers, x and y")
    return mark


def checked_lines(lines: dict, what: str) -> dict[str, float]:
    """Limits by name, finite each."""
    for name, value in lines.items():
        if not finite(value):
            raise ValueError(f"{what} puts {name!r} at {value!r}: give a finite number")
    return lines
