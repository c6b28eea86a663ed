"""Turn the knobs of a labkit function.

The whole grid is computed when the page is built, so the page needs no Python.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from html import escape

import traitlets

from labkit.widgets.base import Card, numbers, paragraph, rounded, source, still, text, weigh
from labkit.widgets.plot import axis, drawing, fraction, height, spread

CHARTS = ("line", "bar", "stack")
COARSER = "use fewer values in `grids` or `x`, or a shorter `say`"


class Explore(Card):
    """A knob per grid and the drawing of one row of the table.

    With a kernel `params` and `result` follow the reader.
    """

    _esm = source("common.js", "explore.js")
    # row-major over the grids: {y: a list per series, say, mark if there is one}
    table = traitlets.List().tag(sync=True)
    index = traitlets.List().tag(sync=True)  # the chosen value of each grid

    def __init__(self, fn: Callable, grids: dict[str, list], **traits):
        self._fn, self._grids = fn, grids
        super().__init__(**traits)

    @property
    def params(self) -> dict:
        """The reader's choice, by the function's own argument names."""
        return {name: values[i] for (name, values), i in zip(self._grids.items(), self.index)}

    @property
    def result(self):
        """The function at the reader's choice, unrounded."""
        return self._fn(**self.params)

    def fallback(self) -> str:
        spec, at = self.spec, 0
        for control, i in zip(spec["controls"], self.index):
            at = at * len(control["texts"]) + i
        row = self.table[at]
        chosen = " · ".join(
            f"{c['label']} {c['texts'][i]}" for c, i in zip(spec["controls"], self.index)
        )
        legend = "".join(
            f'<span><i class="lk-s{j}"></i>{escape(n)}</span>'
            for j, n in enumerate(spec["names"])
            if n
        )
        cells = [
            [x, *(text(ys[i], spec["y_unit"]) for ys in row["y"])] for i, x in enumerate(spec["x"])
        ]
        head = [spec["x_label"] or "x", *(n or spec["y_label"] or "value" for n in spec["names"])]
        return still(
            "explore",
            spec["title"],
            paragraph(spec["describe"], "lk-note"),
            paragraph(f"Shown for {chosen}.", "lk-note"),
            f'<p class="lk-legend">{legend}</p>' if legend else "",
            drawing(spec, row),
            paragraph(row["say"], "lk-say"),
            numbers(head, cells),
        )


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

    `fn(**choice)` returns a list of y over `x`; or `{"series name": [y, …]}`; or `{"series": …,
      "say": "a sentence with the
    **numbers**", "mark": (x, y)}`, mark being the point to show in gold. Without x it returns one
      number per name, drawn as bars.
    chart: "line", "bar", or "stack" for parts of a whole. labels, start: by grid. units: by grid,
      and of "x" and "y": "bytes",
    "seconds", "FLOPs", "bytes/s", "FLOPs/s" take prefixes, "%" shows a share of one, any other word
      stands behind the number.
    lines: limits to draw across, by name.
    Raises ValueError for an empty grid, answers that do not fit, or a table of more than
      `max_bytes`.
    """
    grids = {name: list(values) for name, values in grids.items()}
    labels, units, start, lines = labels or {}, units or {}, start or {}, lines or {}
    _check(
        grids, chart, start, {"labels": labels, "units": set(units) - {"x", "y"}, "start": start}
    )
    x_unit, y_unit = units.get("x", ""), units.get("y", "")
    chart = "bar" if x is None and chart == "line" else chart
    names, x, rows = _table(fn, grids, x, title, max_bytes)
    at, x_ticks = spread(x, chart, log_x, x_unit)
    tall = [
        map(sum, zip(*([v or 0 for v in ys] for ys in r["y"])))
        if chart == "stack"
        else itertools.chain(*r["y"])
        for r in rows
    ]
    values = [
        *itertools.chain(*tall),
        *lines.values(),
        *(r["mark"][1] for r in rows if "mark" in r),
    ]
    frame, ticks = axis(values, log_y, y_unit, chart != "line")
    x_texts = [text(v, x_unit) for v in x]
    for r in rows:
        r["say"] = r["say"] or _sentence(names, r["y"], x_texts, y_unit)
        if "mark" in r:
            r["mark"] = [fraction(r["mark"][0], x, log_x), height(r["mark"][1], frame)]
    spec = {
        "title": title,
        "describe": describe,
        "alt": f"{title} {y_label or 'value'} by {x_label or 'name'}",
        "chart": chart,
        "names": names,
        "x": x_texts,
        "at": at,
        "x_label": x_label,
        "y_label": y_label,
        "y_unit": y_unit,
        "frame": frame,
        "x_ticks": x_ticks,
        "ticks": [[height(v, frame), words] for v, words in ticks],
        "lines": [[height(v, frame), name] for name, v in lines.items()],
        "gutter": max(len(words) for _, words in ticks) + 2,
        "named": chart == "bar" and len(x) * len(names) <= 8,
        "controls": [
            _control(name, values, labels.get(name, name), units.get(name, ""))
            for name, values in grids.items()
        ],
    }
    weigh(f"{title!r}: {len(rows):,} choices", rows, max_bytes, COARSER)
    return Explore(
        fn,
        grids,
        spec=spec,
        table=rows,
        index=[values.index(start[n]) if n in start else 0 for n, values in grids.items()],
    )


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


def _table(
    fn: Callable, grids: dict, x: list | None, title: str, max_bytes: int
) -> tuple[list[str], list, list[dict]]:
    """Names of the series, x, and a row for each choice.

    A table that will be too heavy is refused after its first row.
    """
    names, rows, total = [], [], math.prod(map(len, grids.values()))
    for values in itertools.product(*grids.values()):
        choice = dict(zip(grids, values))
        call = f"fn({', '.join(f'{k}={v!r}' for k, v in choice.items())})"
        try:
            answer = fn(**choice)
        except Exception as e:
            e.add_note(f"while explore() computed {call}")
            raise
        series, say, mark, x = _read(answer, x, call)
        names = names or list(series)
        if list(series) != names:
            raise ValueError(
                f"{call} has the series {list(series)}, but the first choice had {names}"
            )
        rows.append(
            {"y": [rounded(ys) for ys in series.values()], "say": say}
            | ({"mark": mark} if mark else {})
        )
        if len(rows) == 1:
            weigh(
                f"{title!r}: {total:,} choices",
                [rows[0]["y"], say or ""],
                max_bytes,
                COARSER,
                total,
            )
    return names, x or [], rows


def _read(answer, x: list | None, call: str) -> tuple[dict, str | None, tuple | None, list]:
    """One answer in one shape: series by name, sentence, mark, x."""
    full: dict = answer if isinstance(answer, dict) and "series" in answer else {"series": answer}
    series = full["series"] if isinstance(full["series"], dict) else {"": full["series"]}
    many = [hasattr(ys, "__len__") for ys in series.values()]
    if not any(many):
        if x not in (None, list(series)):
            raise ValueError(f"{call} gives numbers for {list(series)}, but x is {x}")
        series, x = {"": list(series.values())}, list(series)
    elif x is None or not all(many):
        raise ValueError(f"{call} gives lists, so explore needs `x`, the values they run over")
    for name, ys in series.items():
        if not len(ys) or len(ys) != len(x):
            raise ValueError(
                f"{call} gives {len(ys)} values{f' for {name}' if name else ''}, but x has {len(x)}"
            )
    return series, full.get("say"), full.get("mark"), list(x)


def _control(name: str, values: list, label: str, unit: str) -> dict:
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    texts = [text(v, unit) for v in values]
    kind = (
        "slider"
        if numeric
        else "radios"
        if len(values) <= 4 and len("".join(texts)) <= 48
        else "list"
    )
    return {"name": name, "label": label, "kind": kind, "texts": texts}


def _sentence(names: list[str], ys: list[list], x: list[str], unit: str) -> str:
    """What the picture shows, in words: a few bars each, or every series at the last x."""
    if names == [""] and len(x) <= 4:
        return ", ".join(f"{a} **{text(y, unit)}**" for a, y in zip(x, ys[0])) + "."
    return (
        f"At {x[-1]}: "
        + ", ".join(f"{n} **{text(y[-1], unit)}**".strip() for n, y in zip(names, ys))
        + "."
    )
