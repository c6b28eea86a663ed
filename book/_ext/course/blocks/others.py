"""Blocks and roles that Sphinx, MyST and their extensions draw: how each reads in Markdown."""

from __future__ import annotations

import re
from typing import ClassVar

from course.block import Lowered, LoweredRole

# -- blocks ----------------------------------------------------------------------------------------


class Math(Lowered):
    names = ("math",)

    @classmethod
    def to_markdown(cls, page, written):
        return f"$$\n{written.content.strip()}\n$$"


class Figure(Lowered):
    names = ("figure", "image")

    @classmethod
    def to_markdown(cls, page, written):
        address = written.argument
        if not re.match(r"[a-z]+:", address):
            address = page.image(address)
        picture = f"![{written.options.get('alt', '')}]({address})"
        caption = page.lower(written.content)
        return f"{picture}\n\n*{caption}*" if caption else picture


class Code(Lowered):
    names = ("code-block", "code")

    @classmethod
    def to_markdown(cls, page, written):
        return f"```{written.argument or 'text'}\n{written.content}\n```"


class CodeCell(Lowered):
    names = ("code-cell",)

    @classmethod
    def to_markdown(cls, page, written):
        return f"```python\n{written.content}\n```"


class Table(Lowered):
    names = ("table",)

    @classmethod
    def to_markdown(cls, page, written):
        title = page.lower(written.argument)
        body = page.lower(written.content)
        return f"**{title}**\n\n{body}" if title else body


class Container(Lowered):
    """What only groups or styles its content."""

    names = ("container", "div", "glossary")

    @classmethod
    def to_markdown(cls, page, written):
        return page.lower(written.content)


class Contents(Lowered):
    """What lists other pages."""

    names = ("toctree", "contents")

    @classmethod
    def to_markdown(cls, page, written):
        return ""


# -- roles -----------------------------------------------------------------------------------------


class Cite(LoweredRole):
    names = ("cite", "cite:p", "cite:t")

    @classmethod
    def to_markdown(cls, page, name, text):
        keys = [key.strip() for key in text.split(",")]
        page.cited.update(keys)
        works = "; ".join(page.book.cite(key) for key in keys)
        return works if name == "cite:t" else f"({works})"


class Ref(LoweredRole):
    names = ("ref", "numref", "eq")

    @classmethod
    def to_markdown(cls, page, name, text):
        shown, label = titled(text)
        docname, title = page.book.labels.get(label, (page.docname, label))
        return f"[{shown or title}]({page.book.url(docname, label)})"


class Doc(LoweredRole):
    names = ("doc",)

    @classmethod
    def to_markdown(cls, page, name, text):
        shown, target = titled(text)
        docname = page.beside(f"{target}.md")
        return f"[{shown or page.book.title(docname)}]({page.book.url(docname)})"


class Term(LoweredRole):
    names = ("term",)

    @classmethod
    def to_markdown(cls, page, name, text):
        shown, term = titled(text)
        return shown or term


class Plain(LoweredRole):
    """What Markdown or HTML has a form for."""

    forms: ClassVar = {
        "abbr": "{}",
        "math": "${}$",
        "code": "`{}`",
        "sub": "<sub>{}</sub>",
        "sup": "<sup>{}</sup>",
        "kbd": "<kbd>{}</kbd>",
    }
    names = tuple(forms)

    @classmethod
    def to_markdown(cls, page, name, text):
        return cls.forms[name].format(text)


def titled(text: str) -> tuple[str, str]:
    """`words <target>` in its two parts; without a target of its own, the text is the target."""
    if text.endswith(">") and " <" in text:
        shown, _, target = text.removesuffix(">").rpartition(" <")
        return shown, target
    return "", text
