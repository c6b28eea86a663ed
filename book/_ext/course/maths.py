"""Maths, rendered when the book is built: from TeX to MathML, which browsers draw by themselves.

MathJax reads the TeX, once, in a browser of the machine that builds. Its script is four times as
heavy as all else on a page, so no reader gets it.
"""

from __future__ import annotations

import re
import string
import unicodedata
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.errors import ExtensionError

from course.browser import FLAGS, executable

# where `scripts/assets.py` puts it at set-up
MATHJAX = Path(".venv/share/mathjax/tex-chtml.js")
# Browsers know `mathvariant` no more: a bold letter is a character of its own.
VARIANTS = {
    "bold": "BOLD",
    "italic": "ITALIC",
    "bold-italic": "BOLD ITALIC",
    "double-struck": "DOUBLE-STRUCK",
    "script": "SCRIPT",
    "sans-serif": "SANS-SERIF",
    "monospace": "MONOSPACE",
}
# These were in Unicode before their alphabets.
EARLIER = {
    "ITALIC SMALL H": "ℎ",
    "DOUBLE-STRUCK CAPITAL C": "ℂ",
    "DOUBLE-STRUCK CAPITAL N": "ℕ",
    "DOUBLE-STRUCK CAPITAL P": "ℙ",
    "DOUBLE-STRUCK CAPITAL Q": "ℚ",
    "DOUBLE-STRUCK CAPITAL R": "ℝ",
    "DOUBLE-STRUCK CAPITAL Z": "ℤ",
    "SCRIPT CAPITAL L": "ℒ",
    "SCRIPT SMALL L": "ℓ",
}
# What makes the brackets around it grow; around all else they need not, and browsers leave the room
# of the tallest bracket beside one that may.
TALL = ["mfrac", "msqrt", "mroot", "munder", "mover", "munderover", "mtable"]
BRACKETS = set("()[]{}⌊⌋⌈⌉⟨⟩|∣‖∥")

Formula = tuple[str, bool]  # TeX, and whether it stands on a line of its own


def of(node: nodes.math | nodes.math_block) -> Formula:
    """The formula of a node. Lines that `\\\\` ends are set below each other."""
    tex = node.astext().strip()
    display = isinstance(node, nodes.math_block)
    if display and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    return tex, display


def render(formulas: list[Formula], mathjax: Path) -> list[str]:
    """Each formula as MathML. ValueError, with the TeX, for what is no formula."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        page = browser.new_page()
        page.evaluate("window.MathJax = {startup: {typeset: false}}")
        page.add_script_tag(path=mathjax)
        page.evaluate("MathJax.startup.promise")
        written = page.evaluate(
            "all => all.map(([tex, display]) => MathJax.tex2mml(tex, {display}))",
            [list(formula) for formula in formulas],
        )
        browser.close()
    return [lean(mathml, tex) for mathml, (tex, _) in zip(written, formulas)]


def lean(mathml: str, tex: str) -> str:
    """MathJax's MathML as browsers want it: no notes of its own, letters instead of variants."""
    soup = BeautifulSoup(re.sub(r">\s+<", "><", mathml), "html.parser")
    if error := soup.find("merror"):
        raise ValueError(f"this is no TeX: {tex}: {error.get('data-mjx-error', error.get_text())}")
    del soup.math["xmlns"]
    for element in soup.find_all(True):
        for name in [name for name in element.attrs if name.startswith("data-")]:
            del element[name]
        variant = element.get("mathvariant")
        if variant in VARIANTS:
            del element["mathvariant"]
            element.string = "".join(letter(c, variant) for c in element.get_text())
        if element.name == "mo" and element.string in BRACKETS and not element.parent.find(TALL):
            element["stretchy"] = "false"
            if element.string == "|":  # browsers take it for a relation, as in a|b
                element["lspace"] = element["rspace"] = "0"
    return soup.decode(formatter="minimal")


def letter(character: str, variant: str) -> str:
    """A letter or digit in another alphabet; what that lacks stays as it is."""
    if character in string.digits:
        kind = f"DIGIT {unicodedata.name(character).removeprefix('DIGIT ')}"
    else:
        words = unicodedata.name(character, "")
        kind = re.sub(r"^(?:LATIN|GREEK) (CAPITAL|SMALL) LETTER ", r"\1 ", words)
    wanted = f"{VARIANTS[variant]} {kind}"
    try:
        return EARLIER.get(wanted) or unicodedata.lookup(f"MATHEMATICAL {wanted}")
    except KeyError:
        return character


# -- in the build ----------------------------------------------------------------------------------


class FormulaCollector(EnvironmentCollector):
    """The formulas of each page."""

    def clear_doc(self, app, env, docname):
        formulas(env).pop(docname, None)

    def merge_other(self, app, env, docnames, other):
        formulas(env).update({docname: formulas(other)[docname] for docname in docnames})

    def process_doc(self, app, doctree):
        found = [of(n) for kind in (nodes.math, nodes.math_block) for n in doctree.findall(kind)]
        formulas(app.env)[app.env.docname] = found


def formulas(env) -> dict[str, list[Formula]]:
    return env.__dict__.setdefault("course_formulas", {})


def rendered(env) -> dict[Formula, str]:
    return env.__dict__.setdefault("course_mathml", {})


def render_new(app, env):
    """All that no earlier build has rendered, in one visit to the browser."""
    wanted = {formula for found in formulas(env).values() for formula in found}
    known = {f: mathml for f, mathml in rendered(env).items() if f in wanted}
    new = sorted(wanted - set(known))
    if new:
        mathjax = Path(app.srcdir) / MATHJAX
        if not mathjax.exists():
            raise ExtensionError(f"{MATHJAX} is missing: make setup brings it")
        try:
            known |= zip(new, render(new, mathjax))
        except (ValueError, FileNotFoundError) as e:
            raise ExtensionError(str(e)) from e
    env.course_mathml = known


def visit_math(self, node):
    self.body.append(rendered(self.builder.env)[of(node)])
    raise nodes.SkipNode


def visit_math_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(rendered(self.builder.env)[of(node)] + "</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_env_collector(FormulaCollector)
    app.add_html_math_renderer("course", (visit_math, None), (visit_math_block, None))
    app.connect("env-updated", render_new)
