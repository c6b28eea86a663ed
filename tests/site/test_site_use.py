"""What a reader does on the site: search, ask a number for its receipt, watch, answer, print; by
keyboard, by touch, without JavaScript.
"""

import re

import pytest

from labkit.palette import PALETTE
from tests.conftest import PHONE, ROOT, pages

pytestmark = pytest.mark.site
HOME, CHAPTER = pages()[0], "book/chapters/02_kv_cache"


@pytest.mark.parametrize("home", ["http", "file"])
def test_search_finds_a_section_offline(visit, home):
    seen = visit(home)
    page = seen.open(HOME)
    page.locator(".search-open").click()
    page.locator("dialog.search input").fill("cache")
    first = page.locator(".search-results a").first
    first.wait_for()
    assert "cache" in first.inner_text().lower()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/book/**#*")
    assert page.locator(f"[id='{page.url.rsplit('#', 1)[1]}']").count() == 1 and seen.errors == []


@pytest.mark.parametrize("phone", [False, True])
def test_a_measured_number_shows_its_receipt_by_keyboard(visit, phone):
    page = visit(**PHONE if phone else {}).open(CHAPTER)
    number, card = page.locator("a.receipt.measured").first, page.locator(".receipt-card")
    number.scroll_into_view_if_needed()
    before = page.evaluate(
        "[document.body.scrollHeight,"
        " document.querySelector('a.receipt.measured').getBoundingClientRect().top]"
    )
    number.focus()
    card.wait_for(state="visible")
    text = card.inner_text()
    assert (
        all(word in text for word in ("Machine", "Versions", "Measured", "Commit", "Command"))
        and number.inner_text() in text
    )
    assert re.search(r"20\d\d-\d\d-\d\d", text)
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= (390 if phone else 1300) and box["y"] >= 0
    assert (
        page.evaluate(
            "[document.body.scrollHeight,"
            " document.querySelector('a.receipt.measured').getBoundingClientRect().top]"
        )
        == before
    )
    page.keyboard.press("Escape")
    assert card.is_hidden()
    described = number.get_attribute("aria-describedby")
    assert number.inner_text() in page.locator(f"#{described}").text_content()


def test_a_computed_number_shows_its_expression_under_the_pointer(visit):
    page = visit().open(CHAPTER)
    number = page.locator("a.receipt.computed").first
    number.hover()
    card = page.locator(".receipt-card")
    card.wait_for(state="visible")
    assert "(" in card.locator("code").inner_text() and "computed by labkit" in card.inner_text()
    card.hover()  # the pointer may rest on it
    page.wait_for_timeout(400)
    assert card.is_visible()


@pytest.mark.parametrize("home", ["http", "file"])
def test_a_clip_has_a_poster_captions_and_a_transcript(visit, home):
    page = visit(home).open(CHAPTER)
    clip = page.locator("figure.clip").first
    clip.scroll_into_view_if_needed()
    cues = page.evaluate("""async () => {
        const track = document.querySelector("figure.clip video").textTracks[0];
        track.mode = "showing";
        const wait = () => new Promise(ok => setTimeout(ok, 100));
        for (let i = 0; i < 50 && !track.cues?.length; i++) await wait();
        return [...(track.cues ?? [])].map(c => c.text);
    }""")
    transcript = " ".join(clip.locator("details").text_content().split())
    assert len(cues) >= 3 and all(" ".join(cue.split()) in transcript for cue in cues)
    drawn = """new Promise(ok => {
        const poster = new Image();
        [poster.onload, poster.onerror] = [() => ok(poster.width), () => ok(0)];
        poster.src = document.querySelector(".clip video").poster;
    })"""
    assert page.evaluate(drawn) >= 640
    assert clip.locator("video").get_attribute("aria-label")


def test_an_answer_says_whether_it_is_right_by_keyboard(visit):
    page = visit().open(CHAPTER)
    quiz = page.locator(".quiz").first
    wrong, right = quiz.locator(".answer.wrong").first, quiz.locator(".answer.right")
    assert quiz.locator(".answer").count() >= 2 and not wrong.locator(".fold-body").is_visible()
    wrong.locator("summary").focus()
    page.keyboard.press("Enter")
    assert "Not so." in wrong.locator(".fold-body").inner_text()
    right.locator("summary").focus()
    page.keyboard.press("Enter")
    assert "Right." in right.locator(".fold-body").inner_text()
    quiz.locator(".tally", has_text="Right at try 2.").wait_for()


def test_the_answer_is_not_on_the_screen_before_the_reader_looked_for_it(visit):
    """The bug's output is folded, and the bet's slider stands at its low end."""
    page = visit().open(CHAPTER)
    page.wait_for_selector(".lk-live.lk-bet, .lk-live .lk-bet")
    assert page.locator(".lk-live .lk-bet output").first.inner_text() == "1×"
    output = page.locator("details.hide").filter(has_text="second chunk equal: False")
    assert output.count() == 1 and output.locator("summary").inner_text() == "Show the output"
    assert not page.get_by_text("second chunk equal: False").is_visible()


def test_no_widget_stands_on_the_page_that_only_a_kernel_could_move(visit):
    """The panel drives the real model: it is in the notebook."""
    page = visit().open(CHAPTER)
    assert page.locator(".lk-panel, .jupyter-widgets").count() == 0
    assert "widgets.panel()" in (ROOT / "notebooks/02_kv_cache.ipynb").read_text()


def test_the_theme_is_kept(visit):
    seen = visit(color_scheme="light")
    page = seen.open(HOME)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator(".theme-switch").click()
    seen.open(CHAPTER)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_paper_shows_what_is_folded_and_not_what_is_for_the_screen(visit):
    page = visit(color_scheme="dark").open(CHAPTER)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    solution = page.locator(".solution .fold-body").first
    answer = page.locator(".answer .fold-body").first
    assert solution.is_visible() and answer.is_visible()
    for gone in (".bar", "nav.book", ".actions", ".heading-tools", "video"):
        assert not page.locator(gone).first.is_visible(), gone
    assert (
        page.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--lk-ground').trim()"
        )
        == PALETTE["light"]["ground"]
    )


def test_a_chapter_reads_without_javascript(visit):
    page = visit(java_script_enabled=False, color_scheme="dark").open_without_script(CHAPTER)
    assert page.locator(".js-only").first.is_hidden() and page.locator(".search-open").is_hidden()
    answer = page.locator(".quiz .answer").first
    assert not answer.locator(".fold-body").is_visible()
    answer.locator("summary").click()
    assert answer.locator(".fold-body").is_visible()
    number = page.locator("a.receipt").first
    assert page.locator(number.get_attribute("href")).count() == 1
    for widget in page.locator(".lk-mount").all():
        assert widget.locator(".lk-still").is_visible()
