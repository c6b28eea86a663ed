"""Players that are grids, in Chromium: the live picture, the keyboard, both widths, paper."""

import functools

import pytest
from axe_playwright_python.sync_playwright import Axe

from labkit import traces
from labkit.widgets import play, views
from tests.labkit.test_widgets_scene import grid
from tests.labkit.test_widgets_views import STORED
from tests.site.test_widgets_browser import input_to_paint, picture, show, tab_to

__all__ = ["show"]  # a fixture
PHONE_HEIGHT = 844
SMALLEST = 11  # px of a letter
PLAYERS = {
    kind: functools.partial(play, traces.stored(name), title=f"What {kind} shows")
    for kind, name in STORED.items()
}


def played(monkeypatch):
    """A player of the grid that the tests of scenes draw: with levels that move."""
    monkeypatch.setattr(views, "scene", lambda trace: grid())
    return play(traces.stored("ch02/decode_cached"))


@pytest.mark.parametrize("kind", PLAYERS)
def test_a_player_goes_by_keyboard_and_ends_as_its_still_picture(show, kind):
    w = PLAYERS[kind]()
    page = show(w)
    live = page.locator(".lk-live")
    tab_to(page, ".lk-live button[aria-label='Step forward']")
    for says in w.says[1:]:
        page.keyboard.press("ArrowRight")
        assert live.locator(".lk-say").inner_text() == says[0].replace("**", "")
    assert picture(live.inner_html()) == picture(w.still)
    page.keyboard.press("Home")
    assert live.locator(".lk-count").inner_text() == f"1 / {len(w.says)}"
    assert picture(live.inner_html()) != picture(w.still)


def test_levels_move_and_end_as_the_still_picture_has_them(show, monkeypatch):
    w = played(monkeypatch)
    page = show(w)
    live = page.locator(".lk-live")
    square = live.locator("[data-level]")
    seen = lambda: (
        square.get_attribute("data-sign"),
        square.evaluate("box => box.style.getPropertyValue('--level').trim()"),
        square.evaluate(
            "box => { const drawn = getComputedStyle(box, '::before');"
            " return parseFloat(drawn.width) * parseFloat(drawn.scale); }"
        ),
    )
    first = seen()
    live.locator("input[type=range]").press("ArrowRight")
    second = seen()
    assert (first[:2], second[:2]) == (("+", "0.71"), ("-", "0.5")) and first[2] > second[2] > 4
    live.locator("input[type=range]").press("End")
    assert picture(live.inner_html()) == picture(w.still)


def test_a_text_that_does_not_fit_is_left_out_whole(show, monkeypatch):
    """The box of one column; its text is pushed out of sight, never cut."""
    page = show(played(monkeypatch), width=390)
    page.locator(".lk-live input[type=range]").press("ArrowRight")
    box = page.locator(".lk-live .lk-grid .lk-k-held")
    fits = """(box, text) => {
        box.textContent = text;
        const range = document.createRange();
        range.selectNodeContents(box);
        const [words, edge] = [range, box].map((part) => part.getBoundingClientRect());
        if (words.top >= edge.bottom - 3) return "out of sight";
        return words.left >= edge.left && words.right <= edge.right ? "whole" : "cut";
    }"""
    assert box.evaluate(fits, "r3") == "whole"
    assert box.evaluate(fits, "a text much longer than its box, however wide") == "out of sight"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
@pytest.mark.parametrize("kind", PLAYERS)
def test_a_player_fits_a_screen_can_be_read_and_axe_finds_nothing(show, kind, width, theme):
    w = PLAYERS[kind]()
    page = show(w, width=width, theme=theme)
    live = page.locator(".lk-live")
    tops = live.locator(".lk-transport").bounding_box()
    for _ in w.says:
        say = live.locator(".lk-say").bounding_box()
        assert say["y"] + say["height"] - tops["y"] < PHONE_HEIGHT - 100, "and the title"
        sizes = live.locator(".lk-grid *:visible").evaluate_all(
            "all => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert min(sizes) >= SMALLEST
        cut = live.locator(".lk-grid span:visible").evaluate_all(
            """all => all.filter((box) => {
                if (!box.textContent) return false;
                const range = document.createRange();
                range.selectNodeContents(box);
                return range.getBoundingClientRect().top >= box.getBoundingClientRect().bottom - 3;
            }).map((box) => box.textContent)"""
        )
        assert not cut, "the stored traces' texts fit at every width"
        live.locator("button[aria-label='Step forward']").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    assert not found, [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found]


@pytest.mark.parametrize("kind", PLAYERS)
def test_paper_shows_the_last_step_and_its_numbers(show, kind):
    w = PLAYERS[kind]()
    page = show(w, width=760)
    page.emulate_media(media="print")
    still = page.locator(".lk-still")
    assert still.is_visible() and not page.locator(".lk-live .lk-transport").is_visible()
    table = still.locator(".lk-numbers table")
    assert table.is_visible()
    right = still.bounding_box()["x"] + still.bounding_box()["width"]
    assert table.bounding_box()["x"] + table.bounding_box()["width"] <= right


def test_every_key_press_is_painted_and_the_pictures_are_small(show, capsys):
    for kind, player in PLAYERS.items():
        page = show(player())
        times = input_to_paint(page, page.locator(".lk-live input[type=range]").first)
        with capsys.disabled():
            print(f"\n{kind}: input to paint, worst {max(times):.1f} ms of {len(times)}")
        assert page.locator(".lk-live *").count() < 800
