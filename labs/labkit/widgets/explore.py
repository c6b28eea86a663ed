"""Turn the knobs of a labkit function.

The whole grid is computed when the page is built, so the page needs no Python.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import traitlets

from labkit.widgets import markup
from labkit.widgets.base import Widget, asset, weigh
from labkit.widgets.charts import KINDS, Answer, Chart, Options
from labkit.widgets.numbers import as_text

COARSER = "use fewer values in `grids` or `x`, or a shorter `say`"


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
    x_lines: dict[str, float] | None = None,
    rows: list | None = None,
    bins: int = 40,
    max_bytes: int = 300_000,
) -> Explore:
    """A widget that answers `fn` for every combination of the grids' values.

    `fn(**choice)` returns the numbers of one picture, or `{"series": numbers, "say": "a sentence
    with the **numbers**", "mark": what to show in gold}`. Numbers and mark, by chart:

    - "line", "bar", "stack" (parts of a whole): a list of y over x, or `{"name": [y, …]}`; without
      x one number per name, drawn as bars. mark: (x, y) on a line.
    - "points": `{"name": (x, y)}` or `{"group": {"name": (x, y)}}`, None where one is missing.
      mark: a name. Also "frontier": names that a line joins, or such a list by group.
    - "matrix": a row of numbers for each of `rows`, or `{"row": [number, …]}`, over the columns x;
      None for an empty cell. mark: (column, row) from 0, None for a whole row or column.
    - "histogram": values, counted in about `bins` bins, or counts between the edges x; also by
      name. mark: (x, y). Also "x_lines": `{"name": value or values}`, such as the levels of a grid.

    Names are the same in every answer. labels, start: by grid. units: by grid, and of "x" and "y":
    "bytes", "seconds", "FLOPs", "bytes/s", "FLOPs/s" take prefixes, "%" shows a share of one, any
    other word stands behind the number. lines, x_lines: limits on y and on x to draw, by name.

    Raises ValueError for an empty grid, answers that do not fit, or more than `max_bytes`.
    """
    grids = {name: list(values) for name, values in grids.items()}
    labels, units, start = labels or {}, units or {}, start or {}
    by_grid = {"labels": labels, "units": set(units) - {"x", "y"}, "start": start}
    _check(grids, chart, start, by_grid)
    options = Options(
        chart=chart,
        title=title,
        x=None if x is None else list(x),
        rows=None if rows is None else list(rows),
        bins=bins,
        x_label=x_label,
        y_label=y_label,
        x_unit=units.get("x", ""),
        y_unit=units.get("y", ""),
        log_x=log_x,
        log_y=log_y,
        lines=lines or {},
        x_lines=x_lines or {},
    )
    kind = KINDS[chart](options)
    answers = _answers(fn, grids, kind, title, max_bytes)
    kind.lay(answers)
    says = [answer.say or kind.sentence(answer) for answer in answers]
    drawn = [kind.picture(answer) for answer in answers]
    # answers that look alike (twice the batch at half the precision) share their picture
    keys = [json.dumps(picture) for picture in drawn]
    pictures = dict(zip(keys, drawn))
    place = {key: i for i, key in enumerate(pictures)}
    shown = [[place[key], markup.bold(say)] for key, say in zip(keys, says)]
    spec = kind.spec() | {"pictures": list(pictures.values()), "answers": shown}
    weigh(f"{title!r}: {len(answers):,} choices", spec, max_bytes, COARSER)

    controls = [
        _control(name, values, labels.get(name, name), units.get(name, ""))
        for name, values in grids.items()
    ]
    index = [values.index(start[n]) if n in start else 0 for n, values in grids.items()]
    at = list(itertools.product(*map(range, map(len, grids.values())))).index(tuple(index))
    chosen = " · ".join(f"{c['label']} {c['texts'][i]}" for c, i in zip(controls, index))
    still = markup.still(
        "explore",
        title,
        markup.paragraph(describe, "lk-note"),
        markup.paragraph(f"Shown for {chosen}.", "lk-note lk-shown"),
        kind.body(drawn[at]),
        markup.sentence([[say] for say in says], at),
        markup.folded(title, *kind.table(drawn[at]), kind.notes(drawn[at])),
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
    if chart not in KINDS:
        raise ValueError(f"chart must be one of {', '.join(KINDS)}, not {chart!r}")


def _answers(fn: Callable, grids: dict, chart: Chart, title: str, max_bytes: int) -> list[Answer]:
    """The answer to each choice. What will be too heavy is refused after its first answer."""
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
        answer = chart.read(_full(given, chart, call), call)
        answers.append(answer)
        names = answers[0].names
        if answer.names != names:
            raise ValueError(
                f"{call} has the {chart.noun} {answer.names}, but the first choice had {names}"
            )
        if len(answers) == 1:
            first = [chart.weight(answer), answer.say or ""]
            weigh(f"{title!r}: {total:,} choices", first, max_bytes, COARSER, times=total)
    return answers


def _full(given, chart: Chart, call: str) -> dict:
    """What the function gave, as `{"series": …}` with what else it says."""
    full = given if isinstance(given, dict) and "series" in given else {"series": given}
    if unknown := [key for key in full if key not in chart.takes]:
        raise ValueError(
            f"{call} gives {unknown[0]!r}, but this chart takes {', '.join(chart.takes)}"
        )
    return full


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
