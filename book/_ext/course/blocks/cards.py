"""`{cards}` of `{card}`s.

`:link:` is a page of the book or an address, and makes all of a card clickable.
"""

from __future__ import annotations

from typing import ClassVar

from docutils.parsers.rst import directives

from course.block import Block, make


class Cards(Block):
    names = ("cards",)

    def to_nodes(self):
        return [make("div", *self.body(), classes=["cards"])]

    @classmethod
    def to_markdown(cls, page, written):
        return page.lower(written.content)


class Card(Block):
    names = ("card",)
    required_arguments = 1
    option_spec: ClassVar = {"link": directives.unchanged_required}

    def to_nodes(self):
        title = self.line(linked(self.arguments[0], self.options))
        heading = make("p", *title, classes=["card-title"])
        return [make("div", heading, *self.body(), classes=["card"])]

    @classmethod
    def to_markdown(cls, page, written):
        title = page.lower(linked(written.argument, written.options))
        return f"**{title}**\n\n{page.lower(written.content)}"


def linked(title: str, options: dict) -> str:
    return f"[{title}]({options['link']})" if "link" in options else title
