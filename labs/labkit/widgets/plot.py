"""The drawing of `explore`: axes, and a path for each series of one answer.

All places are thousandths of the plot, so any width will do. Axes are computed once over all
answers, so that a change is seen as a change. The browser gets finished paths: it computes no place
itself.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from html import escape

from labkit.widgets.markup import rectangle, tag
from labkit.widgets.numbers import as_text, on_axis

# labels under an axis: at most so many, and so many characters fit on a phone
MOST_NUMBERS, MOST_NAMES, PHONE = 8, 14, 36
BARS = 800  # thousandths of the plot's width that bars fill; the rest is air


@dataclass(frozen=True)
class Scale:
    """From `low` to `high` in equal steps or, if `log`, in equal factors."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> int:
        """How far a value lies from low to high, in thousandths."""
        along = math.log10 if self.log else float
        length = along(self.high) - along(self.low)
        return round(1000 * (along(value) - along(self.low)) / (length or 1))

    def down(self, value: float) -> int:
        """Where it lies on a vertical axis: 0 is the top."""
        return 1000 - self.at(value)

    def value(self, share: float) -> float:
        """What lies so far from low to high, as a share of one."""
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True)
class Axes:
    """What stays while the knobs turn. A label is `(place, words)`."""

    chart: str  # "line", "bar" or "stack"
    x: list[int]  # the place of each x
    x_words: list[str]
    x_labels: list[tuple[int, str]]
    x_scale: Scale | None  # None for names, which have places only
    y: Scale
    y_labels: list[tuple[int, str]]
    unit: str  # of y
    limits: list[tuple[int, str]]  # drawn across
    uprights: list[tuple[int, str]]  # limits on x, drawn from bottom to top

    def place(self, x: float, y: float) -> list[int]:
        """Where a point lies. Raises ValueError where x is a name."""
        if self.x_scale is None:
            raise ValueError("a mark needs an x axis of numbers: use chart='line'")
        return [self.x_scale.at(x), self.y.down(y)]


def axes(
    chart: str,
    x: list,
    answers: list[list[list]],
    marks: list[float],
    *,
    limits: dict[str, float],
    uprights: dict[str, float],
    log_x: bool,
    log_y: bool,
    x_unit: str,
    y_unit: str,
) -> Axes:
    """Axes that hold the series of all answers, all marks' y and all limits on both axes.

    Raises ValueError for values that the chart or a logarithm cannot show.
    """
    if chart == "stack":
        drawn = [sum(y or 0 for y in ys) for series in answers for ys in zip(*series)]
    else:
        drawn = [y for series in answers for ys in series for y in ys]
    scale, ticks = vertical([*drawn, *marks, *limits.values()], log_y, chart != "line")
    x_scale, places, x_labels = horizontal(x, chart, log_x, list(uprights.values()))
    return Axes(
        chart=chart,
        x=places,
        x_words=[as_text(v, x_unit) for v in x],
        x_labels=[(at, as_text(v, x_unit)) for at, v in x_labels],
        x_scale=x_scale,
        y=scale,
        y_labels=y_labels(scale, ticks, y_unit),
        unit=y_unit,
        limits=[(scale.down(limit), name) for name, limit in limits.items()],
        uprights=[(x_scale.at(limit), name) for name, limit in uprights.items()] if x_scale else [],
    )


def vertical(values: list, log: bool, bars: bool) -> tuple[Scale, list[float]]:
    """A scale that holds all values (None is missing), and its ticks.

    Raises ValueError for what it cannot show.
    """
    values = [v for v in values if v is not None]
    if not values:
        raise ValueError(
            "there is nothing to draw: every value is missing, infinite or not a number"
        )
    low, high = min(values), max(values)
    if log and low <= 0:
        raise ValueError(f"log_y needs values above zero, but the smallest is {low:g}")
    if bars and (low < 0 or log):
        unfit = "a logarithm" if log else f"{low:g}"
        raise ValueError(f"bars stand on zero, so they can't show {unfit}: use chart='line'")
    if log:
        low, high, ticks = decades(low, high)
        return Scale(low, high, log), ticks
    low, high = min(low, 0), max(high, 0)
    step = round_step((high - low) / 4 or 1)
    first, last = steps(low, high, step)
    ticks = [step * i for i in range(first, last + 1)]
    return Scale(ticks[0], ticks[-1]), ticks


def steps(low: float, high: float, step: float) -> tuple[int, int]:
    """The first and the last multiple of a step that hold low and high between them."""
    first = math.floor(low / step + 1e-9)
    return first, max(math.ceil(high / step - 1e-3), first + 1)


def round_step(rough: float) -> float:
    """The next step of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)


def decades(low: float, high: float) -> tuple[float, float, list[float]]:
    """Ends and ticks of a logarithmic axis: ticks at 1, 2, 5 within two decades, else at powers of
    ten, seven at most.
    """
    first = math.floor(math.log10(low) + 1e-9)
    last = max(math.ceil(math.log10(high) - 1e-9), first + 1)
    if last - first > 2:
        every = math.ceil((last - first) / 6)
        return 10.0**first, 10.0**last, [10.0**e for e in range(first, last + 1, every)]
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    start = max(i for i, tick in enumerate(ticks) if tick <= low * 1.001)
    end = next(i for i, tick in enumerate(ticks) if tick >= high * 0.999 and i > start)
    return ticks[start], ticks[end], ticks[start : end + 1]


def y_labels(scale: Scale, ticks: list[float], unit: str) -> list[tuple[int, str]]:
    """The words at a vertical axis's ticks; where a logarithm leaves powers of ten out, their lines
    stay, without words, so that a factor of ten can be seen.
    """
    labels = [(scale.down(tick), on_axis(tick, unit)) for tick in ticks]
    if scale.log and len(ticks) > 1 and ticks[1] > 50 * ticks[0]:
        powers = range(round(math.log10(ticks[0])), round(math.log10(scale.high)) + 1)
        wordless = [10.0**e for e in powers if 10.0**e not in ticks]
        labels += [(scale.down(power), "") for power in wordless]
    return labels


def horizontal(
    x: list, chart: str, log: bool, limits: list[float]
) -> tuple[Scale | None, list[int], list[tuple]]:
    """The scale (None for names), the place of each x, and `(place, value)` of what is labelled.

    Raises ValueError for what has no logarithm, and for limits among names.
    """
    numeric = chart == "line" and all(isinstance(v, (int, float)) for v in x)
    if log and not (numeric and min([*x, *limits]) > 0):
        raise ValueError("log_x needs a line over numbers above zero")
    if numeric:
        scale = Scale(min([*x, *limits]), max([*x, *limits]), log)
        return scale, [scale.at(v) for v in x], [(scale.at(v), v) for v in _labelled(x, log)]
    if limits:
        raise ValueError("x_lines need an x axis of numbers: use chart='line'")
    places = [round(1000 * (i + 0.5) / len(x)) for i in range(len(x))]
    every = math.ceil(len(x) / MOST_NAMES)
    return None, places, list(zip(places[::every], x[::every]))


def _labelled(x: list, log: bool) -> list:
    """Which numbers are written under the axis: x itself where it is short, else round ones."""
    if log and len(x) > 12:
        return [tick for tick in decades(min(x), max(x))[2] if min(x) <= tick <= max(x)]
    if not log and len(x) > MOST_NUMBERS:
        step = round_step((max(x) - min(x)) / 5 or 1)
        first = math.ceil(min(x) / step - 1e-9)
        last = math.floor(max(x) / step + 1e-9)
        return [step * i for i in range(first, last + 1)]
    return x[:: math.ceil(len(x) / MOST_NUMBERS)]


def line(places: list[int], ys: list, scale: Scale) -> str:
    """A series as an SVG path. It breaks where a value is missing; a value alone is a dot."""
    path = ""
    missing = lambda point: point[1] is None
    for gap, run in itertools.groupby(zip(places, ys), missing):
        if not gap:
            points = [f"{x} {scale.down(y)}" for x, y in run]
            path += "M" + " ".join(points) + "h0" * (len(points) == 1)
    return path


def bars(axes: Axes, series: list[list]) -> list[list[tuple]]:
    """`(left, top, width, height)` of each bar of each series; a missing value has no height."""
    stacked = axes.chart == "stack"
    group = BARS / len(axes.x)
    width = group if stacked else group / len(series)
    below = [0.0] * len(axes.x)  # what the bars of earlier series hold
    boxes = []
    for j, ys in enumerate(series):
        boxes.append([])
        for i, y in enumerate(ys):
            left = axes.x[i] - group / 2 + (0 if stacked else j * width)
            top = axes.y.down(below[i] + (y or 0))
            bottom = axes.y.down(below[i])
            boxes[-1].append((round(left), top, round(left + width) - round(left), bottom - top))
            if stacked:
                below[i] += y or 0
    return boxes


def paths(axes: Axes, series: list[list]) -> list[str]:
    """One SVG path for each series."""
    if axes.chart == "line":
        return [line(axes.x, ys, axes.y) for ys in series]
    return ["".join(rectangle(*box) for box in boxes if box[3] > 0) for boxes in bars(axes, series)]


def stretched(drawn: list[tuple[str, str]], cls: str, size: str = "1000 1000") -> str:
    """Paths, `(class, path)` each, that stretch with the card; strokes and letters do not."""
    return tag(
        "svg",
        "".join(tag("path", class_=name, d=path) for name, path in drawn),
        class_=cls,
        viewBox=f"0 0 {size}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
        overflow="visible",
    )


def svg(parts: list[str], alt: str) -> str:
    """A whole picture."""
    return tag("svg", "".join(parts), class_="lk-plot", role="img", aria_label=alt)


def gold(place: list[int]) -> str:
    """The one active point."""
    x, y = map(percent, place)
    return tag("circle", class_="lk-now", cx=x, cy=y)


def values(axes: Axes, picture: dict) -> list[str]:
    """The numbers over the bars. On a phone there is no room for many."""
    cls = "lk-value" if len(axes.x) <= 4 else "lk-value lk-minor"
    words = itertools.chain(*picture["y"])
    return [
        label(x, y, word, dy="-0.4em", text_anchor="middle", class_=cls)
        for (x, y), word in zip(picture["over"], words)
    ]


def frame(axes: Axes) -> list[str]:
    """Ticks, labels and limits. On a phone every other label of a crowded axis is left out."""
    parts = []
    for at, words in axes.y_labels:
        parts.append(_across(at))
        if words:
            parts.append(label(0, at, words, dx=-8, dy="0.35em", text_anchor="end"))
    crowded = sum(len(words) + 2 for _, words in axes.x_labels) > PHONE
    for i, (at, words) in enumerate(axes.x_labels):
        minor = "lk-minor" if crowded and i % 2 else None
        parts.append(label(at, 1000, words, dy="1.5em", text_anchor="middle", class_=minor))
    for at, words in axes.limits:
        parts.append(_across(at, class_="lk-limit"))
        parts.append(label(0, at, words, dx=6, dy="-0.4em", class_="lk-limit"))
    for at, words in axes.uprights:
        x = percent(at)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2="100%", class_="lk-limit"))
        # on the side that has room, above the picture
        anchor = "end" if at > 500 else "start"
        upright = "lk-limit lk-upright"
        parts.append(label(at, 0, words, dy="-0.5em", text_anchor=anchor, class_=upright))
    return parts


def _across(at: int, **attributes) -> str:
    return tag("line", x1=0, x2="100%", y1=percent(at), y2=percent(at), **attributes)


def label(x: float, y: float, words: str, **attributes) -> str:
    """Text at a place of the plot."""
    return tag("text", escape(words), x=percent(x), y=percent(y), **attributes)


def percent(thousandths: float) -> str:
    """A place as SVG has it."""
    return f"{thousandths / 10:g}%"
