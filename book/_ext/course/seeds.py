"""What the course grew from: every item of its seeds, where it is taught, what a reader knows then.

`book/appendix/seeds.toml` is the one source. An item is *covered* once it names a section of a page
that stands in the table of contents, *missing* while its page is open and it names none, *waiting*
while its chapter is planned. Tests hold that the section says what the item says.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from docutils.nodes import make_id

from course.block import Written
from course.lower import Book, Page, written
from labkit import chapters, lab, paths, results

COVERED, MISSING, WAITING = "covered", "missing", "waiting"
FILM = "film"  # the one place that is no page: it is made after the chapters
PARTS = ("means", "matters", "mistake")  # of a beginner's corner
# blocks whose words are the map's own
MADE_HERE = re.compile(
    r"^(`{3,}|:{3,})\{(?:wisdom|seeds|slides|coverage)\}.*?^\1\s*$", flags=re.M | re.S
)
QUOTED = re.compile(r"""row\("([\w/-]+)\"""")


@dataclass(frozen=True)
class Place:
    """Where something is taught: `02_kv_cache#the-idea`, `index#one-rule`, or `03_gqa` alone."""

    at: str

    @property
    def page(self) -> str:
        return self.at.partition("#")[0]

    @property
    def section(self) -> str:
        return self.at.partition("#")[2]

    @property
    def chapter(self) -> chapters.Chapter | None:
        return chapters.of_page(Path("chapters") / self.page)

    @property
    def docname(self) -> str:
        """Its page, as Sphinx and the table of contents name it."""
        return f"book/chapters/{self.page}" if self.chapter else f"book/{self.page}"

    @property
    def is_open(self) -> bool:
        return self.docname in chapters.table_of_contents()

    @property
    def status(self) -> str:
        if not self.is_open:
            return WAITING
        return COVERED if self.section else MISSING

    def check(self) -> None:
        """ValueError for a page that is neither there nor planned."""
        planned = self.page in chapters.TITLES or self.page == FILM
        if not planned and not self.is_open:
            raise ValueError(f"{self.at!r}: {self.page!r} is no page, no chapter and not the film")


@dataclass(frozen=True)
class Item:
    """One thing that a seed says. `knows` is MyST: our answer to what the reader now knows."""

    id: str  # D5.6: slide 5, annotation 6
    group: str  # D5
    place: Place
    knows: str
    words: tuple[str, ...] = ()  # words of `knows` without which a section does not teach it


@dataclass(frozen=True)
class Group:
    """A slide, a part or a question: what a seed says about one subject."""

    id: str  # D5
    title: str
    place: Place
    items: tuple[Item, ...]
    wisdom: str = ""  # a slide's line
    corner: tuple[str, ...] = ()  # a concept slide's: what it means, why it matters, the mistake
    labs: tuple[str, ...] = ()  # by the deck's ids

    @property
    def lines(self) -> list[Item]:
        """Its wisdom line and its corner as items: they are taught where `{wisdom}` stands."""
        found = []
        if self.wisdom:
            found.append(Item(f"{self.id}w", self.id, self.place, self.wisdom))
        if self.corner:
            found.append(Item(f"{self.id}c", self.id, self.place, " ".join(self.corner)))
        return found


@dataclass(frozen=True)
class Seed:
    """A document that the course grew from."""

    name: str  # deck
    title: str
    groups: tuple[Group, ...]

    @property
    def items(self) -> list[Item]:
        """All of its items, its wisdom lines and corners among them."""
        return [item for g in self.groups for item in (*g.items, *g.lines)]


def file() -> Path:
    return paths.repository() / "book/appendix/seeds.toml"


def load(text: str | None = None) -> list[Seed]:
    """The seeds in their order. ValueError, in a sentence, for what the file leaves open."""
    try:
        data = tomllib.loads(file().read_text() if text is None else text)
    except tomllib.TOMLDecodeError as e:
        raise ValueError(f"seeds.toml: {e}") from e
    seeds, groups = data.pop("seed"), data.pop("group")
    members: dict[str, list[Item]] = {name: [] for name in groups}
    for id, said in data.items():
        name = group_of(id, groups)
        if not said.get("knows"):
            raise ValueError(f"seeds.toml: {id} says nothing that the reader knows")
        at = said.get("at") or groups[name]["at"]
        words = tuple(said.get("words", ()))
        members[name].append(Item(id, name, Place(at), said["knows"], words))
    return [
        Seed(
            name,
            seed["title"],
            tuple(
                group_from(id, said, tuple(members[id]))
                for id, said in groups.items()
                if said["seed"] == name
            ),
        )
        for name, seed in seeds.items()
    ]


def group_of(id: str, groups: Iterable[str]) -> str:
    """The group that an item's id begins with: `D5.6` and `D5p` belong to `D5`, `D15` does not."""
    fitting = [
        g
        for g in groups
        if id.startswith(g) and not (g[-1].isdigit() and id[len(g) : len(g) + 1].isdigit())
    ]
    if not fitting:
        raise ValueError(f"seeds.toml: {id} begins with no group's name")
    return max(fitting, key=len)


def group_from(id: str, said: dict, items: tuple[Item, ...]) -> Group:
    corner = tuple(said[part] for part in PARTS if part in said)
    if corner and len(corner) < len(PARTS):
        raise ValueError(f"seeds.toml: the corner of {id} needs {', '.join(PARTS)}")
    place, labs = Place(said["at"]), tuple(said.get("labs", ()))
    return Group(id, said["title"], place, items, said.get("wisdom", ""), corner, labs)


def slides(all_seeds: list[Seed]) -> dict[str, Group]:
    """The slides of the deck by their ids: what has a wisdom line."""
    return {group.id: group for seed in all_seeds for group in seed.groups if group.wisdom}


def slide(id: str) -> Group:
    """A slide by its id, `D5`. ValueError for one that there is not."""
    known = slides(load())
    if id not in known:
        first, *_, last = known
        raise ValueError(f"the deck has no slide {id!r}: slides run from {first} to {last}")
    return known[id]


def made_from(text: str) -> set[Path]:
    """The results that these texts quote."""
    names = {results.canonical(name) for name in QUOTED.findall(text)}
    return {path for name in names for path in results.folder().glob(f"{name}.*.json")}


def new_id(deck_id: str) -> str:
    """The id that a lab of the deck has here, as the labs themselves say."""
    return lab.find(deck_id).id


# -- sections --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    title: str
    source: str  # MyST, up to the next heading


def sections(book: Book, docname: str) -> dict[str, Section]:
    """{anchor: section} of a page, by the anchors that the site gives them."""
    text = (book.root / f"{docname}.md").read_text()
    lines = text.splitlines()
    tokens = book.parser.parse(text)
    heads = [
        (token.map[0], tokens[i + 1].content)
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.map
    ]
    labels = {token.map[1]: token.content for token in tokens if token.type == "myst_target"}
    ends = [start for start, _ in heads[1:]] + [len(lines)]
    found: dict[str, Section] = {}
    for (start, heading), end in zip(heads, ends):
        title = re.sub(r"\{[\w:-]+\}|`", "", heading)
        made = Section(title, "\n".join(lines[start:end]))
        for anchor in (make_id(title), make_id(labels.get(start, ""))):
            if anchor:
                found.setdefault(anchor, made)
    return found


def taught(book: Book, docname: str, section: Section) -> str:
    """What a section says in its own words: as Markdown, without the lines that come from the map
    itself.
    """
    return Page(book, docname).lower(MADE_HERE.sub("", section.source))


def placed(book: Book, section: Section) -> set[str]:
    """The slides whose corner or line stands in a section."""
    blocks: list[Written] = [b for t in book.parser.parse(section.source) if (b := written(t))]
    return {b.argument for b in blocks if b.name == "wisdom"}
