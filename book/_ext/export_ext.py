"""What else the built site holds: each page as Markdown, `llms.txt`, and the search index."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from docutils import nodes
from sphinx.environment.collectors import EnvironmentCollector

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

> An interactive course on the inference of large language models: every number on its pages comes from its package, labkit.

## Pages, as Markdown

{pages}
## Source

- [Repository]({repository})
"""


class SectionCollector(EnvironmentCollector):
    """The text of each section, for the search: {docname: [[anchor, title, text], ...]}."""

    def clear_doc(self, app, env, docname):
        env.__dict__.setdefault("course_sections", {}).pop(docname, None)

    def merge_other(self, app, env, docnames, other):
        env.__dict__.setdefault("course_sections", {}).update(
            {d: other.course_sections[d] for d in docnames}
        )

    def process_doc(self, app, doctree):
        found = [
            [s["ids"][0], s.next_node(nodes.title).astext(), " ".join(own_text(s).split())]
            for s in doctree.findall(nodes.section)
        ]
        app.env.__dict__.setdefault("course_sections", {})[app.env.docname] = found


def own_text(section) -> str:
    """The words of a section without its title, its subsections, code and maths."""
    parts = []
    for child in section.children:
        if not isinstance(child, (nodes.section, nodes.title)):
            parts += [
                t.astext()
                for t in child.findall(nodes.Text)
                if not any(isinstance(a, SKIP) for a in ancestors(t, child))
            ]
    return " ".join(parts)


def ancestors(node, top):
    while node is not top:
        node = node.parent
        yield node


def export(app, exception):
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    docs = reading_order(app.env)
    titles = {d: app.env.titles[d].astext() for d in docs}
    index = [
        [d, titles[d], *section] for d in docs for section in app.env.course_sections.get(d, [])
    ]
    (out / "search-index.js").write_text(
        "window.courseIndex = "
        + json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        + ";\n"
    )
    base = app.config.html_baseurl
    sys.path.insert(0, str(Path(app.srcdir) / "scripts"))
    from lower import lower_page

    for docname in docs:
        target = out / f"{docname}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(lower_page(Path(app.env.doc2path(docname)), Path(app.srcdir)))
    pages = "".join(f"- [{titles[d]}]({base}{d}.md)\n" for d in docs)
    (out / "llms.txt").write_text(
        LLMS.format(
            title=app.config.html_title,
            pages=pages,
            repository=app.config.html_theme_options["repository_url"],
        )
    )


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
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
