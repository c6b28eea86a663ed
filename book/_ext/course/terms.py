"""What the glossary says of each term: a page shows it beside the word."""

from __future__ import annotations

from docutils import nodes


def definitions(env) -> dict[str, str]:
    """The text of each definition by the anchor of its term."""
    objects = env.get_domain("std").get_objects()
    pages = {docname for _, _, kind, docname, _, _ in objects if kind == "term"}
    return {
        anchor: item.next_node(nodes.definition).astext()
        for docname in sorted(pages)
        for item in env.get_doctree(docname).findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for anchor in term["ids"]
    }


def redefined(app, env) -> list[str]:
    """All pages, when a definition has changed: any of them may show it."""
    before = env.__dict__.get("course_terms")
    env.course_terms = definitions(env)
    return [] if before in (None, env.course_terms) else list(env.all_docs)


def setup(app):
    app.connect("env-updated", redefined)
