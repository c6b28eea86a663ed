"""A formula of labkit: ``{formula}`name` `` within a line, `{formula} name` as a block, whose
`:left:` says in words what it gives.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

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
    option_spec: ClassVar = {"left": directives.unchanged_required}

    def to_nodes(self):
        shown = typeset(self.arguments[0], self.options)
        where = {"number": None, "label": None, "docname": self.env.docname}
        return [nodes.math_block(shown, shown, nowrap=False, **where)]

    @classmethod
    def to_markdown(cls, page, written):
        return f"$$\n{typeset(written.argument, written.options)}\n$$"


def typeset(name: str, options: dict) -> str:
    left, _, right = formulas.latex(name).partition(" = ")
    if "left" in options:
        return rf"\text{{{options['left']}}} = {right}"
    # the text says what it is; `naive_attention_terms(n) =` fills a phone
    return right if r"\_" in left else f"{left} = {right}"
