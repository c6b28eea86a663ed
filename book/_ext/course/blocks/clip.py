"""`{clip} name`: a rendered clip with poster, captions and transcript; the body is its caption."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import imagesize
from docutils import nodes

from course.block import Block, checked, fold, html, make

CLIPS = "book/_static/clips"
# The captions are a data URL, because a browser refuses a caption file to a page opened from a
# folder.
VIDEO = """\
<video controls playsinline preload="none" width="{width}" height="{height}"
 poster="{clip}.webp" aria-label="{label}">
<source src="{clip}.mp4" type="video/mp4">
<track kind="captions" srclang="en" label="English" default src="data:text/vtt;base64,{vtt}">
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
            vtt=base64.b64encode(captions.read_bytes()).decode(),
        )
        said = [make("p", nodes.Text(text)) for text in cues(captions.read_text())]
        caption = make("figcaption", *self.body())
        transcript = fold([nodes.Text("Transcript")], said)
        return [make("figure", html(tag), caption, transcript, classes=["clip"])]

    @classmethod
    def to_markdown(cls, page, written):
        """The poster links to the film on the website, where its transcript is too."""
        base = f"{page.book.site}_static/clips/{written.argument}"
        return f"[![Watch the clip]({base}.webp)]({base}.mp4)\n\n*{page.lower(written.content)}*"


def cues(vtt: str) -> list[str]:
    """The caption texts of a WebVTT file."""
    found = []
    for block in vtt.strip().split("\n\n"):
        timing, _, text = block.rpartition("-->")
        if timing:
            found.append(" ".join(text.split("\n")[1:]))
    return found
