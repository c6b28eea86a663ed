"""The course's Sphinx theme: palette as CSS, the assets a page needs and no others, addresses from
`_config.yml`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import quote, urlencode

from bs4 import BeautifulSoup
from rcssmin import cssmin
from rjsmin import jsmin

from labkit import chapters
from labkit.palette import MONO, PALETTE, SANS, css_variables

HERE = Path(__file__).parent
COLAB = "https://colab.research.google.com/github"
REPORT = """\
Page: {page}
Section: {section}
Commit: {commit}

What is wrong, and what would be right?
"""
# Sphinx's own search page alone would need them
UNUSED = {"documentation_options.js", "doctools.js", "sphinx_highlight.js"}
# of other themes and extensions, or linked by our layout itself
OTHER_STYLES = ("pygments", "mystnb", "basic", "course")


# -- what the site looks like ----------------------------------------------------------------------


def palette_css() -> str:
    """Both themes as custom properties.

    Without JavaScript the reader's system decides; with it `data-theme` does.
    """
    light, dark = (f"{css_variables(theme)} color-scheme: {theme};" for theme in PALETTE)
    return f"""\
/* made from labkit.palette */
:root {{
  --lk-sans: {SANS!r}, 'Inter fallback', system-ui, sans-serif;
  --lk-mono: {MONO!r}, ui-monospace, monospace;
  {light}
}}
:root[data-theme=dark] {{ {dark} }}
@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{ {dark} }} }}
@media print {{ :root, :root[data-theme] {{ {light} }} }}
"""


def columns_css(most: int = 30) -> str:
    """`right-3` on a table: its third column holds numbers. A class for each cell would be half of
    a page that has many tables.
    """
    columns = (f".right-{i} > * > * > :nth-child({i})" for i in range(1, most + 1))
    return f"{', '.join(columns)} {{ text-align: right; --least: 0; }}\n"


def mark() -> str:
    """The course's sign: two stored cells and the one being written."""
    colours = PALETTE["light"]
    stored = "".join(
        f'<rect x="{x}" y="9" width="8" height="14" rx="2" fill="{colours["accent"]}"/>'
        for x in (1, 11)
    )
    now = (
        f'<rect x="22" y="10" width="8" height="12" rx="2" fill="{colours["active"]}"'
        f' stroke="{colours["outline"]}" stroke-width="2"/>'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{stored}{now}</svg>\n'


def prepare(app):
    app.course_commit = commit(Path(app.srcdir))
    app.builder.search = False  # our own index (export) answers by section, and from file://
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "palette.css").write_text(palette_css() + columns_css())
    (static / "mark.svg").write_text(mark())


def minify(app, exception):
    """Style sheets and scripts of ours, without comments and indentation."""
    smaller = {".css": cssmin, ".js": jsmin}
    if exception is None and app.builder.format == "html":
        for path in (Path(app.outdir) / "_static").iterdir():
            if path.suffix in smaller:
                path.write_text(smaller[path.suffix](path.read_text()))


# -- addresses -------------------------------------------------------------------------------------


def commit(folder: Path) -> str:
    """The commit the site is built from, or `main` outside a repository."""
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "main"


def repository(app) -> str:
    return app.config.html_theme_options["repository_url"]


def colab_url(app, pagename: str) -> str:
    """Where Colab opens the notebook that `scripts/notebooks.py` generates from a chapter."""
    owner_and_name = repository(app).split("//", 1)[1].split("/", 1)[1]
    branch = app.config.html_theme_options["repository_branch"]
    return f"{COLAB}/{owner_and_name}/blob/{branch}/notebooks/{Path(pagename).name}.ipynb"


def issue_url(app, pagename: str, title: str, section: str = "") -> str:
    """A new issue, its page, section and commit already filled in."""
    body = REPORT.format(page=pagename, section=section or title, commit=app.course_commit)
    heading = f"{title}: {section}" if section else title
    query = urlencode({"title": heading, "body": body}, quote_via=quote)
    return f"{repository(app)}/issues/new?{query}"


def page_number(pagename: str) -> str:
    """`02` for `book/chapters/02_kv_cache`, `02b` for a second page of it, else nothing."""
    if chapters.of_page(pagename) is None:
        return ""
    return Path(pagename).name.split("_")[0]


# -- each page -------------------------------------------------------------------------------------


def read_source(app, docname, source):
    """The word REPOSITORY stands for the address; a cell tagged `live` is shown on the page and run
    only by readers.
    """
    text = source[0].replace("REPOSITORY", repository(app))
    live = re.compile(r"^:tags: \[(?=[^\]]*\blive\b)", re.M)
    source[0] = live.sub(":tags: [skip-execution, ", text)


def page_context(app, pagename, templatename, context, doctree):
    context["script_files"] = [js for js in context["script_files"] if file_name(js) not in UNUSED]
    context["css_files"] = [
        css for css in context["css_files"] if not file_name(css).startswith(OTHER_STYLES)
    ]
    title = BeautifulSoup(context.get("title") or "", "html.parser").get_text()
    number = page_number(pagename)
    is_page = doctree is not None
    toc = context["toctree"](collapse=False, maxdepth=1, includehidden=True, titles_only=True)
    context |= {
        "chapter": number,
        "is_page": is_page,
        "colab": colab_url(app, pagename) if number else "",
        "issue": issue_url(app, pagename, title) if is_page else "",
        "commit": app.course_commit,
        "markdown": pagename.rsplit("/", 1)[-1] + ".md",
        "navigation": navigation(toc, pagename),
        "contents": sections(context.get("toc", "")) if is_page else "",
    }


def renamed(app, env) -> list[str]:
    """All pages, when a title has changed: each shows them all."""
    titles = {docname: env.titles[docname].astext() for docname in env.titles}
    before = env.__dict__.get("course_titles", titles)
    env.course_titles = titles
    return [] if titles == before else list(titles)


def file_name(asset) -> str:
    return str(getattr(asset, "filename", asset) or "").rsplit("/", 1)[-1]


def navigation(toc: str, pagename: str) -> str:
    """The table of contents, with each chapter's number in front of its title."""

    def link(found):
        here = found["href"] == "#"
        # relative to this page, but a chapter is known by its folder and its name
        target = pagename if here else f"book/chapters/{Path(found['href']).stem}"
        number = page_number(target)
        current = ' aria-current="page"' if here else ""
        shown = f'<span class="num">{number}</span> ' if number else ""
        return f'<a href="{found["href"]}"{current}>{shown}'

    entry = r'<a class="(?:current )?reference internal" href="(?P<href>[^"]*)">'
    return re.sub(entry, link, toc.replace(' role="heading"', ""))


def sections(toc: str) -> str:
    """A page's own contents without its title: the list inside the first item."""
    inner = BeautifulSoup(toc or "", "html.parser").select_one("li > ul")
    return str(inner) if inner else ""


def setup(app):
    # Jupyter Book sets it whether or not its extension is loaded
    app.add_config_value("comments_config", {}, "")
    app.add_html_theme("course", str(HERE / "theme"))
    app.connect("builder-inited", prepare)
    app.connect("source-read", read_source)
    app.connect("env-updated", renamed)
    # after the widgets' assets are known
    app.connect("html-page-context", page_context, priority=950)
    app.connect("build-finished", minify, priority=900)  # after all have written theirs
