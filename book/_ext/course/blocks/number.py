"""``{n}`expression | format` ``: a number that labkit computes or has measured, with its receipt.

On the page a number is a link to its receipt at the page's end, so it works without JavaScript;
with it the receipt opens beside the number.
"""

from __future__ import annotations

from html import escape

from docutils import nodes
from sphinx.transforms import SphinxTransform

from course.block import Role
from labkit import results

LABELS = {"date": "Measured"}  # others are called as they are


class Number(Role):
    """See `labkit.results.receipt` for what an expression may say."""

    names = ("n",)

    def to_nodes(self):
        made = results.receipt(self.text)
        kept = self.env.temp_data.setdefault("receipts", {})
        # the same number twice has one receipt
        key = next((k for k, other in kept.items() if other == made), f"n{len(kept) + 1}")
        kept[key] = made
        return [receipt(self.rawtext, made.text, key=key, measured=bool(made.sources))]

    @classmethod
    def to_markdown(cls, page, name, text):
        return results.receipt(text).text


class receipt(nodes.Inline, nodes.TextElement):
    """A number of the prose; `key` names its receipt on this page."""


class receipt_list(nodes.General, nodes.Element):
    """All receipts of a page: `receipts` {key: Receipt}."""


class AppendReceipts(SphinxTransform):
    default_priority = 900

    def apply(self):
        kept = self.env.temp_data.pop("receipts", None)
        if kept:
            self.document += receipt_list("", receipts=kept)


def visit_receipt(self, node):
    kind = "measured" if node["measured"] else "computed"
    key = node["key"]
    self.body.append(f'<a class="receipt {kind}" href="#{key}" aria-describedby="{key}">')


def depart_receipt(self, node):
    self.body.append("</a>")


def facts(source: dict) -> str:
    """Where and when one result was measured."""
    entries = [
        f"<div><dt>{label(key)}</dt><dd>{escape(fact)}</dd></div>"
        for key, fact in source.items()
        if key != "spread"  # which belongs to its number
    ]
    return f"<dl>{''.join(entries)}</dl>"


def label(key: str) -> str:
    return LABELS.get(key, key.capitalize())


def origin(made: results.Receipt) -> str:
    """The facts of every result behind a number."""
    computed = {"how": "computed by labkit when the page was built"}
    return "".join(facts(source) for source in made.sources or [computed])


def row(key: str, made: results.Receipt) -> str:
    """One number: its text, how it was made, its spread."""
    spreads = dict.fromkeys(s["spread"] for s in made.sources if s.get("spread"))
    small = "".join(f"<small>{escape(spread)}</small>" for spread in spreads)
    return (
        f'<li id="{key}"><b>{escape(made.text)}</b>'
        f" <code>{escape(made.expression)}</code>{small}</li>"
    )


def visit_receipt_list(self, node):
    """Numbers of the same origin share a block, which says where they come from once."""
    origins = {}
    for key, made in node["receipts"].items():
        origins.setdefault(origin(made), []).append(row(key, made))
    blocks = "".join(
        f'<div class="origin">{shown}<ul>{"".join(rows)}</ul></div>'
        for shown, rows in origins.items()
    )
    many = len(node["receipts"])
    numbers = (
        f"the {many} numbers of this page come" if many > 1 else "the number of this page comes"
    )
    self.body.append(
        '<aside class="receipts" aria-label="Receipts">'
        f"<details><summary>Where {numbers} from</summary>{blocks}</details></aside>"
    )
    raise nodes.SkipNode


def setup(app):
    app.add_node(receipt, html=(visit_receipt, depart_receipt))
    app.add_node(receipt_list, html=(visit_receipt_list, None))
    app.add_transform(AppendReceipts)
