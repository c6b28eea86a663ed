"""Charts in the course's style: direct labels, no chart junk, colours that follow the page.

Each function returns a `Chart`: inline SVG with an `alt` text, whose colours are the palette's CSS
variables, so that it turns dark with the page. It is drawn twice, wide and narrow: shrunk to a
phone, the letters of the wide one could not be read.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from html import escape

from labkit import palette

LIGHT = palette.PALETTE["light"]
SERIES = LIGHT["series"]
NAMED = ("ink", "muted", "line", "active", "wash", "panel")  # colours that a chart may use
MARKERS = 12  # so few points are marked, and their x written out
WIDE = 7.0  # inches
NARROW = 4.1  # inches: in a fold on a phone, 315 pixels, letters of 10.5 points are 11 pixels high
SHORT = 14  # letters of a name that a phone has room for beside the lines
LETTERS = 11  # points
PHONE = "(max-width: 40rem)"


class Chart:
    """A drawn figure. Notebooks and the book show it as SVG; `save` writes SVG, PNG or PDF.

    figure: for a page. narrow: the same for a phone.
    """

    def __init__(self, figure, narrow, alt: str):
        self.figure = figure
        self.narrow = narrow
        self.alt = alt

    def _repr_html_(self) -> str:
        style = palette.rules()
        style += f".lk-narrow{{display:none}}@media {PHONE}{{.lk-wide{{display:none}}"
        style += ".lk-narrow{display:block}}"
        return f"<style>{style}</style>{self.svg()}{self.svg(narrow=True)}"

    def svg(self, narrow: bool = False) -> str:
        """The drawing as an SVG element, as wide as its place. narrow: the one for a phone."""
        buffer = io.StringIO()
        # without dates and names, so that the same chart is the same file
        nobody = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with _style():
            figure = self.narrow if narrow else self.figure
            figure.savefig(buffer, format="svg", transparent=True, metadata=nobody)
        _, tag, drawing = buffer.getvalue().partition("<svg")
        svg = _with_variables(tag + drawing)
        # as wide as its place, not as the paper that matplotlib drew on
        svg = re.sub(
            r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
            rf'<svg \1 class="lk-{"narrow" if narrow else "wide"}" role="img"'
            f' aria-label="{escape(self.alt)}"'
            f' style="width:100%;height:auto;max-width:44rem;stroke-linejoin:round;'
            f'font-size:{LETTERS}px;{FAMILY.strip()}">',
            svg,
            count=1,
        )
        # every text need not say its typeface, and that it does not turn
        return _slim(re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg.replace(FAMILY, "")))

    def __repr__(self):
        return f"Chart: {self.alt}"

    def save(self, path) -> None:
        with _style():
            self.figure.savefig(path)


FAMILY = "font-family: 'Inter', 'DejaVu Sans'; "  # as matplotlib writes it into each text


def _slim(svg: str) -> str:
    """The same drawing in fewer bytes: hundredths of a point, no group that only groups,
    and what all texts share said once.
    """
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\.\d\d)\d+", r"\1", svg).replace(f"font-size: {LETTERS}px; ", "")
    used = set(re.findall(r'#(\w+)(?:\)|")', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"<g/>", "", re.sub(r">\s+<", "><", re.sub(r"\s+", " ", svg)))
    bare = re.compile(r"<g>((?:[^<]|<(?!/?g\b))*)</g>")
    while bare.search(svg):
        svg = bare.sub(r"\1", svg)
    return svg


def _with_variables(svg: str) -> str:
    """The palette's light colours as CSS variables, which a page in the dark gives other values."""
    for name in NAMED:
        svg = re.sub(LIGHT[name], f"var(--lk-{name}, {LIGHT[name]})", svg, flags=re.IGNORECASE)
    for i, colour in enumerate(SERIES):
        # not in a variable already: a series may share its colour with a name
        bare = rf"(?<!, ){colour}"
        svg = re.sub(bare, f"var(--lk-series{i}, {colour})", svg, flags=re.IGNORECASE)
    return svg


def _style():
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "labkit",
            "font.family": [palette.SANS, "DejaVu Sans"],
            "font.size": LETTERS,
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


def twice(draw):
    """A function that draws a figure so many inches wide: here it makes a chart of two of them."""

    @functools.wraps(draw)
    def wrapped(*args, alt: str, **kwargs) -> Chart:
        with _style():
            wide, narrow = (draw(*args, width=w, **kwargs) for w in (WIDE, NARROW))
        return Chart(wide, narrow, alt)

    return wrapped


def axes(
    width: float = WIDE,
    height: float = 3.4,
    *,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
):
    """An empty pair of axes in the course's style, for a function of your own under `twice`."""
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


@twice
def lines(
    x,
    series: dict,
    *,
    width: float,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: dict | None = None,
):
    """One line per series, named at its end. `marks` are horizontal lines: name -> y."""
    # on a phone long names would leave no room for the lines: they stand above
    above = width < WIDE and any(len(name) > SHORT for name in series)
    height = 3.4 + 0.25 * len(series) * above
    ax = axes(width, height, x_label=x_label, y_label=y_label, log_x=log_x, log_y=log_y)
    marker = "o" if len(x) <= MARKERS else None
    for i, (name, y) in enumerate(series.items()):
        ax.plot(x, y, color=_colour(i), linewidth=2.2, marker=marker, markersize=5, label=name)
    for name, y in (marks or {}).items():
        ax.axhline(y, color=LIGHT["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        ax.annotate(
            name, (x[0], y), xytext=(2, 4), textcoords="offset points", color=LIGHT["muted"]
        )
    ax.margins(x=0.02)
    if log_x and len(x) <= MARKERS:
        ax.set_xticks(x, [f"{v:,}" for v in x])
        ax.minorticks_off()
    if log_y:
        ax.yaxis.set_major_formatter("{x:,g}")
    if above:
        ax.figure.legend(loc="outside upper left", frameon=False, labelcolor="linecolor")
    else:
        _name_ends(ax, x, series)
    if log_x and len(x) <= MARKERS:
        _thin(ax)
    return ax.figure


def _colour(series: int) -> str:
    return SERIES[series % len(SERIES)]


def _thin(ax) -> None:
    """Take away numbers under the axis that would run into the next, from the right: the last
    stays.
    """
    ax.figure.draw_without_rendering()
    labels = ax.get_xticklabels()
    taken = float("inf")
    for label in reversed(labels):
        box = label.get_window_extent()
        if box.x1 + 4 * ax.figure.dpi / 72 > taken:
            label.set_text("")
        else:
            taken = box.x0
    ax.set_xticks(ax.get_xticks(), [label.get_text() for label in labels])


def _name_ends(ax, x, series: dict, apart: float = 14) -> None:
    """Each line's name at its end, moved up where it would lie on the one below."""
    ax.figure.draw_without_rendering()  # only now does it know its size
    floor, top = ax.get_ylim()
    # a line that leaves the picture is named at its edge
    ends = {name: (x[-1], min(max(y[-1], floor), top)) for name, y in series.items()}
    points = 72 / ax.figure.dpi
    at = {name: ax.transData.transform(end)[1] * points for name, end in ends.items()}
    colours = {name: _colour(i) for i, name in enumerate(series)}
    below = float("-inf")
    for name in sorted(at, key=at.__getitem__):
        below = max(at[name], below + apart)
        ax.annotate(
            name,
            ends[name],
            xytext=(8, below - at[name]),
            textcoords="offset points",
            va="center",
            color=colours[name],
            fontweight="bold",
        )


@twice
def bars(
    values: dict,
    *,
    width: float,
    x_label: str = "",
    form: str = "{:,.3g}",
    highlight: str | None = None,
):
    """Horizontal bars, each with its number; `highlight` is drawn gold with a navy outline."""
    names = [name if width >= WIDE else textwrap.fill(name, SHORT) for name in map(str, values)]
    folds = max((name.count("\n") for name in names), default=0)
    ax = axes(width, (0.55 + 0.12 * folds) * len(values) + 0.7, x_label=x_label)
    for i, (name, value) in enumerate(values.items()):
        fill = LIGHT["active"] if name == highlight else SERIES[0]
        ax.barh(i, value, height=0.62, color=fill, edgecolor=SERIES[0], linewidth=1.5)
        ax.annotate(
            form.format(value),
            (value, i),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=LIGHT["ink"],
        )
    ax.set_yticks(range(len(values)), names, color=LIGHT["ink"])
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.15)
    ax.set_xlim(left=0)
    return ax.figure
