"""What readers' machines do to a page: forced colours, no clipboard, a strict policy, paper."""

import functools
import http.server
import io
import threading

import pytest
from PIL import Image

from labkit import palette
from tests.conftest import HTML, PHONE, Visit, pages

pytestmark = pytest.mark.site
PAGES = pages()
CHAPTER = "book/chapters/02_kv_cache"

# -- forced colours ----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_icons_are_visible_and_named_in_forced_colours(visit, scheme):
    page = visit(**PHONE, forced_colors="active", color_scheme=scheme).open(CHAPTER)
    for role, name in (("button", "Search"), ("button", "Use the"), ("link", "Source")):
        tool = page.locator(".tools").get_by_role(role, name=name)
        assert drawn(tool) >= 3, name
    menu = page.locator(".menu > summary")
    assert menu.get_attribute("aria-label") == "Contents" and drawn(menu) >= 3
    # a mask paints in one colour, which forced colours make the ground's
    masked = """[...document.querySelectorAll("body *")]
        .filter(e => e.checkVisibility() && ["", "::before", "::after"].some(part => {
            const { maskImage, content } = getComputedStyle(e, part || null);
            return maskImage !== "none" && (part ? content !== "none" : !e.textContent.trim());
        })).map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(masked) == []


def drawn(control) -> float:
    """The contrast of the strongest colour of a control against its commonest."""
    picture = Image.open(io.BytesIO(control.screenshot())).convert("RGB")
    counted = sorted(picture.getcolors(picture.width * picture.height), reverse=True)
    hexes = ["#{:02X}{:02X}{:02X}".format(*colour) for count, colour in counted if count > 3]
    return max(palette.contrast(hexes[0], other) for other in hexes)


# -- copying -----------------------------------------------------------------------------

NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
NO_COMMAND = "document.execCommand = () => false"


def code_and_button(seen: Visit, script: str):
    seen.page.add_init_script(script)
    seen.open(CHAPTER)
    box = seen.page.locator("article .cell_input div.highlight:visible").first
    box.scroll_into_view_if_needed()
    return box.locator("pre").text_content(), box.locator("button.copy")


@pytest.mark.parametrize("phone", [False, True])
def test_code_is_copied_where_a_browser_has_no_clipboard(visit, phone):
    """As on plain http. What was copied is what can be pasted."""
    seen = visit(**PHONE if phone else {})
    code, button = code_and_button(seen, NO_CLIPBOARD)
    button.click()
    seen.page.get_by_role("button", name="Copy this code").get_by_text("Copied").wait_for()
    seen.page.evaluate("void document.body.append(document.createElement('textarea'))")
    box = seen.page.locator("body > textarea")
    box.press("Control+V")
    assert box.input_value() == code and seen.errors == []


def test_what_cannot_be_copied_is_selected_and_the_button_says_so(visit):
    seen = visit()
    code, button = code_and_button(seen, f"{NO_CLIPBOARD}; {NO_COMMAND}")
    button.click()
    seen.page.wait_for_function("getSelection().toString().length > 0")
    assert button.text_content() == "Selected: copy it with your browser"
    assert seen.page.evaluate("getSelection().toString()").strip() == code.strip()
    assert seen.errors == []


def test_a_phone_has_the_button_beside_the_code_and_not_over_it(visit):
    page = visit(**PHONE).open(CHAPTER)
    for box in page.locator("article .cell_input div.highlight:visible").all()[:4]:
        code, button = box.locator("pre").bounding_box(), box.locator(".copy").bounding_box()
        assert button["y"] >= code["y"] + code["height"] - 1 and button["height"] >= 24


# -- a strict policy ---------------------------------------------------------------------

POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'"


@pytest.fixture(scope="module")
def strict():
    """The site behind a content security policy without inline scripts, `blob:` and `data:`."""

    class Strict(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def end_headers(self):
            self.send_header("Content-Security-Policy", POLICY)
            super().end_headers()

    handler = functools.partial(Strict, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_page_is_whole_under_a_strict_policy(browser, strict):
    """Widgets live, captions, theme and search, and nothing is refused."""
    seen = Visit(browser, strict, color_scheme="dark")
    page = seen.open(CHAPTER)
    views = page.locator(".lk-mount script").count()
    assert page.locator(".lk-live").count() == views > 2
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("figure.clip video").first.evaluate("v => { v.textTracks[0].mode = 'showing' }")
    page.wait_for_function("document.querySelector('video').textTracks[0].cues?.length > 2")
    page.locator(".search-open").click()
    page.locator("dialog.search input").fill("cache")
    page.locator(".search-results a").first.wait_for()
    seen.context.close()
    assert seen.errors == []


# -- paper -------------------------------------------------------------------------------

A4 = 673  # pixels between the margins of a page of paper


@pytest.mark.parametrize("name", PAGES)
def test_paper_shows_every_column_and_every_output(visit, name):
    page = visit(viewport={"width": A4, "height": 950}).open(name)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(200)
    cut = page.evaluate(
        """width => [...document.querySelectorAll(
            "article :is(table, tr, pre, svg, img, .table-box, .lk, .lk-scroll, div.math)")]
        .filter(e => e.checkVisibility() && !e.closest(".receipts"))
        .filter(e => e.getBoundingClientRect().right > width + 1
            || (getComputedStyle(e).overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1))
        .map(e => [e.scrollWidth, e.outerHTML.slice(0, 120)])""",
        A4,
    )
    assert cut == []
    hidden = page.evaluate(
        """[...document.querySelectorAll("article .cell_output, article .lk-numbers table")]
        .filter(e => e.textContent.trim() && !e.checkVisibility())
        .filter(e => !e.closest(".lk")?.matches(".lk-replaced, .lk-unused"))
        .map(e => e.textContent.trim().slice(0, 80))"""
    )
    assert hidden == []


def test_solutions_stand_apart_on_paper_and_return_to_the_screen(visit):
    page = visit().open(CHAPTER)
    order = """[...document.querySelectorAll("article :is(.exercise, .solution)")]
        .map(e => e.className.split(" ").pop())"""
    before = page.evaluate(order)
    assert before[:2] == ["exercise", "solution"]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    count = before.count("solution")
    assert page.evaluate(order)[-count:] == ["solution"] * count
    assert page.locator("article > section.solutions > h2").inner_text() == "Solutions"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(order) == before and page.locator("section.solutions").count() == 0
