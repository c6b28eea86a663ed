"""Lines, bars, and parts of a whole: series of numbers over one x."""

from __future__ import annotations

import itertools

from labkit.widgets import markup, plot
from labkit.widgets.charts.chart import Answer, Chart, checked_mark
from labkit.widgets.numbers import as_text, rounded

NAMED_BARS = 8  # so many bars are few enough to bear their numbers


class Series(Chart):
    """`fn` gives a list of y over x, `{"name": [y, …]}`, or one number per name, drawn as bars."""

    def read(self, full: dict, call: str) -> Answer:
        x = self.options.x
        series = full["series"] if isinstance(full["series"], dict) else {"": full["series"]}
        many = [hasattr(ys, "__len__") for ys in series.values()]
        if not any(many):
            if x not in (None, list(series)):
                raise ValueError(f"{call} gives numbers for {list(series)}, but x is {x}")
            x = list(series)
            series = {"": list(series.values())}
        elif x is None or not all(many):
            raise ValueError(f"{call} gives lists, so explore needs `x`, the values they run over")
        for name, ys in series.items():
            if not len(ys) or len(ys) != len(x):
                named = f" for {name}" if name else ""
                raise ValueError(f"{call} gives {len(ys)} values{named}, but x has {len(x)}")
        ys = [rounded(ys) for ys in series.values()]
        return Answer(list(series), ys, full.get("say"), checked_mark(full, call), {"x": list(x)})

    def lay(self, answers: list[Answer]) -> None:
        o = self.options
        self.names = answers[0].names
        self.axes = plot.axes(
            "bar" if o.x is None and o.chart == "line" else o.chart,
            answers[0].more["x"],
            [answer.series for answer in answers],
            [answer.mark[1] for answer in answers if answer.mark],
            limits=o.lines,
            uprights=o.x_lines,
            log_x=o.log_x,
            log_y=o.log_y,
            x_unit=o.x_unit,
            y_unit=o.y_unit,
        )

    def picture(self, answer: Answer) -> dict:
        axes = self.axes
        picture = {
            "d": plot.paths(axes, answer.series),
            "y": [[as_text(y, axes.unit) for y in ys] for ys in answer.series],
        }
        if axes.chart == "bar" and sum(map(len, answer.series)) <= NAMED_BARS:
            boxes = itertools.chain(*plot.bars(axes, answer.series))
            picture["over"] = [[round(left + width / 2), top] for left, top, width, _ in boxes]
        if answer.mark:
            picture["mark"] = axes.place(*answer.mark)
        return picture

    def sentence(self, answer: Answer) -> str:
        """A few bars each, or every series at the last x."""
        x, unit = self.axes.x_words, self.axes.unit
        if self.names == [""] and len(x) <= 4:
            bars = zip(x, answer.series[0])
            return ", ".join(f"{name} **{as_text(y, unit)}**" for name, y in bars) + "."
        last = zip(self.names, answer.series)
        ends = [f"{name} **{as_text(ys[-1], unit)}**".strip() for name, ys in last]
        return f"At {x[-1]}: {', '.join(ends)}."

    def body(self, picture: dict) -> str:
        o = self.options
        swatches = [(f'class="lk-s{j}"', name) for j, name in enumerate(self.names)]
        cls = "lk-lines" if self.axes.chart == "line" else "lk-bars"
        drawn = [(f"lk-s{j}", path) for j, path in enumerate(picture["d"])]
        parts = [*plot.frame(self.axes), plot.stretched(drawn, cls)]
        if "over" in picture:
            parts += plot.values(self.axes, picture)
        if "mark" in picture:
            parts.append(plot.gold(picture["mark"]))
        alt = f"{o.title} {o.y_label or 'value'} by {o.x_label or 'name'}"
        gutter = max(len(words) for _, words in self.axes.y_labels)
        return markup.legend(swatches) + self.box(plot.svg(parts, alt), gutter)

    def table(self, picture: dict) -> tuple[list[str], list[list[str]]]:
        heads = [name or self.options.y_label or "value" for name in self.names]
        rows = [list(row) for row in zip(self.axes.x_words, *picture["y"])]
        return [self.options.x_label or "x", *heads], rows

    def spec(self) -> dict:
        return {"at": self.axes.x}
