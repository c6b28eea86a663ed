"""The blocks of a page: each is one file, found by itself, and makes both the site's HTML and the
Markdown of notebook and export.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from course import blocks
from course.block import Block, Lowered, LoweredRole, Role
from course.lower import Book, Page
from course.words import BUDGET, budget, core_words
from labkit import chapters, lab, results
from tests import sphinxes
from tests.cases import is_begun
from tests.conftest import ROOT

SETTINGS = sphinxes.COURSE | {
    "myst_enable_extensions": ["colon_fence", "dollarmath"],
    "suppress_warnings": ["myst.xref_missing"],
}


class Site:
    """A site of one page, built by the course's extension alone."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "book").mkdir()
        (folder / "_config.yml").write_text((ROOT / "_config.yml").read_text())
        (folder / "book/references.bib").write_text("")

    def build(self, text: str, **settings) -> BeautifulSoup:
        (self.folder / "index.md").write_text(f"# Title\n\n{text}\n")
        out = self.folder / "out"
        sphinxes.build(self.folder, out, SETTINGS | settings, freshenv=True, warningiserror=True)
        return BeautifulSoup((out / "index.html").read_text(), "html.parser")


@pytest.fixture
def tiny(tmp_path):
    return Site(tmp_path)


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


def lowered(book, text: str) -> str:
    return Page(book, "book/index").lower(text)


# -- found by themselves -----------------------------------------------------------------


def test_each_block_has_both_its_sides_and_a_name():
    sides = {
        **{c: ("to_nodes", "to_markdown") for c in blocks.defined(Block).values()},
        **{c: ("to_nodes", "to_markdown") for c in blocks.defined(Role).values()},
    }
    assert len(sides) >= 15
    for made, methods in sides.items():
        for method in methods:
            base = Block if issubclass(made, Block) else Role
            assert getattr(made, method) is not getattr(base, method), (made, method)
    for made in {*blocks.defined(Lowered).values(), *blocks.defined(LoweredRole).values()}:
        assert "to_markdown" in vars(made), made


@pytest.fixture
def new_block(monkeypatch, tmp_path):
    """A file added to the folder of blocks."""

    def add(source: str) -> None:
        (tmp_path / "fresh.py").write_text(source)
        monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])
        importlib.invalidate_caches()

    yield add
    sys.modules.pop("course.blocks.fresh", None)


def test_a_new_block_is_one_new_file(new_block, tiny):
    new_block(
        "from docutils import nodes\n"
        "from course.block import Block, make\n\n\n"
        "class Shout(Block):\n"
        '    names = ("shout",)\n\n'
        "    def to_nodes(self):\n"
        '        return [make("p", nodes.Text("HEY"), classes=["shout"])]\n\n'
        "    @classmethod\n"
        "    def to_markdown(cls, page, written):\n"
        '        return f"**{page.lower(written.content).upper()}**"\n'
    )
    page = tiny.build("```{shout}\nhey\n```")
    assert page.select_one("p.shout").get_text() == "HEY"
    assert lowered(Book(ROOT), "```{shout}\nhey\n```") == "**HEY**"


def test_a_name_that_two_blocks_claim_is_refused(new_block):
    new_block(
        'from course.block import Lowered\n\n\nclass Again(Lowered):\n    names = ("quiz",)\n'
    )
    with pytest.raises(ValueError, match=r"two blocks are called \{quiz\}"):
        blocks.defined(Lowered)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{quiz} Why?\n- [x] because\n\n  Yes.\n```", "{quiz} needs a list of at least two"),
        ("```{exercise} Count\n:label: e\n```", "{exercise} needs :label:, and :difficulty:"),
        ("```{solution} e\n```", "{solution} e: no exercise above has this label"),
        ("```{chapter}\n:read: 5\n```", "{chapter} needs :read:, :do:, :needs: and a list"),
        ("```{clip} nowhere\n```", "the clip nowhere is not rendered: run make book"),
        ("```{lab} CH02-NOWHERE\n```", "no lab is called 'CH02-NOWHERE'"),
        ("{n}`open('x')`", "cannot be made"),
        ("{formula}`nothing`", "nothing"),
    ],
)
def test_a_block_that_is_wrong_says_so_where_it_stands(tiny, text, message):
    with pytest.raises(Exception, match=re.escape("index.md")) as raised:
        tiny.build(text)
    assert message in str(raised.value)


# -- labs --------------------------------------------------------------------------------


def test_a_labs_card_says_what_it_asks_measured_and_what_to_notice(tiny, book):
    flash = lab.find("CH02-FLASH")
    doc = results.load(flash.result)
    page = tiny.build("```{lab} CH02-FLASH\n```\n\n(ch02-flash)=\n## Here")
    card = page.select_one(".lab.boxed")
    text = " ".join(card.get_text(" ", strip=True).split())
    markdown = lowered(book, "```{lab} CH02-FLASH\n```")
    assert card.select_one(".lab-title a")["href"] == "#ch02-flash"
    assert "[Online softmax" in markdown and "book/labs.html#ch02-flash)" in markdown
    for said in (text.replace("’", "'"), markdown.replace("`", "")):
        assert "CH02-FLASH" in said and flash.objective in said
        assert "labkit lab CH02-FLASH" in said and "about 2 minutes" in said
        assert f"Measured on {results.where(doc)}, {doc['date']}" in said
        assert "What to notice." in said and f"{doc['rows'][0]['peak_bytes']:,}" in said
    assert card.select("svg") and len(card.select("tbody tr")) == len(doc["rows"])
    assert markdown.count("\n|") >= len(doc["rows"]) + 1  # a head, a rule, the rows


def test_an_option_in_what_to_notice_keeps_its_hyphens(tiny):
    card = tiny.build("```{lab} CH08-PRETRAINING\n```\n\n(ch08-pretraining)=\n## Here")
    options = [code.get_text() for code in card.select(".lab code")]
    assert "--set gpu=L4" in options and "--set tokens_per_second=50" in options
    assert "–set" not in card.get_text()


def test_a_lab_that_has_stored_nothing_says_so(tiny, book, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    page = tiny.build("```{lab} CH02-FLASH\n```\n\n(ch02-flash)=\n## Here")
    assert "No result of this lab is stored yet." in page.select_one(".lab").get_text()
    assert not page.select(".lab table")
    assert "No result of this lab is stored yet." in lowered(book, "```{lab} CH02-FLASH\n```")


def test_the_decks_ids_find_a_lab(book):
    assert "Lab CH02-BASELINE" in lowered(book, "```{lab} CH4B-LAB-03\n```")


def test_all_labs_by_chapter_each_with_its_anchor(book):
    markdown = lowered(book, "```{labs}\n```")
    assert re.search(r"^## 02 The KV cache$", markdown, re.M)
    known = lab.labs()
    titles = re.findall(r"^### (.*)\n\n\*\*(CH\d\d-\w+)\.\*\*", markdown, re.M)
    assert titles == [(each.title, each.id) for each in known.values()]
    measured = [each for each in known.values() if not is_begun(each)]
    assert markdown.count("**What to notice.**") == len(measured) > 30
    for label in ("ch02-flash", "labs-02"):
        assert book.labels[label][0] == "book/labs"


def test_a_build_of_one_chapter_shows_its_labs_in_full_and_has_the_others_anchors(tiny):
    page = tiny.build("```{labs}\n```", course_chapter="04")
    assert page.select("#ch04-absorbed table")
    assert page.select("#ch02-flash") and not page.select("#ch02-flash table")


def test_a_build_of_one_chapter_passes_over_others_clips(tiny):
    assert not tiny.build("```{clip} nowhere\n```", course_chapter="04").select("video")


# -- numbers -----------------------------------------------------------------------------

RATIO = (
    '{n}`row("ch02/baseline", variant="cached")["multiple"]'
    ' / row("ch02/flash", kind="fused", context=4096)["multiple"] | .2f`'
)


def test_a_number_made_of_two_results_shows_both(tiny):
    page = tiny.build(RATIO)
    origin = page.select_one(".receipts .origin")
    documents = [dl.get_text(" ", strip=True) for dl in origin.select("dl")]
    assert len(documents) == 2
    for name, said in zip(("ch02/baseline", "ch02/flash"), documents):
        doc = results.load(name)
        assert name in said and doc["date"] in said and results.where(doc) in said
        assert doc["command"] in said
    assert len(origin.select("li")) == 1


def test_numbers_of_one_origin_share_its_facts(tiny):
    multiple = '{n}`row("ch02/baseline", variant="cached")["multiple"] | .1f`'
    seconds = '{n}`row("ch02/baseline", variant="cached")["tokens_per_second"] | .1f`'
    page = tiny.build(f"{multiple} and {seconds}, {multiple} again; {{n}}`1 + 1`")
    origins = page.select(".receipts .origin")
    assert [len(origin.select("li")) for origin in origins] == [2, 1]
    assert "computed by labkit" in origins[1].get_text()
    assert len(page.select("a.receipt.measured")) == 3


# -- words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Three plain words.", 3),
        ("A [linked word](x.md), {term}`caches <KV cache>` and `code`.", 6),
        ("A {n}`1 + 1` counts once, as $x + y$ does {cite}`vaswani2017attention`.", 7),
        ("```{note}\nTwo words.\n```", 2),
        ("| a | b |\n|---|---|\n| c | d |", 4),
        ("```{dropdown} Why?\nBecause of that.\n```", 0),
        ("```{admonition} More\n:class: deeper\nFor those who ask.\n```", 0),
        ("```{note}\n:class: dropdown\nFolded.\n```", 0),
        ("```{exercise} Count\n:label: e\nDo it.\n```\n````{solution} e\nDone.\n````", 0),
        ("```{quiz} Which?\n- [x] this\n\n  Yes.\n```", 0),
        ("```{code-cell}\nx = 1\n```\n\n```python\ny = 2\n```", 0),
        ("```{formula} cached_attention_terms\n```", 0),
    ],
)
def test_only_the_core_path_counts(book, text, count):
    assert core_words(text, book) == count


def test_a_page_over_its_budget_says_by_how_much():
    assert budget("02_kv_cache", BUDGET + 600).endswith(
        "3,100 words on the core path, of 2,500, 600 over"
    )
    assert budget("05_swa", 1200).endswith("1,200 words on the core path, of 2,500")


def test_the_list_of_chapters_follows_the_table_of_contents(book, monkeypatch):
    def kv_cache(listed: list[str]) -> str:
        monkeypatch.setattr(chapters, "table_of_contents", lambda: listed)
        lines = lowered(book, "```{chapters}\n```").splitlines()
        assert len(lines) == len(chapters.TITLES)
        return lines[2]

    page = "book/chapters/02_kv_cache"
    assert re.match(r"- \[02 The KV cache\]\(.*02_kv_cache.*#ch-kv-cache\)$", kv_cache([page]))
    labs_only = r"- \[02 The KV cache\]\(.*#labs-02\), so far its labs$"
    assert re.match(labs_only, kv_cache([]))
    monkeypatch.setattr(chapters.Chapter, "lab_names", ())
    assert kv_cache([]) == "- 02 The KV cache, planned"
