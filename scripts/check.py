"""Check the whole course (`make test`), or one chapter (`make check CHAPTER=02`).

python scripts/check.py                 committed notebooks and README are current, the book
                                        builds, lint, every test on two processes
python scripts/check.py --chapter 02    one chapter's clips, notebook and page, its exercises and
                                        labs, and how many words its page has
python scripts/check.py --colab         every notebook (with --chapter, one chapter's) under Colab's
                                        Python 3.13 and torch, all from PyPI: gigabytes
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from root import ROOT

# a file of its own among wider ones: the folders that pages show have a ruff.toml
PAGE_WIDTH = ["--line-length", "78", "labs/labkit/decode.py"]
EVERYTHING = {
    # before the book is built, which would write them anew
    "the committed notebooks": ["scripts/notebooks.py", "--check"],
    "the README's numbers": ["scripts/readme.py", "--check"],
    "the book": ["scripts/book.py"],
    "lint": ["-m", "ruff", "check", "--quiet", "."],
    "the layout of code": ["-m", "ruff", "format", "--check", "--quiet", "."],
    "the layout of what pages show": ["-m", "ruff", "format", "--check", "--quiet", *PAGE_WIDTH],
    "the tests": ["-m", "pytest", "-n", "2"],
}
# without these the tests of the site would only say it again
SITE = ("the book", "its page")
# these say what is of use only when they fail
QUIET = ("its page",)


def failures(steps: dict[str, list[str]], **environment: str) -> list[str]:
    """Run each step; the names of those that failed."""
    failed = []
    for what, command in steps.items():
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=what in QUIET,
            text=True,
        )
        if done.returncode:
            print(done.stdout or "", done.stderr or "", sep="", end="", file=sys.stderr)
            failed.append(what)
            if what in SITE:
                break
    return failed


def everything() -> int:
    failed = failures(EVERYTHING)
    print(f"make test: {', '.join(failed)} failed" if failed else "make test: all passed")
    return bool(failed)


def one(number: str) -> int:
    """Check one chapter. Returns the exit status: 2 for a chapter that there is not."""
    from labkit import chapters

    if not number:
        print("make check: say which chapter, such as make check CHAPTER=02", file=sys.stderr)
        return 2
    try:
        chapter = chapters.find(number)
    except ValueError as e:
        print(f"make check: {e}", file=sys.stderr)
        return 2
    named = ["--chapter", number]
    site = {
        "its clips": ["scripts/render.py", *named],
        "its notebook": ["scripts/notebooks.py", *named],
        "its page": ["scripts/pages.py", *named],
    }
    if not chapter.is_open:
        print(f"make check: chapter {number} is not open; only its labs are checked", flush=True)
        site = {}
    # in Colab's environment its notebook runs in make test; here its page has run the same cells
    which = ["tests/every", "tests/chapters", "tests/site/test_site.py", "-m", "not slow"]
    tests = {
        "its tests": ["-m", "pytest", "-n", "2", *which, *named],
    }
    html = ROOT / "_build/check" / number / "html"
    failed = failures(site | tests, COURSE_HTML=str(html))
    lengths(chapter.pages)
    said = f"{', '.join(failed)} failed" if failed else "all passed"
    print(f"make check: chapter {number}: {said}")
    return bool(failed)


def colab(number: str) -> int:
    """Run the notebooks as Colab would. Returns the exit status."""
    from labkit import chapters

    found = [chapters.find(number)] if number else chapters.every()
    notebooks = [f"notebooks/{page.stem}.ipynb" for chapter in found for page in chapter.pages]
    failed = failures({n: ["scripts/colab_check.py", "--whole", n] for n in notebooks})
    said = f"{', '.join(failed)} failed" if failed else "all passed"
    print(f"make check COLAB=1: {said}")
    return bool(failed)


def lengths(pages: list) -> None:
    """Print each page's words beside the budget."""
    from course.lower import Book
    from course.words import budget, core_words

    for page in pages:
        print(budget(page.stem, core_words(page.read_text(), Book(ROOT))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check the course, or one chapter of it.")
    parser.add_argument("--chapter", help="such as 02; without it, everything")
    parser.add_argument("--colab", action="store_true", help="the notebooks under Colab's versions")
    options = parser.parse_args()
    if options.colab:
        sys.exit(colab(options.chapter))
    sys.exit(everything() if options.chapter is None else one(options.chapter))
