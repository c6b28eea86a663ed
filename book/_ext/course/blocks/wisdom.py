"""`{wisdom} D5`: a slide's wisdom line where a section teaches the slide, and under it, folded,
what it means, why it matters and the usual mistake. The words stand in `appendix/seeds.toml`.
"""

from __future__ import annotations

from docutils import nodes

from course import seeds
from course.block import Block, fold, folded, make, quoted
from course.lower import Page
from course.seeds import Group

HEADS = ("What it means.", "Why it matters.", "Common mistake.")


class Wisdom(Block):
    names = ("wisdom",)
    required_arguments = 1
    has_content = False

    def to_nodes(self):
        return shown(self, seeds.slide(self.arguments[0]))

    @classmethod
    def to_markdown(cls, page, written):
        return markdown(page, seeds.slide(written.argument))

    @classmethod
    def reads(cls, argument):
        known = seeds.slides(seeds.load()).get(argument)
        return [seeds.file(), *(seeds.made_from(" ".join(known.corner)) if known else ())]


def shown(block: Block, slide: Group) -> list[nodes.Node]:
    """A slide's line, on the site; its corner folds under it, if it has one."""
    line = block.line(slide.wisdom)
    if not slide.corner:
        return [make("p", *line, classes=["wisdom-line"])]
    body = [
        make("p", nodes.strong("", head), nodes.Text(" "), *block.line(said))
        for head, said in zip(HEADS, slide.corner)
    ]
    label = make("span", nodes.Text("Corner"), classes=["label"])
    return [fold([label, nodes.Text(" "), *line], body, classes=["fold", "wisdom"])]


def markdown(page: Page, slide: Group) -> str:
    line = page.lower(slide.wisdom)
    if not slide.corner:
        return quoted(line)
    body = [f"**{head}** {page.lower(said)}" for head, said in zip(HEADS, slide.corner)]
    return folded(f"Corner: {line}", "\n\n".join(body))
