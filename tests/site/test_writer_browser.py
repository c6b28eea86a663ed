"""The writer in Chromium: a small model in plain JavaScript against its NumPy twin, and the card
around it, on a page with nothing but the host.
"""

import json
import random

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from labkit import reference, widgets
from labkit.widgets import base, model_file
from labkit.widgets.write import LOOPS, count, short
from labkit_labs.common import character
from tests.site.test_widgets_browser import ROOT, show, tab_to, write  # noqa: F401

TEXT = "She had not expected him so soon, and "
PROSE = (ROOT / "labs/common/data/prose.txt").read_text()
FILE_BYTES = 600_000


@pytest.fixture(scope="module")
def model():
    return character.for_browser()


@pytest.fixture(scope="module")
def twin(model):
    return model_file.unpack(model)


@pytest.fixture(scope="module")
def language(browser, model):
    """A blank page that has the model as `language`, and what it runs with."""
    page = browser.new_page()
    page.add_script_tag(content=model_file.script(model)[1])
    page.add_script_tag(content=base.asset("language_model.js"))
    page.evaluate("() => { language = unpack(labkitModel); still = () => null; }")
    yield page
    page.close()


def prompts(n: int) -> list[list[int]]:
    """Pieces of the course's own prose, every tenth of nonsense: 1 to 40 characters each."""
    draw = random.Random(0)
    prose = "".join(c for c in PROSE if c in character.ALPHABET)
    pieces = []
    for i in range(n):
        length = 1 + i % 40
        at = draw.randrange(len(prose) - length)
        nonsense = "".join(draw.choices(character.ALPHABET, k=length))
        pieces.append(character.encode(nonsense if i % 10 == 9 else prose[at : at + length]))
    return pieces


def logits(page, ids, cached=0):
    """After these ids, of which the first `cached` were read before."""
    found = page.evaluate(
        """async ([ids, cached]) => {
            const cache = emptyCache(language);
            if (cached) await read(language, ids.slice(0, cached), cache, noWork(), still);
            return [...await read(language, ids, cache, noWork(), still)];
        }""",
        [ids, cached],
    )
    return np.array(found)


def written(page, texts, new, loop):
    """What a loop writes behind each text, the most likely characters, and the work of each."""
    return page.evaluate(
        """async ([texts, new_, loop]) => {
            const all = [];
            for (const ids of texts) {
                all.push(await write(language, ids, loop, new_, { breathe: still, wrote() {} }));
            }
            return all;
        }""",
        [texts, new, loop],
    )


# -- the model -----------------------------------------------------------------------------------


def test_the_script_is_small_enough_to_load_on_demand(model):
    _, text = model_file.script(model)
    assert len(text.encode()) <= FILE_BYTES


def test_javascript_gives_numpys_logits(language, twin):
    for ids in [*prompts(20), character.encode(TEXT * 6)]:
        assert np.abs(logits(language, ids) - twin.forward(ids)[-1]).max() < 1e-4


def test_with_a_cache_the_logits_are_the_same_bit_by_bit(language):
    for ids in prompts(20):
        for cached in {len(ids) // 2, len(ids) - 1}:
            assert np.array_equal(logits(language, ids, cached), logits(language, ids))


def test_javascript_writes_numpys_characters_behind_a_hundred_prompts(language, twin):
    texts = prompts(100)
    found = written(language, texts, 12, "cached")
    assert [one["ids"] for one in found] == [reference.cached_loop(twin, ids, 12) for ids in texts]


def test_both_loops_write_the_same_and_do_the_work_that_python_counts(language, twin):
    texts = [character.encode(TEXT), *prompts(3)]
    both = {loop: written(language, texts, 10, loop) for loop in LOOPS}
    assert [one["ids"] for one in both["cached"]] == [one["ids"] for one in both["uncached"]]
    for loop, found in both.items():
        for ids, one in zip(texts, found):
            work = {name: number for name, number in one["work"].items() if name != "ms"}
            assert work == count(twin.config, len(ids), 10, loop)


BREAKAGES = {
    "a position off by one": "forward(language, id, cache, work, cache.length + (i === 30))",
    "another text's keys": "forward(language, i ? id : 3, cache, work)",
    "a key forgotten": "(i === 8 && cache.layers.map(l => l.keys[3].fill(0)),"
    " forward(language, id, cache, work))",
}


@pytest.mark.parametrize("broken", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_cache_is_seen(language, broken):
    """The comparison above can fail: what breaks a cache moves the logits by far more than 1e-4."""
    ids = character.encode(TEXT)
    found = language.evaluate(
        f"""ids => {{
            const cache = emptyCache(language), work = noWork();
            let x;
            ids.forEach((id, i) => {{ x = {broken}; }});
            return [...logits(language, x, work)];
        }}""",
        ids,
    )
    assert np.abs(np.array(found) - logits(language, ids)).max() > 1e-2


def test_chance_draws_by_the_shares_and_from_a_seed(language):
    drawn = language.evaluate(
        """() => {
            const random = randoms(1), seen = [0, 0, 0];
            for (let i = 0; i < 4000; i++) {
                seen[choose(new Float32Array([0, Math.log(3), -1e9]), 1, random())] += 1;
            }
            return [seen, randoms(7)() === randoms(7)(), choose(new Float32Array([1, 2]), 0)];
        }"""
    )
    (first, second, never), again, greedy = drawn
    assert second / first == pytest.approx(3, rel=0.1) and never == 0
    assert again and greedy == 1


def test_counts_are_short_in_both_languages(show):  # noqa: F811
    numbers = [0, 38, 2040, 9999, 10000, 17200, 512_345, 999_949, 1e6, 937e6, 2.0e9, 24.12e9]
    page = show(wait=False, address="about:blank")
    page.add_script_tag(content=base.asset("common.js"))
    page.add_script_tag(content=base.asset("write.js").replace("export default", "void"))
    assert page.evaluate("numbers => numbers.map(short)", numbers) == [short(n) for n in numbers]


# -- the card --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brief(model):
    """The model with so little context that a run is done at once."""
    config = model["config"] | {"max_context": 72}
    return model | {"config": config}


@pytest.fixture
def card(show, tmp_path, brief):  # noqa: F811
    """card(**options) -> a page from file:// with a live writer, its model beside it."""

    def open_page(scripts=True, theme="light", **options):
        widget = widgets.write(brief, text=TEXT, title="Your own text")
        page = write(tmp_path, widget, theme=theme)
        page.write_text(page.read_text().replace("<html", '<html data-content_root="./"'))
        name, text = model_file.script(brief)
        (tmp_path / "_static").mkdir(exist_ok=True)
        if scripts:
            (tmp_path / "_static" / name).write_text(text)
        opened = show(address=page.as_uri(), wait=False, **options)
        opened.wait_for_selector(".lk-live textarea")
        return opened

    return open_page


def texts(page) -> list[str]:
    return page.locator(".lk-live .lk-written").all_inner_texts()


def said(page) -> str:
    return page.locator(".lk-live .lk-say").inner_text()


def finish(page):
    page.wait_for_function("() => /Both wrote/.test(document.querySelector('.lk-live').innerText)")


def test_the_model_is_loaded_when_it_is_first_asked_for(card):
    asked = []
    page = card()
    page.on("request", lambda r: asked.append(r.url))
    page.wait_for_timeout(300)
    assert not any("lk-model" in url for url in asked)
    page.click("text=Write on")
    finish(page)
    page.click("text=Write on")
    finish(page)
    assert sum("lk-model" in url for url in asked) == 1


def test_a_reader_writes_on_by_keyboard_and_sees_what_it_cost(card, twin):
    page = card()
    tab_to(page, "textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type("A letter came. ")
    page.select_option(".lk-live select", label="the most likely")
    tab_to(page, ".lk-primary")
    page.keyboard.press("Enter")
    finish(page)
    ids = character.encode("A letter came. ")
    want = "".join(character.ALPHABET[i] for i in reference.cached_loop(twin, ids, 72 - len(ids)))
    assert texts(page) == ["A letter came. " + want] * 2
    assert "Both wrote the same 57 characters." in said(page) and "times as long" in said(page)
    for loop in LOOPS:
        work = count(twin.config, len(ids), 57, loop)
        for name, number in work.items():
            cell = page.locator(f'.lk-live [data-counter="{name}"][data-loop="{loop}"] span')
            assert cell.inner_text() == short(number)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "There is no text to continue"),
        (" \n ", "There is no text to continue"),
        ("Größe 5€", "The model does not know “ö”, “ß”, “€”"),
        ("漢字", "The model does not know “漢”, “字”"),
        ("<b>", "The model does not know “<”, “>”"),
        ("a" * 60, "Your text has 60 characters, and the model reads 72 in all"),
    ],
)
def test_a_text_that_will_not_do_gets_one_sentence_and_changes_nothing(card, text, words):
    page = card()
    page.click("text=Write on")
    finish(page)
    before = texts(page), said(page)
    page.fill("textarea", text)
    page.click("text=Write on")
    sentence = page.locator(".lk-live .lk-fault").inner_text()
    assert sentence.startswith(words) and sentence.endswith(".") and "\n" not in sentence
    assert (texts(page), said(page)) == before
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.fill("textarea", "Well")
    page.click("text=Write on")
    finish(page)
    assert page.locator(".lk-live .lk-fault").inner_text() == ""


def test_typographic_signs_are_read_as_the_novels_have_them(card):
    page = card()
    page.fill("textarea", "“It’s he” – she")
    page.click("text=Write on")
    finish(page)
    assert texts(page)[0].startswith('"It\'s he" -- she')


def test_a_model_that_does_not_come_is_said(card, show):  # noqa: F811
    page = card(scripts=False)
    before = texts(page)
    page.click("text=Write on")
    page.wait_for_function("() => document.querySelector('.lk-live .lk-fault').innerText")
    assert "could not be loaded" in page.locator(".lk-live .lk-fault").inner_text()
    assert texts(page) == before
    show.faults[:] = [f for f in show.faults if "ERR_FILE_NOT_FOUND" not in f]


def test_stop_and_reset(card):
    page = card()
    still = texts(page)
    page.click("text=Write on")
    page.wait_for_function("() => !document.querySelector('.lk-live button:nth-child(2)').disabled")
    page.click("text=Stop")
    page.wait_for_function(
        "() => /Stopped|Both wrote/.test(document.querySelector('.lk-live').innerText)"
    )
    page.fill("textarea", "Else")
    page.click("text=Reset")
    assert page.input_value("textarea") == TEXT and texts(page) == still
    page.wait_for_timeout(300)
    assert texts(page) == still


def test_what_is_drawn_by_chance_is_the_same_on_both_sides(card):
    page = card()
    page.click("text=Write on")
    finish(page)
    assert texts(page)[0] == texts(page)[1] and "the same" in said(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_at_two_widths(card, theme):
    for width in (1000, 390):
        page = card(theme=theme, width=width)
        page.fill("textarea", "€")
        page.click("text=Write on")
        found = Axe().run(page).response["violations"]
        assert not found, json.dumps([v["id"] for v in found])
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# -- Python's side ---------------------------------------------------------------------------------


def test_a_text_to_begin_with_must_be_the_models(model):
    for text in ("", "Größe", "a" * 256):
        with pytest.raises(ValueError, match="1 to 255 characters"):
            widgets.write(model, text=text, title="x")


def test_only_what_a_page_can_run_is_packed(model):
    config, weights, _ = character.kept()
    with pytest.raises(ValueError, match="as many characters"):
        model_file.pack(config, weights, "abc")
    with pytest.raises(ValueError, match="Llama layout only"):
        model_file.pack(config.replace(norm="layer"), weights, character.ALPHABET)


def test_a_kernel_hands_the_model_over_when_a_browser_asks(brief, monkeypatch):
    widget = widgets.write(brief, text=TEXT, title="x")
    sent = []
    monkeypatch.setattr(widget, "send", sent.append)
    widget._answer(widget, "something else", [])
    assert sent == []
    widget._answer(widget, "model", [])
    assert sent == [{"model": brief}]
