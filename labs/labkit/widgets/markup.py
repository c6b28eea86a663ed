"""The HTML that a still picture is made of."""

from __future__ import annotations

import math
from html import escape

# characters on a line of a card, on a screen and on a phone
WIDE, NARROW = 88, 40


def tag(name: str, content: str = "", **attributes) -> str:
    """An element. `class_` is its class, `text_anchor` its `text-anchor`; None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def still(kind: str, title: str, *parts: str) -> str:
    """A card as it stands where no script runs; site and host find it by its class."""
    name = escape(title)
    return (
        f'<div class="lk lk-{kind} lk-still" role="group" aria-label="{name}">'
        f'<p class="lk-title">{name}</p>{"".join(parts)}</div>'
    )


def bold(text: str) -> str:
    """Text in which `**…**` is bold."""
    parts = escape(text).split("**")
    return "".join(f"<b>{part}</b>" if i % 2 else part for i, part in enumerate(parts))


def paragraph(text: str, cls: str) -> str:
    """A paragraph in which `**…**` is bold; none for no text."""
    return f'<p class="{cls}">{bold(text)}</p>' if text else ""


def sentence(steps: list[list[str]], now: int) -> str:
    """What is said under a picture at step `now`, in parts.

    Room is kept for the longest of all `steps`, so that nothing below jumps.
    """

    def lines(width: int) -> int:
        of_part = lambda part: math.ceil(len(part.replace("**", "")) / width)
        return max(sum(map(of_part, parts)) for parts in steps)

    room = f"--wide: {lines(WIDE)}; --narrow: {lines(NARROW)}"
    parts = "".join(f"<span>{bold(part)}</span>" for part in steps[now])
    return f'<p class="lk-say" style="{room}">{parts}</p>'


def legend(entries: list[tuple[str, str]]) -> str:
    """Swatches and their words: `(attributes of the swatch, words)` each; none for no words."""
    spans = [f"<span><i {swatch}></i>{escape(words)}</span>" for swatch, words in entries if words]
    return f'<p class="lk-legend">{"".join(spans)}</p>' if spans else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; the first cell of each row is its header."""
    columns = "".join(f'<th scope="col">{escape(words)}</th>' for words in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(words)}</td>" for words in others)
        + "</tr>"
        for first, *others in rows
    )
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def folded(title: str, head: list[str], rows: list[list[str]], notes: tuple | list = ()) -> str:
    """A folded table: the numbers behind a picture. It scrolls, so it can be focused.

    notes: lines under the table, as HTML.
    """
    name = escape(f"Numbers: {title}")
    lines = "".join(f'<p class="lk-note">{note}</p>' for note in notes)
    return (
        '<details class="lk-numbers"><summary>Numbers</summary>'
        f'<div class="lk-scroll" tabindex="0" role="region" aria-label="{name}">'
        f"{table(head, rows)}{lines}</div></details>"
    )


def rectangle(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as part of an SVG path: many of them in one path weigh half of what they would
    alone.
    """
    return f"M{x:g} {y:g}h{width:g}v{height:g}h{-width:g}z"
