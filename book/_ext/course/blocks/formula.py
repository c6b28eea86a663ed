"""A formula of labkit: ``{formula}`name` `` within a line, `{formula} name` as a block."""

from __future__ import annotations

from docutils import nodes

from course.block import Block, Role
from labkit import formulas


class FormulaRole(Role):
    names = ("formula",)

    def to_nodes(self):
        return [nodes.math(self.rawtext, formulas.latex(self.text))]

    @classmethod
    def to_markdown(cls, page, name, text):
        return f"${formulas.latex(text)}$"


class Formula(Block):
    names = ("formula",)
    required_arguments = 1
    has_content = False

    def to_nodes(self):
        latex = formulas.latex(self.arguments[0])
        left, _, right = latex.partition(" = ")
        # the text says what it is; `naive_attention_terms(n) =` fills a phone
        shown = right if r"\_" in left else latex
        where = {"number": None, "label": None, "docname": self.env.docname}
        return [nodes.math_block(shown, shown, nowrap=False, **where)]

    @classmethod
    def to_markdown(cls, page, written):
        return f"$$\n{formulas.latex(written.argument)}\n$$"
