"""`{note}`, `{tip}`, `{warning}` ...: a callout, with a title of its own if one is given.

`:class: dropdown` folds it.
"""

from __future__ import annotations

from typing import ClassVar

from docutils.parsers.rst import directives

from course.block import Block, fold, folded, make, quoted


class Callout(Block):
    names = (
        "note",
        "tip",
        "hint",
        "important",
        "seealso",
        "warning",
        "caution",
        "danger",
        "attention",
        "error",
        "admonition",
    )
    optional_arguments = 1
    option_spec: ClassVar = {"class": directives.class_option}

    def to_nodes(self):
        classes = self.options.get("class", [])
        named = self.arguments or [self.name.capitalize()]
        title = self.line(named[0])
        if "dropdown" in classes:
            return [fold(title, self.body())]
        heading = make("p", *title, classes=["admonition-title"])
        return [make("div", heading, *self.body(), classes=["admonition", self.name, *classes])]

    @classmethod
    def to_markdown(cls, page, written):
        title = page.lower(written.argument) or written.name.capitalize()
        body = page.lower(written.content)
        if "dropdown" in written.options.get("class", ""):
            return folded(title, body)
        return quoted(f"**{title}**\n\n{body}")


class Dropdown(Block):
    """`{dropdown} Title`: a folded block."""

    names = ("dropdown",)
    required_arguments = 1

    def to_nodes(self):
        return [fold(self.line(self.arguments[0]), self.body())]

    @classmethod
    def to_markdown(cls, page, written):
        return folded(page.lower(written.argument), page.lower(written.content))
