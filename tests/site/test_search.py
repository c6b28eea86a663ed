"""What readers type finds the section or term that they look for, however they spell it."""

import json
import re

import pytest

from course import search
from tests.site.queries import QUERIES

pytestmark = pytest.mark.site
TWINS = [
    ("quantisation", "quantization"),
    ("quantised", "quantized"),
    ("batching", "batched"),
    ("speculative", "speculation"),
    ("KV cache", "KV-cache"),
    ("kv cache", "what is a kv cache?"),
    ("licence", "license"),
    ("moe", "mixture of experts"),
]


@pytest.fixture(scope="module")
def ask(browser, site):
    """`ask(query)` -> [(page, heading)], best first."""
    page = browser.new_page()
    page.goto(f"{site}book/how-to-use.html")
    page.add_script_tag(url=f"{site}search-index.js")
    found = "q => courseSearch.search(q).map(row => [row.page, row.title])"
    yield lambda query: [tuple(row) for row in page.evaluate(found, query)]
    page.close()


@pytest.mark.parametrize("query, page, heading", QUERIES, ids=[q for q, *_ in QUERIES])
def test_a_query_finds_its_section_first_or_second(ask, query, page, heading):
    found = ask(query)
    assert (page, heading) in found[:2], found[:6]


@pytest.mark.parametrize("one, other", TWINS, ids=[one for one, _ in TWINS])
def test_twin_spellings_find_the_same(ask, one, other):
    assert ask(one)[:3] == ask(other)[:3] != []


@pytest.mark.parametrize("query", ["", " ", "the", "?!", "qwertz", "a" * 3000, "<b>", "\\", "[("])
def test_what_finds_nothing_breaks_nothing(ask, query):
    ask(query)


def test_every_term_of_the_glossary_is_found_by_its_name(ask, html):
    text = (html / "search-index.js").read_text()
    index = json.loads(re.match(r"window\.courseIndex = (.*);$", text, re.M)[1])
    terms = [row[3] for row in index["sections"] if row[0] == "book/glossary"][1:]
    assert len(terms) > 30
    for term in terms:
        assert ("book/glossary", term) in ask(term)[:3], (term, ask(term)[:5])


def test_abbreviations_are_read_from_the_glossary():
    rows = [
        ["p", "t", "a", "TTFT", "Time to first token: how long."],
        ["p", "t", "a", "token", "A piece, with: colons."],
        ["p", "t", "a", "GQA", "Grouped-query attention, here"],
    ]
    assert search.abbreviations(rows) == [
        ["TTFT", "Time to first token"],
        ["GQA", "Grouped-query attention"],
    ]
