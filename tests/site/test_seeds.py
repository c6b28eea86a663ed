"""The map of what the course grew from: every item once, and what is called taught is taught."""

import functools
import re
from collections import Counter

import pytest
import snowballstemmer

from course import seeds
from course.blocks.wisdom import HEADS
from course.lower import Book, Page
from course.seeds import COVERED, MISSING, WAITING
from labkit import chapters, lab, timed
from tests.conftest import ROOT
from tests.site.test_blocks import Site

# The items that the five documents and the plan hold, counted in them by hand.
ANNOTATED = (3, 4, 5, 6, 8, 9, 10, 11, 12, 23, 24)  # concept slides: a picture, 12 notes, a corner
CORNERS_OF_OURS = (7, 15, 16, 17)  # the deck has none there
PRACTICAL = (7, *range(13, 23), *range(25, 30))
COUNTS = {
    "deck": 212 + len(CORNERS_OF_OURS),
    "tutorial": 33,
    "deep-dive": 45,
    "questions": 26,
    "video": 19,
    "script": 20,
    "plan": 13,
}
# What an open page still lacks: an item leaves this list when its section is there.
LACKING: set[str] = set()


# words that every text has
STOP = set(
    re.findall(
        r"\w+",
        """a about after again all also an and another any are as at be been before but by can come
        comes does down each every few first for from get gives go goes had has have here how if in
        into is it its itself last less like may more most my no none not nothing now of off on once
        one only or other our out over own same so some still than that the their them then there
        they this those through to too two up us use used was what when where which who will with
        without you your""",
    )
)


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """Nothing that these tests read changes while they run: the table of contents and the hashes of
    labs are made once, not for each of a thousand sentences.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((chapters, "table_of_contents"), (timed, "code_of")):
            patch.setattr(module, name, functools.cache(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def all_seeds():
    return seeds.load()


@pytest.fixture(scope="module")
def items(all_seeds):
    return [item for seed in all_seeds for item in seed.items]


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


@pytest.fixture(scope="module")
def sections(book):
    """{anchor: section} of a page, each page read once."""
    return functools.cache(lambda docname: seeds.sections(book, docname))


@pytest.fixture(scope="module")
def said(book, sections):
    """What stands in a section of a page, in Markdown."""
    return functools.cache(
        lambda docname, anchor: seeds.taught(book, docname, sections(docname)[anchor])
    )


def groups(all_seeds):
    return [group for seed in all_seeds for group in seed.groups]


# -- the list ----------------------------------------------------------------------------


def test_every_item_is_there_once(all_seeds):
    """TOML refuses the same name twice; the ids themselves follow from the deck's shape."""
    assert {seed.name: len(seed.items) for seed in all_seeds} == COUNTS
    ids = [item.id for seed in all_seeds for item in seed.items]
    assert len(set(ids)) == len(ids)
    deck = set(ids)
    for slide in ANNOTATED:
        notes = {f"D{slide}.{n}" for n in range(1, 13)}
        assert notes | {f"D{slide}p", f"D{slide}c"} <= deck, slide
    assert {f"D{slide}" for slide in PRACTICAL} <= deck
    assert {f"D{slide}w" for slide in range(1, 31)} <= deck


def test_an_item_named_twice_or_of_no_group_is_refused():
    text = seeds.file().read_text()
    with pytest.raises(ValueError, match=r"seeds.toml: .*D5\.6"):
        seeds.load(text + '\n["D5.6"]\nknows = "Again."\n')
    with pytest.raises(ValueError, match="Z1 begins with no group's name"):
        seeds.load(text + '\n["Z1"]\nknows = "Whose?"\n')
    with pytest.raises(ValueError, match=r"D5\.13 says nothing that the reader knows"):
        seeds.load(text + '\n["D5.13"]\nat = "03_gqa"\n')


def test_every_item_is_taught_on_a_page_in_a_chapter_or_in_the_film(all_seeds, items):
    for place in {g.place for g in groups(all_seeds)} | {item.place for item in items}:
        place.check()
    with pytest.raises(ValueError, match="'05_swans' is no page, no chapter and not the film"):
        seeds.Place("05_swans").check()


def test_every_item_answers_in_a_sentence_of_its_own(all_seeds, book):
    page = Page(book, "book/appendix/deck_map")
    answers = {i.id: page.lower(i.knows) for g in groups(all_seeds) for i in g.items}
    again = [text for text, times in Counter(answers.values()).items() if times > 1]
    assert again == []
    for id, text in answers.items():
        assert 6 <= len(text.split()) <= 30 and text.endswith("."), (id, text)


def test_every_slide_has_a_line_and_every_concept_slide_a_corner(all_seeds, book):
    page = Page(book, "book/appendix/deck_map")
    slides = {g.id: g for g in groups(all_seeds) if g.wisdom}
    assert sorted(slides, key=lambda id: int(id[1:])) == [f"D{n}" for n in range(1, 31)]
    assert len({s.wisdom for s in slides.values()}) == 30
    with_corner = {id for id, slide in slides.items() if slide.corner}
    assert with_corner == {f"D{n}" for n in (*ANNOTATED, *CORNERS_OF_OURS)}
    for slide in slides.values():
        assert len(page.lower(slide.wisdom).split()) <= 20, slide.id
        for part in slide.corner:
            assert 4 <= len(page.lower(part).split()) <= 40, (slide.id, part)


def test_the_decks_labs_are_known_by_both_ids(all_seeds):
    named = [id for g in groups(all_seeds) for id in g.labs]
    assert len(named) == len(set(named)) == 14
    assert {seeds.new_id(id) for id in named} == set(chapters.DECK.values())
    assert {lab.find(id).id for id in named} <= set(lab.labs())


# -- what is said to be taught is taught -----------------------------------------------------


stem = functools.cache(snowballstemmer.stemmer("english").stemWord)


@functools.cache
def stems(text: str) -> frozenset[str]:
    """The stems of a text's words, without those that every text has; its numbers as written."""
    words = re.findall(r"\d[\d,.]*\d|\d|[^\W\d_]{2,}", text.lower())
    return frozenset(w if w[0].isdigit() else stem(w) for w in words if w not in STOP)


def lacks(sentence: str, words: tuple[str, ...], section: str) -> str:
    """Why a section does not teach a sentence, or nothing.

    All words that the item names stand there, all numbers of the sentence, and at least half of all
    its words.
    """
    asked, there = stems(sentence), stems(section)
    named = {stem for word in words for stem in stems(word)}
    if foreign := named - asked:
        return f"{sorted(foreign)} are not words of its sentence"
    if len(named) < 3:
        return "fewer than three words are named"
    numbers = {word for word in asked if word[0].isdigit()}
    if absent := (named | numbers) - there:
        return f"{sorted(absent)} do not stand in the section"
    if 2 * len(asked & there) < len(asked):
        return f"more than half is missing: {sorted(asked - there)}"
    return ""


def test_a_sentence_that_a_section_does_not_say_is_seen():
    section = "## Append\n\nA query meets all **100 keys**; a mask's rows are its new queries."
    sentence = "The mask has a row for each query, and 100 keys."
    words = ("mask", "row", "keys")
    assert lacks(sentence, words, section) == ""
    assert "'row'] do not" in lacks(sentence, words, "A mask of keys, 100 of them, and a query.")
    assert "'100'] do not" in lacks(sentence, words, section.replace("100", "10"))
    assert "['latent'] are not" in lacks(sentence, (*words, "latent"), section)
    assert "fewer than three" in lacks(sentence, ("mask", "masks", "keys"), section)
    long = "A mask of rows and keys compresses latents, experts, windows and batches."
    assert "more than half is missing" in lacks(long, words, section)


def is_written(chapter) -> bool:
    """Has a chapter's page been written? One just started still says what belongs where."""
    return "one picture, one analogy from backend engineering" not in chapter.page.read_text()


OPEN = [*filter(is_written, chapters.opened()), None]  # None: the pages that are no chapter's
WITHOUT_SLIDES = [c for c in chapters.every() if c.number == "00"]  # the deck begins behind it


def covered(items):
    return [item for item in items if item.place.status == COVERED]


def explicit(all_seeds):
    return [item for g in groups(all_seeds) for item in g.items]


def test_what_is_covered_stands_in_its_section(all_seeds, book, sections, said):
    faults = {}
    for item in covered(explicit(all_seeds)):
        place = item.place
        if place.section not in sections(place.docname):
            faults[item.id] = f"{place.docname} has no section #{place.section}"
            continue
        sentence = Page(book, place.docname).lower(item.knows)
        if fault := lacks(sentence, item.words, said(place.docname, place.section)):
            faults[item.id] = f"{place.at}: {fault}"
    assert faults == {}


def test_an_items_words_tell_its_section_from_others(all_seeds, sections, said):
    """Named words that stand in many sections would hold anywhere: at most three of a page's."""
    loose = {}
    for item in covered(explicit(all_seeds)):
        named = {stem for word in item.words for stem in stems(word)}
        page = item.place.docname
        # a section with a label has two anchors
        anchors = {id(section): anchor for anchor, section in sections(page).items()}
        fitting = [a for a in anchors.values() if named <= stems(said(page, a))]
        if len(fitting) > 3:
            loose[item.id] = fitting
    assert loose == {}


@pytest.mark.parametrize("chapter", OPEN, ids=lambda c: c.stem if c else "")
def test_an_open_page_lacks_none_of_its_items(items, chapter):
    lacking = {
        item.id for item in items if item.place.status == MISSING and item.place.chapter == chapter
    }
    assert lacking <= LACKING


def test_what_is_known_to_be_lacking_is(items):
    assert {i.id for i in items if i.place.status == MISSING} >= LACKING


@pytest.mark.parametrize("chapter", OPEN, ids=lambda c: c.stem if c else "")
def test_an_open_page_shows_the_lines_of_its_slides(all_seeds, book, sections, chapter):
    places = {
        g.id: g.place
        for g in groups(all_seeds)
        if g.wisdom and g.place.is_open and g.place.chapter == chapter
    }
    absent = {
        id
        for id, place in places.items()
        if not any(id in seeds.placed(book, made) for made in sections(place.docname).values())
    }
    assert (places or chapter in WITHOUT_SLIDES) and absent == set()


def test_what_waits_is_counted_as_waiting(items):
    waiting = [item for item in items if item.place.status == WAITING]
    planned = {c.stem for c in chapters.every() if not c.is_open}
    assert {item.place.page for item in waiting} <= planned | {seeds.FILM}
    assert not any(item.place.section for item in waiting)


# -- on the page -------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    return Site(tmp_path)


def words_of(node) -> str:
    return " ".join(node.get_text(" ").split())


def test_a_slides_corner_folds_under_its_line(tiny, book):
    slide = seeds.slide("D5")
    block = tiny.build("```{wisdom} D5\n```").select_one("details.wisdom:not([open])")
    markdown = Page(book, "book/index").lower("```{wisdom} D5\n```")
    assert words_of(block.summary) == f"Corner {slide.wisdom}"
    assert markdown.startswith(f"<details><summary>Corner: {slide.wisdom}</summary>\n\n**What")
    for text in (words_of(block), markdown.replace("*", "")):
        for head, part in zip(HEADS, slide.corner):
            assert f"{head} {part}" in text


def test_a_slide_without_a_corner_is_its_line_alone(tiny, book):
    line = seeds.slide("D18").wisdom
    page = tiny.build("```{wisdom} D18\n```")
    assert words_of(page.select_one("p.wisdom-line")) == line and not page.select(".fold")
    assert Page(book, "book/index").lower("```{wisdom} D18\n```") == f"> {line}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{wisdom} D31\n```", "the deck has no slide 'D31': slides run from D1 to D30"),
        ("```{wisdom} T1\n```", "the deck has no slide 'T1'"),
        ("```{seeds} deck tutorials\n```", "there is no seed 'tutorials': they are deck, tutorial"),
    ],
)
def test_a_slide_or_a_seed_that_there_is_not_is_said_where_it_stands(tiny, book, text, message):
    with pytest.raises(Exception, match=r"index\.md") as raised:
        tiny.build(text)
    assert message in str(raised.value)
    with pytest.raises(ValueError, match=re.escape(message)):
        Page(book, "book/index").lower(text)


def test_the_map_shows_every_item_and_where_it_is_taught(book, all_seeds):
    page = Page(book, "book/appendix/seed_map")
    names = " ".join(seed.name for seed in all_seeds)
    shown = page.lower(f"```{{seeds}} {names}\n```")
    for item in (i for g in groups(all_seeds) for i in g.items):
        assert f"- **{item.id}** {page.lower(item.knows)}" in shown, item.id
    assert shown.count("(✓ [") == len(covered(explicit(all_seeds)))
    for line in (
        r"### Its summary table.*\n\n14 The ladder · 1 waiting",
        r"- \*\*D3\.5\*\* .*\(waits for 09 Batching\)",
    ):
        assert re.search(f"^{line}$", shown, re.M)


def test_the_totals_are_those_of_the_items(book, items):
    shown = Page(book, "book/appendix/deck_map").lower("```{coverage}\n```")
    found = Counter(item.place.status for item in items)
    assert f"Of {len(items)} items: {found[COVERED]} on a page" in shown
    assert f"{found[MISSING]} missing, {found[WAITING]} waiting." in shown
    rows = re.findall(r"^\| (.+?) +\| +(\d+) +\| +(\d+) +\| +(\d+) +\|$", shown, re.M)
    assert [row[0] for row in rows][:2] == ["00 One token at a time", "01 Where the work goes"]
    assert sum(int(n) for row in rows for n in row[1:]) == len(items)


def test_every_slide_has_its_row_with_its_lab_by_both_ids(book):
    shown = Page(book, "book/appendix/deck_map").lower("```{slides}\n```").splitlines()
    assert len(shown) == 32
    row = next(line for line in shown if line.startswith("| Slide 14:"))
    assert "`CH4B-LAB-APP-A` [CH01-PROTOCOL](" in row and "labs.html#ch01-protocol)" in row
