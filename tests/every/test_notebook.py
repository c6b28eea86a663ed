"""Each chapter's notebook says what its page says, in Markdown that Colab reads, and it runs
there.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import nbformat
import pytest
import yaml

import notebooks
from course.lower import Book
from labkit import chapters
from tests.conftest import ROOT

PAGES = [page for chapter in chapters.every() for page in chapter.pages]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
MYST = re.compile(r"^\s*:::|^\s*`{3,}\{|\{[a-z][\w:-]*\}`|^\(\S+\)=$|^\+\+\+", re.M)


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


def committed(path):
    return json.loads((ROOT / "notebooks" / f"{path.stem}.ipynb").read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_no_notebook_is_stale_and_the_same_source_gives_the_same_bytes(book, path):
    made = notebooks.build(path, book)
    assert made == notebooks.build(path, Book(ROOT))
    assert (ROOT / "notebooks" / f"{path.stem}.ipynb").read_text() == made, (
        "run make book and commit notebooks/"
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_notebook_is_valid_plain_markdown_without_outputs(path):
    notebook = committed(path)
    nbformat.validate(nbformat.from_dict(notebook))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert not MYST.search(source), MYST.search(source)[0]
        else:
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_no_fold_of_a_notebook_holds_maths(path):
    """Editors show it as its TeX (vscode#185619)."""
    for cell in committed(path)["cells"]:
        if cell["cell_type"] == "markdown":
            for fold in re.findall(r"<details>.*?</details>", "".join(cell["source"]), re.S):
                prose = re.sub(r"```.*?```|`[^`]*`", "", fold, flags=re.S)
                assert not re.search(r"\$[^$\n]+\$|\$\$", prose), fold[:80]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_notebook_has_the_chapters_code_cells(path):
    code = ["".join(c["source"]) for c in committed(path)["cells"] if c["cell_type"] == "code"]
    text = path.read_text()
    blocks = re.findall(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", text, re.M | re.S)
    assert code[1:] == [
        body.strip("\n") for options, body in blocks if "site" not in re.findall(r"\w+", options)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_the_first_cell_installs_labkit_only_where_it_is_missing(path):
    first = "".join(committed(path)["cells"][0]["source"])
    assert (
        f"git+{CONFIG['repository']['url']}@v" in first and 'find_spec("labkit") is None' in first
    )
    commands = []
    exec(first.replace("    %pip", "    commands.append('pip') #"), {"commands": commands})
    assert commands == []  # labkit is here


@pytest.mark.smollm2
@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_notebook_runs_top_to_bottom_in_colabs_versions(path):
    """Under this Python and its torch; `make check COLAB=1` takes Colab's."""
    notebook = f"notebooks/{path.stem}.ipynb"
    done = subprocess.run(
        [sys.executable, "scripts/colab_check.py", notebook],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    here = ".".join(map(str, sys.version_info[:3]))
    assert f"under Python {here}, torch {version('torch')}, numpy 2.1.3" in done.stdout
    assert int(re.search(r"(\d+) widget models", done.stdout)[1]) > 0
