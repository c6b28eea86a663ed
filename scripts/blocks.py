"""How each directive of the course's own reads in plain Markdown.

`page` is the `lower.Page`, whose `lower` does what is inside.
"""

from __future__ import annotations

import re
from pathlib import Path

from labkit import formulas


def quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def chapter(page, argument, options, content):
    return quoted(
        f"**{options['minutes']} minutes.** Needs: {page.lower(options['needs'])}\n\nYou will be"
        f" able to\n\n{page.lower(content)}"
    )


def exercise(page, argument, options, content):
    page.exercises[options["label"]] = len(page.exercises) + 1
    rating = f"difficulty {options['difficulty']} of 3, value {options['value']} of 3"
    return (
        f"**Exercise {page.exercises[options['label']]}. {page.lower(argument)}**"
        f" ({rating})\n\n{page.lower(content)}"
    )


def solution(page, argument, options, content):
    if argument not in page.exercises:
        raise ValueError(
            f"{page.docname}: {{solution}} {argument}: no exercise above has this label"
        )
    return folded(f"Solution to exercise {page.exercises[argument]}", page.lower(content))


def dropdown(page, argument, options, content):
    return folded(page.lower(argument), page.lower(content))


def quiz(page, argument, options, content):
    """Each answer folds over its feedback."""
    lead, *answers = re.split(r"^[-*] \[(?=[ x]\])", content, flags=re.M)
    made = [f"**Quiz.** {page.lower(argument)}", page.lower(lead)]
    for answer in answers:
        text, _, feedback = answer[3:].partition("\n\n")
        verdict = "Right." if answer.startswith("x") else "Not so."
        unindented = "\n".join(
            line.strip() if line[:2] == "  " else line for line in feedback.splitlines()
        )
        made.append(
            folded(page.lower(" ".join(text.split())), f"**{verdict}** {page.lower(unindented)}")
        )
    return "\n\n".join(part for part in made if part)


def clip(page, argument, options, content):
    """The poster links to the film on the website; the transcript is there and, when it is
    rendered, here.
    """
    base = f"{page.book.site}_static/clips/{argument}"
    return f"[![Watch the clip]({base}.webp)]({base}.mp4)\n\n*{page.lower(content)}*"


def formula(page, argument, options, content):
    return f"$$\n{formulas.latex(argument)}\n$$"


def math(page, argument, options, content):
    return f"$$\n{content.strip()}\n$$"


def figure(page, argument, options, content):
    url = (
        argument
        if re.match(r"[a-z]+:", argument)
        else f"{page.book.site}_images/{Path(argument).name}"
    )
    caption = page.lower(content)
    return f"![{options.get('alt', '')}]({url})" + (f"\n\n*{caption}*" if caption else "")


def titled(page, argument, options, content):
    return f"**{page.lower(argument)}**\n\n{page.lower(content)}"


def card(page, argument, options, content):
    return titled(
        page,
        f"[{argument}]({options['link']})" if "link" in options else argument,
        options,
        content,
    )


def code(page, argument, options, content):
    return f"```{argument or 'text'}\n{content}\n```"


def code_cell(page, argument, options, content):
    return f"```python\n{content}\n```"


def bibliography(page, argument, options, content):
    return works(page, page.book.bibliography)


def cited(page, argument, options, content):
    return works(page, page.cited)


def works(page, keys) -> str:
    title = lambda key: re.sub("[{}]", "", page.book.bibliography[key].fields.get("title", ""))
    return "\n".join(f"- {page.book.cite(key)}. {title(key)}." for key in sorted(keys))


BLOCKS = {
    "chapter": chapter,
    "exercise": exercise,
    "solution": solution,
    "dropdown": dropdown,
    "quiz": quiz,
    "clip": clip,
    "formula": formula,
    "math": math,
    "figure": figure,
    "image": figure,
    "tab-item": titled,
    "card": card,
    "code-block": code,
    "code": code,
    "code-cell": code_cell,
    "bibliography": bibliography,
    "cited": cited,
}
