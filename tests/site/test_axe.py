"""axe looks at every page, on a desktop and on a phone, in each state a reader can put it in."""

import json
from pathlib import Path

import axe_playwright_python
import pytest

from tests.conftest import DRAWN, pages

pytestmark = pytest.mark.site
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
# what is well is many megabytes; axe asks for targets of 24 pixels only when told to
RUN = """([where, colours]) => axe.run(where ?? document, {
    resultTypes: ["violations"],
    ...(colours ? { runOnly: ["color-contrast"] }
        : { rules: { "target-size": { enabled: true } } }),
}).then((found) => found.violations.map((v) => [v.id, v.nodes.map(
    (n) => [n.html.slice(0, 160), n.failureSummary])]))"""
FOLDS = "for (const fold of document.querySelectorAll('article details')) fold.open = true"


def states(page):
    """Each state by name, with what of the page is not as it was before."""
    yield "plain", None
    page.evaluate(FOLDS)
    page.evaluate(DRAWN)  # what scrolls only now becomes a stop of the Tab key
    yield "folds open", "article details"
    for lock in page.get_by_role("button", name="Lock my prediction").all():
        answer = (
            lock.locator("xpath=ancestor::*[contains(@class, 'lk-bet')]").locator("input").first
        )
        answer.press("ArrowRight" if answer.get_attribute("type") == "range" else "Space")
        lock.click()
    assert not page.get_by_role("button", name="Lock my prediction").count()
    yield "bet locked", ".lk-live .lk-bet"
    for link in ("a.receipt", "a[data-says]"):
        if page.locator(link).count():
            page.locator(link).first.focus()
            yield f"card of {link}", ".receipt-card, [data-open]"
            page.keyboard.press("Escape")
    page.locator(".search-open").click()
    page.locator("dialog.search input").fill("cache")
    page.locator(".search-results a").first.wait_for()
    yield "search open", "dialog"
    page.keyboard.press("Escape")
    if page.locator(".menu").is_visible():
        page.locator(".menu > summary").click()
        yield "menu open", ".menu"
        page.keyboard.press("Escape")


@pytest.mark.parametrize("name", pages())
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_nothing(visit, name, width):
    """All rules in light colours; in dark and in forced ones, the rule that they can break."""
    # a page that scrolls smoothly would move while axe compares where things are
    look = {"color_scheme": "light", "reduced_motion": "reduce"}
    seen = visit(viewport={"width": width, "height": 900}, **look)
    page = seen.open(name)
    page.evaluate(AXE)
    found = {}
    for look in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"}):
        page.emulate_media(**look)
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = false")
        for again in page.get_by_role("button", name="Ask me again").all():
            again.click()
        for state, changed in states(page):
            if changed and not page.locator(changed).count():
                continue
            if violations := page.evaluate(RUN, [changed, look.get("color_scheme") != "light"]):
                found[str(look), state] = violations
    assert found == {}, json.dumps([[*k, v] for k, v in found.items()], indent=1)
