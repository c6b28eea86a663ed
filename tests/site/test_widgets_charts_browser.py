"""Points, matrices and histograms in Chromium: what moves, what can be read, and where words stand
on a phone.
"""

import itertools
import statistics

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.labkit.test_widgets import line
from tests.labkit.test_widgets_charts import CHARTS, attention, drafts, fleet, memory, weights
from tests.site.test_widgets_browser import (
    EXPLORES,
    PLAYS,
    input_to_paint,
    picture,
    show,  # noqa: F401 - a fixture
)

WIDTHS = [1300, 390]
# Boxes of all words of a picture that can be seen, and what they say
WORDS = """(root) => [...root.querySelectorAll(".lk-plot text")]
    .filter((text) => text.textContent.trim() && text.checkVisibility({ visibilityProperty: true }))
    .map((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect();
        return { words: text.textContent, left, right, top, bottom };
    })"""


def choices(w):
    """Every choice of the reader, as `start` and as an index for each knob."""
    for index in itertools.product(*(range(len(values)) for values in w._grids.values())):
        pairs = zip(w._grids.items(), index)
        yield {name: values[i] for (name, values), i in pairs}, index


def choose(page, index):
    """Put each knob at its place, by keyboard."""
    for slider, i in zip(page.locator(".lk-live input[type=range]").all(), index, strict=True):
        slider.press("Home")
        for _ in range(i):
            slider.press("ArrowRight")


@pytest.mark.parametrize("name", CHARTS)
def test_each_live_picture_is_the_still_one(show, name):  # noqa: F811
    w = CHARTS[name]()
    page = show(w)
    live = page.locator(".lk-live")
    seen = []
    for start, index in choices(w):
        choose(page, index)
        still = picture(CHARTS[name](start=start).still)
        assert picture(live.inner_html()) == still
        seen.append(str(still))
    assert len(seen) > 1 and len(set(seen)) == len(seen)


def covering(boxes: list[dict]) -> list[tuple]:
    """Pairs of words that cover one another. Half a pixel is the browser's rounding."""
    return [
        (a["words"], b["words"])
        for a, b in itertools.combinations(boxes, 2)
        if a["left"] < b["right"] - 0.5
        and b["left"] < a["right"] - 0.5
        # a line of text is taller than its letters
        and a["top"] + 2 < b["bottom"] - 2
        and b["top"] + 2 < a["bottom"] - 2
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["fleet", "drafts", "attention", "memory", "weights", "lengths"])
def test_no_word_of_a_picture_covers_another(show, name, width):  # noqa: F811
    w = CHARTS[name]()
    page = show(w, width=width)
    card = page.locator(".lk-live .lk-explore, .lk-live.lk-explore").first
    edge = card.bounding_box()
    for _, index in choices(w):
        choose(page, index)
        boxes = card.evaluate(WORDS)
        assert len(boxes) > 6 and not covering(boxes)
        assert all(
            edge["x"] <= b["left"] and b["right"] <= edge["x"] + edge["width"] for b in boxes
        )


def test_twelve_points_have_their_names_on_a_screen_and_numbers_with_a_key_on_a_phone(
    show,  # noqa: F811
):
    names = ".lk-live .lk-name:visible"
    screen = show(fleet(), width=1300)
    assert screen.locator(names).count() == 12
    assert "llama3-70b" in screen.locator(names).all_text_contents()
    assert not screen.locator(".lk-live .lk-key").is_visible()
    phone = show(fleet(), width=390)
    assert phone.locator(names).all_text_contents() == [str(i + 1) for i in range(12)]
    assert "llama3-70b" in phone.locator(".lk-live .lk-key").inner_text()


@pytest.mark.parametrize("kinds", [CHARTS, EXPLORES, PLAYS], ids=["charts", "series", "players"])
def test_words_are_large_enough_on_a_phone(show, kinds):  # noqa: F811
    """11 px and more, as they stand on the screen."""
    page = show(*[make() for make in kinds.values()], width=390)
    small = page.evaluate(
        """() => {
            const walker = document.createTreeWalker(document.querySelector("main"), 4);
            const small = [];
            let seen = 0;
            for (let node; (node = walker.nextNode());) {
                const parent = node.parentElement;
                if (!node.data.trim() || !parent.closest(".lk-live")) continue;
                if (!parent.checkVisibility({ visibilityProperty: true })) continue;
                const scale = parent.getScreenCTM?.();
                const size = parseFloat(getComputedStyle(parent).fontSize);
                const shown = size * (scale ? Math.hypot(scale.a, scale.b) : 1);
                seen += 1;
                if (shown < 11) small.push([node.data, shown]);
            }
            if (seen < 50) small.push(["too few words were seen", seen]);
            return small;
        }"""
    )
    assert not small


@pytest.mark.parametrize("make", [line, drafts, weights, EXPLORES["gaps"]])
def test_the_legend_says_where_the_reader_began_once_it_shows(show, make):  # noqa: F811
    page = show(make())
    entry = page.locator(".lk-live .lk-legend .lk-ghost")
    assert entry.count() == 1 and not entry.is_visible()
    slider = page.locator(".lk-live input[type=range]").first
    below = page.locator(".lk-live .lk-plot").bounding_box()["y"]
    slider.press("ArrowRight")
    assert entry.is_visible() and entry.inner_text() == "where you began"
    assert page.locator(".lk-live .lk-plot").bounding_box()["y"] == below, "nothing jumps"
    slider.press("Home")
    assert not entry.is_visible() and page.locator(".lk-plot .lk-ghost").count() == 0


def test_a_ghost_of_points_is_where_they_were(show):  # noqa: F811
    page = show(drafts())
    places = lambda css: [
        (point.get_attribute("x"), point.get_attribute("y"))
        for point in page.locator(f".lk-live {css}").all()
    ]
    before = places(".lk-plot > .lk-point")
    page.locator(".lk-live input[type=range]").press("ArrowRight")
    assert places(".lk-ghost .lk-point") == before != places(".lk-plot > .lk-point")


def test_the_pointer_reads_a_point_a_cell_and_a_bin(show):  # noqa: F811
    page = show(drafts(), attention(), weights())
    probe = page.locator(".lk-live .lk-probe")

    def at(k, x, y):
        box = page.locator(".lk-live .lk-plot").nth(k).bounding_box()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        return probe.nth(k).inner_text()

    assert at(0, 0.9, 0.1) == "tree: 4, 3"
    assert at(0, 0.2, 0.6) == "n-gram: 1, 1.5"
    assert at(1, 0.3, 0.9) == "mat, cat: 0.5"
    assert at(1, 0.9, 0.1) == "the, mat: –"
    assert at(2, 0.5, 0.5).startswith("at ")
    page.mouse.move(0, 0)
    assert probe.all_inner_texts() == ["", "", ""]


def test_numbers_stand_in_cells_that_have_room(show):  # noqa: F811
    page = show(attention(), memory(), width=1300)
    cells = page.locator(".lk-live .lk-matrix").nth(0).locator(".lk-cell:visible")
    assert "0.5" in cells.all_text_contents()
    assert page.locator(".lk-live .lk-matrix").nth(1).locator(".lk-cell").count() == 0
    plots = [plot.bounding_box() for plot in page.locator(".lk-live .lk-plot").all()]
    assert all(abs(box["width"] - box["height"]) < 1 for box in plots), "cells are square"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_charts(show, theme, width):  # noqa: F811
    page = show(*[make() for make in CHARTS.values()], theme=theme, width=width)
    for summary in page.locator(".lk-live summary").all():
        summary.click()
    for slider in page.locator(".lk-live input[type=range]").all():
        slider.press("ArrowRight")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_can_be_read_in_forced_colours(show, theme):  # noqa: F811
    page = show(
        drafts(), attention(), weights(), theme=theme, forced_colors="active", color_scheme=theme
    )
    of = lambda css, what: page.locator(f".lk-live {css}").first.evaluate(
        f"node => getComputedStyle(node).{what}"
    )
    text = of(".lk-title", "color")
    assert of(".lk-plot > .lk-point path", "fill") == text
    assert of(".lk-cells .lk-s0", "fill") == text
    assert of(".lk-bins .lk-s0", "stroke") == text
    gold = of(".lk-now", "fill"), of(".lk-frame", "stroke")
    assert text not in gold
    assert Axe().run(page).violations_count == 0


def test_a_printed_chart_shows_its_numbers_and_no_ghost(show):  # noqa: F811
    page = show(drafts(), weights())
    for slider in page.locator(".lk-live input[type=range]").all():
        slider.press("ArrowRight")
    page.emulate_media(media="print")
    assert page.locator(".lk-live td:visible").count() > 10
    assert page.locator(".lk-live .lk-numbers .lk-note").first.is_visible()
    assert page.locator(".lk-ghost:visible").count() == 0


def test_every_key_press_on_a_chart_is_painted(show, capsys):  # noqa: F811
    names = ["fleet", "memory", "weights"]
    page = show(*[CHARTS[name]() for name in names])
    for k, name in enumerate(names):
        slider = page.locator(".lk-live .lk-explore, .lk-live.lk-explore").nth(k)
        times = input_to_paint(page, slider.locator("input[type=range]").first)
        assert len(times) == 20
        with capsys.disabled():
            print(
                f"\n{name}: input to paint, median {statistics.median(times):.1f} ms, worst"
                f" {max(times):.1f} ms"
            )
