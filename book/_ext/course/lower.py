"""Lower MyST to Markdown that Colab, GitHub and a language model read: no directive and no role is
left.

markdown-it's tokens say what is a role, a directive, code or maths and on which lines it stands;
everything else is passed through as written.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import yaml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import Entry, parse_file

from course import blocks
from course.block import Lowered, LoweredRole, Written

FENCES = ("fence", "colon_fence")
LINKS = ("link_open", "image")
# what only MyST reads, and a reader of Markdown has no use for
DROPPED = ("myst_target", "myst_line_comment", "myst_block_break", "front_matter")
ELSEWHERE = re.compile(r"[a-z]+:")  # https:, mailto:


class Book:
    """What lowering needs to know of the whole book: addresses, labels, references."""

    def __init__(self, root: Path):
        config = yaml.safe_load((root / "_config.yml").read_text())
        self.root = root.resolve()
        self.site = config["html"]["baseurl"]
        self.repository = config["repository"]["url"]
        extensions = set(config["parse"]["myst_enable_extensions"])
        self.parser = create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)
        self.bibliography = parse_file(root / "book/references.bib").entries
        self.blocks = blocks.defined(Lowered)
        self.roles = blocks.defined(LoweredRole)

    def docname(self, path: Path) -> str:
        return path.resolve().relative_to(self.root).with_suffix("").as_posix()

    def url(self, docname: str, anchor: str = "") -> str:
        return f"{self.site}{docname}.html" + (f"#{anchor}" if anchor else "")

    def title(self, docname: str) -> str:
        heading = re.search(r"^# (.+)$", (self.root / f"{docname}.md").read_text(), re.M)
        return heading[1] if heading else docname

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """{label: (docname, title of what it stands before)}"""
        found = {}
        for path in sorted((self.root / "book").rglob("*.md")):
            for label, title in self._labels_of(path.read_text()).items():
                found[label] = (self.docname(path), title)
        return found

    def _labels_of(self, text: str) -> dict[str, str]:
        found, waiting = {}, []
        for token in self.parser.parse(text):
            if token.type == "myst_target":
                waiting.append(token.content)
            elif token.type == "inline":
                title = re.sub(r"\{[\w:]+\}|`", "", token.content)
                found |= dict.fromkeys(waiting, title)
                waiting = []
            elif block := written(token):
                known = self.blocks.get(block.name)
                found |= known.labels(block) if known else {}
        return found

    def cite(self, key: str) -> str:
        """`[Kwon et al. 2023](address)`"""
        if key not in self.bibliography:
            raise ValueError(f"references.bib has no {key!r}")
        entry = self.bibliography[key]
        text = f"{authors(key, entry)} {entry.fields.get('year', '')}".strip()
        text = re.sub("[{}]", "", text)
        url = address(entry)
        return f"[{text}]({url})" if url else text


def authors(key: str, entry: Entry) -> str:
    names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
    if not names:
        return entry.fields.get("organization", key)
    if len(names) <= 2:
        return " & ".join(names)
    return f"{names[0]} et al."


def address(entry: Entry) -> str:
    """Where a work can be read, if its entry says so."""
    fields = entry.fields
    if "url" in fields:
        return fields["url"]
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return ""


class Page:
    """Lowers the text of one page, cell after cell; `exercises` and `cited` are what was met so
    far.
    """

    def __init__(self, book: Book, docname: str):
        self.book = book
        self.docname = docname
        self.exercises: dict[str, int] = {}  # label -> number
        self.cited: set[str] = set()

    def lower(self, text: str) -> str:
        """MyST as Markdown. ValueError, with the page's name, for what cannot be lowered."""
        text = text.replace("REPOSITORY", self.book.repository)
        lines = text.splitlines()
        edits: list[tuple[int, int, str]] = []  # from line, to line, what stands there instead
        for token in self.book.parser.parse(text):
            if token.map is None:
                continue
            start, end = token.map
            if token.type == "inline":
                self._rewrite(lines, start, max(end, start + 1), token)
            elif (new := self._block(token)) is not None:
                if token.type == "amsmath":  # its map ends too early
                    end = max(end, start + token.content.count("\n") + 1)
                edits.append((start, end, indented(lines[start], new)))
        for start, end, new in sorted(edits, reverse=True):
            lines[start:end] = new.splitlines() or [""]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    # -- blocks ------------------------------------------------------------------------------------

    def _block(self, token: Token) -> str | None:
        """What stands instead of a block; None where it stays as it is."""
        if token.type in DROPPED:
            return ""
        if token.type in ("math_block_label", "amsmath"):
            return f"$$\n{token.content.strip()}\n$$"
        block = written(token)
        return self.directive(block) if block else None

    def directive(self, block: Written) -> str:
        known = self.book.blocks
        if block.name not in known:
            raise ValueError(
                f"{self.docname}: the directive {{{block.name}}} cannot be lowered to Markdown;"
                f" known are {', '.join(sorted(known))}"
            )
        with self._named():
            return known[block.name].to_markdown(self, block)

    # -- inside a line -----------------------------------------------------------------------------

    def role(self, name: str, text: str) -> str:
        known = self.book.roles
        if name not in known:
            raise ValueError(
                f"{self.docname}: the role {{{name}}} cannot be lowered; known are"
                f" {', '.join(sorted(known))}"
            )
        with self._named():
            return known[name].to_markdown(self, name, text)

    @contextmanager
    def _named(self):
        """What is wrong inside says on which page it stands."""
        try:
            yield
        except ValueError as e:
            here = f"{self.docname}: "
            raise ValueError(here + str(e).removeprefix(here)) from e

    def _rewrite(self, lines: list[str], start: int, end: int, token: Token) -> None:
        """Rewrite the roles and relative links of an inline token, left to right, in the source
        itself, so that what stands between them is kept as written.
        """
        source = "\n".join(lines[start:end])
        done = 0
        for child in token.children or []:
            rule = self._rule(child)
            if rule is None:
                continue
            pattern, new = rule
            found = re.compile(pattern, re.S).search(source, done)
            if found is None and child.type in LINKS:
                continue  # written in another way, such as <address>
            if found is None:
                raise ValueError(f"{self.docname}: cannot find {child.content!r} in {source!r}")
            text = new(found)
            source = source[: found.start()] + text + source[found.end() :]
            done = found.start() + len(text)
        rewritten = source.split("\n")
        lines[start:end] = rewritten + [""] * (end - start - len(rewritten))

    def _rule(self, child: Token) -> tuple[str, Callable[[re.Match], str]] | None:
        """How a part of a line is found in the source, and what is written there."""
        if child.type == "myst_role":
            name = child.meta["name"]
            text = " ".join(child.content.split())
            pattern = re.escape("{" + name + "}") + r"(`+)(?!`).+?(?<!`)\1(?!`)"
            return pattern, lambda found: self.role(name, text)
        if child.type == "code_inline":
            ticks = child.markup
            # found so that a role written inside is passed over
            return rf"(?<![`\\]){ticks}(?!`).+?(?<!`){ticks}(?!`)", lambda found: found[0]
        if child.type in LINKS:
            target = str(child.attrs.get("href") or child.attrs.get("src"))
            if not ELSEWHERE.match(target):
                link = self._link if child.type == "link_open" else self._picture
                pattern = r"(\[[^\]]*\])\(" + re.escape(target)
                return pattern, lambda found: link(found[1], target)
        return None

    def _link(self, text: str, target: str) -> str:
        """`[text](address`, up to the closing bracket; an empty text becomes the title."""
        path, _, label = target.partition("#")
        if not path and label in self.book.labels:
            docname, title = self.book.labels[label]
        else:
            docname = self.beside(path) if path else self.docname
            title = self.book.title(docname) if text == "[]" else ""
        shown = f"[{title}]" if text == "[]" else text
        return f"{shown}({self.book.url(docname, label)}"

    def _picture(self, text: str, target: str) -> str:
        return f"{text}({self.image(target)}"

    def image(self, target: str) -> str:
        """The address of a picture of the book on the website."""
        return f"{self.book.site}_images/{Path(target).name}"

    def beside(self, path: str) -> str:
        """The docname of a file named from this page."""
        return self.book.docname(self.book.root / Path(self.docname).parent / path)


def written(token: Token) -> Written | None:
    """The directive that a token is, if it is one."""
    if token.type not in FENCES or not token.info.startswith("{"):
        return None
    name, _, argument = token.info[1:].partition("}")
    lines = token.content.splitlines()
    options = {}
    while lines and (found := re.match(r":([\w-]+):\s*(.*)$", lines[0])):
        options[found[1]] = found[2]
        lines.pop(0)
    return Written(name, argument.strip(), options, "\n".join(lines).strip("\n"))


def indented(line: str, text: str) -> str:
    """Text, as far in as this line."""
    return textwrap.indent(text, line[: len(line) - len(line.lstrip())])


def lower_page(path: Path, book: Book) -> str:
    """A whole page of the book as Markdown.

    Code cells become fenced Python, the front matter goes.
    """
    return Page(book, book.docname(path)).lower(path.read_text()) + "\n"
