"""What a player shows of a trace: boxes that belong to steps, counters, a sentence for each step.

A view (`views/<kind>.py`) lays a Scene out as data; the player and its still picture draw it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from labkit.widgets.markup import rectangle, tag

# How a box may look; widgets.css says how, by whether its step is past, now, or yet to come:
#   computed  gold now, grey once it is past
#   read      navy now, then gone
#   loaded    pale now, then gone
#   tile      an outline before, gold now, navy once it is past
#   skipped   an outline, dark now
LOOKS = ("computed", "read", "loaded", "tile", "skipped")


class Box(NamedTuple):
    """A rectangle on the scene's grid, and the step it belongs to."""

    step: int
    look: str  # one of LOOKS
    x: int
    y: int
    width: int
    height: int


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
    boxes: list[Box]
    says: list[str]  # a sentence for each step, `**bold**` allowed
    meters: list[Meter]
    legend: list[tuple[str, str, str]]  # look, "past" or "now", words
    named: bool = False  # does a sentence need the label before it?
    cells: bool = False  # is each cell of a box drawn on its own?
    mask: bool = False  # does a pale triangle lie over what is in the future?
    words: list[tuple[str, int]] = field(default_factory=list)  # each with its step; -1: before all
    head: list[str] = field(default_factory=list)  # of the readings
    readings: list[list[list[str]]] = field(default_factory=list)  # a table's rows for each step

    def __post_init__(self):
        for box in self.boxes:
            if box.look not in LOOKS:
                raise ValueError(f"no box looks {box.look!r}: choose {', '.join(LOOKS)}")


def tense(step: int, now: int) -> str:
    """What a step is to the reader at step `now`; the twin of `tense` in play.js."""
    if step == now:
        return "now"
    return "past" if step < now else "future"


def svg(scene: Scene, now: int) -> str:
    """A scene at one step. Each path bears its step, so that the browser can move on."""
    parts = [
        tag(
            "path",
            class_=f"lk-k-{box.look}",
            data_k=box.step,
            data_t=tense(box.step, now),
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
    _, _, x, y, width, height = box
    if not cells:
        air = 0.03 * min(width, height)
        return rectangle(x + air, y + air, width - 2 * air, height - 2 * air)
    squares = [(x + i, y + j) for j in range(height) for i in range(width)]
    return "".join(rectangle(i + 0.08, j + 0.08, 0.84, 0.84) for i, j in squares)
