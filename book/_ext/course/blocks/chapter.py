"""`{chapter}`: the head of a chapter.

`:read:` and `:do:`, minutes for the text and for cells, exercises and quiz; `:needs:`; and as its
body the list of what the reader will be able to do.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

from course.block import Block, make, quoted


class Chapter(Block):
    names = ("chapter",)
    option_spec: ClassVar = {
        "read": directives.positive_int,
        "do": directives.positive_int,
        "needs": directives.unchanged_required,
    }

    def to_nodes(self):
        if set(self.options) != {"read", "do", "needs"} or not self.content:
            raise ValueError(
                "{chapter} needs :read:, :do:, :needs: and a list of what the reader will be able"
                " to do"
            )
        facts = make(
            "dl",
            make("dt", nodes.Text("Time")),
            make("dd", nodes.Text(budget(self.options))),
            make("dt", nodes.Text("Needs")),
            make("dd", *self.line(self.options["needs"])),
        )
        able = make("p", nodes.Text("You will be able to"), classes=["label"])
        return [make("div", facts, able, *self.body(), classes=["chapter-head"])]

    @classmethod
    def to_markdown(cls, page, written):
        needs = page.lower(written.options["needs"])
        able = page.lower(written.content)
        return quoted(
            f"**{budget(written.options)}.** Needs: {needs}\n\nYou will be able to\n\n{able}"
        )


def budget(options: dict) -> str:
    return f"Read {options['read']}, do {options['do']} minutes"
