"""The kinds of picture that `explore` draws, one a file."""

from __future__ import annotations

from labkit.widgets.charts.chart import Answer, Chart, Options
from labkit.widgets.charts.histogram import Histogram
from labkit.widgets.charts.matrix import Matrix
from labkit.widgets.charts.points import Points
from labkit.widgets.charts.series import Series

__all__ = ["KINDS", "Answer", "Chart", "Options"]

KINDS: dict[str, type[Chart]] = {
    "line": Series,
    "bar": Series,
    "stack": Series,
    "points": Points,
    "matrix": Matrix,
    "histogram": Histogram,
}
