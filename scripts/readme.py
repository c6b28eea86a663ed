"""Write the two tables of README.md: five rungs of the ladder, and what each chapter has.

python scripts/readme.py            write them
python scripts/readme.py --check    exit 1 when they are stale
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from labkit import chapters, checks, paths, results

README = paths.repository() / "README.md"
RUNGS = ("naive", "KV cache", "continuous, 16 slots", "prefix reuse", "prompt lookup")


def ladder() -> str:
    """Five rungs on one machine, each of which leaves every token as it is."""
    document = results.load("ch14/ladder")
    rows = {r["rung"]: r for r in document["rows"] if r["ladder"] == "throughput"}
    title = f"SmolLM2-135M, 48 requests, {results.where(document)}"
    cells = (
        (name, f"{rows[name]['tokens_per_second']:,.1f}", f"{rows[name]['multiple']:,.1f}")
        for name in RUNGS
    )
    return table((title, "tokens/s", "times naive"), cells, "::")


def parts() -> str:
    """What each chapter has."""
    return table(
        ("", "chapter", "page", "notebook", "clips", "exercises", "labs"),
        (state(chapter) for chapter in chapters.every()),
        "---:::",
    )


def state(chapter: chapters.Chapter) -> tuple:
    notebook = paths.repository() / "notebooks" / f"{chapter.stem}.ipynb"
    return (
        chapter.number,
        chapter.title,
        "✓" if chapter.is_open else "",
        "✓" if notebook.exists() else "",
        len(chapter.clips) or "",
        len(checks.of_chapter(chapter.number)) or "",
        len(chapter.lab_names) or "",
    )


def table(head: tuple, rows: Iterable[tuple], align: str) -> str:
    """Markdown. align: `-` for text, `:` for numbers, a character for each column but the first."""
    rules = ["---", *("---:" if side == ":" else "---" for side in align)]
    lines = [head, rules[: len(head)], *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines) + "\n"


def main() -> int:
    old = new = README.read_text()
    for name, make in {"ladder": ladder, "chapters": parts}.items():
        begin, end = f"<!-- {name}: made by scripts/readme.py -->\n", f"<!-- end of {name} -->"
        before, rest = new.split(begin)
        new = before + begin + make() + rest[rest.index(end) :]
    if "--check" in sys.argv[1:] and new != old:
        print("README.md has other tables than the repository gives: run make book, and commit it")
        return 1
    if new != old:
        README.write_text(new)
        print("README.md: its tables are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
