"""`{quiz} Question`: a list of answers `[x]` or `[ ]`, each followed by a paragraph of feedback.

Opening an answer shows whether it is right.
"""

from __future__ import annotations

import re

from docutils import nodes

from course.block import Block, fold, folded, make


class Quiz(Block):
    names = ("quiz",)
    required_arguments = 1

    def to_nodes(self):
        *lead, listed = self.body() or [None]
        answers = listed.children if isinstance(listed, nodes.bullet_list) else []
        made = [answer(item) for item in answers]
        right = sum("right" in a["classes"] for a in made)
        fed_back = all(len(a.children) > 1 and a.children[1].children for a in made)
        if len(made) < 2 or right != 1 or not fed_back:
            raise ValueError(
                "{quiz} needs a list of at least two answers, one [x] and the rest [ ], each"
                " followed by a paragraph of feedback"
            )
        question = make("p", *self.line(self.arguments[0]), classes=["question"])
        group = ' role="group" aria-label="Quiz question"'
        return [make("div", question, *lead, *made, classes=["quiz"], attrs=group)]

    @classmethod
    def to_markdown(cls, page, written):
        """Each answer folds over its feedback."""
        lead, *answers = re.split(r"^[-*] \[(?=[ x]\])", written.content, flags=re.M)
        made = [f"**Quiz.** {page.lower(written.argument)}", page.lower(lead)]
        for each in answers:
            text, _, feedback = each[3:].partition("\n\n")
            summary = page.lower(" ".join(text.split()))
            # inside the list its feedback is indented
            flush = re.sub(r"^  +| +$", "", feedback, flags=re.M)
            made.append(folded(summary, f"**{verdict(each[0])}** {page.lower(flush)}"))
        return "\n\n".join(part for part in made if part)


def verdict(mark: str) -> str:
    return "Right." if mark == "x" else "Not so."


def answer(item: nodes.list_item) -> nodes.Element:
    """One answer of the list, folded over its feedback."""
    first, *feedback = item.children
    mark = re.match(r"\[([ x])\]\s+", first.astext())
    if not mark:
        raise ValueError(f"{{quiz}}: the answer {first.astext()!r} starts with neither [x] nor [ ]")
    text = first.children[0]
    first.replace(text, nodes.Text(text.astext()[mark.end() :]))
    body = []
    if feedback:
        said = nodes.strong("", f"{verdict(mark[1])} ")
        body = [make("p", said, *feedback[0].children), *feedback[1:]]
    return fold(first.children, body, classes=["answer", "right" if mark[1] == "x" else "wrong"])
