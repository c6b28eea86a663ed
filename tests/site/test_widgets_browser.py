"""Widgets in Chromium, on a page with nothing but the host: by keyboard, from a file, without
JavaScript, for everyone.
"""

import functools
import http.server
import json
import re
import shutil
import statistics
import threading
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from course.widgets import STATE, VIEW, slim
from labkit.widgets import base, bet, explore, play, scene
from tests.labkit.test_widgets import ROOT, decode, line, tiles

HOST = ROOT / "book" / "_static" / "widget-host.js"


def bars(chart="bar", **options):
    fn = lambda heat: {
        "series": {"now": [heat, 2 * heat, 0.5], "then": [1, None, heat]},
        "say": f"Heat is **{heat}**.",
    }
    return explore(
        fn,
        **{
            "title": "Bars",
            "grids": {"heat": [1.5, 2.5, 4]},
            "x": ["a", "b", "c"],
            "chart": chart,
            **options,
        },
    )


def gaps(**options):
    return explore(
        lambda k: [1, k, None, 1e4 * k, 1e6],
        title="Gaps",
        grids={"k": [3, 5]},
        x=[1, 4, 16, 64, 256],
        log_x=True,
        log_y=True,
        **options,
    )


def guess():
    return bet(
        "How many times faster?",
        answer=17.3,
        unit="×",
        low=1,
        high=1000,
        explain="Nothing is computed **twice**.",
    )


def pick():
    return bet(
        "Which one grows?",
        answer="the cache",
        options=["the weights", "the cache"],
        explain="The weights are fixed.",
    )


def write(folder: Path, *widgets, theme="light") -> Path:
    """A page as the site builds it: still pictures, views, one slim state, the stylesheet, the
    host.
    """
    state = {
        w.model_id: {
            "model_module": w._model_module,
            "state": {k: v for k, v in w.get_state().items() if k != "layout"},
        }
        for w in widgets
    }
    view = lambda w: f'<script type="{VIEW}">{json.dumps({"model_id": w.model_id})}</script>'
    mounts = "".join(f'<div class="lk-mount">{w.still}{view(w)}</div>' for w in widgets)
    page = json.dumps(slim({"state": state}, set(state))).replace("</", r"<\/")
    shutil.copy(HOST, folder)
    (folder / "page.html").write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><link'
        ' rel="icon" href="data:,"><title>Widgets</title><meta name="viewport"'
        ' content="width=device-width"><style>body { margin: 1rem; background: var(--lk-ground);'
        " color: var(--lk-ink)"
        f" }}{base.stylesheet()}</style></head><body><main><h1>Widgets</h1>{mounts}</main><script"
        f' type="{STATE}">{page}</script><script src="widget-host.js"></script></body></html>'
    )
    return folder / "page.html"


@pytest.fixture
def show(browser, tmp_path):
    """show(*widgets) -> a page from file:// with its widgets alive.

    Every error and every request that leaves is a failure.
    """
    contexts, faults = [], []

    def open_page(
        *widgets, address=None, theme="light", width=1000, wait=True, script=None, **options
    ):
        context = browser.new_context(viewport={"width": width, "height": 6000}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda e: faults.append(f"error: {e}"))
        page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
        page.on(
            "request",
            lambda r: (
                r.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1"))
                or faults.append(f"request: {r.url}")
            ),
        )
        if script:
            page.add_init_script(script)
        page.goto(address or write(tmp_path, *widgets, theme=theme).as_uri())
        if wait:
            page.wait_for_function(
                "n => document.querySelectorAll('.lk-live').length === n", arg=len(widgets)
            )
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def server(tmp_path):
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path)
    )
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/page.html"
    httpd.shutdown()


def tab_to(page, selector, limit=40):
    """Reach an element by the Tab key alone."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def picture(markup: str, ghosts: bool = False) -> list[tuple]:
    """All that is drawn or written of a card's picture, in order: elements, attributes, words.

    Leaves out where the reader began (the ghost), and how high a number stands over it.
    """
    soup = BeautifulSoup(markup, "html.parser")
    for ghost in soup.select(".lk-ghost"):
        ghost.decompose()
    shown = soup.select(
        ".lk-legend > span, .lk-legend i, .lk-plot, .lk-plot *, .lk-scene, .lk-scene *, .lk-grid,"
        ".lk-legend > span, .lk-legend i, .lk-plot, .lk-plot *, .lk-scene, .lk-scene *, .lk-grid,"
        " .lk-grid *, .lk-chip, .lk-say span, .lk-meters *, .lk-readings *,"
        " .lk-numbers :is(td, th, .lk-note)"
    )
    return [(part.name, attributes(part), part.get_text()) for part in shown if part.name != "b"]


def attributes(part) -> dict:
    given = dict(part.attrs)
    if "lk-value" in part.get("class", []):
        del given["y"]
    if "style" in given:
        given["style"] = given["style"].replace(" ", "").rstrip(";")
    return given


@pytest.mark.parametrize("over", ["file", "http"])
def test_a_key_press_changes_value_and_picture(show, server, tmp_path, over):
    w = line()
    write(tmp_path, w)
    page = show(w, address=server) if over == "http" else show(w)
    read = lambda: (
        page.locator(".lk-live .lk-say").inner_text(),
        page.locator(".lk-live .lk-lines path").last.get_attribute("d"),
        page.locator(".lk-live output").inner_text(),
    )
    before = read()
    tab_to(page, ".lk-live input[type=range]")
    page.keyboard.press("ArrowRight")
    after = read()
    assert all(a != b for a, b in zip(before, after))
    assert after[0] == "2 of a" and after[2] == "2"
    tab_to(page, ".lk-live input[type=radio]")
    page.keyboard.press("ArrowRight")
    assert read()[0] == "2 of b"
    ghosts = page.locator(".lk-live .lk-ghost path")
    assert ghosts.count() == 2, "the start stays visible as a thin line"
    assert ghosts.last.get_attribute("d") == before[1]
    page.keyboard.press("ArrowLeft")
    page.locator(".lk-live input[type=range]").press("Home")
    assert read() == before and ghosts.count() == 0


EXPLORES = {
    "line": line,
    "gaps": gaps,
    "limit": functools.partial(gaps, lines={"limit": 5e7}),
    "bar": bars,
    "stack": functools.partial(bars, "stack"),
    "thirds": functools.partial(bars, grids={"heat": [1 / 3, 2]}),
}
PLAYS = {
    "decode": lambda: play(decode("none"), compare=decode("static")),
    "attention": lambda: play(tiles()),
    "ragged": lambda: play(tiles(7, 3), compare=tiles(4, 2)),
}


@pytest.mark.parametrize("kind", EXPLORES)
def test_the_live_picture_is_the_still_one_and_moves_as_python_draws_it(show, kind):
    w = EXPLORES[kind]()
    page = show(w)
    live = page.locator(".lk-live")
    assert len(picture(w.still)) > 10
    assert picture(live.inner_html()) == picture(w.still)
    name, values = next(iter(w._grids.items()))
    live.locator("input[type=range]").press("ArrowRight")
    moved = EXPLORES[kind](start={name: values[1]}).still
    assert picture(moved) != picture(w.still)
    assert picture(live.inner_html()) == picture(moved)


def test_a_number_stands_above_its_bar_and_above_what_that_was(show):
    page = show(bars(start={"heat": 4}))
    first = page.locator(".lk-live .lk-value").first
    before = first.get_attribute("y")
    page.locator(".lk-live input[type=range]").press("Home")
    assert (first.text_content(), first.get_attribute("y")) == ("1.5", before)


@pytest.mark.parametrize("kind", PLAYS)
def test_the_live_player_ends_as_the_still_one(show, kind):
    w = PLAYS[kind]()
    page = show(w)
    live = page.locator(".lk-live")
    assert picture(live.inner_html()) != picture(w.still)
    live.locator("input[type=range]").press("End")
    assert picture(live.inner_html()) == picture(w.still)


def test_steps_have_the_same_tense_in_both_languages(show):
    page = show()
    page.add_script_tag(content=base.asset("play.js").split("export")[0] + "window.lk = tense;")
    cases = [
        (step, until, now)
        for step in range(-1, 4)
        for until in (None, step + 1, step + 3)
        for now in range(4)
    ]
    theirs = page.evaluate(
        "cases => cases.map(([step, until, now]) => lk(step, until ?? NaN, now))", cases
    )
    assert theirs == [scene.tense(*case) for case in cases]


def test_a_widget_that_brings_its_still_picture_needs_none_on_the_page(show, tmp_path):
    """As in a notebook, where the view stands alone."""
    w = line()
    page = write(tmp_path, w)
    bare = re.sub(
        r'<div class="lk-mount">.*?(?=<script)', '<div class="lk-mount">', page.read_text()
    )
    state = json.dumps(w.still).replace("</", r"<\/")
    page.write_text(bare.replace('"spec":', f'"still": {state}, "spec":', 1))
    assert "lk-still" not in bare.split(STATE)[0]
    seen = show(w, address=page.as_uri())
    assert picture(seen.locator(".lk-live").inner_html()) == picture(w.still)


def test_without_javascript_the_still_picture_stands_and_nothing_looks_alive(show):
    widgets = [
        line(),
        bars(),
        play(decode("none"), compare=decode("static")),
        play(tiles()),
        guess(),
        pick(),
    ]
    page = show(*widgets, wait=False, java_script_enabled=False)
    assert page.locator(".lk-still:visible").count() == len(widgets)
    assert page.locator("main :is(input, select, button, output)").count() == 0
    assert (
        page.locator(".lk-plot:visible").count() == 2
        and page.locator(".lk-scene:visible").count() == 3
    )
    assert not page.get_by_text("Nothing is computed").is_visible()
    page.locator(".lk-bet summary").first.click()
    assert page.get_by_text("Nothing is computed").is_visible()


def test_the_still_picture_goes_only_when_the_live_one_stands(show):
    good, broken = line(), bars()
    broken._esm = "export default { render() { throw new Error('broken on purpose'); } };"
    page = show(good, broken, wait=False)
    page.wait_for_function("document.querySelectorAll('.lk-live').length === 1")
    assert (
        not page.locator(".lk-still").nth(0).is_visible()
        and page.locator(".lk-still").nth(1).is_visible()
    )
    assert [f for f in show.faults if "broken on purpose" in f] and len(show.faults) == 1
    show.faults.clear()


def test_the_table_follows_the_choice(show):
    page = show(line())
    page.locator(".lk-live summary").click()
    assert page.locator(".lk-live tbody tr").nth(1).inner_text().split() == ["10", "10", "11"]
    page.locator(".lk-live input[type=range]").press("End")
    assert page.locator(".lk-live tbody tr").nth(1).inner_text().split() == ["10", "30", "31"]


def test_the_pointer_reads_a_point_off_the_picture(show):
    page = show(line())
    box = page.locator(".lk-live .lk-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 50)
    assert (
        page.locator(".lk-live .lk-probe").inner_text() == "at 10"
        and "there 11" in page.locator(".lk-live .lk-legend").inner_text()
    )
    page.mouse.move(0, 0)
    assert page.locator(".lk-live .lk-hair").count() == 0


def test_the_player_steps_by_keyboard(show):
    page = show(play(decode("none"), compare=decode("static")))
    step = lambda: page.locator(".lk-live .lk-count").inner_text()
    gold = lambda: sum(  # cells of what is computed now
        path.get_attribute("d").count("z")
        for path in page.locator(".lk-live path.lk-k-computed[data-t=now]").all()
    )
    assert step() == "1 / 4" and gold() == 3 + 3
    tab_to(page, ".lk-live button[aria-label='Step forward']")
    page.keyboard.press("Enter")
    assert (
        step() == "2 / 4"
        and gold() == 4 + 1
        and "reads 3 back" in page.locator(".lk-live .lk-say").inner_text()
    )
    page.keyboard.press("ArrowRight")
    assert step() == "3 / 4"
    page.keyboard.press("End")
    assert step() == "4 / 4" and page.locator(".lk-live .lk-chip[data-t=now]").inner_text() == "t3"
    page.keyboard.press("Home")
    tab_to(page, ".lk-live input[type=range]")
    page.keyboard.press("ArrowRight")
    assert (
        step() == "2 / 4" and page.locator(".lk-live .lk-meters tbody td").first.inner_text() == "7"
    )


def test_the_player_plays_to_the_end_and_stops(show):
    page = show(play(tiles(4, 2)), reduced_motion="reduce")
    page.wait_for_timeout(300)
    assert page.locator(".lk-live .lk-count").inner_text() == "1 / 4", (
        "nothing moves before the reader asks"
    )
    page.locator(".lk-live select").select_option("4")
    page.get_by_role("button", name="Play").press("Enter")
    assert page.locator(".lk-live .lk-say").get_attribute("aria-live") == "off"
    page.get_by_role("button", name="Play").wait_for()
    assert (
        page.locator(".lk-live .lk-count").inner_text() == "4 / 4"
        and page.locator(".lk-live .lk-say").get_attribute("aria-live") == "polite"
    )


def test_a_bet_locks_reveals_and_survives_a_reload(show):
    page = show(guess())
    assert page.get_by_text("17.3×").count() == 1, (
        "the answer stands in the folded still picture only"
    )
    tab_to(page, ".lk-live input")
    assert page.locator(".lk-live output").inner_text() == "1×", (
        "it starts at its low end, which says nothing of the answer"
    )
    for _ in range(5):
        page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")
    tab_to(page, ".lk-live button.lk-primary")
    page.keyboard.press("Enter")
    text = page.locator(".lk-live").inner_text()
    label = page.locator(".lk-live .lk-truth b").bounding_box()
    below = page.locator(".lk-live .lk-say").bounding_box()
    assert label["y"] + label["height"] + 6 <= below["y"], (
        "the mark's label stands free of the text below"
    )
    assert (
        "17.3×" in text
        and "You said 30×: 1.7 times too high." in text
        and "Nothing is computed twice." in text
    )
    assert page.evaluate("document.activeElement.matches('.lk-reveal')")
    page.reload()
    page.wait_for_selector(".lk-live .lk-reveal")
    assert "You said 30×" in page.locator(".lk-live").inner_text()
    page.get_by_role("button", name="Ask me again").press("Enter")
    page.reload()
    page.wait_for_selector(".lk-live .lk-primary")


def test_a_bet_can_simply_be_shown(show):
    page = show(guess())
    page.get_by_role("button", name="Show me").press("Enter")
    assert (
        "17.3×" in page.locator(".lk-live").inner_text()
        and "You said" not in page.locator(".lk-live").inner_text()
    )


def test_a_bet_among_options_needs_a_choice(show):
    page = show(pick())
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    assert (
        page.locator(".lk-live .lk-reveal").count() == 0
        and page.evaluate("document.activeElement.type") == "radio"
    )
    page.keyboard.press("Space")
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    assert "You said the weights: not so." in page.locator(".lk-live").inner_text()


def test_a_slider_that_was_not_moved_is_no_guess(show):
    page = show(guess())
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    live = page.locator(".lk-live")
    assert live.locator(".lk-reveal").count() == 0 and "choose one first" in live.inner_text()
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")  # the low end is a guess once it is meant
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    assert "You said 1×" in live.inner_text()


def test_a_bet_works_where_there_is_no_storage(show):
    page = show(
        guess(),
        script=(
            "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied');"
            " } })"
        ),
    )
    page.locator(".lk-live input").press("ArrowRight")
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    assert "17.3×" in page.locator(".lk-live").inner_text()


def test_paper_shows_what_can_be_read(show):
    page = show(line(), guess(), play(decode("static")))
    page.emulate_media(media="print")
    assert (
        page.locator(".lk-live .lk-plot").is_visible()
        and not page.locator(".lk-live .lk-bet").is_visible()
    )
    assert (
        page.locator(".lk-still.lk-bet").is_visible()
        and page.locator(".lk-still.lk-play").is_visible()
    ), "unused widgets stand still"
    assert page.get_by_text("Nothing is computed").last.is_visible()
    page.emulate_media(media="screen")
    page.locator(".lk-live .lk-bet input").press("ArrowRight")
    page.get_by_role("button", name="Lock my prediction").press("Enter")
    page.emulate_media(media="print")
    assert (
        page.locator(".lk-live .lk-bet").is_visible()
        and not page.locator(".lk-still.lk-bet").is_visible()
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 360])
def test_axe_finds_nothing(show, theme, width):
    named = {"title": "Named"}
    page = show(
        line(),
        bars(),
        gaps(),
        play(decode("none"), compare=decode("static")),
        play(tiles()),
        guess(),
        pick(),
        bet("And this?", answer=5, low=1, high=10),
        line(grids={"slope": [1], "kind": list("abcdef")}, **named),
        theme=theme,
        width=width,
    )
    for summary in page.locator(".lk-live summary").all():
        summary.click()
    page.locator(".lk-live .lk-bet").last.get_by_role("button", name="Show me").click()
    page.locator(".lk-live .lk-play input").last.press("ArrowRight")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    small = page.evaluate(
        """() => {
            const used = "button, select, summary, input[type=range], label:has(input)";
            return [...document.querySelectorAll(`.lk-live :is(${used})`)].filter((element) => {
                const { width, height } = element.getBoundingClientRect();
                return width < 24 || height < 24;
            }).map((element) => element.outerHTML.slice(0, 60));
        }"""
    )
    assert not small


def input_to_paint(page, locator, keys=("ArrowRight", "ArrowLeft") * 10) -> list[float]:
    """Milliseconds from each key press (its own timestamp, taken in the browser process) to the end
    of the frame it changed.

    A message posted from within requestAnimationFrame is handled after that frame was painted, so
    its arrival is an upper bound.
    """
    page.evaluate(
        """() => {
            if (window.lkPaint) { lkPaint.length = 0; return; }
            window.lkPaint = [];
            let pressed = 0;
            addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
            addEventListener("input", () => requestAnimationFrame(() => {
                const channel = new MessageChannel();
                channel.port1.onmessage = () => lkPaint.push(performance.now() - pressed);
                channel.port2.postMessage(0);
            }), true);
        }"""
    )
    # a page that is still loading is not what is measured
    page.evaluate("new Promise(done => requestIdleCallback(() => done(), { timeout: 1000 }))")
    locator.focus()
    for n, key in enumerate(keys):
        page.keyboard.press(key)
        page.wait_for_function("n => lkPaint.length > n", arg=n)
    return page.evaluate("lkPaint")


def test_every_key_press_is_painted(show, capsys):
    page = show(
        line(), bars(), play(decode("none", 3, 20), compare=decode("static", 3, 20)), guess()
    )
    for name in ("explore", "play", "bet"):
        times = input_to_paint(page, page.locator(f".lk-live .lk-{name} input[type=range]").first)
        assert len(times) == 20
        with capsys.disabled():
            print(
                f"\n{name}: input to paint, median {statistics.median(times):.1f} ms, worst"
                f" {max(times):.1f} ms"
            )
