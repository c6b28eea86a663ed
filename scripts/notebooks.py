"""Generate `notebooks/NN_name.ipynb` from `book/chapters/NN_name.md`: the same code cells, plain
Markdown between them, no outputs.

    python scripts/notebooks.py            write them
    python scripts/notebooks.py --check    say which are stale, and exit 1
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

import jupytext

from lower import Book, Page

ROOT = Path(__file__).resolve().parent.parent

INSTALL = """\
# Installs labkit, this course's package, where it is missing (as in Colab). Elsewhere this cell does nothing.
import importlib.util

if importlib.util.find_spec("labkit") is None:
    %pip install -q "faster-leaner-inference @ git+{repository}@v{version}"
"""
ORIGIN = (
    "This notebook is made from [the chapter on the website]({url}), where its clip, widgets and"
    " receipts are."
)


def build(path: Path, book: Book) -> str:
    """The notebook of one chapter, as JSON. The same source gives the same bytes."""
    page = Page(book, path.relative_to(book.root).with_suffix("").as_posix())
    version = tomllib.loads((book.root / "pyproject.toml").read_text())["project"]["version"]
    cells = [
        code(INSTALL.format(repository=book.repository, version=version), {"tags": ["install"]})
    ]
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
            cells.append(
                {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}
            )
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i:03}"
    notebook = {
        "cells": [dict(sorted(c.items())) for c in cells],
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


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the notebooks from the chapters.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a notebook is stale"
    )
    check = parser.parse_args().check
    book = Book(ROOT)
    wanted = {
        ROOT / "notebooks" / f"{p.stem}.ipynb": build(p, book)
        for p in sorted((ROOT / "book/chapters").glob("[0-9][0-9]_*.md"))
    }
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    orphans = [p for p in (ROOT / "notebooks").glob("*.ipynb") if p not in wanted]
    for path in stale + orphans:
        print(
            f"{path.relative_to(ROOT)}"
            f" {'is stale' if check else 'written' if path in wanted else 'removed: no chapter has its name'}"
        )
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path]) if path in wanted else path.unlink()
    if check and (stale or orphans):
        print("run make book, and commit notebooks/")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
