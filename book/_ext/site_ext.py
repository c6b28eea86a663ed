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

from labkit.palette import MONO, PALETTE, SANS, css_variables

HERE = Path(__file__).parent


def palette_css() -> str:
    """Both themes as custom properties.

    Without JavaScript the reader's system decides; with it `data-theme` does.
    """
    fonts = (
        f"--lk-sans: {SANS!r}, 'Inter fallback', system-ui, sans-serif; --lk-mono: {MONO!r},"
        " ui-monospace, monospace;"
    )
    light, dark = (f"{css_variables(t)} color-scheme: {t};" for t in PALETTE)
    return (
        f"/* made from labkit.palette */\n:root {{ {fonts} {light} }}\n:root[data-theme=dark] {{"
        f" {dark} }}\n@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{"
        f" {dark} }} }}\n@media print {{ :root, :root[data-theme] {{ {light} }} }}\n"
    )


def mark() -> str:
    """The course's sign: two stored cells and the one being written."""
    c = PALETTE["light"]
    cells = "".join(
        f'<rect x="{x}" y="9" width="8" height="14" rx="2" fill="{c["accent"]}"/>' for x in (1, 11)
    )
    now = (
        f'<rect x="22" y="10" width="8" height="12" rx="2" fill="{c["active"]}"'
        f' stroke="{c["outline"]}" stroke-width="2"/>'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{cells}{now}</svg>\n'


def commit(folder: Path) -> str:
    """The commit the site is built from, or `main` outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=folder, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else "main"


def chapter_number(pagename: str) -> str:
    """`02` for `book/chapters/02_kv_cache`, else nothing."""
    found = re.match(r"book/chapters/(\d\d)_", pagename)
    return found[1] if found else ""


def colab_url(app, pagename: str) -> str:
    """Where Colab opens the notebook that `scripts/notebooks.py` generates from a chapter."""
    repository = app.config.html_theme_options["repository_url"].split("//", 1)[1].split("/", 1)[1]
    return f"https://colab.research.google.com/github/{repository}/blob/{branch(app)}/notebooks/{Path(pagename).name}.ipynb"


def branch(app) -> str:
    return app.config.html_theme_options["repository_branch"]


def issue_url(app, pagename: str, title: str, section: str = "") -> str:
    """A new issue, its page, section and commit already filled in."""
    body = (
        f"Page: {pagename}\nSection: {section or title}\nCommit: {app.course_commit}\n\nWhat is"
        " wrong, and what would be right?\n"
    )
    query = urlencode(
        {"title": f"{title}: {section}" if section else title, "body": body}, quote_via=quote
    )
    return f"{app.config.html_theme_options['repository_url']}/issues/new?{query}"


def navigation(html: str, pagename: str) -> str:
    """The table of contents, with each chapter's number in front of its title."""

    def link(m):
        target = pagename if m["href"] == "#" else m["href"].removesuffix(".html")
        number = re.search(r"(?:^|/)(\d\d)_[^/]*$", target)
        current = ' aria-current="page"' if m["href"] == "#" else ""
        return f'<a href="{m["href"]}"{current}>' + (
            f'<span class="num">{number[1]}</span> ' if number else ""
        )

    return re.sub(
        r'<a class="(?:current )?reference internal" href="(?P<href>[^"]*)">',
        link,
        html.replace(' role="heading"', ""),
    )


def sections(toc: str) -> str:
    """A page's own contents without its title: the list inside the first item."""
    inner = BeautifulSoup(toc or "", "html.parser").select_one("li > ul")
    return str(inner) if inner else ""


def page_context(app, pagename, templatename, context, doctree):
    body = context.get("body") or ""
    name = lambda asset: str(getattr(asset, "filename", asset) or "").rsplit("/", 1)[-1]
    # only Sphinx's own search page would need them
    unused = {"documentation_options.js", "doctools.js", "sphinx_highlight.js"}
    if 'class="math' not in body:  # Sphinx also loads MathJax on a page whose children have maths
        unused |= {"tex-chtml.js", ""}
    context["script_files"] = [js for js in context["script_files"] if name(js) not in unused]
    context["css_files"] = [
        css
        for css in context["css_files"]
        if not name(css).startswith(("pygments", "mystnb", "basic", "course"))
    ]
    title = BeautifulSoup(context.get("title") or "", "html.parser").get_text()
    number = chapter_number(pagename)
    context |= {
        "chapter": number,
        "is_page": doctree is not None,
        "colab": colab_url(app, pagename) if number else "",
        "issue": issue_url(app, pagename, title) if doctree is not None else "",
        "commit": app.course_commit,
        "markdown": pagename.rsplit("/", 1)[-1] + ".md",
        "navigation": navigation(
            context["toctree"](collapse=False, maxdepth=1, includehidden=True, titles_only=True),
            pagename,
        ),
        "contents": sections(context.get("toc", "")) if doctree is not None else "",
    }


def read_source(app, docname, source):
    """The word REPOSITORY stands for the address; a cell tagged `live` is shown on the page and run
    only by readers.
    """
    text = source[0].replace("REPOSITORY", app.config.html_theme_options["repository_url"])
    source[0] = re.sub(
        r"^:tags: \[(?=[^\]]*\blive\b)", ":tags: [skip-execution, ", text, flags=re.M
    )


def prepare(app):
    app.course_commit = commit(Path(app.srcdir))
    app.builder.search = False  # our own index (export_ext) answers by section, and from file://
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "palette.css").write_text(palette_css())
    (static / "mark.svg").write_text(mark())


def minify(app, exception):
    """Style sheets and scripts of ours, without comments and indentation."""
    if exception is None and app.builder.format == "html":
        for path in (Path(app.outdir) / "_static").iterdir():
            if path.suffix in (".css", ".js"):
                path.write_text({".css": cssmin, ".js": jsmin}[path.suffix](path.read_text()))


def setup(app):
    # Jupyter Book sets it whether or not its extension is loaded
    app.add_config_value("comments_config", {}, "")
    app.add_html_theme("course", str(HERE / "theme"))
    app.connect("builder-inited", prepare)
    app.connect("source-read", read_source)
    # after the widgets' assets are known
    app.connect("html-page-context", page_context, priority=950)
    app.connect("build-finished", minify, priority=900)  # after all have written theirs
    return {"parallel_read_safe": True, "parallel_write_safe": True}
