"""`{cited}`: the works that this page cites, as the page of references has them."""

from __future__ import annotations

import re

from docutils import nodes

from course.block import Block, Lowered


class cited(nodes.General, nodes.Element):
    """Stands for the list of what a page cites, until all pages are read."""


class Cited(Block):
    names = ("cited",)
    has_content = False

    def to_nodes(self):
        return [cited()]

    @classmethod
    def to_markdown(cls, page, written):
        return works(page.book, page.cited)


class Bibliography(Lowered):
    """Sphinx's `{bibliography}`: every work of the course."""

    names = ("bibliography",)

    @classmethod
    def to_markdown(cls, page, written):
        return works(page.book, page.book.bibliography)


def works(book, keys) -> str:
    lines = []
    for key in sorted(keys):
        title = re.sub("[{}]", "", book.bibliography[key].fields.get("title", ""))
        lines.append(f"- {book.cite(key)}. {title}.")
    return "\n".join(lines)


def list_cited(app, doctree, docname):
    """Put the list in its place, now that the bibliography knows all pages."""
    domain = app.env.get_domain("cite")
    here = [ref for ref in domain.citation_refs if ref.docname == docname]
    keys = {target.key for ref in here for target in ref.targets}
    entries = [
        c.formatted_entry.text.render(domain.backend) for c in domain.citations if c.key in keys
    ]
    items = [nodes.list_item("", nodes.paragraph("", "", *entry)) for entry in entries]
    for node in list(doctree.findall(cited)):
        node.replace_self(nodes.bullet_list("", *items, classes=["cited"]))


def setup(app):
    app.connect("doctree-resolved", list_cited)
