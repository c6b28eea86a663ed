"""`{tab-set}` of `{tab-item}`s: one is seen at a time; all of them on paper and in Markdown."""

from __future__ import annotations

from course.block import Block, html, make


class TabSet(Block):
    names = ("tab-set",)

    def to_nodes(self):
        # this set's number on the page, and how many items it has so far
        self.env.temp_data["tab_set"] = [self.env.new_serialno("tabs"), 0]
        return [make("div", *self.body(), classes=["tabs"])]

    @classmethod
    def to_markdown(cls, page, written):
        return page.lower(written.content)


class TabItem(Block):
    names = ("tab-item",)
    required_arguments = 1

    def to_nodes(self):
        number, item = self.env.temp_data["tab_set"]
        self.env.temp_data["tab_set"][1] += 1
        id = f"tab-{number}-{item}"
        checked = "" if item else " checked"
        radio = f'<input type="radio" name="tabs-{number}" id="{id}"{checked}>'
        label = make("label", *self.line(self.arguments[0]), attrs=f' for="{id}"')
        return [html(radio), label, make("div", *self.body(), classes=["tab-panel"])]

    @classmethod
    def to_markdown(cls, page, written):
        return f"**{page.lower(written.argument)}**\n\n{page.lower(written.content)}"
