"""The rules of the layout, one test each: where a thing lies tells whose it is."""

import ast
import graphlib
import importlib
import zipfile
from pathlib import Path

import pytest
from scripts.colab_check import build_wheel

from labkit import chapters, modules, paths
from labkit.lab import labs
from tests.conftest import ROOT, chapter_of

FOLDERS = [c for c in chapters.every() if (paths.labs() / c.folder).is_dir()]
READS_OTHERS = {"14"}  # the ladder climbs over all of them


def each(things):
    return pytest.mark.parametrize("chapter", things, ids=[c.stem for c in things])


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def strangers(path: Path, package: str) -> list[str]:
    """The labs that a file takes from another chapter."""
    ours = ("labkit_labs.common.", f"{package}.")
    labs_only = (name for name in imported(path) if name.startswith("labkit_labs."))
    return sorted(name for name in labs_only if not f"{name}.".startswith(ours))


@each(FOLDERS)
def test_a_chapters_folder_imports_labkit_common_and_itself(chapter):
    found = {
        path.name: strangers(path, chapter.package)
        for path in sorted((paths.labs() / chapter.folder).glob("*.py"))
    }
    if chapter.number not in READS_OTHERS:
        assert {name: taken for name, taken in found.items() if taken} == {}


def test_what_is_common_belongs_to_no_chapter():
    for path in (paths.labs() / "common").glob("*.py"):
        assert strangers(path, "labkit_labs.common") == [], path.name


def test_a_stranger_is_seen(tmp_path):
    (tmp_path / "ring.py").write_text(
        "def run():\n    from labkit_labs.ch12_speculation import batch\n"
        "from labkit_labs.ch05_swa.sinks import x\nfrom labkit_labs.common import layer\n"
    )
    taken = strangers(tmp_path / "ring.py", "labkit_labs.ch05_swa")
    assert taken == ["labkit_labs.ch12_speculation.batch"]


def circle(folder: Path) -> list[str]:
    """The files of a folder that import each other in a circle, also inside functions."""
    files = sorted(folder.glob("*.py"))
    graph = {path.stem: {p.stem for p in modules.imports(path) & set(files)} for path in files}
    # a package's own file is on the way to all of its modules
    graph.pop("__init__", None)
    for needed in graph.values():
        needed.discard("__init__")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as e:
        return e.args[1]
    return []


@pytest.mark.parametrize("folder", [*(c.folder for c in FOLDERS), "common"])
def test_no_files_of_a_folder_import_each_other_in_a_circle(folder):
    assert circle(paths.labs() / folder) == []


def test_a_circle_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(modules, "packages", lambda: {"labkit_labs": tmp_path})
    folder = tmp_path / "ch05_swa"
    folder.mkdir()
    for name, other in {"ring": "sinks", "sinks": "helper", "helper": "ring"}.items():
        source = f"def run():\n    from labkit_labs.ch05_swa import {other}\n"
        (folder / f"{name}.py").write_text(source)
    assert set(circle(folder)) == {"ring", "sinks", "helper"}
    (folder / "helper.py").write_text("")
    assert circle(folder) == []


def test_labs_lie_in_chapters_folders_and_nowhere_else():
    folders = {p.name for p in paths.labs().iterdir() if p.is_dir() and p.name != "__pycache__"}
    homes = {c.folder for c in chapters.every()} | {"labkit", "common", "results"}
    assert folders <= homes
    assert [p.name for p in paths.labs().glob("*.py")] == ["__init__.py"]


def test_a_labs_id_is_its_folder_and_its_file():
    for lab in labs().values():
        chapter = chapters.find(lab.chapter)
        name = lab.id.partition("-")[2].lower()
        assert lab.id.startswith(f"CH{chapter.number}-")
        assert (paths.labs() / chapter.folder / f"{name}.py").exists()
        assert lab.result == f"ch{chapter.number}/{name}"


def test_scenes_and_test_data_bear_their_chapters_name():
    stems = {c.folder for c in chapters.every()}
    scenes = {p.stem for p in (ROOT / "animations/scenes").glob("ch*.py")}
    assert {s for s in scenes if not chapters.PAGE.fullmatch(s.removeprefix("ch"))} == set()
    data = {p.stem.removeprefix("test_") for p in (ROOT / "tests/chapters").glob("*.py")}
    assert data <= stems


def test_every_open_chapter_is_whole():
    assert chapters.opened()
    chapters.check()


def test_the_wheel_holds_every_lab_and_every_module_without_being_told(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        held = set(wheel.namelist())
    kinds = (".py", ".c", ".cpp", ".js", ".css", ".json")
    ours = {p for p in paths.labs().rglob("*") if p.suffix in kinds}
    wanted = {
        p.as_posix() if p.parts[0] == "labkit" else f"labkit_labs/{p.as_posix()}"
        for p in (path.relative_to(paths.labs()) for path in ours)
    }
    assert wanted - held == set()


def test_labkit_has_one_name():
    with pytest.raises(ImportError, match="import labkit by its own name"):
        importlib.import_module("labkit_labs.labkit")


def test_the_top_level_is_what_the_readme_names():
    there = {p.name for p in ROOT.iterdir() if not p.name.startswith((".", "_build"))}
    fixed = {
        *("README.md", "LICENSE", "Makefile", "pyproject.toml", "requirements.txt"),
        *("constraints.txt", "_config.yml", "_toc.yml"),
        *("book", "notebooks", "labs", "animations", "scripts", "tests", "media"),
    }
    assert {name for name in there - fixed if not name.endswith(".egg-info")} == set()


@pytest.mark.parametrize(
    ("nodeid", "number"),
    [
        ("tests/chapters/test_ch10_paging.py::test_x[02_kv_cache]", "10"),
        ("tests/every/test_labs.py::test_x[CH05-RING]", "05"),
        ("tests/every/test_checks.py::test_x[02.1]", "02"),
        ("tests/every/test_clips.py::test_x[02b_online_softmax-OnlineSoftmax]", "02"),
        ("tests/site/test_site.py::test_x[390-book/chapters/02b_online_softmax]", "02"),
        ("tests/site/test_site.py::test_x[390-book/labs]", None),
        ("tests/labkit/test_formulas.py::test_x[07-1]", None),
    ],
    ids=["file", "lab", "exercise", "clip", "page", "no chapter's page", "no chapter"],
)
def test_a_test_tells_by_its_name_which_chapter_it_is_about(nodeid, number):
    assert chapter_of(nodeid) == number
