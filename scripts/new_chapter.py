"""Start a chapter: write its files in their shape, none of them where one is already.

    python scripts/new_chapter.py 05 swa

Writes the page, the checks, a first lab, the scene, the tests' data and the notebook. What is left
to edit is `_toc.yml` (a page that stands there is an open chapter), `references.bib`,
`glossary.md`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from labkit import chapters, paths

PAGE = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

(ch-{slug})=
# {title}

```{{chapter}}
:read: 35
:do: 35
:needs: chapter 02

- say, in a sentence each, what the reader will be able to do.
```

Begin with a question whose answer is a number. A {{term}}`token` is linked once.

```{{code-cell}} ipython3
:tags: [hide-input]
from labkit import formulas, presets, widgets

widgets.bet("How many KiB of cache does a token of Llama-3-8B take, in bf16?",
            'kv_cache_bytes(presets["llama3-8b"], 1) / 1024 | .0f',
            unit="KiB", low=1, high=1000,
            explain="Two vectors a layer: 32 layers, 8 heads, 128 numbers.")
```

## The idea

A few plain sentences, one picture, one analogy from backend engineering.

```{{clip}} {name}_idea
What to watch for.
```

## The lab

```{{lab}} CH{number}-{lab}
```

## Exercises

```{{exercise}} Bytes of a token
:label: ex-{number}-1
:difficulty: 1
:value: 1
How many bytes of cache does one token of Llama-3-8B take in bf16?
```

```{{code-cell}} ipython3
from labkit.checks import check

token_bytes = ...
check("{number}.1", token_bytes)
```

`````{{solution}} ex-{number}-1
```python
token_bytes = formulas.kv_cache_bytes(presets["llama3-8b"], 1)
```
`````

## Quiz

```{{quiz}} A question with one right answer?
- [ ] A plausible mistake.

  Why it is one.
- [x] The answer.

  Why it holds.
```

## Takeaways

- One thing to remember.

## References

```{{cited}}
```
"""
FOLDER = '''\
"""Chapter {number}'s labs, in the order in which to run them."""

LABS = ("first",)
'''
CHECKS = '''\
"""Checks of chapter {number}: {title}.

Each returns what was right, or raises Wrong with what to look at.
"""

from labkit.checks import expect


def token_bytes(answer):
    """{number}.1: the cache of one token."""
    expect(isinstance(answer, int), f"give a whole number, not {{type(answer).__name__}}.")
    expect(answer != 65536, "this is the keys alone: values are kept too.")
    expect(answer == 131072, f"not {{answer}}: multiply layers, heads, sizes, bytes, and by two.")
    return "a key and a value, 32 layers, 8 heads of 128 numbers, 2 bytes each."


CHECKS = {{"{number}.1": token_bytes}}
'''
LAB = '''\
"""CH{number}-FIRST: say what it measures, and what it is compared with."""

from labkit import formulas, presets
from labkit.lab import Lab


def run(device, *, contexts):
    config = presets["llama3-8b"]
    return [
        {{"context": context, "bytes": formulas.kv_cache_bytes(config, context)}}
        for context in contexts
    ]


def go(rows):
    for r in rows:
        if r["bytes"] != r["context"] * 131072:
            return f"{{r['context']:,}} tokens took {{r['bytes']:,}} bytes: count the heads again"


LAB = Lab(
    title="A first lab",
    minutes=0,
    objective="Say what a learner finds out by running it.",
    asks="Has every token the same price?",
    notice="Say where to look: a number said here is made from the rows, by a function.",
    columns={{"context": "tokens", "bytes": "bytes|,"}},
    sizes={{"full": {{"contexts": (1, 100, 8000)}}, "quick": {{"contexts": (1, 100)}}}},
    run=run,
    go=go,
)
'''
SCENE = '''\
"""Chapter {number}'s clips."""

from manim import LEFT, FadeIn

from animations.stage.clock import CourseScene
from animations.stage.style import FRAME, NAVY, Label


class Idea(CourseScene):
    """Say what moves, and what it shows."""

    clip_name = "{name}_idea"
    title = "{title}: the idea"
    alt = (
        "Describe here what is to be seen, for those who can't see it: what lies where at the"
        " beginning, what moves, what it becomes, and which number closes the clip."
    )
    poster_at = "end"

    def construct(self):
        heading = Label("{title}", "title", NAVY, "bold").put([-FRAME, 3.4, 0], LEFT)
        self.say("Begin with what the viewer already knows, in one sentence.", "begin")
        self.move(FadeIn(heading))
        self.rest(4)
        self.say("Show the one thing that is new, and let it move slowly.", "new")
        self.rest(5)
        self.say("Count what it costs, with a number from the results.", "cost")
        self.rest(5)
        self.say("End with the sentence that should be remembered.", "end")
        self.rest(5)
        self.finish()


CLIPS = [Idea]
'''
DATA = '''\
"""What the tests of every chapter need to know about chapter {number}."""

from tests.cases import LabCase

LABS = {{
    "first": LabCase(steady=True, doctored=[({{"context": 1}}, {{"bytes": 7}}, "took 7 bytes")]),
}}
'''
WRONG = '''

def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    return [
        ("{number}.1", 65536, "keys alone"),
        ("{number}.1", "many", "whole number"),
    ]
'''


def shapes(chapter: chapters.Chapter) -> dict[Path, str]:
    """The files of a chapter and what stands in them at first.

    A planned chapter may have labs already: then those are its labs.
    """
    root, labs = paths.repository(), paths.labs() / chapter.folder
    name = chapter.stem[3:]
    facts = {
        "number": chapter.number,
        "title": chapter.title,
        "name": name,
        "slug": name.replace("_", "-"),
        "lab": chapter.lab_names[0].upper() if chapter.lab_names else "FIRST",
    }
    data = root / "tests/chapters" / f"{chapter.folder}.py"
    found = {
        chapter.page: PAGE,
        labs / "checks.py": CHECKS,
        root / "animations/scenes" / f"{chapter.folder}.py": SCENE,
        data: (data.read_text() if data.exists() else DATA.format(**facts))
        .replace("{", "{{")
        .replace("}", "}}")
        + WRONG,
    }
    if not chapter.lab_names:
        found |= {labs / "__init__.py": FOLDER, labs / "first.py": LAB}
    return {path: shape.format(**facts) for path, shape in found.items()}


def start(number: str, name: str) -> list[Path]:
    """Write the files of a chapter. ValueError for one that there is not, or that is begun."""
    chapter = chapters.find(number)
    if chapter.stem != f"{number}_{name}":
        raise ValueError(f"chapter {number} is called {chapter.stem[3:]!r}, not {name!r}")
    begun = [path for path in (chapter.page, chapter.checks, chapter.scenes) if path.exists()]
    if begun:
        raise ValueError(f"chapter {chapter.stem} is begun: {begun[0].name} is there")
    made = shapes(chapter)
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(made)


def main() -> int:
    parser = argparse.ArgumentParser(description="Start a chapter: write its files in their shape.")
    parser.add_argument("number", help="such as 05")
    parser.add_argument("name", help="such as swa")
    options = parser.parse_args()
    try:
        made = start(options.number, options.name)
    except (OSError, ValueError) as e:
        print(f"new chapter: {e}", file=sys.stderr)
        return 2
    subprocess.run([sys.executable, "scripts/notebooks.py"], cwd=paths.repository(), check=True)
    for path in made:
        print(f"new chapter: {path.relative_to(paths.repository())}")
    page = f"book/chapters/{options.number}_{options.name}"
    print(f"now add `- file: {page}` to _toc.yml, then: make check CHAPTER={options.number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
