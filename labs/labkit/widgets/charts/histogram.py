"""How many values lie where: a weight matrix and the levels it is rounded to."""

from __future__ import annotations

import itertools
import math
from html import escape

import numpy as np

from labkit.widgets import markup, plot
from labkit.widgets.charts.chart import (
    Answer,
    Chart,
    checked_lines,
    checked_mark,
    finite,
)
from labkit.widgets.numbers import as_text, on_axis

LEAST = 0.5  # the foot of a logarithmic axis of counts: a bin of one can be seen
MOST_LISTED = 16  # levels that are written out


class Histogram(Chart):
    """`fn` gives values, which are counted here in about `bins` bins, the same for every answer; or
    counts, one fewer than `x`, the bins' edges. `{"name": …}` for several.

    x_lines: {"name": value or list of values}, drawn from bottom to top; they may differ between
    answers, their names may not. What stays is told to `explore` as x_lines.
    """

    takes = ("series", "say", "mark", "x_lines")

    def read(self, full: dict, call: str) -> Answer:
        given = full["series"] if isinstance(full["series"], dict) else {"": full["series"]}
        edges = self.options.x
        if edges is not None:
            rising = all(map(finite, edges)) and all(a < b for a, b in itertools.pairwise(edges))
            if len(edges) < 2 or not rising:
                raise ValueError("x of a histogram are the edges of its bins: two or more, rising")
        if not given:
            raise ValueError(f"{call} gives no values")
        series = [self._values(name, values, call) for name, values in given.items()]
        lines = full.get("x_lines") or {}
        if not isinstance(lines, dict):
            raise ValueError(f"{call} has x_lines {lines!r}: give {{'name': value or values}}")
        several = {name: v if hasattr(v, "__len__") else [v] for name, v in lines.items()}
        for name, values in several.items():
            for value in values:
                checked_lines({name: value}, f"{call}: x_lines")
        more = {"lines": {name: [float(v) for v in values] for name, values in several.items()}}
        return Answer(list(given), series, full.get("say"), checked_mark(full, call), more)

    def _values(self, name: str, values, call: str) -> np.ndarray:
        of = f" for {name}" if name else ""
        try:
            array = np.asarray(values, float).ravel()
        except (TypeError, ValueError):
            raise ValueError(f"{call} gives {values!r}{of}: give numbers") from None
        if not array.size:
            raise ValueError(f"{call} gives no values{of}")
        if bad := int((~np.isfinite(array)).sum()):
            raise ValueError(f"{call} gives {bad} values{of} that are infinite or not a number")
        edges = self.options.x
        if edges is not None and array.size != len(edges) - 1:
            raise ValueError(
                f"{call} gives {array.size} counts{of}, but x has {len(edges)} edges, so"
                f" {len(edges) - 1} bins"
            )
        if edges is not None and array.min() < 0:
            raise ValueError(f"{call} counts {array.min():g}{of}: no bin holds fewer than none")
        return array

    def weight(self, answer: Answer):
        """Values are counted: what is shipped is a number for each bin."""
        return [[0] * self.options.bins for _ in answer.series]

    def lay(self, answers: list[Answer]) -> None:
        o = self.options
        if o.bins < 1:
            raise ValueError(f"bins is {o.bins}: a histogram needs one or more")
        if o.log_x:
            raise ValueError("a histogram's x is not logarithmic: take the logarithm of the values")
        self.names = answers[0].names
        self.marks = list(answers[0].more["lines"])
        for answer in answers:
            if list(answer.more["lines"]) != self.marks:
                raise ValueError(
                    f"an answer has the x_lines {list(answer.more['lines'])}, but the first had"
                    f" {self.marks}"
                )
        self.edges = self._edges(answers)
        counts = [count for a in answers for series in self._counts(a) for count in series]
        lines = checked_lines(o.lines, "lines")
        uprights = checked_lines(o.x_lines, "x_lines")
        tall = [*counts, *lines.values(), *(a.mark[1] for a in answers if a.mark)]
        if o.log_y:
            top = max(math.ceil(math.log10(max(tall)) - 1e-9), 1) if max(tall) > 0 else 1
            ticks = [10.0**e for e in range(0, top + 1, math.ceil(top / 6))]
            scale = plot.Scale(LEAST, 10.0**top, True)
            if min([*lines.values(), LEAST]) < LEAST:
                raise ValueError(
                    f"log_y begins at {LEAST}, but a line lies at {min(lines.values())}"
                )
        else:
            scale, ticks = plot.vertical(tall, False, True)
        moving = [v for a in answers for values in a.more["lines"].values() for v in values]
        marked = [a.mark[0] for a in answers if a.mark]
        ends = [self.edges[0], self.edges[-1], *moving, *marked, *uprights.values()]
        x_scale = plot.Scale(float(min(ends)), float(max(ends)))
        step = plot.round_step((x_scale.high - x_scale.low) / 8)
        first, last = (math.ceil(x_scale.low / step - 1e-9), math.floor(x_scale.high / step + 1e-9))
        x_ticks = [step * i for i in range(first, last + 1)]
        between = list(itertools.pairwise(self.edges))
        self.axes = plot.Axes(
            chart="histogram",
            x=[x_scale.at((a + b) / 2) for a, b in between],
            x_words=[f"{_edge(a, o.x_unit)} to {_edge(b, o.x_unit)}" for a, b in between],
            x_labels=[(x_scale.at(tick), on_axis(tick, o.x_unit)) for tick in x_ticks],
            x_scale=x_scale,
            y=scale,
            y_labels=plot.y_labels(scale, ticks, o.y_unit),
            unit=o.y_unit,
            limits=[(scale.down(limit), name) for name, limit in lines.items()],
            uprights=[(x_scale.at(limit), name) for name, limit in uprights.items()],
        )

    def _edges(self, answers: list[Answer]) -> list[float]:
        """Of bins with round edges, one of them zero, that hold all values."""
        if self.options.x is not None:
            return [float(edge) for edge in self.options.x]
        low = min(float(values.min()) for a in answers for values in a.series)
        high = max(float(values.max()) for a in answers for values in a.series)
        step = plot.round_step((high - low) / self.options.bins or abs(high) / 10 or 1)
        first, last = plot.steps(low, high, step)
        while first * step > low:  # a last bit may have been lost
            first -= 1
        while last * step < high:
            last += 1
        return [i * step for i in range(first, last + 1)]

    def _counts(self, answer: Answer) -> list[list[float]]:
        """How many values each bin holds; the last holds its right edge too."""
        if self.options.x is not None:
            return [[_whole(v) for v in counts] for counts in answer.series]
        return [np.histogram(values, self.edges)[0].tolist() for values in answer.series]

    def picture(self, answer: Answer) -> dict:
        counts = self._counts(answer)
        axes = self.axes
        places = [axes.x_scale.at(edge) for edge in self.edges]
        rules = [
            "".join(f"M{axes.x_scale.at(v)} 0v1000" for v in answer.more["lines"][name])
            for name in self.marks
        ]
        picture = {
            "d": [self._outline(places, series) for series in counts] + rules,
            "y": [[as_text(count, axes.unit) for count in series] for series in counts],
        }
        if self.marks:
            picture["notes"] = [self._note(name, answer.more["lines"][name]) for name in self.marks]
        if answer.mark:
            picture["mark"] = axes.place(*answer.mark)
        return picture

    def _outline(self, places: list[int], counts: list[float]) -> str:
        """The silhouette of the bins; an empty bin has none."""
        scale, path, up = self.axes.y, "", False
        for (left, right), count in zip(itertools.pairwise(places), counts):
            if count > 0:
                top = scale.down(max(count, scale.low))
                path += f"V{top}H{right}" if up else f"M{left} 1000V{top}H{right}"
            elif up:
                path += "V1000"
            up = count > 0
        return path + "V1000" * up

    def _note(self, name: str, values: list[float]) -> str:
        """Where the lines of a name stand, for the table."""
        unit = self.options.x_unit
        words = [as_text(v, unit) for v in values[:MOST_LISTED]]
        more = len(values) - MOST_LISTED
        tail = f" and {more} more, to {as_text(values[-1], unit)}" if more > 0 else ""
        return f"{name}: {', '.join(words)}{tail}"

    def sentence(self, answer: Answer) -> str:
        """How many values, and where most of them are."""
        told = []
        for name, counts in zip(self.names, self._counts(answer)):
            fullest = max(range(len(counts)), key=lambda i: counts[i])
            total = as_text(_whole(sum(counts)), self.options.y_unit)
            told.append(
                f"{name}{': ' if name else ''}**{total}** in all, most at"
                f" {self.axes.x_words[fullest]}: **{as_text(counts[fullest], self.axes.unit)}**."
            )
        return " ".join(told)

    def body(self, picture: dict) -> str:
        o = self.options
        classes = [f"lk-s{j}" for j in range(len(self.names))]
        rules = [f"lk-rule lk-rule{k}" for k in range(len(self.marks))]
        drawn = list(zip([*classes, *rules], picture["d"]))
        parts = [*plot.frame(self.axes), plot.stretched(drawn, "lk-bins")]
        if "mark" in picture:
            parts.append(plot.gold(picture["mark"]))
        named = [(f'class="lk-s{j}"', name) for j, name in enumerate(self.names)]
        named += [(f'class="lk-rule lk-rule{k}"', name) for k, name in enumerate(self.marks)]
        alt = (
            f"{o.title} Histogram: {o.y_label or 'how many'} by {o.x_label or 'value'}. The table"
            " below the picture has the numbers."
        )
        gutter = max(len(words) for _, words in self.axes.y_labels)
        return markup.legend(named) + self.box(plot.svg(parts, alt), gutter)

    def table(self, picture: dict) -> tuple[list[str], list[list[str]]]:
        heads = [name or self.options.y_label or "how many" for name in self.names]
        rows = [list(row) for row in zip(self.axes.x_words, *picture["y"])]
        return [self.options.x_label or "from, to", *heads], rows

    def notes(self, picture: dict) -> list[str]:
        return [escape(note) for note in picture.get("notes", [])]

    def spec(self) -> dict:
        return {"at": self.axes.x}


def _whole(count: float) -> float:
    """A count as a whole number, where it is one."""
    return int(count) if float(count).is_integer() else float(count)


def _edge(value: float, unit: str) -> str:
    """An edge, free of the last bits of a sum of steps."""
    return as_text(float(f"{value:.6g}"), unit)
