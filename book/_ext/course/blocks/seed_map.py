"""The map of what the course grew from, made from `appendix/seeds.toml`.

`{coverage}`: how many items each chapter has, and how they stand. `{slides}`: the deck's slides,
the sections that teach them, and their labs by old and new id. `{seeds} deck`: every item of these
seeds, by slide or part.
"""

from __future__ import annotations

from collections import Counter

from docutils import nodes

from course import seeds
from course.block import Block, html, make
from course.blocks import wisdom
from course.lower import Book
from course.seeds import COVERED, FILM, MISSING, WAITING, Group, Item, Place, Seed
from labkit import chapters, paths
from labkit.tables import table

SAID = {COVERED: "on a page", MISSING: "missing", WAITING: "waiting"}


class MapBlock(Block):
    """A block that shows places: where it stands, a place is a link."""

    has_content = False

    def to_nodes(self):
        return self.shown(seeds.load(), Book(paths.repository()))

    def link(self, place: Place, book: Book) -> nodes.Node:
        """Where something is taught, linked as far as it is there."""
        words = name(place, book)
        if not place.is_open:
            return nodes.Text(words)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, place.docname)
        address = f"{uri}#{place.section}" if place.section else uri
        return nodes.reference("", words, refuri=address, internal=True)

    @classmethod
    def reads(cls, argument):
        text = seeds.file().read_text()
        pages = [page for chapter in chapters.opened() for page in chapter.pages]
        toc = paths.repository() / "_toc.yml"
        return [seeds.file(), toc, *pages, *seeds.made_from(text)]


class Coverage(MapBlock):
    names = ("coverage",)

    def shown(self, all_seeds, book):
        rows = counted(all_seeds)
        return [make("p", nodes.Text(total(rows))), html(table(rows).html)]

    @classmethod
    def to_markdown(cls, page, written):
        rows = counted(seeds.load())
        return f"{total(rows)}\n\n{table(rows).markdown}"


class Slides(MapBlock):
    names = ("slides",)

    def shown(self, all_seeds, book):
        head = [nodes.Text(words) for words in SLIDE_COLUMNS]
        return [grid(head, [self.row(slide, book) for slide in seeds.slides(all_seeds).values()])]

    def row(self, slide: Group, book: Book) -> list[list[nodes.Node]]:
        first = nodes.reference("", heading(slide), refuri=f"#{anchor(slide)}", internal=True)
        return [
            [first],
            [self.link(slide.place, book), make("small", nodes.Text(standing(slide)))],
            self.line(labs_of(slide)),
        ]

    @classmethod
    def to_markdown(cls, page, written):
        rows = [
            " | ".join(
                (
                    heading(slide),
                    f"{linked(slide.place, page.book)}: {standing(slide)}",
                    page.lower(labs_of(slide)),
                )
            )
            for slide in seeds.slides(seeds.load()).values()
        ]
        rule = " | ".join("---" for _ in SLIDE_COLUMNS)
        return "\n".join(f"| {row} |" for row in (" | ".join(SLIDE_COLUMNS), rule, *rows))


class Seeds(MapBlock):
    """`{seeds} tutorial video`: the items of one seed or more."""

    names = ("seeds",)
    required_arguments = 1

    def shown(self, all_seeds, book):
        chosen = choose(all_seeds, self.arguments[0])
        return [
            node for seed in chosen for group in seed.groups for node in self.group(group, book)
        ]

    def group(self, group: Group, book: Book) -> list[nodes.Node]:
        head = make("h3", nodes.Text(heading(group)), attrs=f' id="{anchor(group)}"')
        where = [self.link(group.place, book), nodes.Text(f" · {standing(group)}")]
        items = [make("li", *self.item(item, group, book)) for item in group.items]
        list_of = [make("ul", *items, classes=["seed-items"])] if items else []
        line = wisdom.shown(self, group) if group.wisdom else []
        return [head, make("p", *where, classes=["seed-where"]), *line, *list_of]

    def item(self, item: Item, group: Group, book: Book) -> list[nodes.Node]:
        said = [
            make("span", nodes.Text(item.id), classes=["tag"]),
            make("span", *self.line(item.knows)),
        ]
        if needs_place(item, group):
            said.append(make("span", *self.place(item, book), classes=["where", item.place.status]))
        return said

    def place(self, item: Item, book: Book) -> list[nodes.Node]:
        return [nodes.Text(MARKS[item.place.status]), self.link(item.place, book)]

    @classmethod
    def to_markdown(cls, page, written):
        parts = []
        for group in (g for s in choose(seeds.load(), written.argument) for g in s.groups):
            parts.append(f"### {heading(group)}")
            parts.append(f"{linked(group.place, page.book)} · {standing(group)}")
            if group.wisdom:
                parts.append(wisdom.markdown(page, group))
            if group.items:
                parts.append("\n".join(cls.line_of(item, group, page) for item in group.items))
        return "\n\n".join(parts)

    @staticmethod
    def line_of(item: Item, group: Group, page) -> str:
        said = f"- **{item.id}** {page.lower(item.knows)}"
        if not needs_place(item, group):
            return said
        return f"{said} ({MARKS[item.place.status]}{linked(item.place, page.book)})"


# -- what is said of them --------------------------------------------------------------------------

SLIDE_COLUMNS = ("Slide", "Taught in", "Lab there and here")
MARKS = {COVERED: "✓ ", MISSING: "not yet in ", WAITING: "waits for "}


def choose(all_seeds: list[Seed], names: str) -> list[Seed]:
    """The seeds of these names. ValueError for a name that none has."""
    known = {seed.name: seed for seed in all_seeds}
    for name in names.split():
        if name not in known:
            raise ValueError(f"there is no seed {name!r}: they are {', '.join(known)}")
    return [known[name] for name in names.split()]


def anchor(group: Group) -> str:
    return f"seed-{group.id.lower()}"


def heading(group: Group) -> str:
    number = group.id.removeprefix("D")
    return f"Slide {number}: {group.title}" if number.isdigit() else group.title


def old_and_new(deck_id: str) -> str:
    """A lab by the id that the deck prints and the one it has here, in MyST."""
    id = seeds.new_id(deck_id)
    return f"`{deck_id}` {{ref}}`{id} <{id.lower()}>`"


def labs_of(slide: Group) -> str:
    return ", ".join(old_and_new(id) for id in slide.labs) or "–"


def standing(group: Group) -> str:
    """How its items stand, its wisdom line and corner among them."""
    found = Counter(item.place.status for item in (*group.items, *group.lines))
    return ", ".join(f"{found[status]} {SAID[status]}" for status in SAID if found[status])


def needs_place(item: Item, group: Group) -> bool:
    """Does it say where it is taught? Not while it waits for the same chapter as its group."""
    return item.place.status != WAITING or item.place.page != group.place.page


def owner(place: Place) -> str:
    """Whose item it is: a chapter's, another page's, the film's."""
    if place.chapter:
        return f"{place.chapter.number} {place.chapter.title}"
    return "The film" if place.page == FILM else "Other pages"


def name(place: Place, book: Book) -> str:
    """A place in words."""
    if not place.is_open:
        return "the film" if place.page == FILM else owner(place)
    page = book.title(place.docname)
    number = f"{place.chapter.number} " if place.chapter else ""
    if not place.section:
        return number + page
    found = seeds.sections(book, place.docname).get(place.section)
    apart = found and found.title != page
    return f"{number}{page}: {found.title}" if apart else number + page


def linked(place: Place, book: Book) -> str:
    words = name(place, book)
    return f"[{words}]({book.url(place.docname, place.section)})" if place.is_open else words


def counted(all_seeds: list[Seed]) -> list[dict]:
    """A row for each chapter, and one for what is taught elsewhere."""
    items = [item for seed in all_seeds for item in seed.items]
    names = [f"{c.number} {c.title}" for c in chapters.every()] + ["Other pages", "The film"]
    found = Counter((owner(item.place), item.place.status) for item in items)
    return [
        {"taught in": name} | {SAID[status]: found[name, status] for status in SAID}
        for name in names
    ]


def total(rows: list[dict]) -> str:
    sums = {said: sum(row[said] for row in rows) for said in SAID.values()}
    said = ", ".join(f"{count:,} {words}" for words, count in sums.items())
    return f"Of {sum(sums.values()):,} items: {said}."


def grid(head: list[nodes.Node], rows: list[list[list[nodes.Node]]]) -> nodes.Element:
    """A table of nodes."""
    cells = [make("th", words, attrs=' scope="col"') for words in head]
    body = [make("tr", *(make("td", make("span", *cell)) for cell in row)) for row in rows]
    return make(
        "table", make("thead", make("tr", *cells)), make("tbody", *body), classes=["slides"]
    )
