"""The players of a window, a router and a state in a browser: keyboard, phone, axe, paint."""

import statistics

import pytest
from axe_playwright_python.sync_playwright import Axe

from labkit import traces
from labkit.widgets import play, views
from tests.site import test_widgets_browser as widgets
from tests.site.test_widgets_browser import input_to_paint, picture, tab_to

show = widgets.show

NAMES = {
    "window": "ch05/window_ring",
    "routing": "ch06/routing_characters",
    "state": "ch07/state_recall",
}
each_kind = pytest.mark.parametrize("kind", NAMES)


def player(kind: str):
    return play(traces.stored(NAMES[kind]), title=f"A {kind}, step by step")


@each_kind
def test_it_steps_by_keyboard_and_says_so(show, kind):
    page = show(player(kind))
    shown = views.scene(traces.stored(NAMES[kind]))
    said = lambda: page.locator(".lk-live .lk-say").inner_text()
    plain = [words.replace("**", "") for words in shown.says]
    assert said() == plain[0]
    tab_to(page, ".lk-live button[aria-label='Step forward']")
    page.keyboard.press("Enter")
    assert said() == plain[1]
    page.keyboard.press("ArrowRight")
    assert said() == plain[2]
    page.keyboard.press("End")
    assert said() == plain[-1]
    page.keyboard.press("Home")
    assert said() == plain[0]


@each_kind
def test_the_live_one_ends_as_the_still_one(show, kind):
    w = player(kind)
    live = show(w).locator(".lk-live")
    assert picture(live.inner_html()) != picture(w.still)
    live.locator("input[type=range]").press("End")
    assert picture(live.inner_html()) == picture(w.still)


@each_kind
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_nothing(show, kind, theme, width):
    page = show(player(kind), theme=theme, width=width)
    page.locator(".lk-live summary").click()
    for key in ("Home", "PageUp", "End"):
        page.locator(".lk-live input[type=range]").press(key)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"


@each_kind
def test_controls_picture_and_sentence_fit_a_phone(show, kind):
    """On a screen of 390 by 844, at every step, with letters of 11 px or more."""
    page = show(player(kind), width=390)
    tall = """() => document.querySelector(".lk-live .lk-say").getBoundingClientRect().bottom
        - document.querySelector(".lk-live .lk-transport").getBoundingClientRect().top"""
    heights = []
    for _ in range(len(traces.stored(NAMES[kind]).steps)):
        heights.append(page.evaluate(tall))
        page.locator(".lk-live input[type=range]").press("ArrowRight")
    assert max(heights) <= 844
    assert max(heights) - min(heights) < 1, "nothing jumps"
    small = page.evaluate(
        """() => [...document.querySelectorAll(".lk-live *")].filter(node =>
            [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
            && parseFloat(getComputedStyle(node).fontSize) < 11).map(node => node.outerHTML)"""
    )
    assert not small


@each_kind
def test_words_in_the_picture_fit_their_boxes(show, kind):
    """One that does not fit wraps out of sight: on a phone, too, none may."""
    page = show(player(kind), width=390)
    for _ in range(len(traces.stored(NAMES[kind]).steps)):
        cut = page.evaluate(
            """() => [...document.querySelectorAll(".lk-live .lk-grid span")].filter(box =>
                box.textContent && box.offsetParent && box.scrollHeight > box.clientHeight + 4
            ).map(box => box.textContent)"""
        )
        assert not cut
        page.locator(".lk-live input[type=range]").press("ArrowRight")


@each_kind
def test_the_numbers_of_every_step_stand_in_its_table(show, kind):
    page = show(player(kind))
    page.locator(".lk-live summary").click()
    shown = views.scene(traces.stored(NAMES[kind]))
    table = page.locator(".lk-live .lk-numbers table")
    assert table.locator("th[scope=col]").all_inner_texts() == [
        "step",
        *(meter.label for meter in shown.meters),
    ]
    assert table.locator("tbody tr").count() == len(shown.says)


def test_every_key_press_is_painted(show, capsys):
    page = show(*map(player, NAMES))
    for n, kind in enumerate(NAMES):
        slider = page.locator(".lk-live input[type=range]").nth(n)
        times = input_to_paint(page, slider)
        assert len(times) == 20
        with capsys.disabled():
            print(f"\n{kind}: input to paint, median {statistics.median(times):.1f} ms", end="")
