"""What `make` calls: set-up, build, clips.

Each does its work once, notices what changed, and says in a line what is wrong.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

import assets
import book
import check
import pages
import render
import setup as set_up
from labkit import chapters, results
from tests.conftest import ROOT


def make(target: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True
    )


# -- set-up ------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without our packages, and a record of the commands that would have run."""
    ran = []
    monkeypatch.setattr(set_up, "missing_packages", lambda: ["libpango1.0-dev", "chromium"])
    monkeypatch.setattr(
        set_up, "run", lambda command, why, **options: ran.append([str(c) for c in command])
    )
    monkeypatch.setattr(set_up, "STAMPS", tmp_path / "stamps.json")
    return ran


def test_what_is_missing_is_read_from_the_package_database(monkeypatch):
    listing = (
        "".join(f"{name} installed\n" for name in set_up.PACKAGES if name != "gcc")
        + "gcc config-files\n"
    )
    monkeypatch.setattr(set_up.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=listing))
    for system, there, missing in (
        ("debian", ["google-chrome", "firefox"], ["gcc"]),
        ("debian", ["chromium"], ["gcc", "firefox-esr"]),
        ("debian", [], ["gcc", "chromium", "firefox-esr"]),
        ("ubuntu", ["chromium"], ["gcc", "firefox"]),
    ):
        monkeypatch.setattr(set_up.platform, "freedesktop_os_release", lambda s=system: {"ID": s})
        monkeypatch.setattr(set_up.shutil, "which", lambda name, there=there: name in there or None)
        assert set_up.missing_packages() == missing, system


def test_without_root_one_line_says_what_to_run(bare, monkeypatch):
    monkeypatch.setattr(set_up.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as stopped:
        set_up.system_packages()
    said = stopped.value.code
    assert "\n" not in said and said.endswith(
        "sudo apt-get install -y --no-install-recommends libpango1.0-dev chromium"
    )
    assert "sudo apt-get update" in said and bare == []


def test_root_installs_what_is_missing(bare, monkeypatch):
    monkeypatch.setattr(set_up.os, "geteuid", lambda: 0)
    set_up.system_packages()
    assert bare == [
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "libpango1.0-dev", "chromium"],
    ]


def test_a_step_runs_once_for_the_same_inputs_while_its_result_is_there(bare, tmp_path):
    done, result = [], tmp_path / "result"
    result.mkdir()
    for key in ("a", "a", "b"):
        set_up.step("python", key, "working", lambda: done.append(1), result)
    assert len(done) == 2
    result.rmdir()
    set_up.step("python", "b", "working", lambda: done.append(1), result)
    assert len(done) == 3


def test_a_failed_step_is_tried_again(bare):
    def fails():
        raise SystemExit("no network")

    with pytest.raises(SystemExit):
        set_up.step("python", "a", "working", fails)
    done = []
    set_up.step("python", "a", "working", lambda: done.append(1), ROOT)
    assert done == [1]


def test_old_pythons_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(set_up.sys, "version_info", (3, 10))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        set_up.main()


def test_every_requirement_is_locked_and_nothing_is_broken():
    lock = (ROOT / "constraints.txt").read_text()
    # one version each; of Triton two, as torch for CUDA pins its own
    locked = dict(re.findall(r"^([\w.-]+)==(.+)$", lock, re.M))
    locked |= dict(re.findall(r"^(triton)>=(.+)$", lock, re.M))
    asked = re.findall(r"^([A-Za-z][\w-]*)", (ROOT / "requirements.txt").read_text(), re.M)
    flat = {name.lower().replace("_", "-") for name in locked}
    assert {name.lower().replace("_", "-") for name in asked} <= flat and locked[
        "torch"
    ] == "2.13.0"


def test_a_damaged_download_of_mathjax_is_refused(monkeypatch, tmp_path):
    def download(command, **options):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/fake.whl", "w") as z:
            z.writestr("x", "y")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(assets.subprocess, "run", download)
    with pytest.raises(SystemExit, match="is not the file expected"):
        assets.mathjax(tmp_path / "mathjax")
    assert not (tmp_path / "mathjax").exists()


def test_a_missing_typeface_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "FACES", {"x": "Nowhere-Regular.otf"})
    with pytest.raises(SystemExit, match=r"Nowhere-Regular\.otf.*fonts-inter"):
        assets.fonts(tmp_path / "fonts")


# -- the book ----------------------------------------------------------------------------


CHECK_HOUSE = book.check_house


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A small stand-in for the repository, its build folder, and a record of what building ran."""
    for name in (
        "_config.yml",
        "_toc.yml",
        "pyproject.toml",
        "constraints.txt",
        "book/index.md",
        "book/_ext/course/site.py",
        "book/_ext/course/theme/layout.html",
        "book/_ext/course/blocks/quiz.py",
        "book/_static/clips/a.mp4",
        "labs/labkit/model.py",
        "labs/results/ch02/a.json",
        "animations/stage/style.py",
        "scripts/book.py",
        "scripts/pages.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    ran = []

    def run(what, *command, **_):
        ran.append(what)
        if what == "the book":
            for made in ("html/index.html", ".doctrees/a", ".jupyter_cache/a"):
                (tmp_path / "_build" / made).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "_build" / made).write_text("made")

    monkeypatch.setattr(book, "ROOT", tmp_path)
    monkeypatch.setattr(book, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(book, "KEYS", tmp_path / "_build/keys.json")
    monkeypatch.setattr(book, "check_house", lambda: None)
    monkeypatch.setattr(book, "fetch_model", lambda: None)
    monkeypatch.setattr(book, "run", run)
    monkeypatch.setattr(results, "to_measure_again", list)
    return SimpleNamespace(root=tmp_path, ran=ran)


def test_with_nothing_changed_nothing_runs(checkout):
    book.build()
    assert checkout.ran == ["a clip", "a notebook", "the README", "the book"]
    checkout.ran.clear()
    # rendered, a linter's cache, an editor's copy: no source
    for name in ("book/_static/clips/a.mp4", "labs/labkit/.ruff_cache/a", "book/.index.md.swp"):
        (checkout.root / name).parent.mkdir(exist_ok=True)
        (checkout.root / name).write_text("no source")
    book.build()
    assert checkout.ran == []


@pytest.mark.parametrize(
    ("changed", "all_read_again"),
    [
        ("_config.yml", True),
        ("_toc.yml", True),
        ("scripts/pages.py", True),
        ("book/_ext/course/site.py", True),
        ("book/_ext/course/theme/layout.html", True),
        # which pages these make stale, their keys say
        ("book/_ext/course/blocks/quiz.py", False),
        ("labs/labkit/model.py", False),
        ("labs/results/ch02/a.json", False),
        ("constraints.txt", False),
        ("book/index.md", False),
        ("animations/stage/style.py", False),
    ],
)
def test_a_change_builds_again_and_what_shapes_all_pages_reads_all_again(
    checkout, changed, all_read_again
):
    book.build()
    checkout.ran.clear()
    (checkout.root / changed).write_text("changed")
    kept = {}

    def watch(what, *command, **_):
        checkout.ran.append(what)
        kept.update(
            {name: (book.BUILD / name / "a").exists() for name in (".jupyter_cache", ".doctrees")}
        )

    book.run = watch  # the fixture's monkeypatch puts the true one back
    book.build()
    assert checkout.ran[-1] == "the book"
    assert kept == {".jupyter_cache": True, ".doctrees": not all_read_again}


def test_a_failed_build_is_not_taken_for_done(checkout):
    def fails(what, *command, **_):
        if what == "the book":
            (book.BUILD / ".doctrees").mkdir(parents=True)
            raise SystemExit("a warning")

    working, book.run = book.run, fails
    with pytest.raises(SystemExit):
        book.build()
    assert not (book.BUILD / ".doctrees").exists()  # or the same warning would not be seen again
    book.run = working
    book.build()
    assert checkout.ran[-1] == "the book" and json.loads(book.KEYS.read_text())["all"]


def test_a_chapter_that_is_not_whole_stops_the_build_in_a_sentence(checkout, monkeypatch):
    def check():
        raise ValueError("chapter 05_swa is open and lacks its checks")

    monkeypatch.setattr(chapters, "check", check)
    monkeypatch.setattr(book, "check_house", CHECK_HOUSE)
    with pytest.raises(SystemExit, match="^book: chapter 05_swa is open and lacks its checks$"):
        book.build()
    assert checkout.ran == []


def test_numbers_older_than_their_code_are_named_with_the_command(checkout, monkeypatch, capsys):
    line = (
        "ch02/flash was measured before the code changed; measure it again: labkit lab CH02-FLASH"
    )
    monkeypatch.setattr(results, "to_measure_again", lambda: [line])
    book.build()
    assert f"book: {line}" in capsys.readouterr().out


def test_a_stale_notebook_fails_even_though_building_the_book_writes_it_anew(monkeypatch, capsys):
    ran = []

    def run(command, **options):
        ran.append(" ".join(command[1:3]))
        stale = command[1].startswith("scripts/") and "--check" in command
        return SimpleNamespace(returncode=int(stale), stdout="", stderr="")

    monkeypatch.setattr(check.subprocess, "run", run)
    assert check.everything() == 1
    assert ran == [
        "scripts/notebooks.py --check",
        "scripts/readme.py --check",
        "scripts/book.py",
        "-m ruff",
        "-m ruff",
        "-m ruff",
        "-m pytest",
    ]
    assert "the committed notebooks, the README's numbers failed" in capsys.readouterr().out


# -- one chapter -------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch):
    """The steps that checking would run, each with its environment; `fails` names one that does."""
    made = SimpleNamespace(ran=[], html=None, fails=None)

    def run(command, env, **options):
        made.ran.append(" ".join(command[1:]))
        made.html = env["COURSE_HTML"]
        fails = bool(made.fails) and made.fails in made.ran[-1]
        return SimpleNamespace(returncode=int(fails), stdout="what it said\n", stderr="")

    monkeypatch.setattr(check.subprocess, "run", run)
    return made


def test_one_chapters_check_renders_runs_and_tests_that_chapter_only(steps, capsys):
    assert check.one("02") == 0
    assert all("--chapter 02" in command for command in steps.ran)
    for part in ("render.py", "notebooks.py", "pages.py", "pytest"):
        assert any(part in command for command in steps.ran), part
    assert steps.html.endswith("_build/check/02/html")
    said = capsys.readouterr().out
    assert re.search(r"02_kv_cache: [\d,]+ words on the core path, of 2,500", said)
    assert "chapter 02: all passed" in said and "what it said" not in said


def test_a_page_that_fails_says_why_and_is_not_tested(steps, capsys):
    steps.fails = "pages.py"
    assert check.one("02") == 1
    said = capsys.readouterr()
    assert "chapter 02: its page failed" in said.out and "what it said" in said.err
    assert not any("pytest" in command for command in steps.ran)


def test_a_planned_chapter_has_its_labs_checked(steps, capsys):
    assert check.one("13") == 0
    assert len(steps.ran) == 1 and "pytest" in steps.ran[0]
    assert "chapter 13 is not open; only its labs are checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("99", "there is no chapter 99: they run from 00 to 14"),
        ("", "say which chapter, such as make check CHAPTER=02"),
    ],
)
def test_no_such_chapter_is_one_sentence(steps, capsys, number, said):
    assert check.one(number) == 2 and steps.ran == []
    assert capsys.readouterr().err == f"make check: {said}\n"


def test_of_one_chapter_only_its_own_pages_are_run():
    told = pages.settings("02")
    left_out = told["nb_execution_excludepatterns"]
    assert str(ROOT / "book/index.md") in left_out
    assert not any("02_kv_cache" in pattern for pattern in left_out)
    assert pages.folder("02") != pages.folder()
    assert told["nb_execution_cache_path"] == pages.settings()["nb_execution_cache_path"]


# -- clips -------------------------------------------------------------------------------


@pytest.fixture
def one_clip(monkeypatch, tmp_path):
    """One scene, made from one file, and a folder of clips."""
    import animations.stage.render

    source = tmp_path / "scene.py"
    source.write_text("first")
    scene = SimpleNamespace(clip_name="demo")
    monkeypatch.setattr(animations.stage.render, "sources", lambda s: [source])
    monkeypatch.setattr(render, "OUT", tmp_path / "clips")
    render.OUT.mkdir()
    for kind in render.KINDS:
        (render.OUT / f"demo.{kind}").write_text("made")
    (render.OUT / "demo.key").write_text(render.key(scene))
    return SimpleNamespace(scene=scene, source=source)


def test_a_clip_is_current_until_its_sources_change(one_clip):
    assert render.current(one_clip.scene)
    one_clip.source.write_text("second")
    assert not render.current(one_clip.scene)


def test_a_stopped_render_leaves_nothing_that_stops_the_next(one_clip):
    half = render.OUT / "tmp123"
    half.mkdir()
    (half / "demo.mp4").write_text("half of it")
    (render.OUT / "gone.mp4").write_text("of a scene that is no more")
    render.tidy([one_clip.scene])
    assert not half.exists() and not (render.OUT / "gone.mp4").exists()
    assert render.current(one_clip.scene)


@pytest.mark.parametrize("kind", render.KINDS)
def test_a_clip_that_lacks_a_file_is_rendered_again(one_clip, kind):
    (render.OUT / f"demo.{kind}").unlink()
    assert not render.current(one_clip.scene)


# -- make --------------------------------------------------------------------------------


def test_help_names_every_target_and_says_how_to_set_the_address():
    said = make("help").stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert all(f"make {t}" in said for t in targets if t not in ("help", "setup"))
    assert "repository.url in _config.yml" in said and re.search(r"https://github\.com/\S+", said)


@pytest.mark.parametrize("target", ["pdf", "film", "script"])
def test_targets_of_later_say_so_in_a_line(target):
    done = make(target)
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "not made yet" in done.stdout


def test_make_gpu_says_in_a_line_that_there_is_none():
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "scripts/gpu.py"], cwd=ROOT, capture_output=True, text=True, env=hidden
    )
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "no CUDA device" in done.stdout
