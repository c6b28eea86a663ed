"""A chapter is named by one stem, and an open one that lacks a part is refused in one sentence."""

import pytest

from labkit import chapters, paths

PARTS = [
    "book/chapters/05_swa.md",
    "labs/ch05_swa/__init__.py",
    "labs/ch05_swa/checks.py",
    "animations/scenes/ch05_swa.py",
    "tests/chapters/ch05_swa.py",
    "notebooks/05_swa.ipynb",
]
TOC = """\
root: book/index
parts:
  - caption: Chapters
    chapters:
      - file: book/chapters/05_swa
"""


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A repository with one chapter, 05, open and whole."""
    for part in PARTS:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text("")
    (tmp_path / "_toc.yml").write_text(TOC)
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    monkeypatch.setattr(paths, "labs", lambda: tmp_path / "labs")
    monkeypatch.setattr(chapters.Chapter, "lab_names", property(lambda self: ("ring",)))
    return tmp_path


def test_one_stem_names_everything():
    swa = chapters.find("05")
    assert (swa.stem, swa.number, swa.title) == ("05_swa", "05", "Sliding windows")
    assert swa.folder == "ch05_swa" and swa.package == "labkit_labs.ch05_swa"
    assert swa.page.name == "05_swa.md" and swa.scenes.name == "ch05_swa.py"


def test_there_are_fifteen_in_order():
    assert [c.number for c in chapters.every()] == [f"{i:02}" for i in range(15)]


@pytest.mark.parametrize("number", ["99", "5", "", "02b"])
def test_an_unknown_chapter_is_refused(number):
    with pytest.raises(ValueError, match="there is no chapter .*: they run from 00 to 14"):
        chapters.find(number)


@pytest.mark.parametrize(
    "page, stem",
    [
        ("book/chapters/05_swa", "05_swa"),
        ("book/chapters/02b_online_softmax.md", "02_kv_cache"),
        ("book/index", None),
        ("book/appendix/05_swa", None),
        ("book/chapters/77_lost", None),
    ],
)
def test_a_page_belongs_to_its_chapter(page, stem):
    owner = chapters.of_page(page)
    assert (owner.stem if owner else None) == stem


def test_a_whole_chapter_is_accepted(repository):
    chapters.check()
    assert [c.stem for c in chapters.opened()] == ["05_swa"]


@pytest.mark.parametrize(
    "part, words",
    [
        ("labs/ch05_swa/checks.py", "lacks its checks (labs/ch05_swa/checks.py)"),
        ("animations/scenes/ch05_swa.py", "lacks its clip's scenes"),
        ("notebooks/05_swa.ipynb", "lacks the notebook of 05_swa"),
        ("tests/chapters/ch05_swa.py", "lacks its tests' data"),
        ("book/chapters/05_swa.md", "lacks its page"),
    ],
)
def test_an_open_chapter_that_lacks_a_part_is_refused(repository, part, words):
    (repository / part).unlink()
    with pytest.raises(ValueError) as refused:
        chapters.check()
    assert words in str(refused.value) and "05_swa is open" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_open_chapter_needs_a_lab(repository, monkeypatch):
    monkeypatch.setattr(chapters.Chapter, "lab_names", property(lambda self: ()))
    with pytest.raises(ValueError, match=r"05_swa is open .* lacks a lab"):
        chapters.check()


def test_a_planned_chapter_may_lack_anything(repository):
    (repository / "_toc.yml").write_text("root: book/index\nparts: []\n")
    for part in PARTS[1:]:
        (repository / part).unlink()
    chapters.check()


def test_two_chapters_with_one_number_are_refused_and_a_second_page_is_not(repository):
    second = repository / "book/chapters/05b_sinks.md"
    second.write_text("")
    (repository / "notebooks/05b_sinks.ipynb").write_text("")
    chapters.check()
    second.rename(second.with_name("05_sinks.md"))
    with pytest.raises(ValueError, match=r"05_sinks.md and 05_swa.md would both be chapter 05"):
        chapters.check()


def test_a_page_of_no_chapter_is_refused(repository):
    (repository / "book/chapters/notes.md").write_text("")
    with pytest.raises(ValueError, match=r"notes.md is no chapter's page"):
        chapters.check()


@pytest.mark.parametrize(
    "name, id, result",
    [
        ("CH05-RING", "CH05-RING", "ch05/ring"),
        ("ch05-ring", "CH05-RING", "ch05/ring"),
        ("CH4B-LAB-07", "CH05-RING", "ch05/ring"),
        ("ch4b-lab-03", "CH02-BASELINE", "ch02/baseline"),
    ],
)
def test_a_lab_is_found_by_every_name_it_goes_by(name, id, result):
    assert chapters.lab_id(name) == id and chapters.result_name(name) == result


def test_results_of_no_chapter_lie_in_bench():
    assert chapters.result_name("bench-transformers") == "bench/transformers"
    assert chapters.result_name("ch05/ring") == "ch05/ring"
