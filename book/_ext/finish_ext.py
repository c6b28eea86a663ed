"""Finishing touches on each page's HTML: what Sphinx, myst-nb and the bibliography write that
readers or axe-core object to.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from site_ext import chapter_number, colab_url, issue_url

from labkit import palette


def finish(app, pagename, templatename, context, doctree):
    if doctree is None or not context.get("body"):
        return
    soup = BeautifulSoup(context["body"], "html.parser")
    title = soup.h1.get_text().rstrip("#") if soup.h1 else ""
    slim(soup)
    tables(soup)
    hanging(soup)
    scrollable(soup)
    repairs(soup)
    sections(soup, app, pagename, title)
    if chapter_number(pagename):
        actions(soup, colab_url(app, pagename), pagename)
        live_cells(soup, colab_url(app, pagename))
    lead = next(
        (p.get_text(" ", strip=True) for p in soup.select("section > p") if p.get_text(strip=True)),
        title,
    )
    context["description"] = lead if len(lead) <= 160 else lead[:157].rsplit(" ", 1)[0] + "…"
    context["body"] = soup.decode(formatter="minimal")


def element(soup, tag, text="", **attrs):
    made = soup.new_tag(tag, attrs={k.rstrip("_").replace("_", "-"): v for k, v in attrs.items()})
    if text:
        made.string = text
    return made


# Pygments' classes that course.css leaves in the text's colour
UNSTYLED = {"n", "nn", "p", "o", "w", "nb", "bp", "vm", "esc", "na", "pm", "kt", "ne"}


def slim(soup):
    """What would be sent and never seen: spans without a style, the palette again, the same style
    twice.
    """
    for span in soup.select("div.highlight span[class]"):
        if set(span["class"]) <= UNSTYLED:
            span.unwrap()
    seen = set()
    for style in soup.select("style"):
        text = style.get_text().replace(palette.rules(), "").strip()
        if not text or text in seen:
            style.decompose()
        else:
            style.string = text
            seen.add(text)


def tables(soup):
    """A table wider than a phone scrolls in its own box; those of widgets do it themselves.

    Code in it may break after a hyphen, `_` and `=`.
    """
    for code in soup.select("td code"):
        parts = re.findall(r"-*[^-_=]+[-_=]*", code.get_text())  # `--block-` and `size`
        if len(parts) > 1 and "".join(parts) == code.get_text():
            code.clear()
            code.extend(
                piece
                for part in parts
                for piece in (element(soup, "span", part), soup.new_tag("wbr"))
            )
    for table in soup.select("table:not(.lk table)"):
        if table.find_parent(class_="table-box") is None:
            table.wrap(element(soup, "div", class_="table-box"))


def hanging(soup):
    """A line of code that may be too long for its column (two stand side by side in a comparison)
    goes on below, four columns further in.
    """
    # outside of a <pre> it would drop spaces
    parsed = lambda markup: BeautifulSoup(f"<pre>{markup}</pre>", "html.parser").pre
    for most, selector in ((70, "div.highlight pre"), (40, ".lk-compare pre code")):
        for pre in soup.select(selector):
            lines = pre.decode_contents().split("\n")
            for i, line in enumerate(lines):
                text = parsed(line).get_text()
                if len(text) > most:
                    begin = f'class="hang" style="--in: {len(text) - len(text.lstrip()) + 4}ch">'
                    lines[i] = (
                        line.replace("<mark>", f"<mark {begin}", 1)
                        if line.startswith("<mark>")
                        else f"<span {begin}{line}</span>"
                    )
            pre.clear()
            pre.extend(list(parsed("\n".join(lines)).contents))


def scrollable(soup):
    """What scrolls sideways must be reachable by keyboard."""
    for box in soup.select("pre, .table-box, div.math, .lk-scroll"):
        box["tabindex"] = "0"


def repairs(soup):
    # myst-nb dresses it as an admonition, with a label that differs from the words seen
    for hidden in soup.select("details.hide"):
        hidden["class"] = ["hide"]
        hidden.summary.attrs.pop("aria-label", None)
        if hidden.select_one(".cell_output, .output"):
            hidden.summary.select_one(".collapsed").string = "Show the output"
            hidden.summary.select_one(".expanded").string = "Hide the output"
        for words in hidden.summary.select("p"):
            words.name, words["class"] = "span", words["class"][:1]
    for entry in soup.select("[role=doc-biblioentry], [role=doc-biblioref]"):
        del entry["role"]
    # each would be a landmark of its own
    for note in soup.select(
        'aside.footnote-list, aside.footnote, aside.topic, [role="doc-footnote"]'
    ):
        note.name = "div"
        note.attrs.pop("role", None)
    for image in soup.select("img"):
        image["loading"], image["decoding"] = "lazy", "async"
    for anchor in soup.select("dt > a.headerlink"):
        anchor["aria-label"] = f"Link to “{anchor.parent.get_text(' ', strip=True).rstrip('# ')}”"
    for head in soup.select("thead"):
        if not head.get_text(strip=True):  # Markdown has no table without a head
            head.decompose()
    for listing in soup.select("div[role=list]:not(:has(> [role=listitem]))"):
        del listing["role"]


def sections(soup, app, pagename, title):
    """Behind each heading: its address, and a way to say that something is wrong."""
    for heading in soup.select("h1, h2, h3, h4"):
        anchor = heading.select_one("a.headerlink")
        if anchor is None:
            continue
        anchor.extract()
        text = heading.get_text(" ", strip=True)
        if heading.name == "h1":
            continue
        tools = element(soup, "span", class_="heading-tools")
        tools.append(
            element(
                soup,
                "a",
                "#",
                class_="headerlink",
                href=anchor["href"],
                aria_label=f"Link to “{text}”",
            )
        )
        if heading.name == "h2":
            tools.append(
                element(
                    soup,
                    "a",
                    "Something wrong here?",
                    class_="report",
                    href=issue_url(app, pagename, title, text),
                )
            )
        heading.append(tools)


def actions(soup, colab, pagename):
    """Under a chapter's title: run it, or take its text."""
    if soup.h1 is None:
        return
    markdown = pagename.rsplit("/", 1)[-1] + ".md"
    row = element(soup, "p", class_="actions")
    row.append(element(soup, "a", "Open in Colab", class_="action primary", href=colab))
    row.append(element(soup, "a", "View as Markdown", class_="action", href=markdown))
    row.append(
        element(
            soup,
            "button",
            "Copy as Markdown",
            class_="action copy-page js-only",
            type_="button",
            data_href=markdown,
        )
    )
    soup.h1.insert_after(row)


def live_cells(soup, colab):
    for cell in soup.select(".cell.tag_live"):
        note = element(soup, "p", class_="live-note")
        note.append("This cell needs a running Python: ")
        note.append(element(soup, "a", "run it in Colab", href=colab))
        note.append(" or in Jupyter.")
        cell.append(note)


def setup(app):
    app.connect("html-page-context", finish, priority=850)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
