"""What else the built site holds: each page as Markdown, `llms.txt`, and the search index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.environment.collectors import EnvironmentCollector

from course.lower import Book, lower_page

SKIP = (
    nodes.literal_block,
    nodes.raw,
    nodes.math,
    nodes.math_block,
    nodes.comment,
    nodes.system_message,
)
LLMS = """\
# {title}

> An interactive course on the inference of large language models.
> Every number on its pages comes from its package, labkit.

## Pages, as Markdown

{pages}
## Source

- [Repository]({repository})
"""


class SectionCollector(EnvironmentCollector):
    """The text of each section, for the search: {docname: [[anchor, title, text], ...]}."""

    def clear_doc(self, app, env, docname):
        sections(env).pop(docname, None)

    def merge_other(self, app, env, docnames, other):
        sections(env).update({docname: sections(other)[docname] for docname in docnames})

    def process_doc(self, app, doctree):
        sections(app.env)[app.env.docname] = [
            [section["ids"][0], section.next_node(nodes.title).astext(), own_text(section)]
            for section in doctree.findall(nodes.section)
        ]


def sections(env) -> dict[str, list]:
    return env.__dict__.setdefault("course_sections", {})


def own_text(section: nodes.section) -> str:
    """The words of a section without its title, its subsections, code and maths."""
    parts = []
    for child in section.children:
        if not isinstance(child, (nodes.section, nodes.title)):
            parts += [
                text.astext()
                for text in child.findall(nodes.Text)
                if not any(isinstance(node, SKIP) for node in ancestors(text, child))
            ]
    return " ".join(" ".join(parts).split())


def ancestors(node: nodes.Node, top: nodes.Node) -> Iterator[nodes.Node]:
    while node is not top:
        node = node.parent
        yield node


def export(app, exception):
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    book = Book(Path(app.srcdir))
    titles = {docname: app.env.titles[docname].astext() for docname in reading_order(app.env)}
    index = [
        [docname, title, *section]
        for docname, title in titles.items()
        for section in sections(app.env).get(docname, [])
    ]
    packed = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (out / "search-index.js").write_text(f"window.courseIndex = {packed};\n")
    for docname in titles:
        target = out / f"{docname}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(lower_page(Path(app.env.doc2path(docname)), book))
    pages = "".join(f"- [{title}]({book.site}{docname}.md)\n" for docname, title in titles.items())
    listed = LLMS.format(title=app.config.html_title, pages=pages, repository=book.repository)
    (out / "llms.txt").write_text(listed)


def reading_order(env) -> list[str]:
    """The pages in the order of the table of contents."""
    order, stack = [], [env.config.master_doc]
    while stack:
        docname = stack.pop(0)
        if docname not in order:
            order.append(docname)
            stack = env.toctree_includes.get(docname, []) + stack
    return order


def setup(app):
    app.add_env_collector(SectionCollector)
    app.connect("build-finished", export)
