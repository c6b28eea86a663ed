"""What lowering makes of MyST: Markdown that Colab, GitHub and a language model read."""

import re

import pytest
import yaml

from course.lower import Book, Page
from labkit import chapters
from tests.conftest import ROOT

PAGES = [page for chapter in chapters.every() for page in chapter.pages]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
SITE = CONFIG["html"]["baseurl"]


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


@pytest.fixture
def lower(book):
    return Page(book, "book/chapters/02_kv_cache").lower


def test_there_is_a_notebook_for_each_chapter_and_no_other():
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == {p.stem for p in PAGES}


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ('one {n}`kv_cache_bytes(presets["llama3-70b"], 1)` two', "one 327,680 two"),
        ("| a |\n|---|\n| {n}`1000 \\| ,` |", "| a |\n|---|\n| 1,000 |"),
        ("a {term}`KV cache` and {term}`caches <KV cache>`", "a KV cache and caches"),
        (
            "{math}`x^2`, {sub}`i`, `` {n}`left alone` ``",
            "$x^2$, <sub>i</sub>, `` {n}`left alone` ``",
        ),
        ("$$\na = b\n$$ (eq-a)", "$$\na = b\n$$"),
        ("(label)=\n## Title\n\n% a comment\n\ntext", "## Title\n\ntext"),
        ("```{note}\nBe *careful*.\n```", "> **Note**\n>\n> Be *careful*."),
        (":::{tip} Beginner's corner\nText\n:::", "> **Beginner's corner**\n>\n> Text"),
        (
            "```{dropdown} Why?\nBecause.\n```",
            "<details><summary>Why?</summary>\n\nBecause.\n\n</details>",
        ),
        (
            "```{admonition} Why?\n:class: note dropdown\nBecause.\n```",
            "<details><summary>Why?</summary>\n\nBecause.\n\n</details>",
        ),
        ("````{tab-set}\n```{tab-item} vLLM\nA\n```\n````", "**vLLM**\n\nA"),
        ("- item\n\n  ```{note}\n  inside\n  ```", "- item\n\n  > **Note**\n  >\n  > inside"),
        ("```python\n{n}`1`  # code stays\n```", "```python\n{n}`1`  # code stays\n```"),
        ("```{math}\nx\n```", "$$\nx\n$$"),
        (
            "```{formula} kv_bytes_per_token\n:left: bytes per token\n```",
            "$$\n\\text{bytes per token} = 2 L G E b\n$$",
        ),
        ("```{formula} kv_bytes_per_token\n```", "$$\n2 L G E b\n$$"),
        (
            "```{chapter}\n:read: 35\n:do: 40\n:needs: Python\n\n- say it\n```",
            "> **Read 35, do 40 minutes.** Needs: Python\n>\n> You will be able to\n>\n> - say it",
        ),
        (
            "```{exercise} Count\n:label: ex-02-7\n:difficulty: 1\n:value: 2\nDo it.\n```",
            "**Exercise 7. Count** (difficulty 1 of 3, value 2 of 3)\n\nDo it.",
        ),
        ("see [how](../how-to-use.md#receipts)", f"see [how]({SITE}book/how-to-use.html#receipts)"),
        ("see [out](https://arxiv.org/abs/1)", "see [out](https://arxiv.org/abs/1)"),
        ("{doc}`../glossary`", f"[Glossary]({SITE}book/glossary.html)"),
        (
            "{ref}`ch-kv-cache`, {ref}`here <ch-kv-cache>`",
            (
                f"[The KV cache]({SITE}book/chapters/02_kv_cache.html#ch-kv-cache), "
                f"[here]({SITE}book/chapters/02_kv_cache.html#ch-kv-cache)"
            ),
        ),
    ],
)
def test_myst_becomes_markdown(lower, myst, markdown):
    assert lower(myst) == markdown


def test_a_quiz_folds_each_answer(lower):
    text = lower(
        "```{quiz} Which *one*?\n- [ ] this\n\n  Because no.\n- [x] that\n\n  Because yes.\n```"
    )
    assert text.startswith("**Quiz.** Which *one*?") and text.count("<details>") == 2
    assert (
        "<summary>this</summary>\n\n**Not so.** Because no." in text
        and "<summary>that</summary>\n\n**Right.** Because yes." in text
    )


def test_an_exercise_is_numbered_and_its_solution_folds(lower):
    text = lower(
        "```{exercise} Count\n:label: e1\n:difficulty: 2\n:value: 3\nDo it.\n```\n\n````{solution}"
        " e1\n```python\nx = 1\n```\n````"
    )
    assert "**Exercise 1. Count** (difficulty 2 of 3, value 3 of 3)\n\nDo it." in text
    assert (
        "<details><summary>Solution to exercise 1</summary>\n\n```python\nx = 1\n```\n\n</details>"
        in text
    )


def test_a_citation_links_to_the_paper(book, lower):
    key = next(iter(book.bibliography))
    assert re.fullmatch(r"\(\[[^\]]+ \d{4}\]\(https://\S+\)\)", lower(f"{{cite}}`{key}`"))
    assert lower(f"{{cite}}`{key}`\n\n```{{cited}}\n```").splitlines()[-1].startswith("- [")


def test_a_clip_links_to_the_film_on_the_website(lower):
    film = f"{SITE}_static/clips/name"
    assert (
        lower("```{clip} name\nWhat it shows.\n```")
        == f"[![Watch the clip]({film}.webp)]({film}.mp4)\n\n*What it shows.*"
    )


@pytest.mark.parametrize(
    ("myst", "message"),
    [
        ("{unheard}`x`", "role {unheard} cannot be lowered"),
        ("```{unheard}\n```", "directive {unheard} cannot be lowered"),
        ("{cite}`nobody1900`", "references.bib has no 'nobody1900'"),
        ("```{solution} nothing\n```", "no exercise above has this label"),
        ("{n}`open('x')`", "cannot be made"),
    ],
)
def test_what_cannot_be_lowered_says_so(lower, myst, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        lower(myst)
