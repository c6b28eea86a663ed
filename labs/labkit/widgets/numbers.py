"""Numbers as people read them, and as a page carries them."""

from __future__ import annotations

import math

PREFIXES = ["n", "µ", "m", "", "k", "M", "G", "T", "P"]
# units that take k, M, G
PREFIXED = {"bytes": "B", "seconds": "s", "FLOPs": "FLOP", "bytes/s": "B/s", "FLOPs/s": "FLOP/s"}
GAP = "\u00a0"  # between a number and its unit no line may break


def as_text(value, unit: str = "") -> str:
    """A number as people read it: `1.34 GB`, `4.2 ms`, `8,192 tokens`, `38.4%`, `17.3×`.

    The browser is given these texts: it writes no number itself.
    """
    if value is None or isinstance(value, str):
        return value or "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if unit in PREFIXED:
        return _prefixed(value, unit)
    if unit == "%":
        value = value * 100
    if unit in ("", "%", "×"):
        tail = unit
    else:
        tail = GAP + (unit.removesuffix("s") if value == 1 else unit)
    if 0 < abs(value) < 1e-4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}{tail}"
    if not float(value).is_integer():
        value = significant(value, 3 if unit == "%" else 4)
    return _plain(value) + tail


def on_axis(value, unit: str = "") -> str:
    """A number on an axis, whose label says what it counts: `40` of `40 tokens/s`."""
    return as_text(value, unit if unit in PREFIXED or unit in ("%", "×") else "")


def _prefixed(value: float, unit: str) -> str:
    """With k, M, G; seconds also with m, µ, n."""
    value = significant(value, 3)
    power = 0
    while abs(value) >= 1000 and power < 5:
        value /= 1000
        power += 1
    while 0 < abs(value) < 1 and power > -3 and unit == "seconds":
        value *= 1000
        power -= 1
    return _plain(significant(value, 3)) + GAP + PREFIXES[power + 3] + PREFIXED[unit]


def _plain(value: float) -> str:
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def significant(value: float, digits: int) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def rounded(value):
    """What is shipped of a number: four significant digits, all of a whole one below a million.

    Arrays become lists; nan and infinity become None.
    """
    if hasattr(value, "tolist"):  # NumPy and torch
        return rounded(value.tolist())
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int) and abs(value) < 1_000_000:
        return value
    if not math.isfinite(value):
        return None
    short = significant(value, 4)
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
