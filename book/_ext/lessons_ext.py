"""Blocks of a lesson: `{chapter}`, `{exercise}`, `{solution}`, `{quiz}`, `{clip}` and `{cited}`."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path
from typing import ClassVar

import imagesize
from blocks_ext import Block, fold, make, raw_text
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

CLIPS = "book/_static/clips"
# The captions are a data URL, because a browser refuses a caption file to a page opened from a
# folder.
VIDEO = """\
<video controls playsinline preload="none" width="{width}" height="{height}" poster="{clip}.webp" aria-label="{label}">
<source src="{clip}.mp4" type="video/mp4">
<track kind="captions" srclang="en" label="English" default src="data:text/vtt;base64,{vtt}">
</video>"""


class Chapter(Block):
    """The head of a chapter: `:minutes:`, `:needs:`, and as its body the list of what the reader
    will be able to do.
    """

    option_spec: ClassVar = {
        "minutes": directives.positive_int,
        "needs": directives.unchanged_required,
    }

    def run(self):
        if set(self.options) != {"minutes", "needs"} or not self.content:
            raise self.error(
                "{chapter} needs :minutes:, :needs: and a list of what the reader will be able"
                " to do"
            )
        facts = make(
            "dl",
            make("dt", nodes.Text("Time"), kind=raw_text),
            make("dd", nodes.Text(f"{self.options['minutes']} minutes"), kind=raw_text),
            make("dt", nodes.Text("Needs"), kind=raw_text),
            make("dd", *self.line(self.options["needs"]), kind=raw_text),
        )
        able = make("p", nodes.Text("You will be able to"), classes=["label"], kind=raw_text)
        return [make("div", facts, able, *self.body(), classes=["chapter-head"])]


class Exercise(Block):
    """An exercise with its ratings, 1 to 3: `{exercise} Title`, `:label:`, `:difficulty:`,
    `:value:`.
    """

    required_arguments = 1
    option_spec: ClassVar = {
        "label": directives.unchanged_required,
        "difficulty": directives.positive_int,
        "value": directives.positive_int,
    }

    def run(self):
        if set(self.options) != {"label", "difficulty", "value"} or not {
            self.options["difficulty"],
            self.options["value"],
        } <= {1, 2, 3}:
            raise self.error("{exercise} needs :label:, and :difficulty: and :value: from 1 to 3")
        numbers = self.env.temp_data.setdefault("exercises", {})
        numbers[self.options["label"]] = len(numbers) + 1
        label = make(
            "span",
            nodes.Text(f"Exercise {numbers[self.options['label']]}"),
            classes=["label"],
            kind=raw_text,
        )
        ratings = nodes.raw(
            "",
            f'<span class="ratings">{self.rating("difficulty")} {self.rating("value")}</span>',
            format="html",
        )
        title = make(
            "p",
            label,
            nodes.Text(" "),
            *self.line(self.arguments[0]),
            ratings,
            classes=["exercise-title"],
            kind=raw_text,
        )
        whole = make("div", title, *self.body(), classes=["exercise"])
        whole["names"].append(nodes.fully_normalize_name(self.options["label"]))
        self.state.document.note_explicit_target(whole, whole)
        return [whole]

    def rating(self, what: str) -> str:
        n = self.options[what]
        dots = "●" * n + "○" * (3 - n)
        return (
            f'<span class="rating"><span aria-hidden="true">{what} {dots}</span><span'
            f' class="sr">{what} {n} of 3</span></span>'
        )


class Solution(Block):
    """The folded solution of the exercise with this label, above on the same page."""

    required_arguments = 1

    def run(self):
        number = self.env.temp_data.get("exercises", {}).get(self.arguments[0])
        if number is None:
            raise self.error(f"{{solution}} {self.arguments[0]}: no exercise above has this label")
        return [
            fold(
                [nodes.Text(f"Solution to exercise {number}")],
                self.body(),
                classes=["fold", "solution"],
            )
        ]


class Quiz(Block):
    """A question, and a list of answers `[x]` or `[ ]`, each followed by a paragraph of feedback.

    Opening an answer shows whether it is right.
    """

    required_arguments = 1

    def run(self):
        children = self.body()
        options = (
            children[-1].children
            if children and isinstance(children[-1], nodes.bullet_list)
            else []
        )
        made = [self.option(item) for item in options]
        if (
            len(made) < 2
            or sum("right" in o["classes"] for o in made) != 1
            or not all(len(o) > 1 and len(o[1]) for o in made)
        ):
            raise self.error(
                "{quiz} needs a list of at least two answers, one [x] and the rest [ ], each"
                " followed by a paragraph of feedback"
            )
        question = make("p", *self.line(self.arguments[0]), classes=["question"], kind=raw_text)
        return [
            make(
                "div",
                question,
                *children[:-1],
                *made,
                classes=["quiz"],
                attrs=' role="group" aria-label="Quiz question"',
            )
        ]

    def option(self, item):
        first, *feedback = item.children
        mark = re.match(r"\[([ x])\]\s+", first.astext())
        if not mark:
            raise self.error(
                f"{{quiz}}: the answer {first.astext()!r} starts with neither [x] nor [ ]"
            )
        text = first.children[0]
        first.replace(text, nodes.Text(text.astext()[mark.end() :]))
        right = mark[1] == "x"
        verdict = make(
            "p",
            nodes.strong("", "Right. " if right else "Not so. "),
            *(feedback[0].children if feedback else []),
            kind=raw_text,
        )
        return fold(
            first.children,
            [verdict, *feedback[1:]] if feedback else [],
            classes=["answer", "right" if right else "wrong"],
        )


class Clip(Block):
    """A rendered clip with poster, captions and transcript, from book/_static/clips; the body is
    its caption.
    """

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        folder = Path(self.env.srcdir) / CLIPS
        video, captions, poster = (folder / f"{name}.{ending}" for ending in ("mp4", "vtt", "webp"))
        if not (video.exists() and captions.exists() and poster.exists()):
            raise self.error(
                f"the clip {name} is not rendered: run make book, which renders it into {CLIPS}"
            )
        for path in (video, captions, poster):
            self.env.note_dependency(str(path))
        width, height = imagesize.get(poster)
        tag = VIDEO.format(
            clip="../" * self.env.docname.count("/") + "_static/clips/" + name,
            width=width,
            height=height,
            label=escape(" ".join(self.content)),
            vtt=base64.b64encode(captions.read_bytes()).decode(),
        )
        transcript = fold(
            [nodes.Text("Transcript")],
            [make("p", nodes.Text(text), kind=raw_text) for text in cues(captions.read_text())],
        )
        return [
            make(
                "figure",
                nodes.raw("", tag, format="html"),
                make("figcaption", *self.body()),
                transcript,
                classes=["clip"],
            )
        ]


class cited(nodes.General, nodes.Element):
    """Stands for the list of what a page cites, until all pages are read."""


class Cited(SphinxDirective):
    """`{cited}`: the works this page cites, as the page of references has them."""

    def run(self):
        return [cited()]


def list_cited(app, doctree, docname):
    domain = app.env.get_domain("cite")
    keys = {
        target.key
        for ref in domain.citation_refs
        if ref.docname == docname
        for target in ref.targets
    }
    entries = [
        c.formatted_entry.text.render(domain.backend) for c in domain.citations if c.key in keys
    ]
    for node in list(doctree.findall(cited)):
        node.replace_self(
            nodes.bullet_list(
                "",
                *(nodes.list_item("", nodes.paragraph("", "", *entry)) for entry in entries),
                classes=["cited"],
            )
        )


def cues(vtt: str) -> list[str]:
    """The caption texts of a WebVTT file."""
    blocks = (b.splitlines() for b in vtt.strip().split("\n\n"))
    return [
        " ".join(lines[i + 1 :])
        for lines in blocks
        for i, line in enumerate(lines)
        if "-->" in line
    ]


def setup(app):
    app.connect("doctree-resolved", list_cited)
    for directive in (Chapter, Exercise, Solution, Quiz, Clip, Cited):
        app.add_directive(directive.__name__.lower(), directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
