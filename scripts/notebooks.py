"""Generate `notebooks/NN_name.ipynb` from `book/chapters/NN_name.md`: the same code cells, plain
Markdown between them, no outputs.

    python scripts/notebooks.py                 write them
    python scripts/notebooks.py --check         say which are stale, and exit 1
    python scripts/notebooks.py --chapter 02    one chapter's
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

import jupytext

from root import ROOT

# isort: split
from course.lower import Book, Page  # which `root` puts on the path
from labkit import chapters

INSTALL = """\
# Installs labkit, this course's package, where it is missing (as in Colab).
# Elsewhere this cell does nothing.
import importlib.util

if importlib.util.find_spec("labkit") is None:
    %pip install -q "faster-leaner-inference @ git+{repository}@v{version}"
"""
ORIGIN = (
    "This notebook is made from [the chapter on the website]({url}), where its clip, widgets and"
    " receipts are."
)


def build(path: Path, book: Book) -> str:
    """The notebook of one page, as JSON. The same source gives the same bytes."""
    page = Page(book, book.docname(path))
    version = tomllib.loads((book.root / "pyproject.toml").read_text())["project"]["version"]
    install = INSTALL.format(repository=book.repository, version=version)
    cells = [code(install, {"tags": ["install"]})]
    for cell in jupytext.reads(path.read_text(), fmt="md:myst").cells:
        tags = cell.metadata.get("tags", [])
        if "site" in tags:
            continue
        if cell.cell_type == "code":
            cells.append(code(cell.source, {"tags": tags} if tags else {}))
        elif text := page.lower(cell.source):
            if len(cells) == 1:
                title, _, rest = text.partition("\n")
                text = f"{title}\n\n{ORIGIN.format(url=book.url(page.docname))}\n{rest}"
            cells.append(prose(text))
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i:03}"
    notebook = {
        "cells": [dict(sorted(cell.items())) for cell in cells],
        "metadata": {
            "colab": {"provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def code(source: str, metadata: dict) -> dict:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": source.strip("\n").splitlines(keepends=True),
    }


def prose(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def notebook_of(page: Path) -> Path:
    return ROOT / "notebooks" / f"{page.stem}.ipynb"


def main(check: bool = False, chapter: str = "") -> int:
    """Write what is stale, or only say so. Returns the exit status."""
    book = Book(ROOT)
    those = [chapters.find(chapter)] if chapter else chapters.every()
    wanted = {notebook_of(page): build(page, book) for one in those for page in one.pages}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    orphans = [] if chapter else sorted({*(ROOT / "notebooks").glob("*.ipynb")} - set(wanted))
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if check else 'written'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path])
    for path in orphans:
        print(f"{path.relative_to(ROOT)} {'has no chapter' if check else 'removed: no chapter'}")
        if not check:
            path.unlink()
    if check and (stale or orphans):
        print("run make book, and commit notebooks/")
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generate the notebooks from the chapters.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a notebook is stale"
    )
    parser.add_argument("--chapter", default="", help="such as 02; without it, all")
    options = parser.parse_args()
    sys.exit(main(options.check, options.chapter))
