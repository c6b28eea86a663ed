"""Counts and bars without axes: a number always stands beside its bar, in a place of its own, so
nothing ever collides.
"""

from __future__ import annotations

from collections.abc import Callable

from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    AnimationGroup,
    Line,
    Rectangle,
    RoundedRectangle,
    VGroup,
)

from animations.stage.mobjects import dress
from animations.stage.style import EASE, FRAME, GROUND, INK, MIST, NAVY, TEXT, Display, Label


class Counter(VGroup):
    """Something that shows a value.

    `show(value)` draws it, `to(value)` is the animation that runs up to it.
    """

    value: float = 0

    def show(self, value: float) -> Counter:
        raise TypeError(f"{type(self).__name__} must say how it shows a value")

    def to(self, value: float, run_time=0.7) -> Animation:
        return Count(self, value, run_time=run_time)


class Count(Animation):
    """A counter runs from the value it shows to another."""

    def __init__(self, counter: Counter, value: float, **kwargs):
        self.first, self.last = counter.value, value
        super().__init__(counter, rate_func=EASE, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        alpha = self.rate_func(alpha)
        self.mobject.show(
            self.last if alpha >= 1 else self.first + (self.last - self.first) * alpha
        )


class Tally(Counter):
    """A whole number of at most `capacity` signs, in figures of equal width from `point` to the
    right (with edge RIGHT: ending there).
    """

    def __init__(self, value, point, edge=RIGHT, size="body", color=INK, weight="bold", capacity=9):
        self.edge = edge
        self.setting = dict(size=size, color=color, weight=weight)
        # moves with the tally, and is never drawn
        self.anchor = Line(point, point + 0.001 * UP, stroke_width=0)
        self.digits = Display(capacity)
        super().__init__(self.anchor, self.digits)
        self.show(value)

    def show(self, value):
        self.value, text = value, f"{round(value):,}"
        if text != self.digits.text:
            self.digits.set(Label(text, **self.setting).put(self.anchor, self.edge))
        return self


class Bar(Counter):
    """A name, its number, a bar of `length` units at the value `full`: three columns that start at
    `point`. indent: from there to the bars.
    """

    def __init__(self, name: str, point, full: float, length: float, look: str, indent: float):
        self.full = full
        self.length = length
        self.look = look
        self.label = Label(name, TEXT, INK).put(point, LEFT)
        start = point + indent * RIGHT
        self.number = Tally(0, start + 0.2 * LEFT, RIGHT, TEXT, NAVY)
        self.bar = Rectangle(width=length, height=0.3).move_to(start, LEFT)
        super().__init__(self.label, self.number, self.bar)
        self.show(0)

    def show(self, value):
        self.value = value
        self.number.show(value)
        width = max(1e-3, self.length * value / self.full)
        dress(self.bar.stretch_to_fit_width(width, about_point=self.bar.get_left()), self.look)
        if value <= 0:
            self.bar.set_opacity(0)
        return self


class BarPair(VGroup):
    """What was kept and what was done again, on one scale that ends where the frame does: two bars,
    one `gap` above the other.
    """

    NUMBER = 1.3  # room for a number

    def __init__(self, names: tuple[str, str], point, full: float, name_width: float, gap=0.6):
        indent = name_width + self.NUMBER
        length = FRAME - point[0] - indent
        self.bars = [
            Bar(name, point + i * gap * DOWN, full, length, look, indent)
            for i, (name, look) in enumerate(zip(names, ("stored", "again")))
        ]
        super().__init__(*self.bars)

    def to(self, first: float, second: float, run_time=0.7) -> Animation:
        return AnimationGroup(
            *[b.to(v) for b, v in zip(self.bars, (first, second))], run_time=run_time
        )


class BarChart(VGroup):
    """Upright bars on a common ground line; numbers above, names below. looks: for a name, its
    cell's look. write: a value's text.
    """

    WIDTH, GAP, HEIGHT = 1.1, 0.5, 2.0  # of a bar, between bars, of the highest bar

    def __init__(
        self,
        values: dict[str, float],
        looks: dict[str, str] | None = None,
        write: Callable[[float], str] = "{:,.0f}".format,
    ):
        top, step = max(values.values()), self.WIDTH + self.GAP
        self.bars = VGroup()
        super().__init__(
            Line(
                0.2 * LEFT,
                (len(values) * step - self.GAP + 0.2) * RIGHT,
                color=MIST,
                stroke_width=2,
            ),
            self.bars,
        )
        for i, (name, value) in enumerate(values.items()):
            bar = dress(
                Rectangle(width=self.WIDTH, height=max(1e-3, self.HEIGHT * value / top)),
                (looks or {}).get(name, "stored"),
            )
            self.bars.add(bar.move_to((i * step + self.WIDTH / 2) * RIGHT, DOWN))
            self.add(Label(write(value), "body", NAVY, "bold").put(bar.get_top() + 0.28 * UP))
            self.add(Label(name, "small", INK).put(bar.get_bottom() + 0.32 * DOWN))


class MemoryBar(Counter):
    """A memory of `full` units (its outline) and how much of it is used (its fill), with the text
    `write(value)` above.
    """

    def __init__(self, point, full: float, write: Callable[[float], str], length=4.0, height=0.34):
        self.full = full
        self.length = length
        self.write = write
        self.frame = (
            RoundedRectangle(corner_radius=0.07, width=length, height=height)
            .set_fill(GROUND, 1)
            .set_stroke(MIST, 1.5)
            .move_to(point, LEFT)
        )
        self.fill = dress(Rectangle(width=length, height=height), "stored").move_to(point, LEFT)
        self.caption = Display(40)
        super().__init__(self.frame, self.fill, self.caption)
        self.show(0)

    def show(self, value):
        if value > self.full:
            raise ValueError(f"this memory holds {self.full:,}, and {value:,} are to be shown")
        self.value = value
        self.fill.stretch_to_fit_width(
            max(1e-3, self.length * value / self.full), about_point=self.frame.get_left()
        ).set_opacity(float(value > 0))
        self.caption.set(
            Label(self.write(value), "small", INK).put(
                self.frame.get_corner(UP + LEFT) + 0.26 * UP, LEFT
            )
        )
        return self
