"""Blocks of the page: callouts, `{dropdown}`, `{tab-set}`, `{cards}`, and what the lesson's blocks
are made of.

Whatever folds is a native `<details>`: it works without JavaScript, from a file and by keyboard.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class block(nodes.General, nodes.Element):
    """An HTML element with a class: `tag`, `classes`, and `attrs` as they are to be written."""


class raw_text(nodes.General, nodes.TextElement):
    """Inline content inside one HTML element: `tag`, `classes`."""


def visit_block(self, node):
    classes = f' class="{" ".join(node["classes"])}"' if node["classes"] else ""
    ids = f' id="{node["ids"][0]}"' if node["ids"] else ""
    self.body.append(f"<{node['tag']}{ids}{classes}{node.get('attrs', '')}>")


def depart_block(self, node):
    self.body.append(f"</{node['tag']}>\n")


def make(tag, *children, classes=(), attrs="", kind=block):
    node = kind("", *children) if kind is block else kind("", "", *children)
    node["tag"], node["classes"], node["attrs"] = tag, list(classes), attrs
    return node


def fold(summary: list, body: list, classes=("fold",), attrs="") -> block:
    """A `<details>` with a summary."""
    return make(
        "details",
        make("summary", *summary, kind=raw_text),
        make("div", *body, classes=["fold-body"]),
        classes=classes,
        attrs=attrs,
    )


class Block(SphinxDirective):
    """What all directives here share: parse the body, and a one-line argument, as MyST."""

    has_content = True
    final_argument_whitespace = True

    def body(self) -> list:
        return self.parse_content_to_nodes(allow_section_headings=False)

    def line(self, text: str) -> list:
        return self.state.inline_text(text, self.lineno)[0] if text else []


class Callout(Block):
    """`{note}`, `{tip}` ... with a title of their own if one is given; `:class: dropdown` folds it."""

    optional_arguments = 1
    option_spec: ClassVar = {"class": directives.class_option}

    def run(self):
        classes = self.options.get("class", [])
        title = (
            self.line(self.arguments[0]) if self.arguments else [nodes.Text(self.name.capitalize())]
        )
        if "dropdown" in classes:
            return [fold(title, self.body())]
        heading = make("p", *title, classes=["admonition-title"], kind=raw_text)
        return [make("div", heading, *self.body(), classes=["admonition", self.name, *classes])]


class Dropdown(Block):
    """A folded block with a title."""

    required_arguments = 1

    def run(self):
        return [fold(self.line(self.arguments[0]), self.body())]


class TabSet(Block):
    """`{tab-item}`s of which one is seen at a time; all of them on paper."""

    def run(self):
        number = self.env.new_serialno("tabs")
        self.env.temp_data["tab_set"] = [number, 0]
        return [make("div", *self.body(), classes=["tabs"])]


class TabItem(Block):
    required_arguments = 1

    def run(self):
        number, item = self.env.temp_data["tab_set"]
        self.env.temp_data["tab_set"][1] += 1
        name = f"tab-{number}-{item}"
        radio = f'<input type="radio" name="tabs-{number}" id="{name}"{"" if item else " checked"}>'
        label = make("label", *self.line(self.arguments[0]), attrs=f' for="{name}"', kind=raw_text)
        return [
            nodes.raw("", radio, format="html"),
            label,
            make("div", *self.body(), classes=["tab-panel"]),
        ]


class Card(Block):
    """A card of a `{cards}` block; `:link:` is a page of the book or an address, and makes all of
    it clickable.
    """

    required_arguments = 1
    option_spec: ClassVar = {"link": directives.unchanged_required}

    def run(self):
        link = self.options.get("link")
        title = self.line(f"[{self.arguments[0]}]({link})" if link else self.arguments[0])
        return [
            make(
                "div",
                make("p", *title, classes=["card-title"], kind=raw_text),
                *self.body(),
                classes=["card"],
            )
        ]


class Cards(Block):
    def run(self):
        return [make("div", *self.body(), classes=["cards"])]


def setup(app):
    for kind in (block, raw_text):
        app.add_node(kind, html=(visit_block, depart_block))
    for name in (
        "note",
        "tip",
        "hint",
        "important",
        "seealso",
        "warning",
        "caution",
        "danger",
        "admonition",
    ):
        app.add_directive(name, Callout, override=True)
    for name, directive in {
        "dropdown": Dropdown,
        "tab-set": TabSet,
        "tab-item": TabItem,
        "cards": Cards,
        "card": Card,
    }.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
