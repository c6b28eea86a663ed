"""`{exercise} Title` and its folded `{solution} label`.

An exercise has a `:label:` and two ratings from 1 to 3, `:difficulty:` and `:value:`. It is
numbered as its label ends (`ex-02-3` is exercise 3 of its chapter), else by its place on the page;
its solution stands below it.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

from course.block import Block, fold, folded, html, make


class Exercise(Block):
    names = ("exercise",)
    required_arguments = 1
    option_spec: ClassVar = {
        "label": directives.unchanged_required,
        "difficulty": directives.positive_int,
        "value": directives.positive_int,
    }

    def to_nodes(self):
        ratings = {self.options.get("difficulty"), self.options.get("value")}
        if "label" not in self.options or not ratings <= {1, 2, 3}:
            raise ValueError("{exercise} needs :label:, and :difficulty: and :value: from 1 to 3")
        numbers = self.env.temp_data.setdefault("exercises", {})
        number = numbers[self.options["label"]] = numbered(self.options["label"], numbers)
        title = make(
            "p",
            make("span", nodes.Text(f"Exercise {number}"), classes=["label"]),
            nodes.Text(" "),
            *self.line(self.arguments[0]),
            html(
                f'<span class="ratings">{self.rating("difficulty")} {self.rating("value")}</span>'
            ),
            classes=["exercise-title"],
        )
        whole = make("div", title, *self.body(), classes=["exercise"])
        whole["names"].append(nodes.fully_normalize_name(self.options["label"]))
        self.state.document.note_explicit_target(whole, whole)
        return [whole]

    def rating(self, what: str) -> str:
        n = self.options[what]
        dots = "●" * n + "○" * (3 - n)
        return (
            f'<span class="rating"><span aria-hidden="true">{what} {dots}</span>'
            f'<span class="sr">{what} {n} of 3</span></span>'
        )

    @classmethod
    def to_markdown(cls, page, written):
        options = written.options
        label = options["label"]
        number = page.exercises[label] = numbered(label, page.exercises)
        rating = f"difficulty {options['difficulty']} of 3, value {options['value']} of 3"
        title = page.lower(written.argument)
        return f"**Exercise {number}. {title}** ({rating})\n\n{page.lower(written.content)}"


class Solution(Block):
    names = ("solution",)
    required_arguments = 1

    def to_nodes(self):
        title = heading(self.env.temp_data.get("exercises", {}), self.arguments[0])
        return [fold([nodes.Text(title)], self.body(), classes=["fold", "solution"])]

    @classmethod
    def to_markdown(cls, page, written):
        title = heading(page.exercises, written.argument)
        return folded(title, page.lower(written.content))


def numbered(label: str, before: dict[str, int]) -> int:
    """Its number in its chapter, which the check of its cell prints too."""
    last = label.rpartition("-")[2]
    return int(last) if last.isdecimal() else len(before) + 1


def heading(exercises: dict[str, int], label: str) -> str:
    if label not in exercises:
        raise ValueError(f"{{solution}} {label}: no exercise above has this label")
    return f"Solution to exercise {exercises[label]}"
