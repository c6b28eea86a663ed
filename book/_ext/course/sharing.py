"""What others show of a page: Open Graph tags, a card with its title; and a sitemap."""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from course.site import page_number
from labkit.palette import PALETTE

SIZE = (1200, 630)  # what a card is shown in
EDGE = 90
FONTS = Path("/usr/share/fonts")
SITEMAP = """\
<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{entries}</urlset>
"""


def tags(app, pagename, templatename, context, doctree):
    """For the layout: the page's address and its card's."""
    if doctree is None:
        return
    title = app.env.titles[pagename].astext()
    name = f"{hashlib.sha256(title.encode()).hexdigest()[:10]}.png"
    folder = Path(app.outdir) / "_static/cards"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists():
        number = page_number(pagename)
        above = f"{app.config.html_title}" + (f" · Chapter {number}" if number else "")
        card(title, above if title != app.config.html_title else "").save(folder / name)
    context["card"] = f"{app.config.html_baseurl}_static/cards/{name}"


def card(title: str, above: str) -> Image.Image:
    """The course's sign, what the page belongs to, and its title in as large letters as fit."""
    colours = PALETTE["light"]
    image = Image.new("RGB", SIZE, colours["ground"])
    draw = ImageDraw.Draw(image)
    for place, now in ((0, False), (1, False), (2, True)):
        left = EDGE + 74 * place
        draw.rounded_rectangle(
            (left, EDGE, left + 56, EDGE + 56),
            10,
            fill=colours["active" if now else "accent"],
            outline=colours["outline"] if now else None,
            width=8,
        )
    draw.text((EDGE, 250), above, colours["muted"], font("Regular", 34), anchor="ls")
    size = next(s for s in range(88, 20, -4) if fits(draw, title, font("SemiBold", s)))
    draw.multiline_text(
        (EDGE, 300), wrapped(draw, title, font("SemiBold", size)), colours["accent"],
        font("SemiBold", size), spacing=size // 4,
    )  # fmt: skip
    return image


def font(weight: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(next(FONTS.rglob(f"Inter-{weight}.otf"))), size)


def wrapped(draw: ImageDraw.ImageDraw, text: str, face: ImageFont.FreeTypeFont) -> str:
    """The text in lines as wide as the card."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, face) > SIZE[0] - 2 * EDGE:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def fits(draw: ImageDraw.ImageDraw, text: str, face: ImageFont.FreeTypeFont) -> bool:
    box = draw.multiline_textbbox(
        (EDGE, 300), wrapped(draw, text, face), face, spacing=face.size // 4
    )
    return box[2] <= SIZE[0] - EDGE and box[3] <= SIZE[1] - EDGE / 2


def sitemap(app, exception):
    if exception or app.builder.format != "html":
        return
    base = app.config.html_baseurl
    addresses = sorted(f"{base}{docname}.html" for docname in app.env.titles)
    entries = "".join(f"  <url><loc>{escape(address)}</loc></url>\n" for address in addresses)
    (Path(app.outdir) / "sitemap.xml").write_text(SITEMAP.format(entries=entries))


def setup(app):
    app.connect("html-page-context", tags)
    app.connect("build-finished", sitemap)
