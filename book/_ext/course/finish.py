"""Finishing touches on each page's HTML: what Sphinx, myst-nb and the bibliography write that
readers or axe-core object to.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

from course.site import colab_url, issue_url, page_number
from labkit import palette

# Pygments' classes that course.css leaves in the text's colour
UNSTYLED = {"n", "nn", "p", "o", "w", "nb", "bp", "vm", "esc", "na", "pm", "kt", "ne"}
NOTES = 'aside.footnote-list, aside.footnote, aside.topic, [role="doc-footnote"]'


def finish(app, pagename, templatename, context, doctree):
    if doctree is None or not context.get("body"):
        return
    soup = BeautifulSoup(context["body"], "html.parser")
    title = soup.h1.get_text().rstrip("#") if soup.h1 else ""
    slim(soup)
    tables(soup)
    hanging(soup)
    folds(soup)
    repairs(soup)
    sections(soup, app, pagename, title)
    terms(soup, app.env.course_terms)
    if page_number(pagename):
        colab = colab_url(app, pagename)
        actions(soup, colab, pagename)
        live_cells(soup, colab)
    context["description"] = description(soup, title)
    context["body"] = soup.decode(formatter="minimal")


def description(soup: BeautifulSoup, title: str) -> str:
    """The page's first paragraph, as far as a search engine shows it."""
    paragraphs = (p.get_text(" ", strip=True) for p in soup.select("section > p"))
    lead = next(filter(None, paragraphs), title)
    return lead if len(lead) <= 160 else lead[:157].rsplit(" ", 1)[0] + "…"


def element(soup: BeautifulSoup, tag: str, text: str = "", **attrs: str) -> Tag:
    """An element; `class_`, `aria_label` stand for `class`, `aria-label`."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attrs.items()}
    made = soup.new_tag(tag, attrs=named)
    if text:
        made.string = text
    return made


# -- what is sent ----------------------------------------------------------------------------------


def slim(soup):
    """What would be sent and never seen: spans without a style, the palette again, the same style
    twice, and in charts the colours for where there is no palette, and spaces.
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
    for part in soup.select("svg[style], svg [style], svg [d]"):
        if style := part.get("style"):
            style = re.sub(r"var\((--lk-\w+), #\w+\)", r"var(\1)", style)
            part["style"] = re.sub(r"\s*([:;,])\s*", r"\1", style).removesuffix(";")
        if path := part.get("d"):
            part["d"] = re.sub(r"\s*([A-Za-z])\s*", r"\1", path)


# -- tables and code -------------------------------------------------------------------------------


def tables(soup):
    """A table wider than a phone scrolls in its own box; those of widgets do it themselves.

    Code in it may break after a hyphen, `_` and `=`.
    """
    for code in soup.select("td code"):
        parts = re.findall(r"-*[^-_=]+[-_=]*", code.get_text())  # `--block-` and `size`
        if len(parts) > 1 and "".join(parts) == code.get_text():
            code.clear()
            for part in parts:
                code.extend([element(soup, "span", part), soup.new_tag("wbr")])
    for table in soup.select("table:not(.lk table)"):
        align(table)
        if table.find_parent(class_="table-box") is None:
            table.wrap(element(soup, "div", class_="table-box"))


def align(table: Tag):
    """A column of numbers says once that it is one, not in each cell; and their padding, for those
    who read the source, goes.
    """
    right = set()
    for row in table.select("tr"):
        for i, cell in enumerate(row.find_all(["td", "th"], recursive=False), start=1):
            if cell.get("style") == "text-align: right;":
                del cell["style"]
                cell.string = cell.get_text().strip()
                right.add(f"right-{i}")
    if right:
        table["class"] = [*table.get("class", []), *sorted(right)]


def hanging(soup):
    """A line of code that may be too long for half a page, in a comparison, goes on below, four
    columns further in.
    """
    for pre in soup.select(".lk-compare pre code"):
        lines = pre.decode_contents().split("\n")
        for i, line in enumerate(lines):
            text = inside_pre(line).get_text()
            if len(text) <= 40:
                continue
            begin = f'class="hang" style="--in: {len(text) - len(text.lstrip()) + 4}ch">'
            if line.startswith("<mark>"):
                lines[i] = line.replace("<mark>", f"<mark {begin}", 1)
            else:
                lines[i] = f"<span {begin}{line}</span>"
        pre.clear()
        pre.extend(list(inside_pre("\n".join(lines)).contents))


def inside_pre(markup: str) -> Tag:
    """Markup as a `<pre>` has it: elsewhere the parser drops spaces."""
    return BeautifulSoup(f"<pre>{markup}</pre>", "html.parser").pre


# -- repairs ---------------------------------------------------------------------------------------


def folds(soup):
    """myst-nb dresses a hidden cell as an admonition, with a label that differs from the words
    seen.
    """
    for hidden in soup.select("details.hide"):
        hidden["class"] = ["hide"]
        summary = hidden.summary
        summary.attrs.pop("aria-label", None)
        if hidden.select_one(".cell_output, .output"):
            summary.select_one(".collapsed").string = "Show the output"
            summary.select_one(".expanded").string = "Hide the output"
        for words in summary.select("p"):
            words.name = "span"
            words["class"] = words["class"][:1]


def repairs(soup):
    for entry in soup.select("[role=doc-biblioentry], [role=doc-biblioref]"):
        del entry["role"]
    # each would be a landmark of its own
    for note in soup.select(NOTES):
        note.name = "div"
        note.attrs.pop("role", None)
    for image in soup.select("img"):
        image["loading"] = "lazy"
        image["decoding"] = "async"
    for anchor in soup.select("dt > a.headerlink"):
        term = anchor.parent.get_text(" ", strip=True).rstrip("# ")
        anchor["aria-label"] = f"Link to “{term}”"
        anchor["tabindex"] = "-1"
    for head in soup.select("thead"):
        if not head.get_text(strip=True):  # Markdown has no table without a head
            head.decompose()
    for listing in soup.select("div[role=list]:not(:has(> [role=listitem]))"):
        del listing["role"]


# -- what a page offers ----------------------------------------------------------------------------


def sections(soup, app, pagename, title):
    """Behind each heading: its address, and a way to say that something is wrong.

    Neither is a stop of the Tab key: the contents list has the one, the page's foot the other.
    """
    for heading in soup.select("h1, h2, h3, h4"):
        anchor = heading.select_one("a.headerlink")
        if anchor is None:
            continue
        anchor.extract()
        if heading.name == "h1":
            continue
        text = heading.get_text(" ", strip=True)
        label = f"Link to “{text}”"
        tools = element(soup, "span", class_="heading-tools")
        tools.append(
            element(
                soup,
                "a",
                "#",
                class_="headerlink",
                href=anchor["href"],
                aria_label=label,
                tabindex="-1",
            )
        )
        if heading.name == "h2":
            report = issue_url(app, pagename, title, text)
            words = "Something wrong here?"
            tools.append(element(soup, "a", words, class_="report", href=report, tabindex="-1"))
        heading.append(tools)


def terms(soup, definitions: dict[str, str]):
    """A term is a link where it is first used, and says there what it means."""
    seen = set()
    for link in soup.select("a:has(> .std-term)"):
        anchor = link["href"].partition("#")[2]
        if anchor in seen:
            link.unwrap()
        elif anchor in definitions:
            link["data-says"] = definitions[anchor]
        seen.add(anchor)


def actions(soup, colab, pagename):
    """Under a chapter's title: run it, or take its text."""
    if soup.h1 is None:
        return
    markdown = pagename.rsplit("/", 1)[-1] + ".md"
    copy = element(soup, "button", "Copy as Markdown", class_="action copy-page js-only")
    copy["type"] = "button"
    copy["data-href"] = markdown
    row = element(soup, "p", class_="actions")
    row.append(element(soup, "a", "Open in Colab", class_="action primary", href=colab))
    row.append(element(soup, "a", "View as Markdown", class_="action", href=markdown))
    row.append(copy)
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
