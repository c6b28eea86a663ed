"""Numbers and formulas that come from labkit: the roles `{n}` and `{formula}`, and the list of
receipts at the page's end.

A number on the page is a link to its receipt, so it works without JavaScript; with it the receipt
opens beside the number.
"""

from __future__ import annotations

from html import escape

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

from labkit import formulas, results

LABELS = {
    "machine": "Machine",
    "versions": "Versions",
    "date": "Measured",
    "commit": "Commit",
    "command": "Command",
}


class receipt(nodes.Inline, nodes.TextElement):
    """A number of the prose; `key` names its receipt on this page."""


class receipt_list(nodes.General, nodes.Element):
    """All receipts of a page: `receipts` {key: Receipt}."""


class NumberRole(SphinxRole):
    """``{n}`expression | format` ``: see `labkit.results.receipt`."""

    def run(self):
        try:
            made = results.receipt(self.text)
        except ValueError as e:
            return [], [self.inliner.reporter.error(str(e), line=self.lineno)]
        kept = self.env.temp_data.setdefault("receipts", {})
        key = next((k for k, r in kept.items() if r == made), None) or f"n{len(kept) + 1}"
        kept[key] = made
        return [receipt(self.rawtext, made.text, key=key, measured=bool(made.sources))], []


class FormulaRole(SphinxRole):
    """``{formula}`name` ``: a formula of labkit, inline."""

    def run(self):
        try:
            return [nodes.math(self.rawtext, formulas.latex(self.text))], []
        except ValueError as e:
            return [], [self.inliner.reporter.error(str(e), line=self.lineno)]


class FormulaDirective(SphinxDirective):
    """```{formula} name```: the same as display maths."""

    required_arguments = 1

    def run(self):
        try:
            latex = formulas.latex(self.arguments[0])
        except ValueError as e:
            raise self.error(str(e)) from e
        name, _, right = latex.partition(" = ")
        # the text says what it is; `naive_attention_terms(n) =` fills a phone
        latex = right if r"\_" in name else latex
        return [
            nodes.math_block(
                latex, latex, nowrap=False, number=None, label=None, docname=self.env.docname
            )
        ]


class AppendReceipts(SphinxTransform):
    default_priority = 900

    def apply(self):
        kept = self.env.temp_data.pop("receipts", None)
        if kept:
            self.document += receipt_list("", receipts=kept)


def visit_receipt(self, node):
    kind = "measured" if node["measured"] else "computed"
    self.body.append(
        f'<a class="receipt {kind}" href="#{node["key"]}" aria-describedby="{node["key"]}">'
    )


def depart_receipt(self, node):
    self.body.append("</a>")


def facts(sources: list[dict]) -> str:
    """Where and when a number was measured: of a ratio of two results, both."""
    computed = [{"how": "computed by labkit when the page was built"}]
    return "".join(
        f"<div><dt>{escape(LABELS.get(k, k.capitalize()))}</dt><dd>{escape(v)}</dd></div>"
        for source in sources or computed
        for k, v in source.items()
        if k != "spread"
    )


def row(key: str, made: results.Receipt) -> str:
    """One number: its text, how it was made, its spread."""
    spreads = "; ".join(source["spread"] for source in made.sources if "spread" in source)
    spread = f"<small>{escape(spreads)}</small>" if spreads else ""
    return (
        f'<li id="{key}"><b>{escape(made.text)}</b>'
        f" <code>{escape(made.expression)}</code>{spread}</li>"
    )


def visit_receipt_list(self, node):
    """One block for each result, and one for what was computed: numbers of the same origin share
    its facts.
    """
    origins = {}
    for key, made in node["receipts"].items():
        origins.setdefault(facts(made.sources), []).append(row(key, made))
    blocks = "".join(
        f'<div class="origin"><dl>{shown}</dl><ul>{"".join(rows)}</ul></div>'
        for shown, rows in origins.items()
    )
    many = len(node["receipts"])
    summary = (
        f"Where the {many} numbers of this page come from"
        if many > 1
        else "Where the number of this page comes from"
    )
    self.body.append(
        '<aside class="receipts"'
        f' aria-label="Receipts"><details><summary>{summary}</summary>{blocks}</details></aside>'
    )
    raise nodes.SkipNode


def setup(app):
    app.add_node(receipt, html=(visit_receipt, depart_receipt))
    app.add_node(receipt_list, html=(visit_receipt_list, None))
    app.add_role("n", NumberRole())
    app.add_role("formula", FormulaRole())
    app.add_directive("formula", FormulaDirective)
    app.add_transform(AppendReceipts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
