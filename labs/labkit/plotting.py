"""Charts in the course's style: direct labels, no chart junk, colours that follow the page from
light to dark.

Each function returns a `Chart`: inline SVG with an `alt` text, whose colours are the palette's CSS
variables.
"""

from __future__ import annotations

import functools
import io
import re
from html import escape

from labkit import palette

LIGHT = palette.PALETTE["light"]


class Chart:
    """A drawn figure. Notebooks and the book show it as SVG; `save` writes SVG, PNG or PDF."""

    def __init__(self, figure, alt: str):
        self.figure, self.alt = figure, alt

    def _repr_html_(self) -> str:
        buffer = io.StringIO()
        with _style():
            self.figure.savefig(
                buffer,
                format="svg",
                transparent=True,
                metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            )
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :]
        for name in ("ink", "muted", "line", "active", "wash", "panel"):
            svg = re.sub(LIGHT[name], f"var(--lk-{name}, {LIGHT[name]})", svg, flags=re.IGNORECASE)
        for i, colour in enumerate(LIGHT["series"]):
            svg = re.sub(
                rf"(?<!, ){colour}", f"var(--lk-series{i}, {colour})", svg, flags=re.IGNORECASE
            )
        svg = re.sub(
            r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
            rf'<svg \1 role="img" aria-label="{escape(self.alt)}" '
            'style="width:100%;height:auto;max-width:44rem">',
            svg,
            count=1,
        )
        return f"<style>{palette.rules()}</style>" + re.sub(r">\s+<", "><", svg)

    def __repr__(self):
        return f"Chart: {self.alt}"

    def save(self, path) -> None:
        with _style():
            self.figure.savefig(path)


def _style():
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "labkit",
            "font.family": [palette.SANS, "DejaVu Sans"],
            "font.size": 11,
            "text.color": LIGHT["ink"],
            "axes.edgecolor": LIGHT["line"],
            "axes.labelcolor": LIGHT["muted"],
            "axes.labelsize": 10.5,
            "xtick.color": LIGHT["muted"],
            "ytick.color": LIGHT["muted"],
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": LIGHT["line"],
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
        }
    )


def _styled(draw):
    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        with _style():
            return draw(*args, **kwargs)

    return wrapped


def axes(
    width: float = 7.0,
    height: float = 3.4,
    *,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
):
    """An empty pair of axes in the course's style; ends in `Chart(ax.figure, alt)`."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(width, height), layout="constrained")
        ax = figure.add_subplot()
        ax.set(
            xlabel=x_label,
            ylabel=y_label,
            xscale="log" if log_x else "linear",
            yscale="log" if log_y else "linear",
        )
    return ax


@_styled
def lines(
    x,
    series: dict,
    *,
    alt: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: dict | None = None,
) -> Chart:
    """One line per series, named at its end. `marks` are horizontal lines: name -> y."""
    ax = axes(x_label=x_label, y_label=y_label, log_x=log_x, log_y=log_y)
    for i, y in enumerate(series.values()):
        colour = LIGHT["series"][i % len(LIGHT["series"])]
        ax.plot(
            x, y, color=colour, linewidth=2.2, marker="o" if len(x) <= 12 else None, markersize=5
        )
    for name, y in (marks or {}).items():
        ax.axhline(y, color=LIGHT["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        ax.annotate(
            name, (x[0], y), xytext=(2, 4), textcoords="offset points", color=LIGHT["muted"]
        )
    ax.margins(x=0.02)
    if log_x and len(x) <= 12:
        ax.set_xticks(x, [f"{v:,}" for v in x])
        ax.minorticks_off()
    if log_y:
        ax.yaxis.set_major_formatter("{x:,g}")
    _name_ends(ax, x, series)
    return Chart(ax.figure, alt)


def _name_ends(ax, x, series: dict, apart: float = 14) -> None:
    """Each line's name at its end, moved up where it would lie on the one below."""
    ax.figure.draw_without_rendering()  # only now does it know its size
    floor, top = ax.get_ylim()
    at = {
        name: ax.transData.transform((x[-1], min(max(y[-1], floor), top)))[1] * 72 / ax.figure.dpi
        for name, y in series.items()
    }
    below = float("-inf")
    for name in sorted(at, key=lambda name: at[name]):
        below = max(at[name], below + apart)
        ax.annotate(
            name,
            (x[-1], min(max(series[name][-1], floor), top)),
            xytext=(8, below - at[name]),
            textcoords="offset points",
            va="center",
            color=LIGHT["series"][list(series).index(name) % len(LIGHT["series"])],
            fontweight="bold",
        )


@_styled
def bars(
    values: dict,
    *,
    alt: str,
    x_label: str = "",
    form: str = "{:,.3g}",
    highlight: str | None = None,
) -> Chart:
    """Horizontal bars, each with its number; `highlight` is drawn gold with a navy outline."""
    ax = axes(height=0.55 * len(values) + 0.7, x_label=x_label)
    names = list(values)
    for i, name in enumerate(names):
        active = name == highlight
        ax.barh(
            i,
            values[name],
            height=0.62,
            color=LIGHT["active"] if active else LIGHT["series"][0],
            edgecolor=LIGHT["series"][0],
            linewidth=1.5,
        )
        ax.annotate(
            form.format(values[name]),
            (values[name], i),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=LIGHT["ink"],
        )
    ax.set_yticks(range(len(names)), names, color=LIGHT["ink"])
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.15)
    ax.set_xlim(left=0)
    return Chart(ax.figure, alt)
