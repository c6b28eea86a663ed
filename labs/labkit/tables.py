"""Rows as a table, picked, and in a sentence; and a bar for what takes its time.

The same in a shell, a notebook, a page.
"""

from __future__ import annotations

import os
import sys


def progress(things, text: str, total: int | None = None):
    """Things, with a bar on standard error once they take longer than two seconds."""
    from tqdm import tqdm

    return tqdm(
        things,
        desc=text,
        total=total,
        delay=2,
        leave=False,
        file=sys.stderr,
        disable="PYTEST_CURRENT_TEST" in os.environ,
    )


class Table(str):
    """A table as text; in a notebook, and so on a page, a table."""

    html = ""
    markdown = ""

    def _repr_html_(self) -> str:
        return self.html


def table(rows: list[dict], columns: dict[str, str] | None = None) -> Table:
    """Rows as a table.

    columns: key -> heading, or "heading|format" where the format is as in an f-string; None = every
    key of the first row under its own name.
    """
    from tabulate import tabulate

    columns = columns or {key: key for key in rows[0]}
    headings = [heading.partition("|")[0] for heading in columns.values()]
    formats = [heading.partition("|")[2] for heading in columns.values()]
    cells = [[_cell(row.get(key), form) for key, form in zip(columns, formats)] for row in rows]
    align = ["right" if _numeric(rows, key) else "left" for key in columns]

    def made(style: str) -> str:
        return str(tabulate(cells, headings, style, disable_numparse=True, colalign=align))

    text = Table(made("simple"))
    text.html = made("html")
    text.markdown = made("pipe")
    return text


def _numeric(rows: list[dict], key: str) -> bool:
    return all(isinstance(row.get(key), int | float) or row.get(key) is None for row in rows)


def _cell(value, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return format(value, form or (",.3g" if isinstance(value, float) else ","))


# -- rows picked, and their numbers in a sentence --------------------------------------------------


def where(rows: list[dict], **values) -> list[dict]:
    """The rows that have these values."""
    return [row for row in rows if all(row.get(k) == v for k, v in values.items())]


def only(rows: list[dict], **values) -> dict:
    """The one row that has these values. ValueError where none or several have."""
    found = where(rows, **values)
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows have {values}; exactly one must")
    return found[0]


def series(rows: list[dict], key: str, value: str, scale: float = 1) -> dict[str, list]:
    """One column's numbers, times `scale`, for each value of another: what `plotting.lines` draws.

    In the order of the rows.
    """
    found: dict[str, list] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row[value] * scale)
    return found


def span(numbers, form: str = ".2f") -> str:
    """From the smallest to the largest, "1.30 to 2.41"; one number where both read alike."""
    low, high = format(min(numbers), form), format(max(numbers), form)
    return low if low == high else f"{low} to {high}"


def listed(words) -> str:
    """Words in a sentence: "a, b and c"."""
    *others, last = map(str, words)
    return f"{', '.join(others)} and {last}" if others else last
