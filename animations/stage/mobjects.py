"""Domain objects: tokens, cells, caches, layers, queries.

A method that returns an animation is named for what happens.

Every object draws itself in the colours of its `look`: a name in LOOKS.
"""

from __future__ import annotations

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    AnimationGroup,
    Circle,
    Create,
    FadeIn,
    FadeOut,
    LaggedStart,
    Mobject,
    RoundedRectangle,
    VGroup,
    VMobject,
)

from animations.stage.style import (
    GOLD,
    GROUND,
    MIST,
    MONO,
    MUTED,
    NAVY,
    OUTLINE,
    PANEL,
    RED,
    SKY,
    SMALLEST,
    Display,
    Label,
)

LOOKS = {  # fill, its opacity, outline, its width
    "plain": (GROUND, 1, NAVY, 2),  # a token at rest
    "empty": (PANEL, 1, MIST, 2),  # reserved, nothing in it
    "stored": (NAVY, 1, NAVY, 2),  # kept, to be read again
    "active": (GOLD, 1, OUTLINE, 2.5),  # the one thing now at work
    "again": (RED, 0.3, RED, 1.5),  # work that had been done before
    "done": (SKY, 1, NAVY, 1.5),  # worked on, nothing kept
    "layer": (SKY, 1, NAVY, 2),
    "marked": (SKY, 1, SKY, 0),  # a ground under what has just changed
}


def dress(shape: VMobject, look: str) -> VMobject:
    """Give a shape the colours of a look, and return it."""
    fill, opacity, outline, width = LOOKS[look]
    return shape.set_fill(fill, opacity).set_stroke(outline, width, 1)


def token_text(token: str) -> str:
    """What a chip shows: the chip's edge stands for a leading space; white space alone is drawn as
    a sign.
    """
    signs = token.replace("\n", "↵").replace("\t", "⇥")
    return signs.strip(" ") or "␣"


class Cell(RoundedRectangle):
    """One slot or one piece of work."""

    def __init__(self, look="empty", width=0.9, height=0.36):
        super().__init__(corner_radius=0.07, width=width, height=height)
        self.look(look)

    def look(self, look: str) -> Cell:
        return dress(self, look)


class Chip(VGroup):
    """A token in its box.

    The text shrinks to fit, down to what is legible at 480p, and is then cut with an ellipsis.
    """

    def __init__(self, token: str, width=1.0, height=0.52, cap=0.2):
        self.token = token
        self.box = dress(RoundedRectangle(corner_radius=0.11, width=width, height=height), "plain")
        super().__init__(self.box, self.fit(token, width - 0.12, cap).put(self.box))

    @staticmethod
    def fit(token: str, width: float, cap=0.2) -> Label:
        """The token's label at most `width` wide."""
        text = token_text(token)
        label = Label(text, cap, NAVY, "medium", MONO)
        if label.width <= width:
            return label
        cap = max(SMALLEST, cap * width / label.width)
        while (label := Label(text, cap, NAVY, "medium", MONO)).width > width + 1e-6 and len(
            text
        ) > 2:
            text = text[:-2] + "…"
        return label

    def look(self, look: str) -> Chip:
        dress(self.box, look)
        return self

    def feed(self, layer: Mobject) -> Animation:
        """What the token stands for slides out from under its chip and into the layer."""
        pulse = dress(Circle(0.1), "active").move_to(self).set_z_index(-1)
        return pulse.animate(remover=True).set_y(layer.get_y())


class CacheRow(VGroup):
    """A row of a cache: a name, and slots that fill from the left.

    `cells` holds what is stored, oldest first.
    """

    def __init__(self, name: str, places: list[np.ndarray], width=0.9, height=0.36):
        self.slots = VGroup(*[Cell("empty", width, height).move_to(p) for p in places])
        self.label = Label(name, "small", MUTED, "medium").beside(self.slots)
        self.cells: list[Cell] = []
        super().__init__(self.label, self.slots)

    def write(self, sources: list[np.ndarray], lag=0.0) -> Animation:
        """New cells travel, active, from these points into the next free slots."""
        first = len(self.cells)
        targets = self.slots[first : first + len(sources)]
        if len(targets) < len(sources):
            raise ValueError(
                f"the cache has {len(self.slots) - first} free slots, and {len(sources)} cells are"
                " to be written"
            )
        new = [Cell("active", t.width, t.height).move_to(s) for s, t in zip(sources, targets)]
        self.cells += new
        return LaggedStart(*[c.animate.move_to(t) for c, t in zip(new, targets)], lag_ratio=lag)

    def settle(self) -> Animation:
        """What was just written becomes what is stored."""
        return AnimationGroup(
            *[c.animate.look("stored") for c in self.cells if c.get_fill_color() == GOLD]
        )


class LayerBox(VGroup):
    """A layer of the model. Drawn above what passes through it."""

    def __init__(self, text: str, width: float, height=0.42):
        self.box = dress(RoundedRectangle(corner_radius=0.12, width=width, height=height), "layer")
        super().__init__(self.box, Label(text, "small", NAVY, "medium").put(self.box))
        self.set_z_index(2)


class Query(VGroup):
    """The query of one token, and the comb with which it reads cells that lie below it."""

    def __init__(self, point, radius=0.22):
        self.disc = dress(Circle(radius), "active").move_to(point)
        super().__init__(self.disc, Label("Q", "small", NAVY, "bold").put(self.disc))
        self.comb = VGroup()

    def appear(self) -> Animation:
        return FadeIn(self, shift=0.15 * DOWN)

    def read(self, cells: list[Cell], lag=0.7) -> Animation:
        """A line runs from the query over the cells, and one tooth drops to each, nearest first."""
        x0, y, teeth = self.disc.get_x(), self.disc.get_y(), []
        reached = {side: self.disc.get_edge_center(side * RIGHT)[0] for side in (-1, 1)}
        for cell in sorted(cells, key=lambda c: abs(c.get_x() - x0)):
            x, top = cell.get_x(), cell.get_top() + 0.04 * UP
            if abs(x - x0) < self.disc.width / 2:
                corners = [self.disc.get_bottom(), top]
            else:
                side = 1 if x > x0 else -1
                corners = [[reached[side], y, 0], [x, y, 0], top]
                reached[side] = x
            teeth.append(VMobject(color=NAVY, stroke_width=2.5).set_points_as_corners(corners))
        self.comb = VGroup(*teeth)
        return LaggedStart(*[Create(t) for t in teeth], lag_ratio=lag)

    def leave(self) -> Animation:
        return AnimationGroup(FadeOut(self.comb), FadeOut(self, shift=0.15 * UP))


class Bracket(VGroup):
    """A bracket along one side of a mobject (DOWN or UP), with a caption outside it."""

    def __init__(self, mobject, caption: str, side=DOWN, gap=0.14, color=NAVY):
        left = mobject.get_corner(side + LEFT) + gap * side
        right = mobject.get_corner(side + RIGHT) + gap * side
        line = VMobject(color=color, stroke_width=2).set_points_as_corners(
            [left, left + 0.12 * side, right + 0.12 * side, right]
        )
        label = Label(caption, "body", color, "semibold")
        label.put((left + right) / 2 + (0.12 + 0.16 + label.cap / 2) * side)
        super().__init__(line, label)


class Note(Display):
    """A line of text that is replaced, never overlaid: the old one is gone before the new one
    shows.
    """

    def __init__(
        self, text: str, point, edge=LEFT, size="body", color=MUTED, weight="regular", capacity=60
    ):
        super().__init__(capacity)
        self.place = np.asarray(point, float)
        self.edge = edge
        self.setting = dict(size=size, color=color, weight=weight)
        self.set(self.label(text))

    def label(self, text: str) -> Label:
        return Label(text, **self.setting).put(self.place, self.edge)

    def change(self, text: str) -> Animation:
        return Rewrite(self, text)


class Rewrite(Animation):
    """A note's text fades out, then the new one in."""

    def __init__(self, note: Note, text: str, **kwargs):
        self.old = note.label(note.text)
        self.new = note.label(text)
        super().__init__(note, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        alpha = self.rate_func(alpha)
        self.mobject.set(self.old if alpha < 0.5 else self.new, abs(1 - 2 * alpha))
