"""`{chapter}`: the head of a chapter.

`:minutes:`, `:needs:`, and as its body the list of what the reader will be able to do.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

from course.block import Block, make, quoted


class Chapter(Block):
    names = ("chapter",)
    option_spec: ClassVar = {
        "minutes": directives.positive_int,
        "needs": directives.unchanged_required,
    }

    def to_nodes(self):
        if set(self.options) != {"minutes", "needs"} or not self.content:
            raise ValueError(
                "{chapter} needs :minutes:, :needs: and a list of what the reader will be able"
                " to do"
            )
        facts = make(
            "dl",
            make("dt", nodes.Text("Time")),
            make("dd", nodes.Text(f"{self.options['minutes']} minutes")),
            make("dt", nodes.Text("Needs")),
            make("dd", *self.line(self.options["needs"])),
        )
        able = make("p", nodes.Text("You will be able to"), classes=["label"])
        return [make("div", facts, able, *self.body(), classes=["chapter-head"])]

    @classmethod
    def to_markdown(cls, page, written):
        minutes = written.options["minutes"]
        needs = page.lower(written.options["needs"])
        able = page.lower(written.content)
        return quoted(f"**{minutes} minutes.** Needs: {needs}\n\nYou will be able to\n\n{able}")
