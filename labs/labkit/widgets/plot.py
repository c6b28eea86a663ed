"""The drawing of `explore`: axes, and the lines or bars of one row.

All places are thousandths of the plot, so any width will do.

Axes are computed once over a whole table, so that a change is seen as a change. `explore.js` draws
what `marks` says; a test holds the two to the same points.
"""

from __future__ import annotations

import math
from html import escape

from labkit.widgets.base import text


def axis(values: list, log: bool, unit: str, bars: bool) -> tuple[list, list]:
    """`[low, high, log]` that holds all values, and its ticks as (value, words).

    Raises ValueError for what it cannot show.
    """
    values = [v for v in values if v is not None]
    if not values:
        raise ValueError(
            "there is nothing to draw: every value is missing, infinite or not a number"
        )
    low, high = min(values), max(values)
    if log and low <= 0:
        raise ValueError(f"log_y needs values above zero, but the smallest is {low:g}")
    if bars and (low < 0 or log):
        raise ValueError(
            f"bars stand on zero, so they can't show {'a logarithm' if log else f'{low:g}'}: use"
            " chart='line'"
        )
    if log:
        low, high, ticks = decades(low, high)
    else:
        low, high = min(low, 0), max(high, 0)
        step = nice((high - low) / 4 or 1)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-3)
        ticks = [step * i for i in range(first, max(last, first + 1) + 1)]
        low, high = ticks[0], ticks[-1]
    return [low, high, log], [(t, text(t, unit)) for t in ticks]


def nice(rough: float) -> float:
    """The next step of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)


def decades(low: float, high: float) -> tuple[float, float, list[float]]:
    """Ends and ticks of a logarithmic axis: ticks at 1, 2, 5 within two decades, else at powers of
    ten, seven at most.
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    if last - first > 2:
        return (
            10.0**first,
            10.0**last,
            [10.0**e for e in range(first, last + 1, math.ceil((last - first) / 6))],
        )
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    start = max(i for i, t in enumerate(ticks) if t <= low * 1.001)
    end = next(i for i, t in enumerate(ticks) if t >= high * 0.999 and i > start)
    return ticks[start], ticks[end], ticks[start : end + 1]


def tenth(share: float) -> float:
    """A share as thousandths with one decimal, halves upward as in JavaScript."""
    return math.floor(share * 10000 + 0.5) / 10


def fraction(value, x: list, log: bool) -> float:
    """How far from the first x to the last."""
    f = math.log10 if log else float
    return tenth((f(value) - f(min(x))) / ((f(max(x)) - f(min(x))) or 1))


def height(value: float, frame: list) -> float:
    """Where a value lies on the vertical axis: 0 at the top, 1000 at the bottom."""
    low, high, log = frame
    f = math.log10 if log else float
    return tenth((f(high) - f(value)) / (f(high) - f(low)))


def spread(x: list, chart: str, log: bool, unit: str) -> tuple[list[float], list]:
    """Where each x lies, and the labels under the axis: `[where, words, whether a phone leaves it
    out]`.
    """
    numeric = chart == "line" and all(isinstance(v, (int, float)) for v in x)
    if log and not (numeric and min(x) > 0):
        raise ValueError("log_x needs a line over numbers above zero")
    places = [
        fraction(v, x, log) if numeric else tenth((i + 0.5) / len(x)) for i, v in enumerate(x)
    ]
    if numeric and not log and len(x) > 8:
        step = nice((max(x) - min(x)) / 5 or 1)
        values = [
            step * i
            for i in range(math.ceil(min(x) / step - 1e-9), math.floor(max(x) / step + 1e-9) + 1)
        ]
    elif log and len(x) > 12:
        values = [t for t in decades(min(x), max(x))[2] if min(x) <= t <= max(x)]
    else:
        values = x[:: math.ceil(len(x) / (8 if numeric else 14))]
    at, words = dict(zip(x, places)), [text(v, unit) for v in values]
    crowded = len("".join(words)) + 2 * len(words) > 36  # characters that fit a phone
    return places, [
        [at[v] if v in at else fraction(v, x, log), w, crowded and i % 2 == 1]
        for i, (v, w) in enumerate(zip(values, words))
    ]


def marks(spec: dict, row: dict) -> list[dict]:
    """The lines (runs of points between gaps) or the bars of one row."""
    out, n, stacked = [], len(spec["x"]), spec["chart"] == "stack"
    width, below = 800 / n / (1 if stacked else len(row["y"])), [1000.0] * n
    for series, ys in enumerate(row["y"]):
        run = []
        for i, y in enumerate([*ys, None]):
            if spec["chart"] == "line":
                if y is not None:
                    run.append(f"{spec['at'][i]:g},{height(y, spec['frame']):g}")
                elif run:
                    out.append({"series": series, "points": " ".join(run)})
                    run = []
            elif y is not None:
                size = 1000 - height(y, spec["frame"])
                top = (below[i] if stacked else 1000) - size
                below[i] = top if stacked else below[i]
                left = spec["at"][i] - 400 / n + (0 if stacked else series * width)
                out.append(
                    {"series": series, "i": i, "x": left, "y": top, "width": width, "height": size}
                )
    return out


def drawing(spec: dict, row: dict) -> str:
    """One row as SVG, for a page without JavaScript."""
    attributes = lambda a: " ".join(f'{k.strip("_").replace("_", "-")}="{v}"' for k, v in a.items())
    label = lambda words, **a: f"<text {attributes(a)}>{escape(words)}</text>"
    line = lambda at, cls="": (
        f'<line class="{cls}" x1="0" x2="100%" y1="{at / 10}%" y2="{at / 10}%"/>'
    )
    parts = [
        line(at) + label(words, x=0, y=f"{at / 10}%", dx=-8, dy="0.35em", text_anchor="end")
        for at, words in spec["ticks"]
    ]
    parts += [
        label(
            words,
            x=f"{at / 10}%",
            y="100%",
            dy="1.5em",
            text_anchor="middle",
            class_="lk-minor" * minor,
        )
        for at, words, minor in spec["x_ticks"]
    ]
    parts += [
        line(at, "lk-limit") + label(words, class_="lk-limit", x=6, y=f"{at / 10}%", dy="-0.4em")
        for at, words in spec["lines"]
    ]
    drawn = marks(spec, row)
    if spec["chart"] == "line":
        lines = "".join(
            f'<polyline class="lk-s{m["series"]}" points="{m["points"]}"/>' for m in drawn
        )
        parts.append(
            '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%"'
            f' overflow="visible">{lines}</svg>'
        )
    else:
        box = lambda m: attributes({k: f"{m[k] / 10}%" for k in ("x", "y", "width", "height")})
        parts += [f'<rect class="lk-s{m["series"]}" {box(m)}/>' for m in drawn]
    if spec["named"]:
        small = "lk-value" + " lk-minor" * (len(spec["x"]) > 4)
        parts += [
            label(
                text(row["y"][m["series"]][m["i"]], spec["y_unit"]),
                x=f"{(m['x'] + m['width'] / 2) / 10}%",
                y=f"{m['y'] / 10}%",
                dy="-0.4em",
                text_anchor="middle",
                class_=small,
            )
            for m in drawn
        ]
    if "mark" in row:
        parts.append(
            f'<circle class="lk-now" cx="{row["mark"][0] / 10}%" cy="{row["mark"][1] / 10}%"'
            ' r="7"/>'
        )
    return (
        f'<div class="lk-chart" style="--gutter: {spec["gutter"]}ch"><p'
        f' class="lk-y">{escape(spec["y_label"])}</p><svg class="lk-plot" role="img"'
        f' aria-label="{escape(spec["alt"])}">{"".join(parts)}</svg><p'
        f' class="lk-x">{escape(spec["x_label"])}</p></div>'
    )
