"""`{wisdom} D5`: a slide's wisdom line, and of a concept slide the folded corner, where a section
teaches it. The words stand in `appendix/seeds.toml`.
"""

from __future__ import annotations

from docutils import nodes

from course import seeds
from course.block import Block, fold, folded, make, quoted

CORNER = "Beginner's corner"
HEADS = ("What it means.", "Why it matters.", "Common mistake.")


class Wisdom(Block):
    names = ("wisdom",)
    required_arguments = 1
    has_content = False

    def to_nodes(self):
        slide = seeds.slide(self.arguments[0])
        parts = [make("p", *self.line(slide.wisdom), classes=["wisdom-line"])]
        if slide.corner:
            body = [
                make("p", nodes.strong("", head), nodes.Text(" "), *self.line(said))
                for head, said in zip(HEADS, slide.corner)
            ]
            parts.append(fold([nodes.Text(CORNER)], body))
        return [make("div", *parts, classes=["wisdom"])]

    @classmethod
    def to_markdown(cls, page, written):
        slide = seeds.slide(written.argument)
        line = quoted(page.lower(slide.wisdom))
        if not slide.corner:
            return line
        body = [f"**{head}** {page.lower(said)}" for head, said in zip(HEADS, slide.corner)]
        return line + "\n\n" + folded(CORNER, "\n\n".join(body))

    @classmethod
    def reads(cls, argument):
        return [seeds.file()]
