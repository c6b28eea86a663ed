"""What else the built site holds: each page as Markdown, `llms.txt`, and the search."""

from __future__ import annotations

from pathlib import Path

from course import search
from course.lower import Book, lower_page

LLMS = """\
# {title}

> An interactive course on the inference of large language models.
> Every number on its pages comes from its package, labkit.

## Pages, as Markdown

{pages}
## For an assistant at a reader's side

- [How to tutor]({site}AGENTS.md)

## Source

- [Repository]({repository})
"""


def export(app, exception):
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    book = Book(Path(app.srcdir))
    titles = {docname: app.env.titles[docname].astext() for docname in reading_order(app.env)}
    (out / "search-index.js").write_text(search.script(app.env, titles))
    for docname in titles:
        target = out / f"{docname}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(lower_page(Path(app.env.doc2path(docname)), book))
    pages = "".join(f"- [{title}]({book.site}{docname}.md)\n" for docname, title in titles.items())
    listed = LLMS.format(
        title=app.config.html_title, pages=pages, site=book.site, repository=book.repository
    )
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
    app.connect("build-finished", export)
