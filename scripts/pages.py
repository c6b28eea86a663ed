"""Read the pages, run their cells and write the site, as `jupyter-book build` does, two pages at a
time.

    python scripts/pages.py                 all pages, into _build/html
    python scripts/pages.py --chapter 02    all pages, into _build/check/02/html: only the chapter's
                                            cells are run, and what other pages lack is passed over
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jupyter_book.sphinx import build_sphinx
from jupyter_cache import get_cache

from labkit import chapters
from root import ROOT

BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
# how many runs of pages are kept, so that going back to an earlier text runs nothing
KEPT = 100


def folder(chapter: str = "") -> Path:
    """Where a build lies, all of it or that of one chapter."""
    return BUILD / "check" / chapter if chapter else BUILD


def settings(chapter: str = "") -> dict:
    """What a build is told beside `_config.yml`."""
    told = {
        "external_toc_path": str(ROOT / "_toc.yml"),
        "latex_individualpages": False,
        "nb_execution_cache_path": str(CACHE),
    }
    if chapter:
        own = chapters.find(chapter).pages
        others = [page for page in (ROOT / "book").rglob("*.md") if page not in own]
        told["course_chapter"] = chapter
        told["nb_execution_excludepatterns"] = sorted(page.as_posix() for page in others)
    return told


def main(chapter: str = "") -> int:
    """Returns the exit status: 1 where there was a warning or an error, which is printed."""
    get_cache(str(CACHE)).change_cache_limit(KEPT)
    result = build_sphinx(
        ROOT,
        folder(chapter) / "html",
        noconfig=True,
        path_config=ROOT / "_config.yml",
        confoverrides=settings(chapter),
        warningiserror=True,
        keep_going=True,
        quiet=True,
        jobs=2,
    )
    return int(bool(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the book's cells and write its pages.")
    parser.add_argument("--chapter", default="", help="such as 02; without it, all")
    sys.exit(main(parser.parse_args().chapter))
