"""`{chapters}`: the fifteen in a list: a link to the page, to the labs, or that it is planned."""

from __future__ import annotations

import re

from course.block import Block, make
from labkit import chapters, paths


class Chapters(Block):
    names = ("chapters",)
    has_content = False

    def to_nodes(self):
        items = [make("li", make("p", *self.line(said(c)))) for c in chapters.every()]
        return [make("ul", *items)]

    @classmethod
    def to_markdown(cls, page, written):
        return "\n".join(f"- {page.lower(said(chapter))}" for chapter in chapters.every())

    @classmethod
    def reads(cls, argument):
        return [paths.repository() / "_toc.yml", *(c.page for c in chapters.opened())]


def said(chapter: chapters.Chapter) -> str:
    """What there is of a chapter, in MyST."""
    name = f"{chapter.number} {chapter.title}"
    if chapter.is_open:
        return f"{{ref}}`{name} <{label(chapter)}>`"
    if chapter.lab_names:
        return f"{{ref}}`{name} <labs-{chapter.number}>`, so far its labs"
    return f"{name}, planned"


def label(chapter: chapters.Chapter) -> str:
    """What its page is linked by. ValueError for a page whose title has no label."""
    found = re.search(r"^\(([\w-]+)\)=\n+# ", chapter.page.read_text(), flags=re.M)
    if not found:
        raise ValueError(f"{chapter.page.name} has no label such as (ch-name)= above its title")
    return found[1]
