"""Rows as a table, and a bar for what takes its time: the same in a shell, a notebook, a page."""

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
