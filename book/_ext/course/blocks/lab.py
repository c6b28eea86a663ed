"""`{lab} CH02-FLASH`: what a lab asks and what it measured, where a page discusses it.

`{labs}`: all labs by chapter, those of planned chapters too, each with an anchor: `#ch02-flash`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes

from course.block import Block, fold, html, make
from labkit import chapters, lab, palette, plotting, results
from labkit.lab import Lab
from labkit.tables import table

PAGE = "book/labs"
MOST = 12  # rows of a table that the page of all labs shows
NOTHING = "No result of this lab is stored yet."
# Inside an image no typeface of the page is at hand; others of Inter's width come first.
TYPEFACES = "Inter, Arial, 'Liberation Sans', sans-serif"


class OneLab(Block):
    names = ("lab",)
    required_arguments = 1
    has_content = False

    def to_nodes(self):
        shown = lab.find(self.arguments[0])
        label = make("span", nodes.Text(f"Lab {shown.id}"), classes=["label"])
        link = self.line(f"{{ref}}`{shown.title} <{anchor(shown)}>`")
        title = make("p", label, nodes.Text(" "), *link, classes=["lab-title"])
        return [make("div", title, *body(shown, inline), classes=["lab", "boxed"])]

    @classmethod
    def to_markdown(cls, page, written):
        shown = lab.find(written.argument)
        link = f"[{shown.title}]({page.book.url(PAGE, anchor(shown))})"
        return f"**Lab {shown.id}: {link}**\n\n{markdown(shown)}"

    @classmethod
    def reads(cls, argument):
        known = lab.labs().get(chapters.lab_id(argument))
        return made_from(known) if known else ()


class Labs(Block):
    names = ("labs",)
    has_content = False

    def to_nodes(self):
        return [self.chapter(chapter, those) for chapter, those in by_chapter()]

    def chapter(self, chapter: chapters.Chapter, those: list[Lab]) -> nodes.section:
        head = self.section(f"labs-{chapter.number}", heading(chapter))
        for each in those:
            head += self.section(anchor(each), each.title)
            if self.config.course_chapter in ("", each.chapter):
                head[-1] += make("div", *body(each, folded_drawing, MOST), classes=["lab"])
        return head

    def section(self, name: str, title: str) -> nodes.section:
        made = nodes.section("", nodes.title(title, title), names=[name])
        self.state.document.note_explicit_target(made, made)
        return made

    @classmethod
    def to_markdown(cls, page, written):
        parts = []
        for chapter, those in by_chapter():
            parts.append(f"## {heading(chapter)}")
            parts += [f"### {each.title}\n\n**{each.id}.** {markdown(each)}" for each in those]
        return "\n\n".join(parts)

    @classmethod
    def labels(cls, written):
        found = {f"labs-{chapter.number}": heading(chapter) for chapter, _ in by_chapter()}
        return found | {anchor(each): each.title for each in lab.labs().values()}

    @classmethod
    def reads(cls, argument):
        return {path for each in lab.labs().values() for path in made_from(each)}


# -- what a lab is ---------------------------------------------------------------------------------


def anchor(shown: Lab) -> str:
    return shown.id.lower()


def by_chapter() -> Iterator[tuple[chapters.Chapter, list[Lab]]]:
    for number, those in groupby(lab.labs().values(), key=lambda each: each.chapter):
        yield chapters.find(number), list(those)


def heading(chapter: chapters.Chapter) -> str:
    return f"{chapter.number} {chapter.title}"


def made_from(shown: Lab) -> list[Path]:
    """Its own file, and what it measured."""
    chapter = chapters.find(shown.chapter)
    name = shown.result.partition("/")[2]
    own = chapter.checks.parent / f"{name}.py"
    return [own, *results.folder().glob(f"{shown.result}.*.json")]


def document(shown: Lab) -> dict | None:
    """What it measured, if that is stored."""
    files = results.folder().glob(f"{shown.result}.*.json")
    stored = any(not path.name.endswith(".trace.json") for path in files)
    return results.load(shown.result) if stored else None


def facts(shown: Lab) -> list[str]:
    """How long it takes, and what comes first."""
    whole = round(shown.minutes)
    minutes = f"about {whole} minute{'s' * (whole > 1)}" if whole else "less than a minute"
    first = [f"after {', '.join(shown.needs)}"] if shown.needs else []
    return [minutes, *first]


def left_out(rows: list[dict], most: int | None) -> str:
    """What is said of rows that a table does not show."""
    if most is None or len(rows) <= most:
        return ""
    return f" The first {most} of {len(rows)} rows; the file in labs/results has all."


def measured(doc: dict) -> str:
    old = ", before the code changed" if results.stale(doc) else ""
    return f"Measured on {results.where(doc)}, {doc['date']}{old}."


# -- on the site -----------------------------------------------------------------------------------


def body(shown: Lab, draw, most: int | None = None) -> list[nodes.Node]:
    """All but its title; `draw` places the plot. most: rows of the table, None for all."""
    command = nodes.literal("", f"labkit lab {shown.id}")
    said = nodes.Text(f", {', '.join(facts(shown))}")
    asked = [
        make("p", nodes.Text(shown.objective)),
        make("p", nodes.Text("Run it: "), command, said, classes=["lab-run"]),
    ]
    doc = document(shown)
    if doc is None:
        return [*asked, make("p", nodes.Text(NOTHING), classes=["measured"])]
    rows = doc["rows"]
    notice = make("p", nodes.strong("", "What to notice. "), *with_options(shown.noticed(rows)))
    return [
        *asked,
        *(draw(shown, rows) if shown.plot else []),
        html(table(rows[:most], shown.columns).html),
        make("p", nodes.Text(measured(doc) + left_out(rows, most)), classes=["measured"]),
        notice,
    ]


OPTION = r"(--[\w-]+(?: \w+=[\w.,-]*\w)?)"  # of a command, such as --set gpu=L4


def with_options(text: str) -> list[nodes.Node]:
    """A sentence in which options are code: of text, two hyphens would become a dash."""
    parts = re.split(OPTION, text)
    return [nodes.literal("", p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts)]


def inline(shown: Lab, rows: list[dict]) -> list[nodes.Node]:
    """The plot as it is in a cell's output."""
    return [html(shown.plot(rows)._repr_html_())]


def folded_drawing(shown: Lab, rows: list[dict]) -> list[nodes.Node]:
    """The plot in a fold, as an image that is loaded when the fold opens: forty of them are on one
    page.
    """
    chart = shown.plot(rows)
    svg, narrow = standalone(chart.svg()), standalone(chart.svg(narrow=True))
    picture = drawing("", name=anchor(shown), svg=svg, narrow=narrow, alt=chart.alt)
    return [fold([nodes.Text("The plot")], [picture])]


class drawing(nodes.General, nodes.Element):
    """An SVG, and a `narrow` one for a phone, that become files beside the site's images: `name`,
    `svg`, `alt`.
    """


def visit_drawing(self, node):
    folder = Path(self.builder.outdir) / self.builder.imagedir
    folder.mkdir(parents=True, exist_ok=True)
    wide, narrow = f"lab-{node['name']}.svg", f"lab-{node['name']}-narrow.svg"
    (folder / wide).write_text(node["svg"])
    (folder / narrow).write_text(node["narrow"])
    at = self.builder.imgpath
    self.body.append(
        f'<picture><source media="{plotting.PHONE}" srcset="{at}/{narrow}">'
        f'<img class="drawing" src="{at}/{wide}" alt="{escape(node["alt"])}"></picture>'
    )
    raise nodes.SkipNode


def standalone(chart: str) -> str:
    """A chart's SVG, with what it takes from a page: colours, in light and dark, and typefaces.

    A browser draws the image in the colour scheme of the page that shows it.
    """
    svg = chart[chart.index("<svg") :]
    light, dark = (palette.css_variables(theme) for theme in ("light", "dark"))
    style = f":root{{{light};stroke-linejoin:round;font:{plotting.LETTERS}px {TYPEFACES}}}"
    style += f"@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"
    box = re.search(r'viewBox="([^"]*)"', svg)[1]
    width, height = box.split()[2:]
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{box}" width="{width}" height="{height}"><style>{style}</style>'
    )
    return re.sub(r"<svg [^>]*>", head, svg, count=1)


# -- in Markdown -----------------------------------------------------------------------------------


def markdown(shown: Lab) -> str:
    """All but its title."""
    asked = f"{shown.objective}\n\nRun it: `labkit lab {shown.id}`, {', '.join(facts(shown))}."
    doc = document(shown)
    if doc is None:
        return f"{asked}\n\n*{NOTHING}*"
    rows = doc["rows"]
    return "\n\n".join(
        [
            asked,
            table(rows, shown.columns).markdown,
            f"*{measured(doc)}*",
            f"**What to notice.** {shown.noticed(rows)}",
        ]
    )


def setup(app):
    app.add_node(drawing, html=(visit_drawing, None))
