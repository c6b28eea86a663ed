"""A lab on a page: what it asks, what was measured, what to notice."""

from __future__ import annotations

from html import escape

from labkit import results
from labkit.cli import table
from labkit.cli.lab import labs


class Card:
    """The stored result of one lab, for a notebook or a page."""

    def __init__(self, id: str):
        self.lab = labs()[id]
        self.rows = results.load(self.lab.result)["rows"]

    def __str__(self) -> str:
        return (
            f"{self.lab.id}  {self.lab.title}\n\n{table(self.rows, self.lab.columns)}\n\nWhat to"
            f" notice: {self.lab.notice}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        text = lambda words: f"<p>{escape(words)}</p>"
        drawn = self.lab.plot(self.rows)._repr_html_() if self.lab.plot else ""
        first = (
            "It needs no other lab first."
            if self.lab.needs == "nothing"
            else f"First: {escape(self.lab.needs)}."
        )
        return (
            f'<div class="lk-card">{text(self.lab.objective)}<p>Run it: <code>labkit lab'
            f" {self.lab.id}</code>."
            f" {first}</p>{drawn}{table(self.rows, self.lab.columns).html}<p><b>What to notice.</b>"
            f" {escape(self.lab.notice)}</p></div>"
        )
