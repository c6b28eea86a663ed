"""Turn the knobs of a labkit function.

The whole grid is computed when the page is built, so the page needs no Python.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import traitlets

from labkit.widgets import markup, plot
from labkit.widgets.base import Widget, asset, weigh
from labkit.widgets.numbers import as_text, rounded

CHARTS = ("line", "bar", "stack")
COARSER = "use fewer values in `grids` or `x`, or a shorter `say`"
NAMED_BARS = 8  # so many bars are few enough to bear their numbers


@dataclass(frozen=True)
class Answer:
    """What the function says to one choice, its numbers rounded as the page has them."""

    series: list[list]
    say: str | None
    mark: tuple | None  # the point to show in gold, as x and y


class Explore(Widget):
    """A knob per grid, and the picture of one answer.

    With a kernel `params` and `result` follow the reader. `answers`: row-major over the grids.
    """

    _esm = asset("common.js", "explore.js")
    index = traitlets.List().tag(sync=True)  # the chosen value of each grid

    def __init__(self, fn: Callable, grids: dict[str, list], answers: list[Answer], **traits):
        self._fn = fn
        self._grids = grids
        self.answers = answers
        super().__init__(**traits)

    @property
    def params(self) -> dict:
        """The reader's choice, by the function's own argument names."""
        return {name: values[i] for (name, values), i in zip(self._grids.items(), self.index)}

    @property
    def result(self):
        """The function at the reader's choice, unrounded."""
        return self._fn(**self.params)


def explore(
    fn: Callable,
    *,
    title: str,
    grids: dict[str, list],
    x: list | None = None,
    describe: str = "",
    chart: str = "line",
    labels: dict | None = None,
    units: dict | None = None,
    start: dict | None = None,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    lines: dict[str, float] | None = None,
    max_bytes: int = 300_000,
) -> Explore:
    """A widget that answers `fn` for every combination of the grids' values.

    `fn(**choice)` returns a list of y over `x`; or `{"series name": [y, …]}`; or
    `{"series": …, "say": "a sentence with the **numbers**", "mark": (x, y)}`, mark being the point
    to show in gold. Without x it returns one number per name, drawn as bars.

    chart: "line", "bar", or "stack" for parts of a whole. labels, start: by grid. units: by grid,
    and of "x" and "y": "bytes", "seconds", "FLOPs", "bytes/s", "FLOPs/s" take prefixes, "%" shows a
    share of one, any other word stands behind the number. lines: limits to draw across, by name.

    Raises ValueError for an empty grid, answers that do not fit, or more than `max_bytes`.
    """
    grids = {name: list(values) for name, values in grids.items()}
    labels, units, start = labels or {}, units or {}, start or {}
    by_grid = {"labels": labels, "units": set(units) - {"x", "y"}, "start": start}
    _check(grids, chart, start, by_grid)
    if x is None and chart == "line":
        chart = "bar"
    names, x, answers = _answers(fn, grids, x, title, max_bytes)
    axes = plot.axes(
        chart,
        x,
        [answer.series for answer in answers],
        [answer.mark[1] for answer in answers if answer.mark],
        limits=lines or {},
        log_x=log_x,
        log_y=log_y,
        x_unit=units.get("x", ""),
        y_unit=units.get("y", ""),
    )
    says = [answer.say or _sentence(names, answer.series, axes) for answer in answers]
    drawn = [_picture(answer, axes) for answer in answers]
    # answers that look alike (twice the batch at half the precision) share their picture
    keys = [json.dumps(picture) for picture in drawn]
    pictures = dict(zip(keys, drawn))
    place = {key: i for i, key in enumerate(pictures)}
    shown = [[place[key], markup.bold(say)] for key, say in zip(keys, says)]
    spec = {"at": axes.x, "pictures": list(pictures.values()), "answers": shown}
    weigh(f"{title!r}: {len(answers):,} choices", spec, max_bytes, COARSER)

    controls = [
        _control(name, values, labels.get(name, name), units.get(name, ""))
        for name, values in grids.items()
    ]
    index = [values.index(start[n]) if n in start else 0 for n, values in grids.items()]
    at = list(itertools.product(*map(range, map(len, grids.values())))).index(tuple(index))
    chosen = " · ".join(f"{c['label']} {c['texts'][i]}" for c, i in zip(controls, index))
    heads = [name or y_label or "value" for name in names]
    cells = [list(row) for row in zip(axes.x_words, *drawn[at]["y"])]
    still = markup.still(
        "explore",
        title,
        markup.paragraph(describe, "lk-note"),
        markup.paragraph(f"Shown for {chosen}.", "lk-note lk-shown"),
        markup.legend([(f'class="lk-s{j}"', name) for j, name in enumerate(names)]),
        _chart(axes, drawn[at], title, x_label, y_label),
        markup.sentence([[say] for say in says], at),
        markup.folded(title, [x_label or "x", *heads], cells),
    )
    return Explore(fn, grids, answers, still=still, spec=spec | {"controls": controls}, index=index)


def _check(grids: dict, chart: str, start: dict, by_grid: dict) -> None:
    if not grids:
        raise ValueError("explore needs at least one grid, such as grids={'batch': [1, 2, 4]}")
    for name, values in grids.items():
        if not values:
            raise ValueError(f"the grid {name!r} has no values")
        if name in start and start[name] not in values:
            raise ValueError(
                f"start puts {name} at {start[name]!r}, which is not in its grid {values}"
            )
    for kind, given in by_grid.items():
        if unknown := set(given) - set(grids):
            raise ValueError(f"{kind} names {min(unknown)!r}, but the grids are {', '.join(grids)}")
    if chart not in CHARTS:
        raise ValueError(f"chart must be one of {', '.join(CHARTS)}, not {chart!r}")


def _answers(
    fn: Callable, grids: dict, x: list | None, title: str, max_bytes: int
) -> tuple[list[str], list, list[Answer]]:
    """Names of the series, x, and the answer to each choice.

    What will be too heavy is refused after its first answer.
    """
    names: list[str] = []
    answers: list[Answer] = []
    total = math.prod(map(len, grids.values()))
    for values in itertools.product(*grids.values()):
        choice = dict(zip(grids, values))
        call = f"fn({', '.join(f'{k}={v!r}' for k, v in choice.items())})"
        try:
            given = fn(**choice)
        except Exception as e:
            e.add_note(f"while explore() computed {call}")
            raise
        series, say, mark, x = _read(given, x, call)
        names = names or list(series)
        if list(series) != names:
            raise ValueError(
                f"{call} has the series {list(series)}, but the first choice had {names}"
            )
        answers.append(Answer([rounded(ys) for ys in series.values()], say, mark))
        if len(answers) == 1:
            first = [answers[0].series, say or ""]
            weigh(f"{title!r}: {total:,} choices", first, max_bytes, COARSER, times=total)
    return names, x or [], answers


def _read(given, x: list | None, call: str) -> tuple[dict, str | None, tuple | None, list]:
    """What the function gave, in one shape: series by name, sentence, mark, x."""
    full: dict = given if isinstance(given, dict) and "series" in given else {"series": given}
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
            raise ValueError(
                f"{call} gives {len(ys)} values{f' for {name}' if name else ''}, but x has {len(x)}"
            )
    return series, full.get("say"), full.get("mark"), list(x)


def _sentence(names: list[str], series: list[list], axes: plot.Axes) -> str:
    """What the picture shows, in words: a few bars each, or every series at the last x."""
    if names == [""] and len(axes.x_words) <= 4:
        bars = zip(axes.x_words, series[0])
        return ", ".join(f"{name} **{as_text(y, axes.unit)}**" for name, y in bars) + "."
    ends = [f"{name} **{as_text(ys[-1], axes.unit)}**".strip() for name, ys in zip(names, series)]
    return f"At {axes.x_words[-1]}: {', '.join(ends)}."


def _picture(answer: Answer, axes: plot.Axes) -> dict:
    """What of the picture is another for each answer: the paths of its series, its numbers as
    text, where they stand over bars, the gold point.
    """
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


def _control(name: str, values: list, label: str, unit: str) -> dict:
    """A slider for numbers, buttons for a few words, a list for many."""
    texts = [as_text(v, unit) for v in values]
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        kind = "slider"
    elif len(values) <= 4 and len("".join(texts)) <= 48:
        kind = "buttons"
    else:
        kind = "list"
    return {"name": name, "label": label, "kind": kind, "texts": texts}


def _chart(axes: plot.Axes, picture: dict, title: str, x_label: str, y_label: str) -> str:
    """The picture of an answer between the labels of its axes."""
    gutter = max(len(words) for _, words in axes.y_labels) + 2
    alt = f"{title} {y_label or 'value'} by {x_label or 'name'}"
    parts = [
        markup.tag("p", escape(y_label), class_="lk-y"),
        plot.svg(axes, picture, alt),
        markup.tag("p", escape(x_label), class_="lk-x"),
    ]
    return markup.tag("div", "".join(parts), class_="lk-chart", style=f"--gutter: {gutter}ch")
