"""Jane Austen's six novels: the text that the character model of chapter 02 is trained on.

They are in the public domain (published 1811 to 1818). The digital text is Project Gutenberg's, as
the R package `janeaustenr` 1.0.0 carries it (MIT, Julia Silge; Debian's `r-cran-janeaustenr`
1.0.0-1, whose `data/Rdata.rdb` has the sha256
8fb5198960d0da724b1562f96e4221e5c1b41ff455000280b02c55980c3d8f21).
Lines are re-joined, one paragraph a line; headings, title pages, the editor's note behind
*Northanger Abbey* and the few characters outside the alphabet are left out.
"""

from __future__ import annotations

import lzma
from pathlib import Path

ALPHABET = "\n !\"&'(),-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HELD_OUT = 20  # the last 1/20 of every novel is never trained on


def novels() -> list[str]:
    """The six, each one text of nothing but the alphabet."""
    path = Path(__file__).parent / "data" / "novels.txt.xz"
    texts = lzma.decompress(path.read_bytes()).decode().split("\n\n")
    return [text + "\n" for text in texts]


def split() -> tuple[str, str]:
    """(training text, held-out text): the last twentieth of every novel is held out."""
    cuts = [(text, len(text) - len(text) // HELD_OUT) for text in novels()]
    return "".join(text[:cut] for text, cut in cuts), "".join(text[cut:] for text, cut in cuts)
