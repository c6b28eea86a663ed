"""What all widgets share: the card, the course's colours, numbers as text, and the weight a page
may carry.
"""

from __future__ import annotations

import json
import math
import sys
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from pathlib import Path

import anywidget
import traitlets

from labkit import palette

PREFIXES = ["n", "µ", "m", "", "k", "M", "G", "T", "P"]
# units that take k, M, G
PREFIXED = {"bytes": "B", "seconds": "s", "FLOPs": "FLOP", "bytes/s": "B/s", "FLOPs/s": "FLOP/s"}


def source(*names: str) -> str:
    """Files of this folder, joined, without indentation and lines that are only a comment: a page
    carries them.
    """
    lines = (
        line.strip()
        for name in names
        for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    )
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/** ")))


def stylesheet() -> str:
    """The widgets' CSS, with the palette before it."""
    return palette.rules() + source("widgets.css")


class Card(anywidget.AnyWidget):
    """A titled box.

    `spec` is what the browser needs and never changes; with a kernel the browser's ping is
    answered.
    """

    _css = stylesheet()
    spec = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**traits)
        self.on_msg(
            lambda widget, content, buffers: widget.send("pong") if content == "ping" else None
        )

    def fallback(self) -> str:
        """The card as it stands where no script runs, as HTML."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        # Colab always has JavaScript, and need not choose between two views
        if "google.colab" not in sys.modules:
            data["text/html"] = self.fallback()
        return data, metadata


def still(kind: str, title: str, *parts: str) -> str:
    """The frame of a fallback; the book and the host find it by its class."""
    name = escape(title)
    return (
        f'<div class="lk lk-{kind} lk-still" role="group" aria-label="{name}"><p'
        f' class="lk-title">{name}</p>{"".join(parts)}</div>'
    )


def paragraph(text: str, cls: str) -> str:
    """A paragraph in which `**…**` is bold; none for no text."""
    bold = [f"<b>{p}</b>" if i % 2 else p for i, p in enumerate(escape(text).split("**"))]
    return f'<p class="{cls}">{"".join(bold)}</p>' if text else ""


def numbers(head: list[str], rows: list[list[str]]) -> str:
    """A folded table: the numbers behind a picture."""
    line = lambda cells, tag: "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells)
    body = "".join(f'<tr><th scope="row">{escape(r[0])}</th>{line(r[1:], "td")}</tr>' for r in rows)
    head_row = "".join(f'<th scope="col">{escape(c)}</th>' for c in head)
    return (
        '<details class="lk-numbers"><summary>Numbers</summary><div'
        f' class="lk-scroll"><table><thead><tr>{head_row}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def significant(value: float, digits: int) -> float:
    """Rounded half up to so many digits, exactly as JavaScript's toPrecision does."""
    exact = Decimal(value)
    return (
        float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits + 1), ROUND_HALF_UP))
        if value
        else 0.0
    )


def text(value, unit: str = "") -> str:
    """A number as people read it: `1.34 GB`, `320 kB`, `4.2 ms`, `8,192 tokens`, `38.4%`, `17.3×`.

    `common.js` has its twin.
    """
    if value is None or isinstance(value, str):
        return value or "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if unit in PREFIXED:
        value, power = significant(value, 3), 0
        while abs(value) >= 1000 and power < 5:
            value, power = value / 1000, power + 1
        while 0 < abs(value) < 1 and power > -3 and unit == "seconds":
            value, power = value * 1000, power - 1
        return (
            f"{significant(value, 3):,.10f}".rstrip("0").rstrip(".")
            + "\u00a0"
            + PREFIXES[power + 3]
            + PREFIXED[unit]
        )
    value = value * 100 if unit == "%" else value
    tail = (
        unit
        if unit in ("%", "×")
        else "\u00a0" + (unit.removesuffix("s") if value == 1 else unit)
        if unit
        else ""
    )
    if 0 < abs(value) < 1e-4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}{tail}"
    value = value if float(value).is_integer() else significant(value, 3 if unit == "%" else 4)
    return f"{value:,.10f}".rstrip("0").rstrip(".") + tail


def rounded(value):
    """What is shipped of a number: whole ones below a million as they are, others with 4 digits,
    none for nan and infinity.
    """
    if hasattr(value, "tolist"):  # NumPy and torch
        return rounded(value.tolist())
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if (
        value is None
        or isinstance(value, (str, bool))
        or (isinstance(value, int) and abs(value) < 1_000_000)
    ):
        return value
    if not math.isfinite(value):
        return None
    short = significant(float(value), 4)
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def weigh(what: str, data, max_bytes: int, remedy: str, times: int = 1) -> None:
    """ValueError, with size and remedy, when `times` such data would be too heavy for a page."""
    size = times * len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > max_bytes:
        raise ValueError(
            f"{what} would put {size / 1000:,.0f} kB on the page, over the limit of"
            f" {max_bytes / 1000:,.0f} kB (max_bytes): {remedy}"
        )
