"""Pages are keyed by what they are made from: what a change makes stale, and what it does not."""

import json
import shutil
from types import SimpleNamespace

import pytest
from jupyter_cache import get_cache

from course import keys
from labkit import machines, modules, paths, results
from tests import sphinxes
from tests.conftest import ROOT

HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

# Title

"""


def cell(source: str) -> str:
    return f"```{{code-cell}} ipython3\n:tags: [hide-input]\n{source}\n```\n"


@pytest.fixture
def house(monkeypatch, tmp_path):
    """A copy of the labs and the book's extension, to be changed, and pages made from it."""
    kept_out = shutil.ignore_patterns("__pycache__", "vendor", "clips")
    shutil.copytree(ROOT / "labs", tmp_path / "labs", ignore=kept_out)
    shutil.copytree(ROOT / "book/_ext", tmp_path / "book/_ext", ignore=kept_out)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    found = {
        "labkit": tmp_path / "labs/labkit",
        "labkit_labs": tmp_path / "labs",
        "course": tmp_path / "book/_ext/course",
    }
    monkeypatch.setattr(modules, "packages", lambda: found)
    monkeypatch.setattr(paths, "labs", lambda: tmp_path / "labs")
    blocks = tmp_path / "book/_ext/course/blocks"
    in_copy = lambda made: blocks / f"{made.__module__.split('.')[-1]}.py"
    monkeypatch.setattr(keys, "file_of", in_copy)
    folder = tmp_path / "book/chapters"
    folder.mkdir(parents=True)

    def key(text: str, name: str = "02_kv_cache") -> keys.Key:
        (folder / f"{name}.md").write_text(HEAD + text)
        return keys.key_of(folder / f"{name}.md")

    return SimpleNamespace(root=tmp_path, key=key)


def change(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, (path.name, old)
    path.write_text(text.replace(old, new, 1))


FLASH = cell("from labkit_labs.ch02_kv_cache.flash import plot")


def test_a_comment_and_a_docstring_in_a_lab_change_no_page(house):
    before = [house.key(FLASH), house.key("", "03_gqa"), house.key("```{labs}\n```", "04_mla")]
    lab = house.root / "labs/ch02_kv_cache/flash.py"
    lab.write_text("# a comment\n\n\n" + lab.read_text())
    change(lab, '"""', '"""Another docstring. ')
    assert [
        house.key(FLASH),
        house.key("", "03_gqa"),
        house.key("```{labs}\n```", "04_mla"),
    ] == before


def test_what_a_lab_does_runs_its_page_and_no_other_chapters(house):
    before, other = house.key(FLASH), house.key("", "03_gqa")
    change(house.root / "labs/ch02_kv_cache/flash.py", "def plot(rows):", "def plot(rows, x=1):")
    assert house.key(FLASH).cells != before.cells
    assert house.key("", "03_gqa") == other


def test_a_module_counts_through_others(house):
    """The lab's plot imports labkit.plotting inside its function, which imports labkit.palette."""
    before = house.key(FLASH)
    change(house.root / "labs/labkit/palette.py", "#FAFAFA", "#FBFBFB")
    assert house.key(FLASH).cells != before.cells


def test_a_name_reached_through_labkit_counts(house):
    text = cell("import labkit\n\nlabkit.sampling.pick")
    before = house.key(text)
    change(house.root / "labs/labkit/sampling.py", "def pick(", "def pick(_=0, *,")
    assert house.key(text).cells != before.cells
    assert house.key(cell("import labkit")) == house.key(cell("import labkit"))


def test_a_listing_is_stale_when_a_comment_in_it_changes(house):
    shown = cell("import labkit\n\nlabkit.show(labkit.sampling.pick)")
    used = cell("import labkit\n\nlabkit.sampling.pick")
    shown_before, used_before = house.key(shown), house.key(used)
    source = house.root / "labs/labkit/sampling.py"
    source.write_text(source.read_text() + "\n# a comment\n")
    assert house.key(shown).cells != shown_before.cells
    assert house.key(used) == used_before


def test_a_listing_of_a_package_counts_each_of_its_files(house):
    shown = cell("from labkit import reference\n\nlabkit.compare(reference.naive_loop, x)")
    before = house.key(shown)
    source = house.root / "labs/labkit/reference/decoding.py"
    source.write_text("# a comment\n" + source.read_text())
    assert house.key(shown).cells != before.cells


def edit_result(house, name: str) -> None:
    path = next((house.root / "labs/results").glob(f"{name}.*.json"))
    doc = json.loads(path.read_text())
    path.write_text(json.dumps(doc | {"date": "2000-01-01"}))


def test_a_result_changes_the_pages_that_quote_it(house):
    """A page's own chapter's, and any that it names by this or an older name."""
    other = '{n}`row("ch05/ring", kind="ring")["median"]`'
    older = '{n}`row("ch05-ring", kind="ring")["median"]`'
    before = {text: house.key(text) for text in ("", other, older)}
    edit_result(house, "ch05/ring")
    assert house.key("") == before[""]
    assert house.key(other) != before[other] and house.key(older) != before[older]
    edit_result(house, "ch02/flash")
    assert house.key("") != before[""]


def test_whose_numbers_are_quoted_changes_what_quotes_them(house):
    before, plain = house.key(""), house.key("", "13_scale")
    said = house.root / "labs/results" / machines.FILE
    said.write_text(said.read_text() + "\n")
    assert house.key("") != before and house.key("", "13_scale") == plain


def test_code_that_a_quoted_result_timed_changes_its_receipt(house, monkeypatch):
    before = house.key("")
    monkeypatch.setattr(results, "code_state", lambda doc: results.CHANGED)
    assert house.key("") != before


def test_a_block_that_is_drawn_otherwise_reads_its_pages_again_and_runs_none(house):
    quiz = "```{quiz} Why?\n- [x] so\n\n  Yes.\n```\n" + FLASH
    before, other = house.key(quiz), house.key(FLASH)
    change(house.root / "book/_ext/course/blocks/quiz.py", '"Not so."', '"No."')
    after = house.key(quiz)
    assert after.page != before.page and after.cells == before.cells
    assert house.key(FLASH) == other


def test_a_labs_card_is_read_again_when_its_lab_or_its_result_changes(house):
    card, all_of_them = "```{lab} CH05-RING\n```", "```{labs}\n```"
    before = house.key(card), house.key(all_of_them)
    change(house.root / "labs/ch05_swa/ring.py", 'title="', 'title="Another ')
    lab_changed = house.key(card), house.key(all_of_them)
    assert before[0] != lab_changed[0] and before[1] != lab_changed[1]
    edit_result(house, "ch05/ring")
    assert lab_changed[0] != house.key(card) and lab_changed[1] != house.key(all_of_them)
    assert house.key(card).cells == before[0].cells


def test_the_checks_of_a_chapter_and_what_is_installed_run_its_page(house):
    before = house.key("")
    checks = house.root / "labs/ch02_kv_cache/checks.py"
    checks.write_text(checks.read_text() + "\nx = 1\n")
    checked = house.key("")
    assert checked.cells != before.cells
    (house.root / "constraints.txt").write_text("torch==0\n")
    assert house.key("").cells != checked.cells


def test_a_cell_that_is_no_python_names_its_page(house):
    with pytest.raises(ValueError, match=r"02_kv_cache\.md: .*can't be read as Python"):
        house.key(cell("for"))
    house.key(cell("%pip install x\n!ls\nx = 1"))  # IPython's own lines are passed over


# -- Sphinx and the notebooks' cache -----------------------------------------------------


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Build two pages with Sphinx; the names of the pages that were read, and of those run."""
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    (source / "_config.yml").write_text((ROOT / "_config.yml").read_text())
    (source / "book/references.bib").write_text("")
    toc = "```{toctree}\none\ntwo\n```\n"
    (source / "index.md").write_text("# Index\n\n" + toc)
    for name in ("one", "two"):
        (source / f"{name}.md").write_text(HEAD + f"A word.\n\n{cell(f'print({name!r})')}")
    cache = tmp_path / "cache"
    theirs = {"one": "a", "two": "a"}
    monkeypatch.setattr(
        keys, "key_of", lambda path: keys.Key(theirs.get(path.stem, ""), theirs.get(path.stem, ""))
    )

    def runs() -> set:
        return {record.pk for record in get_cache(str(cache)).list_cache_records()}

    def run() -> tuple[set, int]:
        read = set()
        before = runs()
        settings = sphinxes.COURSE | {
            "nb_execution_mode": "cache",
            "nb_execution_cache_path": str(cache),
        }
        seen = {"source-read": lambda app, docname, text: read.add(docname)}
        sphinxes.build(source, tmp_path / "out", settings, seen)
        return read - {"index"}, len(runs() - before)

    return SimpleNamespace(source=source, keys=theirs, run=run)


def test_only_stale_pages_are_read_and_run(build):
    assert build.run() == ({"one", "two"}, 2)
    assert build.run() == (set(), 0)
    change(build.source / "one.md", "A word.", "Another word.")
    assert build.run() == ({"one"}, 0), "a word of the prose runs nothing"
    change(build.source / "one.md", "print('one')", "print('1')")
    assert build.run() == ({"one"}, 1)
    build.keys["two"] = "b"
    assert build.run() == ({"two"}, 1), "what its cells import has changed"
    build.keys["two"] = "a"
    assert build.run() == ({"two"}, 0), "and changed back: that run is kept"


def test_a_title_that_changes_changes_every_pages_navigation(build):
    build.run()
    change(build.source / "one.md", "# Title", "# Renamed")
    build.run()
    assert "Renamed" in (build.source.parent / "out/two.html").read_text()
