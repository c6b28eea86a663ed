"""Every page of the built site: nothing leaves the machine, nothing is out of reach, each says what
it should.
"""

import functools
import gzip
import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from course.blocks.lab import MOST
from labkit import results
from labkit.lab import labs
from tests.cases import is_begun
from tests.conftest import DRAWN, PHONE, ROOT, pages

pytestmark = pytest.mark.site
PAGES = pages()
CHAPTERS = [p for p in PAGES if p.startswith("book/chapters/")]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
REPOSITORY = CONFIG["repository"]["url"]
OWN_BYTES = 300_000
FIRST_LOAD = 300_000  # bytes as they are sent
ON_DEMAND = {"clips", "models"}


def soup(html: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")


# -- every page --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_this_host_only_and_for_little(visit, html, name):
    """Ours is all but typefaces and the clip with its poster: page, widgets' data, styles, scripts,
    uncompressed, scrolled through. All that is sent, compressed, is what a slow line waits for.
    """
    seen = visit()
    seen.open(name)
    seen.scroll_through()
    sizes = {
        r.url.removeprefix(seen.home).split("?")[0]: len(r.body())
        for r in seen.responses
        if r.url.startswith("http")
    }
    own = {
        path: size
        for path, size in sizes.items()
        if not path.startswith(("_static/vendor/", "_static/clips/"))
    }
    sent = sum(
        len(gzip.compress(r.body()))
        for r in seen.responses
        if r.url.startswith("http") and not ON_DEMAND & set(r.url.split("/"))
    )
    assert sum(own.values()) <= OWN_BYTES, json.dumps(
        dict(sorted(own.items(), key=lambda x: -x[1])), indent=1
    )
    assert sent <= FIRST_LOAD
    seen.page.keyboard.press("/")
    seen.page.locator("dialog.search input").fill("cache")
    seen.page.locator(".search-results a").first.wait_for()
    assert seen.outside == [] and seen.errors == []
    failed = [r.url for r in seen.responses if r.status >= 400]
    assert not failed


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(visit, name):
    seen = visit(**PHONE)
    page = seen.open(name)
    seen.scroll_through()
    for width in (390, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(DRAWN)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        hidden = page.evaluate(
            """() => [...document.querySelectorAll("article :is(p, li, summary, h2)")]
            .filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth)
            .filter(e => !e.closest("pre, .table-box, .lk-scroll"))
            .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert hidden == []


@pytest.mark.parametrize("name", PAGES)
def test_images_have_a_text_and_headings_are_in_order(html, name):
    page = soup(html, name)
    for image in page.select("img"):
        assert image.get("alt") is not None and not re.search(
            r"\.(png|svg|jpe?g|webp)$", image["alt"]
        ), image
    for drawing in page.select("article svg"):
        above = [drawing, *drawing.parents]
        named = any(e.get("aria-label") and e.get("role") == "img" for e in above if e.attrs)
        assert named or any(e.get("aria-hidden") == "true" for e in above if e.attrs), str(drawing)[
            :120
        ]
    levels = [int(h.name[1]) for h in page.select("h1, h2, h3, h4, h5")]
    assert levels.count(1) == 1 and levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert len(page.select_one('meta[name="description"]')["content"]) > 20


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_resolve(html, name):
    here = html / f"{name}.html"
    for link in soup(html, name).select("a[href]"):
        url = urlsplit(link["href"])
        if url.scheme:
            continue
        target = (here.parent / unquote(url.path)).resolve() if url.path else here
        assert target.exists(), link["href"]
        if url.fragment and target.suffix == ".html":
            assert unquote(url.fragment) in anchors(target), link["href"]


@functools.cache
def anchors(page: Path) -> set[str]:
    return {e["id"] for e in BeautifulSoup(page.read_text(), "html.parser").find_all(id=True)}


@pytest.mark.parametrize("name", PAGES)
def test_a_section_has_a_prefilled_report(html, name):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    for link in soup(html, name).select("h2 a.report"):
        assert link["href"].startswith(f"{REPOSITORY}/issues/new?")
        asked = parse_qs(urlsplit(link["href"]).query)
        section = link.find_parent("h2").find(string=True, recursive=False)
        commit = re.search(r"Commit: (\S+)", asked["body"][0])[1]
        assert (
            section.strip() in asked["title"][0]
            and f"Page: {name}" in asked["body"][0]
            and (commit == "main" or len(commit) == 10 or head == "")
        )


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_markdown_and_stands_in_llms_txt(html, name):
    text = (html / f"{name}.md").read_text()
    title = soup(html, name).select_one("h1").find(string=True).strip()
    assert text.startswith(f"# {title}") and not re.search(
        r"^:::|^`{3,}\{|\{[\w:-]+\}`", text, re.M
    )
    assert f"({CONFIG['html']['baseurl']}{name}.md)" in (html / "llms.txt").read_text()


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_colab_button_opens_the_generated_notebook(html, name):
    button = soup(html, name).find("a", string="Open in Colab")
    owner_and_name = REPOSITORY.split("/", 3)[3]
    path = f"notebooks/{Path(name).name}.ipynb"
    assert (
        button["href"]
        == f"https://colab.research.google.com/github/{owner_and_name}/blob/{CONFIG['repository']['branch']}/{path}"
    )
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_links_each_term_where_it_first_uses_it(name):
    """In its running text: code, headings, tables, formulas and the head are not looked at."""
    terms = re.findall(
        r"^(\S.*)\n  \S", (ROOT / "book/glossary.md").read_text().split("```{glossary}")[1], re.M
    )
    text = re.sub(r"\A---\n.*?^---\n", "", (ROOT / f"{name}.md").read_text(), flags=re.S | re.M)
    for other in (
        r"^```(python|\{(code-cell|cited|formula|chapter)\}).*?^```$",
        r"^(#|\||:\w+:).*?$",
    ):
        text = re.sub(other, "", text, flags=re.S | re.M)
    text = re.sub(r"\{term\}`(?:[^`<]*<)?([^`>]*)>?`", "\0\\1\0", text)
    text = re.sub(r"(\{[\w:]+\})?`[^`]*`", "", text)
    assert "\0" in text and len(terms) > 20
    for term in terms:
        used = re.search(rf"(?<![\w\0-]){re.escape(term)}s?(?![\w\0-])", text)
        linked = text.find(f"\0{term}\0")
        assert not used or 0 <= linked < used.start(), (
            f"{term} is used before it is linked: …{text[used.start() - 60 : used.end() + 20]}…"
        )


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_on_a_desktop(visit, name):
    """At 1280 pixels no code and no formula scrolls sideways; a table may, if it shows that it goes
    on.
    """
    page = visit(viewport={"width": 1280, "height": 900}).open(name)
    page.evaluate(
        "for (const fold of document.querySelectorAll('article details')) fold.open = true"
    )
    page.evaluate(DRAWN)
    cut = lambda selector: page.evaluate(
        """s => [...document.querySelectorAll(s)]
        .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 4)
        .map(e => e.textContent.trim().slice(0, 60))""",
        selector,
    )
    assert cut("article pre, article div.math") == []
    assert cut("article .table-box:not([data-more])") == []
    if name in CHAPTERS:
        assert cut("article .table-box:not(.lk *)") == [], "a chapter's tables fit"
        for comparison in page.locator(".lk-compare").all():
            left, right = comparison.locator("figure").all()
            assert left.bounding_box()["y"] == right.bounding_box()["y"], "side by side"


@pytest.mark.parametrize("name", [*CHAPTERS, "book/labs"])
def test_what_goes_on_to_the_right_says_so_on_a_phone(visit, name):
    page = visit(**PHONE).open(name)
    wide = page.locator("article .table-box[data-more]")
    assert wide.count() or name in CHAPTERS, "the labs' tables are wide"
    if wide.count():
        mask = "getComputedStyle(document.querySelector('.table-box[data-more]')).maskImage"
        assert page.evaluate(mask) != "none"
        wide.first.evaluate("e => { e.scrollLeft = e.scrollWidth; e.id = 'wide' }")
        page.wait_for_function("!document.querySelector('#wide').hasAttribute('data-more')")
    cut = """[...document.querySelectorAll('article div.math')]
        .filter(e => e.scrollWidth > e.clientWidth + 4).length"""
    assert page.evaluate(cut) == 0


@pytest.mark.parametrize("name", [*CHAPTERS, "book/labs"])
def test_the_letters_of_a_chart_can_be_read_on_a_phone(visit, name):
    """11 pixels, inline or as an image in a fold: its width makes its letters high."""
    page = visit(**PHONE | {"viewport": {"width": 390, "height": 844}}).open(name)
    heights = page.evaluate(
        """() => [...document.querySelectorAll("svg.lk-wide, svg.lk-narrow")]
        .filter(e => e.getBoundingClientRect().width)
        .flatMap(e => [...e.querySelectorAll("text")].map(t => {
            const scale = e.getBoundingClientRect().width / e.viewBox.baseVal.width
            return parseFloat(getComputedStyle(t).fontSize) * scale
        }))"""
    )
    assert all(height >= 11 for height in heights), sorted(heights)[:5]
    if name == "book/labs":
        page.locator("#ch02-loses summary").click()
        picture = page.locator("#ch02-loses img")
        picture.evaluate("e => e.decode()")
        assert picture.evaluate("e => e.currentSrc").endswith("-narrow.svg")
        scale = picture.evaluate("e => e.getBoundingClientRect().width / e.naturalWidth")
        assert 10.5 * scale >= 11
    assert heights or name != "book/chapters/02_kv_cache", "it has a chart"


def test_the_labs_page_shows_every_lab_with_what_it_measured(visit, html):
    """Its title under its id, how long it takes, what it asks, its table and what to notice; its
    plot when the fold is opened.
    """
    page = soup(html, "book/labs")
    known = labs()
    assert len(known) > 30
    for lab in known.values():
        section = page.find(id=lab.id.lower())
        assert section.find_parent("section")["id"] == f"labs-{lab.chapter}"
        text = section.get_text(" ", strip=True).replace("’", "'")
        for words in (lab.title, f"labkit lab {lab.id}", "minute", lab.objective):
            assert " ".join(words.split()) in " ".join(text.split()), (lab.id, words)
        if is_begun(lab):
            assert "No result of this lab is stored yet" in text and not section.select("table")
            continue
        assert section.select("table") and "Measured on" in text and "What to notice." in text
        rows = len(results.load(lab.result)["rows"])
        assert len(section.select("tbody tr")) == min(rows, MOST), (
            "a long table is cut, and says so"
        )
        assert (f"The first {MOST} of {rows} rows" in text) == (rows > MOST)
        assert len(section.select("img.drawing")) == bool(lab.plot)
    seen = visit()
    shown = seen.open("book/labs").locator("#ch02-flash details")
    assert not any("lab-ch02-flash.svg" in r.url for r in seen.responses)
    shown.locator("summary").click()
    shown.locator("img").evaluate("e => e.decode()")
    assert shown.locator("img").evaluate("e => e.naturalWidth") > 300


def test_a_drawing_of_a_lab_follows_the_theme(visit):
    """An image has no style of the page: it is drawn in the page's colour scheme."""
    inks = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme).open("book/labs")
        page.locator("#ch02-flash summary").click()
        picture = page.locator("#ch02-flash img")
        picture.evaluate("e => e.decode()")
        inks[scheme] = picture.screenshot()
        page.locator(".theme-switch").click()
        inks[f"switched from {scheme}"] = picture.screenshot()
    assert inks["light"] != inks["dark"]
    assert inks["switched from light"] == inks["dark"]
    assert inks["switched from dark"] == inks["light"]


def test_a_readers_assistant_finds_how_to_tutor(html):
    """From the index, the README and `llms.txt`; every place that it names is there."""
    text = (html / "AGENTS.md").read_text()
    assert text == (ROOT / "book/AGENTS.md").read_text()
    assert text.splitlines()[0].startswith("For someone who takes the course")
    assert f"{CONFIG['html']['baseurl']}AGENTS.md" in (html / "llms.txt").read_text()
    assert "(book/AGENTS.md)" in (ROOT / "README.md").read_text()
    assert soup(html, "book/index").select('a[href$="book/AGENTS.md"]')
    named = [
        name for name in re.findall(r"`([\w./]+/[\w./]*)`", text) if not re.search(r"NN|\*", name)
    ]
    assert len(named) > 3
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "labs/labkit" / name).exists(), name


# -- the sources -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_code_fits_its_column(name):
    """78 columns, as the library's code that pages show: nothing is wrapped again."""
    text = (ROOT / f"{name}.md").read_text()
    fenced = re.findall(r"^```(?:\{code-cell\}|python|bash).*?^```$", text, re.M | re.S)
    wide = [line for block in fenced for line in block.splitlines() if len(line) > 78]
    assert wide == []


def test_titles_keep_their_case_and_carry_no_latex(html):
    titles = re.findall(r"^  title = (.*),$", (ROOT / "book/references.bib").read_text(), re.M)
    shown = [entry.get_text() for entry in soup(html, "book/references").select(".citation")]
    assert titles and shown
    for title in titles:
        assert (
            title.startswith("{{")
            and title.endswith("}}")
            and not re.search(r"``|''|--|\\\\", title)
        ), title
    for work in shown:
        assert any(title[2:-2] in work for title in titles), work


def test_style_sheets_name_no_colour_of_their_own():
    for path in (ROOT / "book/_static").glob("*.css"):
        text = re.sub(r"url\(.*?\)", "", path.read_text())
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!\s*[,{:.\[>])", text) and not re.search(
            r"\bhsl\(|\brgb\((?!0 0 0 /)", text
        ), path.name


def test_every_link_to_the_repository_has_its_one_address():
    """Only `_config.yml` may say where the repository is; what repeats it must agree."""
    name = REPOSITORY.rsplit("/", 1)[1]
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    if not (ROOT / ".git").exists():
        pytest.skip("this is an archive, not a clone: only git knows which files are the course's")
    texts = [
        ROOT / f
        for f in files
        if f.endswith((".md", ".ipynb", ".py", ".toml", ".yml", ".html", ".js"))
    ]
    assert texts
    for path in texts:
        for found in re.findall(rf"github\.com/[\w.-]+/{name}", path.read_text()):
            assert f"https://{found}" == REPOSITORY, (
                f"{path.relative_to(ROOT)} has {found}, _config.yml {REPOSITORY}"
            )
