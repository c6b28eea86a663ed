"""How many words a reader of a page's core path reads."""

from __future__ import annotations

import re

from markdown_it.token import Token

from course.block import Written
from course.blocks.others import titled
from course.lower import Book, written

BUDGET = 2500
# what a reader opens, runs or does; the rest is read
BESIDE = {"dropdown", "solution", "exercise", "quiz", "code-cell", "code", "code-block", "math"}
FOLDED = {"dropdown", "deeper"}  # a block of these classes is beside the path, too
SILENT = ("cite",)  # roles that show a source, not words


def core_words(text: str, book: Book) -> int:
    """The words of a page outside folds, code, quiz, exercises and blocks marked `deeper`."""
    count = 0
    for token in book.parser.parse(text):
        if token.type == "inline":
            count += len(re.findall(r"\w[\w'’.,-]*", "".join(map(shown, token.children or []))))
        elif (block := written(token)) and is_core(block):
            count += core_words(block.content, book)
    return count


def is_core(block: Written) -> bool:
    return block.name not in BESIDE and FOLDED.isdisjoint(block.options.get("class", "").split())


def shown(child: Token) -> str:
    """What a part of a line shows: a formula or a number is one word."""
    if child.type in ("softbreak", "hardbreak"):
        return " "
    if child.type == "math_inline":
        return "1"
    if child.type != "myst_role":
        return child.content
    name = child.meta["name"]
    if name.startswith(SILENT):
        return ""
    if name == "n":
        return "1"
    words, target = titled(child.content)
    return words or target


def budget(name: str, count: int) -> str:
    """A line that says how a page stands."""
    over = f", {count - BUDGET:,} over" if count > BUDGET else ""
    return f"{name}: {count:,} words on the core path, of {BUDGET:,}{over}"
