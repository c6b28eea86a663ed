"""Rows by columns of numbers, a square in each cell: attention weights, a memory."""

from __future__ import annotations

import itertools
import math
from html import escape

from labkit.widgets import markup, plot
from labkit.widgets.charts import labels
from labkit.widgets.charts.chart import Answer, Chart, finite
from labkit.widgets.numbers import as_text, rounded, significant

CELL = 100  # units of the drawing
LARGEST, SMALLEST = 86, 5  # side of a square; what is below a third of the smallest is nothing
NUMBERED, ABOVE = 60, 12  # side of the largest over a number; how far it stands above the middle
ROOM = 40  # px of a cell that has room for a square and a number below it
CELL_PX = 58  # no cell is larger
CARDS = range(3, 8)  # widths of a card in hundreds of px: charts.css shows a part from one on
LETTER, MARGIN = 8, 22  # px: a letter of the gutter, what is kept free on the right
LINE = 15  # px of a label's line


class Matrix(Chart):
    """`fn` gives a row of numbers for each of `rows`, or `{"row": [numbers]}`, over `x`, the names
    of the columns. None is an empty cell.

    A square's area is its value, a hollow one's is below zero. mark: (column, row), counted from 0,
    in gold; None for either marks a whole row or column.
    """

    noun = "rows"

    def read(self, full: dict, call: str) -> Answer:
        given, columns, rows = full["series"], self.options.x, self.options.rows
        if not columns:
            raise ValueError(f"{call} gives a matrix, so explore needs `x`, its columns' names")
        if isinstance(given, dict):
            if rows is not None and rows != list(given):
                raise ValueError(f"{call} has the rows {list(given)}, but `rows` has {rows}")
            rows, given = list(given), list(given.values())
        if not rows:
            raise ValueError(f"{call} gives no names for its rows: explore needs `rows`")
        sizes = [len(row) if hasattr(row, "__len__") else 0 for row in given]
        if len(set(sizes)) > 1:
            raise ValueError(f"{call} gives rows of {min(sizes)} and of {max(sizes)} values")
        if (len(sizes), *sizes[:1]) != (len(rows), len(columns)):
            raise ValueError(
                f"{call} gives {len(sizes)} rows of {sizes[0] if sizes else 0} values, but there"
                f" are names for {len(rows)} rows and {len(columns)} columns"
            )
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            value = given[i][j]
            if value is not None and not finite(value):
                raise ValueError(
                    f"{call} has {value!r} in row {row}, column {column}: give a finite number, or"
                    " None for an empty cell"
                )
        cells = [rounded(list(map(_plain, row))) for row in given]
        mark = self._mark(full.get("mark"), len(rows), len(columns), call)
        return Answer(rows, cells, full.get("say"), mark)

    def _mark(self, mark, rows: int, columns: int, call: str) -> tuple | None:
        if mark is None:
            return None
        within = lambda at, n: at is None or (type(at) is int and 0 <= at < n)
        if not (
            isinstance(mark, (tuple, list))
            and len(mark) == 2
            and within(mark[0], columns)
            and within(mark[1], rows)
            and tuple(mark) != (None, None)
        ):
            raise ValueError(
                f"{call} has the mark {mark!r}: give (column, row), below ({columns}, {rows}), or"
                " None for one of them"
            )
        return tuple(mark)

    def lay(self, answers: list[Answer]) -> None:
        o = self.options
        if o.lines or o.x_lines or o.log_x or o.log_y:
            raise ValueError("a matrix has no axes for lines, x_lines, log_x or log_y")
        self.rows = [as_text(name) for name in answers[0].names]
        self.columns = [as_text(name, o.x_unit) for name in o.x]
        values = [abs(v) for a in answers for row in a.series for v in row if v is not None]
        self.full = max(values, default=0)
        self.signed = any(v is not None and v < 0 for a in answers for row in a.series for v in row)
        self.gutter = max(map(len, self.rows))
        texts = {self._short(v) for a in answers for row in a.series for v in row}
        self.numbers = self._from(max(*map(labels.width, texts), ROOM - 4) + 4)
        # turned where they do not fit side by side
        self.level = self._from(max(map(labels.width, self.columns)) + 4)

    def _short(self, value: float | None) -> str:
        """What stands in a cell: two digits of the largest number, and no smaller places."""
        if value is None:
            return ""
        places = 2 - math.ceil(math.log10(self.full)) if self.full else 0
        return as_text(round(value, places), self.options.y_unit)

    def _cell(self, card: int) -> float:
        """The px of a cell in a card of so many hundreds."""
        room = 100 * card - 6 - (self.gutter + 2) * LETTER - MARGIN
        return min(room / len(self.columns), CELL_PX)

    def _from(self, px: float) -> int | None:
        """The narrowest card whose cells have so many px; None if none has."""
        return next((card for card in CARDS if self._cell(card) >= px), None)

    def picture(self, answer: Answer) -> dict:
        squares = {True: "", False: ""}
        for (i, row), j in itertools.product(enumerate(answer.series), range(len(self.columns))):
            if row[j]:
                squares[row[j] > 0] += self._square(i, j, row[j])
        picture = {
            "d": [self._frame(answer.mark), squares[True]] + [squares[False]] * self.signed,
            "y": [[as_text(v, self.options.y_unit) for v in c] for c in zip(*answer.series)],
        }
        if self.numbers is not None:
            picture["cells"] = [[self._short(v) for v in column] for column in zip(*answer.series)]
        return picture

    def _square(self, row: int, column: int, value: float) -> str:
        """A square whose area is the value; above its number, where there is one."""
        largest, above = (LARGEST, 0) if self.numbers is None else (NUMBERED, ABOVE)
        side = round(largest * math.sqrt(abs(value) / self.full))
        if 3 * side < SMALLEST:
            return ""
        side = max(side, SMALLEST)
        left = column * CELL + (CELL - side) / 2
        top = row * CELL + (CELL - side) / 2 - above
        return markup.rectangle(left, top, side, side)

    def _frame(self, mark: tuple | None) -> str:
        """Round the marked cell, row or column."""
        if mark is None:
            return ""
        column, row = mark
        wide, high = len(self.columns), len(self.rows)
        left, width = (0, wide) if column is None else (column, 1)
        top, height = (0, high) if row is None else (row, 1)
        return markup.rectangle(left * CELL, top * CELL, width * CELL, height * CELL)

    def sentence(self, answer: Answer) -> str:
        """The largest number: of the marked row or column, or of all."""
        column, row = answer.mark or (None, None)
        there = [
            (abs(v), i, j)
            for i, values in enumerate(answer.series)
            for j, v in enumerate(values)
            if v is not None and row in (None, i) and column in (None, j)
        ]
        if not there:
            return "Every cell is empty."
        _, i, j = max(there, key=lambda cell: cell[0])
        value = as_text(answer.series[i][j], self.options.y_unit)
        at = f"{self.rows[i]}, {self.columns[j]}"
        if row is not None and column is None:
            return f"{self.rows[i]}: the largest is **{value}**, at {self.columns[j]}."
        if column is not None and row is None:
            return f"{self.columns[j]}: the largest is **{value}**, at {self.rows[i]}."
        return f"{at}: **{value}**." if answer.mark else f"The largest is **{value}**: {at}."

    def body(self, picture: dict) -> str:
        o = self.options
        wide, high = len(self.columns), len(self.rows)
        across = "".join(f"M0 {i * CELL}h{wide * CELL}" for i in range(high + 1))
        down = "".join(f"M{j * CELL} 0v{high * CELL}" for j in range(wide + 1))
        drawn = list(zip(["lk-frame", "lk-s0", "lk-s3"], picture["d"]))
        size = f"{wide * CELL} {high * CELL}"
        parts = [
            plot.stretched([("", across + down)], "lk-grid", size),
            plot.stretched(drawn, "lk-cells", size),
            *self._names(),
            *self._cells(picture),
        ]
        alt = (
            f"{o.title} A matrix of {o.y_label or 'values'}: {high} rows, {wide} columns. The table"
            " below the picture has their numbers."
        )
        # the names of columns stand upright in cards narrower than `level`
        longest = round(max(map(labels.width, self.columns)))
        style = f"--columns: {wide}; --rows: {high}; --head: {longest + 8}px"
        cls = "lk-matrix" + (f" lk-level-{self.level}" if self.level else "")
        cls += f" lk-numbered-{self.numbers}" if self.numbers else ""
        box = self.box(plot.svg(parts, alt), self.gutter, cls)
        return self._legend() + box.replace('style="', f'style="{style}; ', 1)

    def _names(self) -> list[str]:
        """Of rows on the left, of columns on top; only every few where cells are small."""
        wide, high = len(self.columns), len(self.rows)
        seen = lambda card: math.ceil(LINE / self._cell(card))
        every, on_phone = seen(CARDS[-1]), seen(CARDS[0])
        on_phone = math.ceil(on_phone / every) * every  # what a phone shows, a screen shows too
        minor = lambda i: "lk-minor" if i % on_phone else None
        rows = [
            plot.label(
                *(0, 1000 * (i + 0.5) / high, self.rows[i]),
                dx=-8,
                dy="0.35em",
                text_anchor="end",
                class_=minor(i),
            )
            for i in range(0, high, every)
        ]
        columns = [self._column(j, minor(j)) for j in range(0, wide, every)]
        return rows + columns

    def _column(self, j: int, cls: str | None) -> str:
        """A column's name in a drawing of its own, so that it can be turned about its place."""
        return markup.tag(
            "svg",
            markup.tag("text", escape(self.columns[j])),
            class_=" ".join(filter(None, ["lk-column", cls])),
            x=plot.percent(1000 * (j + 0.5) / len(self.columns)),
            y="0%",
            overflow="visible",
        )

    def _cells(self, picture: dict) -> list[str]:
        """The numbers, in cards that have room for them."""
        wide, high = len(self.columns), len(self.rows)
        return [
            plot.label(
                1000 * (j + 0.5) / wide,
                1000 * (i + 0.93) / high,
                words,
                text_anchor="middle",
                class_="lk-cell",
            )
            for j, column in enumerate(picture.get("cells", []))
            for i, words in enumerate(column)
        ]

    def _legend(self) -> str:
        """What size and filling say."""
        unit = self.options.y_unit
        largest = f"the largest square is {as_text(significant(self.full, 3), unit)}"
        entries = [f'<i class="lk-s0"></i>{escape(largest)}']
        if self.signed:
            entries.append('<i class="lk-s3 lk-hollow"></i>below zero')
        spans = "".join(f"<span>{entry}</span>" for entry in entries)
        return f'<p class="lk-legend">{spans}</p>'

    def table(self, picture: dict) -> tuple[list[str], list[list[str]]]:
        rows = [[name, *row] for name, row in zip(self.rows, zip(*picture["y"]))]
        return ["row", *self.columns], rows


def _plain(value):
    """A number of NumPy or torch as Python's."""
    return value.item() if hasattr(value, "item") else value
