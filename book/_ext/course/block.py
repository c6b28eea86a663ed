"""What blocks and roles are made of.

A block is a class in a file of `blocks/`: its `names` in the source, `to_nodes` for the site, and
`to_markdown` for Colab, GitHub and a language model. What folds is a native `<details>`: it works
without JavaScript, from a file and by keyboard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

from labkit import chapters

if TYPE_CHECKING:
    from course.lower import Page

# -- the site's side -----------------------------------------------------------------------------


class element(nodes.General, nodes.Element):
    """An HTML element of blocks: `tag`, `classes`, and `attrs` as they are to be written."""


class text_element(nodes.General, nodes.TextElement):
    """An HTML element of words: the same attributes."""


HOLDS_WORDS = {"p", "summary", "span", "dt", "dd", "label"}


def make(tag: str, *children: nodes.Node, classes=(), attrs: str = "") -> nodes.Element:
    """An HTML element. `attrs` are written as they are, so they begin with a space."""
    made = text_element("", "", *children) if tag in HOLDS_WORDS else element("", *children)
    made["tag"] = tag
    made["classes"] = list(classes)
    made["attrs"] = attrs
    return made


def html(markup: str) -> nodes.raw:
    """HTML that is already written."""
    return nodes.raw("", markup, format="html")


def fold(summary: list, body: list, classes=("fold",)) -> nodes.Element:
    """A `<details>` with a summary."""
    return make(
        "details",
        make("summary", *summary),
        make("div", *body, classes=["fold-body"]),
        classes=classes,
    )


def visit_element(self, node):
    classes = f' class="{" ".join(node["classes"])}"' if node["classes"] else ""
    ids = f' id="{node["ids"][0]}"' if node["ids"] else ""
    self.body.append(f"<{node['tag']}{ids}{classes}{node['attrs']}>")


def depart_element(self, node):
    self.body.append(f"</{node['tag']}>\n")


def checked(config, docname: str) -> bool:
    """Is this page built in full? All are, unless the build is for the pages of one chapter."""
    chapter = chapters.of_page(docname)
    return not config.course_chapter or bool(chapter and chapter.number == config.course_chapter)


# -- Markdown's side -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A directive as it stands in the source of a page."""

    name: str
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)
    content: str = ""


def quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


# -- both ----------------------------------------------------------------------------------------


class Lowered:
    """A directive of others, such as Sphinx's `{figure}`: only its Markdown is ours."""

    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def to_markdown(cls, page: Page, written: Written) -> str:
        """This block in Markdown; `page.lower` does what is inside.

        ValueError, in a sentence, for what is wrong.
        """
        raise NotImplementedError

    @classmethod
    def labels(cls, written: Written) -> dict[str, str]:
        """{label: title} of what can be linked to here."""
        label = written.options.get("label") or written.options.get("name")
        return {label: written.argument} if label else {}

    @classmethod
    def reads(cls, argument: str) -> Iterable[Path]:
        """The files that this block is made from, beside what its own file imports."""
        return ()


class Block(Lowered, SphinxDirective):
    """A directive of ours."""

    has_content = True
    final_argument_whitespace = True

    def to_nodes(self) -> list[nodes.Node]:
        """This block on the site. ValueError, in a sentence, for what is wrong."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        try:
            return self.to_nodes()
        except ValueError as e:
            raise self.error(str(e)) from e

    def body(self) -> list[nodes.Node]:
        """What is inside, parsed as MyST."""
        return self.parse_content_to_nodes(allow_section_headings=False)

    def line(self, text: str) -> list[nodes.Node]:
        """One line, such as a title, parsed as MyST."""
        return self.state.inline_text(text, self.lineno)[0] if text else []


class LoweredRole:
    """A role of others, such as Sphinx's `{term}`: only its Markdown is ours."""

    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def to_markdown(cls, page: Page, name: str, text: str) -> str:
        """The role `name` on this text in Markdown.

        ValueError, in a sentence, for what is wrong.
        """
        raise NotImplementedError


class Role(LoweredRole, SphinxRole):
    """A role of ours."""

    def to_nodes(self) -> list[nodes.Node]:
        """This role on the site. ValueError, in a sentence, for what is wrong."""
        raise NotImplementedError

    def run(self):
        try:
            return self.to_nodes(), []
        except ValueError as e:
            return [], [self.inliner.reporter.error(str(e), line=self.lineno)]
