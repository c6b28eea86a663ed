"""Maths is rendered when the book is built: MathML in the page, in a font that has its letters."""

import pytest
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont

from course import maths
from labkit.formulas.typeset import FORMULAS, latex
from tests.conftest import ROOT, pages

BUILT = ROOT / maths.MATHJAX


@pytest.fixture(scope="module")
def rendered():
    """TeX -> MathML, in one visit to the browser."""
    texts = [
        r"n \cdot (n + 1)",
        r"\left(\frac{a}{b}\right)",
        r"|x| < \mathbb{R}^{\mathbf{D}2} + \mathcal{L}",
        *map(latex, FORMULAS),
    ]
    return dict(zip(texts, maths.render([(tex, False) for tex in texts], BUILT)))


def letters(mathml: str) -> set[str]:
    return set(BeautifulSoup(mathml, "html.parser").get_text()) - {" ", "\n"}


def test_a_formula_becomes_mathml(rendered):
    assert rendered[r"n \cdot (n + 1)"] == (
        '<math><mi>n</mi><mo>⋅</mo><mo stretchy="false">(</mo><mi>n</mi><mo>+</mo><mn>1</mn>'
        '<mo stretchy="false">)</mo></math>'
    )


def test_only_brackets_round_something_tall_grow(rendered):
    tall = rendered[r"\left(\frac{a}{b}\right)"]
    assert "stretchy" not in tall and "<mfrac>" in tall


def test_letters_of_other_alphabets_are_characters(rendered):
    written = rendered[r"|x| < \mathbb{R}^{\mathbf{D}2} + \mathcal{L}"]
    assert {"ℝ", "𝐃", "ℒ"} <= letters(written) and "mathvariant" not in written
    assert written.count('lspace="0" rspace="0"') == 2, "the bars stand close to x"


def test_what_is_no_tex_is_named():
    with pytest.raises(ValueError, match=r"this is no TeX: \\frac\{a: Missing close brace"):
        maths.render([(r"\frac{a", True)], BUILT)


def test_lines_stand_below_each_other():
    block = maths.nodes.math_block("", r"a &= b \\ c &= d")
    assert maths.of(block) == (r"\begin{aligned}a &= b \\ c &= d\end{aligned}", True)


def test_the_font_has_every_letter(rendered, html):
    """Of each formula of labkit and of each formula on a page."""
    has = set(map(chr, TTFont(html / "_static/vendor/fonts/math-400.woff2").getBestCmap()))
    italic = {"h": "ℎ"}  # a single letter is drawn in the alphabet of italics
    for name in pages():
        page = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
        rendered |= {f"{name}: {m.get_text()}": str(m) for m in page.select("math")}
    for tex, mathml in rendered.items():
        wanted = letters(mathml)
        wanted |= {italic.get(c, maths.letter(c, "italic")) for c in wanted if c.isalpha()}
        assert wanted <= has, (tex, wanted - has)


def test_no_reader_gets_mathjax(html):
    assert not [path for path in html.rglob("*") if "mathjax" in path.name.lower()]
