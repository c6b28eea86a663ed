"""A formula as LaTeX, made from its Python source."""

from __future__ import annotations

import re

from labkit.config import UnknownName
from labkit.formulas import serving, symbols

FORMULAS = {
    name: function
    for module in (symbols, serving)
    for name, function in vars(module).items()
    if getattr(function, "__module__", "") == module.__name__
}


def latex(name: str) -> str:
    """`kv_bits_per_token` -> LaTeX with its left side. UnknownName for no formula's name."""
    import latexify

    if name not in FORMULAS:
        raise UnknownName("formula", name, FORMULAS)
    written = latexify.get_latex(FORMULAS[name], use_math_symbols=True)
    # a guard against TeX's spacing of \left, which MathML has no use for
    plain = written.replace(r"\mathopen{}\left", r"\left").replace(r"\mathclose{}\right", r"\right")
    # E_r is an E with an index
    return re.sub(r"\\mathrm{(\w)\\_(\w+)}", lambda found: f"{found[1]}_{{{found[2]}}}", plain)
