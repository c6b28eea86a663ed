"""What a player shows of a trace: boxes that belong to steps, counters, a sentence for each step.

A view (`views/<kind>.py`) lays a Scene out as data; the player and its still picture draw it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from labkit.widgets.markup import rectangle, tag

# How a box may look; widgets.css says how, by whether its step is past, now, or yet to come. Those
# of the grid tell each other apart without colour: by the line round them and what fills them.
LOOKS = (
    "computed",  # gold now, grey once it is past
    "read",  # navy now, then gone
    "loaded",  # pale now, then gone
    "tile",  # an outline before, gold now, navy once it is past
    "skipped",  # an outline, dark now
    # of the grid
    "slot",  # a place where something may be: a thin outline
    "label",  # its text alone
    "held",  # gold now, then pale
    "shared",  # the same, in a double line
    "solid",  # gold with a ring now, then navy
    "kept",  # held by nobody, but still there: a dashed line
    "waiting",  # dots in a dotted line
    "lost",  # hatched
    "level",  # a square as large as its level, hollow below zero
    "mark",  # a thick outline, drawn over others
)


class Box(NamedTuple):
    """A rectangle on the scene's grid, from the step it belongs to until another."""

    step: int  # -1: before all
    look: str  # one of LOOKS
    x: int
    y: int
    width: int
    height: int
    # of the grid; a text that does not fit is left out, so it must be said elsewhere too
    text: str = ""
    until: int | None = None  # gone from this step on; None: it stays
    level: float | list[float] | None = None  # from -1 to 1; a list has one for each step


@dataclass(frozen=True)
class Meter:
    """Something counted: its value after each step (None: not yet), and what fills its bar."""

    label: str
    values: list
    full: float


@dataclass(frozen=True)
class Scene:
    """One trace, laid out on a grid of `columns` by `rows`."""

    label: str
    axes: str  # what runs across and what runs down, in words
    columns: int
    rows: int
    boxes: list[Box]  # later ones lie on top
    says: list[str]  # a sentence for each step, `**bold**` allowed
    meters: list[Meter]
    legend: list[tuple[str, str, str]]  # look, "past" or "now", words
    named: bool = False  # does a sentence need the label before it?
    cells: bool = False  # is each cell of a box drawn on its own?
    mask: bool = False  # does a pale triangle lie over what is in the future?
    words: list[tuple[str, int]] = field(default_factory=list)  # each with its step; -1: before all
    head: list[str] = field(default_factory=list)  # of the readings
    readings: list[list[list[str]]] = field(default_factory=list)  # a table's rows for each step
    # a grid has rows so many rem high, as wide as the card, and takes texts, levels and labels;
    # None: squares
    row: float | None = None
    widest: float | None = None  # rem that a column of the grid has at most
    down: list[str] = field(default_factory=list)  # a label for each row, "" for none
    across: list[str] = field(default_factory=list)  # and for each column

    def __post_init__(self):
        for box in self.boxes:
            if box.look not in LOOKS:
                raise ValueError(f"no box looks {box.look!r}: choose {', '.join(LOOKS)}")
            if self.row is None and (box.text or box.level is not None or box.until is not None):
                raise ValueError(
                    f"a {box.look!r} box with a text, a level or an end needs a grid: give the"
                    " scene a row height"
                )
            if isinstance(box.level, list) and len(box.level) != len(self.says):
                raise ValueError(
                    f"a box has {len(box.level)} levels, but the scene {len(self.says)} steps"
                )


def tense(step: int, until: int | None, now: int) -> str:
    """What a box is to the reader at step `now`; the twin of `tense` in play.js."""
    if until is not None and until <= now:
        return "gone"
    if step == now:
        return "now"
    return "past" if step < now else "future"


def picture(scene: Scene, now: int) -> str:
    """A scene at one step. Each of its parts bears its step, so that the browser can move on."""
    return svg(scene, now) if scene.row is None else grid(scene, now)


def grid(scene: Scene, now: int) -> str:
    """Boxes with words in them. They keep the size of their letters at every width."""
    parts = [
        tag("b", escape(words), class_="lk-down", style=f"--y: {y + 2}")
        for y, words in enumerate(scene.down)
        if words
    ]
    parts += [
        tag("b", escape(words), class_="lk-across", style=f"--x: {x + 2}")
        for x, words in enumerate(scene.across)
        if words
    ]
    moving = 0
    for box in scene.boxes:
        place = f"--x: {box.x + 2}; --y: {box.y + 2}; --w: {box.width}; --h: {box.height}"
        number = sign = None
        if box.level is not None:
            size, sign = sized(box.level[now] if isinstance(box.level, list) else box.level)
            place += f"; --level: {size:g}"
        if isinstance(box.level, list):
            number, moving = moving, moving + 1
        parts.append(
            tag(
                "span",
                escape(box.text),
                class_=f"lk-k-{box.look}",
                data_k=box.step,
                data_until=box.until,
                data_t=tense(box.step, box.until, now),
                data_sign=sign,
                data_level=number,
                style=place,
            )
        )
    widest = "1fr" if scene.widest is None else f"{scene.widest:g}rem"
    return tag(
        "div",
        "".join(parts),
        class_="lk-grid",
        style=f"--columns: {scene.columns}; --rows: {scene.rows}; --row: {scene.row:g}rem;"
        f" --widest: {widest}",
        role="img",
        aria_label=f"{scene.label}: {scene.axes}",
    )


def sized(level: float) -> tuple[float, str]:
    """A level as the side of a square, in hundredths of its cell's, and its sign.

    The area says how large it is.
    """
    return round(min(1.0, abs(level)) ** 0.5, 2), "-" if level < 0 else "+"


def levels(scenes: list[Scene]) -> list[list[float]]:
    """For each box whose level moves, in the order in which they are drawn, its side at each step,
    below zero where the level is.
    """
    moving = [box.level for s in scenes for box in s.boxes if isinstance(box.level, list)]
    return [[float(f"{sign}{size}") for size, sign in map(sized, level)] for level in moving]


def svg(scene: Scene, now: int) -> str:
    """Squares without words."""
    parts = [
        tag(
            "path",
            class_=f"lk-k-{box.look}",
            data_k=box.step,
            data_t=tense(box.step, box.until, now),
            d=outline(box, scene.cells),
        )
        for box in scene.boxes
    ]
    if scene.mask:
        parts.append(tag("path", class_="lk-mask", d=f"M0 0H{scene.columns}V{scene.rows}z"))
    return tag(
        "svg",
        "".join(parts),
        class_="lk-scene",
        style=f"--ratio: {scene.columns / scene.rows:.4g}",
        viewBox=f"0 0 {scene.columns} {scene.rows}",
        role="img",
        aria_label=f"{scene.label}: {scene.axes}",
    )


def outline(box: Box, cells: bool) -> str:
    """A box as an SVG path, or a square for each of its cells, with a little air round it."""
    _, _, x, y, width, height, *_ = box
    if not cells:
        air = 0.03 * min(width, height)
        return rectangle(x + air, y + air, width - 2 * air, height - 2 * air)
    squares = [(x + i, y + j) for j in range(height) for i in range(width)]
    return "".join(rectangle(i + 0.08, j + 0.08, 0.84, 0.84) for i, j in squares)
