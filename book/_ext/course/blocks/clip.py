"""`{clip} name`: a rendered clip with poster, captions and transcript; the body is its caption."""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path

import imagesize
from docutils import nodes

from course.block import Block, checked, fold, html, make

CLIPS = "book/_static/clips"
# A browser refuses the caption file to a page opened from a folder: there course.js, which turns
# captions on, takes words and times from the transcript.
VIDEO = """\
<video controls playsinline preload="none" width="{width}" height="{height}"
 poster="{clip}.webp" aria-label="{label}">
<source src="{clip}.mp4" type="video/mp4">
<track kind="captions" srclang="en" label="English" src="{clip}.vtt">
</video>"""


class Clip(Block):
    names = ("clip",)
    required_arguments = 1

    def to_nodes(self):
        name = self.arguments[0]
        made = Path(self.env.srcdir) / CLIPS / name
        video, captions, poster = (made.with_suffix(f".{kind}") for kind in ("mp4", "vtt", "webp"))
        if not (video.exists() and captions.exists() and poster.exists()):
            if not checked(self.config, self.env.docname):
                return []
            raise ValueError(
                f"the clip {name} is not rendered: run make book, which renders it into {CLIPS}"
            )
        for path in (video, captions, poster):
            self.env.note_dependency(str(path))
        width, height = imagesize.get(poster)
        tag = VIDEO.format(
            clip="../" * self.env.docname.count("/") + f"_static/clips/{name}",
            width=width,
            height=height,
            label=escape(" ".join(self.content)),
        )
        said = [spoken(*cue) for cue in cues(captions.read_text(encoding="utf-8"))]
        caption = make("figcaption", *self.body())
        transcript = fold([nodes.Text("Transcript")], said)
        return [make("figure", html(tag), caption, transcript, classes=["clip"])]

    @classmethod
    def to_markdown(cls, page, written):
        """The poster links to the film on the website, where its transcript is too."""
        base = f"{page.book.site}_static/clips/{written.argument}"
        return f"[![Watch the clip]({base}.webp)]({base}.mp4)\n\n*{page.lower(written.content)}*"


def spoken(start: float, end: float, text: str) -> nodes.Element:
    """A caption in the transcript, the very same words: no quote in it is curled."""
    made = make("p", nodes.Text(" ".join(text.split())), attrs=f' data-cue="{start:g} {end:g}"')
    made["support_smartquotes"] = False
    return made


def cues(vtt: str) -> list[tuple[float, float, str]]:
    """The captions of a WebVTT file: start and end in seconds, and the text as it is read."""
    found = []
    for block in re.split(r"\n{2,}", vtt.strip()):
        head, _, text = block.partition("\n")
        if "-->" in head:
            start, end = (seconds(part) for part in head.split("-->"))
            found.append((start, end, unescape(text)))
    return found


def seconds(stamp: str) -> float:
    """`00:01:02.500` is 62.5."""
    hours, minutes, rest = stamp.strip().split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)
