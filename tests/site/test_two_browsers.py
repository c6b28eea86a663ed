"""What a reader does in Chromium and in Firefox alike: follow links to headings, move widgets, get
on by keyboard.
"""

import json
import time
from functools import cache

import pytest
from bs4 import BeautifulSoup

from tests.conftest import HTML, pages
from tests.firefox import Firefox, installed

pytestmark = pytest.mark.site
PAGES = pages()
CHAPTER = "book/chapters/02_kv_cache"
WIDTHS = (1300, 390)
NEAR = 8  # pixels a heading may be off

# how far the heading of an anchor is from its place under the bar; at the page's end it is lower
OFF = """(() => {
    const target = document.getElementById(arguments[0]);
    const root = document.documentElement;
    const { top } = (target.querySelector("h1, h2, h3, h4") ?? target).getBoundingClientRect();
    const off = top - parseFloat(getComputedStyle(root).scrollPaddingTop);
    const end = scrollY + innerHeight >= root.scrollHeight - 2;
    return end && off > 0 && top < innerHeight ? 0 : Math.round(off);
})()"""
# a dozen frames in which nothing moves and nothing grows
SETTLED = """document.fonts.ready.then(() => new Promise((done) => {
    let before = null;
    let frames = 0;
    (function look() {
        const now = [scrollY, document.documentElement.scrollHeight].join();
        frames = now === before ? frames + 1 : 0;
        before = now;
        if (frames > 12) done(true);
        else requestAnimationFrame(look);
    })();
}))"""


class Chromium:
    """A page of Playwright with the few calls that our Firefox has."""

    def __init__(self, browser):
        self.page = browser.new_page()

    def resize(self, width: int, height: int):
        self.page.set_viewport_size({"width": width, "height": height})

    def open(self, address: str):
        self.page.goto(address)

    def evaluate(self, expression: str, *args):
        return self.page.evaluate(f"((...arguments) => {expression})({json.dumps(args)[1:-1]})")

    def until(self, expression: str):
        self.page.wait_for_function(expression)

    def press(self, *keys: str):
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def reader(request):
    """A browser with one page. Firefox is one for all tests of the file: it starts slowly."""
    if request.param == "chromium":
        made = Chromium(request.getfixturevalue("browser"))
        yield made
        made.page.close()
        return
    path = installed()
    if path is None:
        pytest.skip("no Firefox on this machine: apt-get install firefox-esr")
    with Firefox(path) as made:
        yield made


def arrive(reader, address: str):
    """Open a page from outside: never as another place of the page that is already open."""
    reader.open("about:blank")
    reader.open(address)
    reader.evaluate(SETTLED)


def at_rest(reader, anchor: str, wait: float = 10) -> int:
    """How far off a heading is once the page has scrolled there: on a busy machine the scrolling
    may only begin when SETTLED has seen its dozen frames.
    """
    end = time.monotonic() + wait
    while True:
        reader.evaluate(SETTLED)
        off = reader.evaluate(OFF, anchor)
        if abs(off) <= NEAR or time.monotonic() > end:
            return off


@cache
def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")


def places(name: str) -> list[str]:
    """The anchors of a page's headings, terms and works, in order."""
    found = soup(name).select(
        "article section :is(h2, h3, h4), article dt[id], article .citation[id]"
    )
    return [(e if e.get("id") else e.find_parent(id=True))["id"] for e in found]


# -- links -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_link_to_a_heading_lands_on_it(reader, site, name, width):
    """From outside, from the contents list, and as another place of the same page."""
    found = places(name)
    assert len(found) >= 3
    reader.resize(width, 900)
    off = {}
    for anchor in {found[len(found) // 2], *found[-2:]}:
        arrive(reader, f"{site}{name}.html#{anchor}")
        off["from outside", anchor] = reader.evaluate(OFF, anchor)
    arrive(reader, f"{site}{name}.html")
    if listed := reader.evaluate("[...document.querySelectorAll('.contents a')].map(a => a.hash)"):
        anchor = listed[-1][1:]  # the way there leads past everything
        reader.evaluate("[...document.querySelectorAll('.contents a')].at(-1).click()")
        off["from the contents list", anchor] = at_rest(reader, anchor)
    reader.evaluate("void (document.documentElement.style.scrollBehavior = 'auto')")
    for anchor in found:
        reader.evaluate("void (location.hash = arguments[0])", anchor)
        off["within the page", anchor] = reader.evaluate(OFF, anchor)
    assert {way: by for way, by in off.items() if abs(by) > NEAR} == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_hit_lands_on_its_heading(reader, site, width):
    reader.resize(width, 900)
    *_, heading, _, _ = soup(CHAPTER).select("article section > h2")  # far down the page
    anchor, title = heading.parent["id"], heading.find(string=True).strip()
    arrive(reader, f"{site}{PAGES[0]}.html")
    reader.evaluate("document.querySelector('.search-open').click()")
    reader.evaluate(
        """void (() => {
            const input = document.querySelector("dialog.search input");
            input.value = arguments[0];
            input.dispatchEvent(new Event("input"));
        })()""",
        title,
    )
    hit = f'.search-results a[href*="{CHAPTER}.html#{anchor}"]'
    reader.until(f"document.querySelector('{hit}') !== null")
    reader.evaluate(f"document.querySelector('{hit}').click()")
    reader.until(f"location.hash === '#{anchor}' && document.readyState === 'complete'")
    reader.evaluate(SETTLED)
    assert abs(reader.evaluate(OFF, anchor)) <= NEAR


@pytest.mark.parametrize("width", WIDTHS)
def test_back_and_forward_return_to_their_places(reader, site, width):
    """Within the page, and from another one."""
    reader.resize(width, 900)
    first, second = places(CHAPTER)[3], places(CHAPTER)[-3]
    arrive(reader, f"{site}{CHAPTER}.html#{first}")
    reader.evaluate("void (location.hash = arguments[0])", second)
    reader.evaluate(SETTLED)
    off = {}
    for move, anchor in (("back", first), ("forward", second)):
        reader.evaluate(f"history.{move}()")
        reader.until(f"location.hash === '#{anchor}'")
        reader.evaluate(SETTLED)
        off[move] = reader.evaluate(OFF, anchor)
    reader.open(f"{site}{PAGES[0]}.html")
    reader.evaluate("history.back()")
    reader.until(f"location.hash === '#{second}' && document.readyState === 'complete'")
    reader.evaluate(SETTLED)
    off["from another page"] = reader.evaluate(OFF, second)
    assert max(map(abs, off.values())) <= NEAR, off


def test_what_grows_late_above_a_heading_does_not_move_it(reader, site):
    """As a picture or a typeface does that comes last; once the reader moves, nothing holds."""
    reader.resize(1300, 900)
    anchor = places(CHAPTER)[4]
    arrive(reader, f"{site}{CHAPTER}.html#{anchor}")
    grow = "void (document.querySelector('h1').style.paddingTop = arguments[0])"
    reader.evaluate(grow, "700px")
    reader.evaluate(SETTLED)
    assert abs(reader.evaluate(OFF, anchor)) <= NEAR


# -- widgets and keyboard ----------------------------------------------------------------


def test_widgets_live_and_say_so_at_a_key_press(reader, site):
    reader.resize(1300, 900)
    arrive(reader, f"{site}{CHAPTER}.html")
    views = reader.evaluate("document.querySelectorAll('.lk-mount script').length")
    assert views == reader.evaluate("document.querySelectorAll('.lk-live').length") > 2
    for kind in ("explore", "play"):
        said = f"document.querySelector('.lk-live .lk-{kind} .lk-say').textContent"
        before = reader.evaluate(said)
        reader.evaluate(f"document.querySelector('.lk-live .lk-{kind} [type=range]').focus()")
        reader.press("ArrowRight")
        assert reader.evaluate(said) != before, kind


def test_nothing_but_styles_and_the_theme_waits_for_the_first_paint(reader, site):
    reader.resize(1300, 900)
    arrive(reader, f"{site}{CHAPTER}.html")
    waits = reader.evaluate(
        """[...document.querySelectorAll("head script[src]:not([defer], [async])")]
        .map(script => script.src.split("/").pop())"""
    )
    assert waits == ["theme.js"]
    assert reader.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 1
    assert reader.evaluate("document.documentElement.dataset.theme") in ("light", "dark")


STOP = "document.activeElement"
SEEN = f"""(() => {{
    const at = {STOP};
    if (at === document.body) return "";
    const box = at.getBoundingClientRect();
    const scrolls = at.scrollWidth > at.clientWidth + 4 || at.scrollHeight > at.clientHeight + 4;
    const acts = at.matches("a, button, input, select, textarea, summary, video, [tabindex='-1']");
    return [acts || scrolls ? "" : "does nothing", box.width && box.height ? "" : "is not shown",
        at.textContent.slice(0, 90) || at.outerHTML.slice(0, 90)];
}})()"""


def test_tab_stops_where_something_acts_or_scrolls(reader, site):
    """All the way through a chapter: each stop is there to be seen, and does something."""
    reader.resize(1300, 900)
    arrive(reader, f"{site}{CHAPTER}.html")
    stops = []
    while not stops or "Something wrong on this page?" not in stops[-1][2]:
        reader.press("Tab")
        stops.append(reader.evaluate(SEEN))
        assert stops[-1] and len(stops) < 400
    assert [stop for stop in stops if stop and any(stop[:2])] == []
    assert "Skip to the text" in stops[0][2]


def test_search_quiz_and_cards_by_keyboard(reader, site):
    reader.resize(1300, 900)
    arrive(reader, f"{site}{CHAPTER}.html")
    reader.press("/")
    reader.until("document.querySelector('dialog.search').open")
    reader.press(*"cache")
    reader.until("document.querySelectorAll('.search-results a').length > 2")
    reader.press("Escape")
    reader.until("!document.querySelector('dialog.search').open")
    card = "!document.querySelector('.receipt-card').hidden"
    for link in ("a.receipt", "a[data-says]"):
        reader.evaluate(f"document.querySelector('article {link}').focus()")
        reader.until(card)
        reader.press("Escape")
        assert not reader.evaluate(card)
    reader.evaluate("document.querySelector('.answer.right summary').focus()")
    reader.press("Enter")
    reader.until("document.querySelector('.tally').textContent === 'Right at the first try.'")
