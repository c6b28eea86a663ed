"""Lower MyST to Markdown that Colab, GitHub and a language model read: no directive and no role is
left.

markdown-it's tokens say what is a role, a directive, code or maths and on which lines it stands;
everything else is passed through as written.
"""

from __future__ import annotations

import re
import textwrap
from functools import cached_property
from pathlib import Path

import yaml
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import parse_file

from blocks import BLOCKS, folded, quoted
from labkit import formulas, results

ADMONITIONS = {
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
}
CONTAINERS = {"glossary", "tab-set", "cards", "div", "container", "table"}
DROPPED = {"toctree", "contents"}


class Book:
    """What lowering needs to know of the whole book: addresses, labels, references."""

    def __init__(self, root: Path):
        config = yaml.safe_load((root / "_config.yml").read_text())
        self.root = root
        self.site = config["html"]["baseurl"]
        self.repository = config["repository"]["url"]
        self.parser = create_md_parser(
            MdParserConfig(enable_extensions=set(config["parse"]["myst_enable_extensions"])),
            RendererHTML,
        )
        self.bibliography = parse_file(root / "book/references.bib").entries

    def url(self, docname: str, anchor: str = "") -> str:
        return f"{self.site}{docname}.html" + (f"#{anchor}" if anchor else "")

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """{label: (docname, title of what it stands before)}"""
        found = {}
        for path in sorted((self.root / "book").rglob("*.md")):
            docname, waiting = path.relative_to(self.root).with_suffix("").as_posix(), []
            for token in self.parser.parse(path.read_text()):
                if token.type == "myst_target":
                    waiting.append(token.content)
                elif token.type == "inline":
                    found |= {
                        label: (docname, re.sub(r"\{[\w:]+\}|`", "", token.content))
                        for label in waiting
                    }
                    waiting = []
                elif token.type in ("fence", "colon_fence") and (
                    label := re.search(r"^:(?:label|name): (\S+)", token.content, re.M)
                ):
                    found[label[1]] = (docname, re.sub(r"^\{[\w-]+\}\s*", "", token.info))
        return found

    def title(self, docname: str) -> str:
        heading = re.search(r"^# (.+)$", (self.root / f"{docname}.md").read_text(), re.M)
        return heading[1] if heading else docname

    def cite(self, key: str) -> str:
        """`[Kwon et al. 2023](address)`"""
        if key not in self.bibliography:
            raise ValueError(f"references.bib has no {key!r}")
        entry = self.bibliography[key]
        names = [" ".join(p.last_names) for p in entry.persons.get("author", [])] or [
            entry.fields.get("organization", key)
        ]
        who = (
            names[0]
            if len(names) == 1
            else " & ".join(names)
            if len(names) == 2
            else f"{names[0]} et al."
        )
        text = f"{who} {entry.fields.get('year', '')}".strip().replace("{", "").replace("}", "")
        f = entry.fields
        url = f.get("url") or (
            f"https://doi.org/{f['doi']}"
            if "doi" in f
            else f"https://arxiv.org/abs/{f['eprint']}"
            if "eprint" in f
            else ""
        )
        return f"[{text}]({url})" if url else text


class Page:
    """Lowers the text of one page, cell after cell; `exercises` and `cited` are what was met so
    far.
    """

    def __init__(self, book: Book, docname: str):
        self.book = book
        self.docname = docname
        self.exercises = {}
        self.cited = set()

    def lower(self, text: str) -> str:
        text = text.replace("REPOSITORY", self.book.repository)
        lines = text.splitlines()
        edits: list[tuple[int, int, str]] = []
        for token in self.book.parser.parse(text):
            if token.map is None:
                continue
            start, end = token.map
            if token.type in ("fence", "colon_fence") and token.info.startswith("{"):
                edits.append((start, end, self._indented(lines[start], self.directive(token))))
            elif token.type in (
                "myst_target",
                "myst_line_comment",
                "myst_block_break",
                "front_matter",
            ):
                edits.append((start, end, ""))
            elif token.type == "math_block_label":
                edits.append(
                    (start, end, self._indented(lines[start], f"$$\n{token.content.strip()}\n$$"))
                )
            elif token.type == "amsmath":
                end = max(end, start + token.content.count("\n") + 1)
                edits.append(
                    (start, end, self._indented(lines[start], f"$$\n{token.content.strip()}\n$$"))
                )
            elif token.type == "inline":
                self._inline(lines, start, max(end, start + 1), token)
        for start, end, new in sorted(edits, reverse=True):
            lines[start:end] = new.splitlines() if new else [""]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    @staticmethod
    def _indented(line: str, text: str) -> str:
        return textwrap.indent(text, line[: len(line) - len(line.lstrip())])

    # -- inside a line -------------------------------------------------------------------

    def _inline(self, lines: list[str], start: int, end: int, token) -> None:
        """Rewrite roles and relative links of an inline token, left to right, in the source itself."""
        source, position = "\n".join(lines[start:end]), 0
        for child in token.children or []:
            if child.type == "myst_role":
                pattern = re.escape("{" + child.meta["name"] + "}") + r"(`+)(?!`).+?(?<!`)\1(?!`)"
                new = self.role(child.meta["name"], " ".join(child.content.split()))
            elif child.type == "code_inline":
                pattern, new = rf"(?<![`\\]){child.markup}(?!`).+?(?<!`){child.markup}(?!`)", None
            elif child.type in ("link_open", "image") and not re.match(
                r"[a-z]+:", str(child.attrs.get("href") or child.attrs.get("src"))
            ):
                target = str(child.attrs.get("href") or child.attrs.get("src"))
                pattern, new = r"(\[[^\]]*\])\(" + re.escape(target), None
                found = re.compile(pattern).search(source, position)
                if found:
                    text, url = (
                        self._link(found[1], target)
                        if child.type == "link_open"
                        else (found[1], self._image(target))
                    )
                    source = source[: found.start()] + f"{text}({url}" + source[found.end() :]
                    position = found.start() + len(text) + len(url) + 1
                continue
            else:
                continue
            found = re.compile(pattern, re.S).search(source, position)
            if found is None:
                raise ValueError(f"{self.docname}: cannot find {child.content!r} in {source!r}")
            new = found[0] if new is None else new
            source = source[: found.start()] + new + source[found.end() :]
            position = found.start() + len(new)
        rewritten = source.split("\n")
        lines[start:end] = rewritten + [""] * (end - start - len(rewritten))

    def _link(self, text: str, target: str) -> tuple[str, str]:
        path, _, label = target.partition("#")
        if not path and label in self.book.labels:
            docname, title = self.book.labels[label]
            return (text if text != "[]" else f"[{title}]"), self.book.url(docname, label)
        docname = (Path(self.docname).parent / path).with_suffix("") if path else Path(self.docname)
        docname = (
            (self.book.root / docname).resolve().relative_to(self.book.root.resolve()).as_posix()
        )
        return (text if text != "[]" else f"[{self.book.title(docname)}]"), self.book.url(
            docname, label
        )

    def _image(self, target: str) -> str:
        return f"{self.book.site}_images/{Path(target).name}"

    def role(self, name: str, text: str) -> str:
        shown, _, target = (
            text.removesuffix(">").rpartition(" <")
            if text.endswith(">") and " <" in text
            else ("", "", text)
        )
        if name == "n":
            return results.receipt(text).text
        if name == "formula":
            return f"${formulas.latex(text)}$"
        if name.startswith("cite"):
            keys = [key.strip() for key in text.split(",")]
            self.cited.update(keys)
            joined = "; ".join(map(self.book.cite, keys))
            return joined if name == "cite:t" else f"({joined})"
        if name in ("ref", "numref", "eq"):
            docname, title = self.book.labels.get(target, (self.docname, target))
            return f"[{shown or title}]({self.book.url(docname, target)})"
        if name == "doc":
            _, url = self._link("[]", target + ".md")
            docname = url.removeprefix(self.book.site).removesuffix(".html")
            return f"[{shown or self.book.title(docname)}]({url})"
        plain = {
            "term": shown or target,
            "abbr": text,
            "math": f"${text}$",
            "code": f"`{text}`",
            "sub": f"<sub>{text}</sub>",
            "sup": f"<sup>{text}</sup>",
            "kbd": f"<kbd>{text}</kbd>",
        }
        if name not in plain:
            raise ValueError(
                f"{self.docname}: the role {{{name}}} cannot be lowered; known are n, formula,"
                f" cite, ref, doc, {', '.join(plain)}"
            )
        return plain[name]

    # -- blocks --------------------------------------------------------------------------

    def directive(self, token) -> str:
        name, _, argument = token.info[1:].partition("}")
        options, content = options_of(token.content)
        if name in DROPPED:
            return ""
        if name in ADMONITIONS:
            title = self.lower(argument) or name.capitalize()
            return (
                folded(title, self.lower(content))
                if "dropdown" in options.get("class", "")
                else quoted(f"**{title}**\n\n{self.lower(content)}")
            )
        if name in CONTAINERS:
            return (
                f"**{self.lower(argument)}**\n\n" if argument.strip() and name == "table" else ""
            ) + self.lower(content)
        if name not in BLOCKS:
            known = sorted(ADMONITIONS | CONTAINERS | DROPPED | set(BLOCKS))
            raise ValueError(
                f"{self.docname}: the directive {{{name}}} cannot be lowered to Markdown; known are"
                f" {', '.join(known)}"
            )
        return BLOCKS[name](self, argument.strip(), options, content)


def options_of(content: str) -> tuple[dict[str, str], str]:
    """The `:key: value` lines at the head of a directive, and the rest."""
    lines, options = content.splitlines(), {}
    while lines and (found := re.match(r":([\w-]+):\s*(.*)$", lines[0])):
        options[found[1]] = found[2]
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def lower_page(path: Path, root: Path) -> str:
    """A whole page of the book as Markdown: code cells become fenced Python, the front matter goes."""
    docname = path.resolve().relative_to(root.resolve()).with_suffix("").as_posix()
    return Page(Book(root), docname).lower(path.read_text()) + "\n"
