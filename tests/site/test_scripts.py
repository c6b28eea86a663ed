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

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import assets
import book
import check
import render
import setup as set_up


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
    monkeypatch.setattr(
        set_up.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None
    )
    assert set_up.missing_packages() == ["gcc"]
    monkeypatch.setattr(set_up.shutil, "which", lambda name: None)
    assert set_up.missing_packages() == ["gcc", "chromium"]


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
    locked = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
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


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A small stand-in for the repository, its build folder, and a record of what building ran."""
    for name in (
        "_config.yml",
        "_toc.yml",
        "pyproject.toml",
        "constraints.txt",
        "book/index.md",
        "book/_ext/site_ext.py",
        "book/_static/clips/a.mp4",
        "labs/labkit/model.py",
        "labs/results/a.json",
        "animations/style.py",
        "scripts/book.py",
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
    monkeypatch.setattr(book, "fetch_model", lambda: None)
    monkeypatch.setattr(book, "run", run)
    return SimpleNamespace(root=tmp_path, ran=ran)


def test_with_nothing_changed_nothing_runs(checkout):
    book.build()
    assert checkout.ran == ["a clip", "a notebook", "the README", "the book"]
    checkout.ran.clear()
    (checkout.root / "book/_static/clips/a.mp4").write_text("rendered, not a source")
    book.build()
    assert checkout.ran == []


@pytest.mark.parametrize(
    ("changed", "executed_again", "read_again"),
    [
        ("labs/labkit/model.py", True, True),
        ("labs/results/a.json", True, True),
        ("constraints.txt", True, True),
        ("book/_ext/site_ext.py", False, True),
        ("_config.yml", False, True),
        ("book/index.md", False, False),
        ("animations/style.py", False, False),
    ],
)
def test_a_change_rebuilds_what_depends_on_it(checkout, changed, executed_again, read_again):
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
    assert checkout.ran[-1] == "the book" and kept == {
        ".jupyter_cache": not executed_again,
        ".doctrees": not read_again,
    }


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


def test_a_stale_notebook_fails_even_though_building_the_book_writes_it_anew(monkeypatch, capsys):
    ran = []

    def run(command, **options):
        ran.append(" ".join(command[1:3]))
        return SimpleNamespace(returncode=int("--check" in command))

    monkeypatch.setattr(check.subprocess, "run", run)
    assert check.main() == 1
    assert ran == [
        "scripts/notebooks.py --check",
        "scripts/readme.py --check",
        "scripts/book.py",
        "-m ruff",
        "-m pytest",
    ]
    assert "the committed notebooks, the README's numbers failed" in capsys.readouterr().out


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


@pytest.mark.parametrize("target", ["film", "script"])
def test_targets_of_later_say_so_in_a_line(target):
    done = make(target)
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "not made yet" in done.stdout


def test_make_gpu_says_in_a_line_that_there_is_none():
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "scripts/gpu.py"], cwd=ROOT, capture_output=True, text=True, env=hidden
    )
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "no CUDA device" in done.stdout


def test_scripts_and_extensions_fit_in_the_head():
    for folder, most in (("scripts", 260), ("book/_ext", 200)):
        for path in (ROOT / folder).glob("*.py"):
            assert len(path.read_text().splitlines()) <= most, path.name


# -- size --------------------------------------------------------------------------------


def test_labkit_stays_small():
    """Lines with something on them, docstrings included: a core that can be read in a week, and
    files that fit in the head.
    """
    package, core = ROOT / "labs/labkit", 0
    sizes = {
        path.relative_to(package).as_posix(): path.read_text().splitlines()
        for path in package.rglob("*.py")
    }
    assert {name: len(lines) for name, lines in sizes.items() if len(lines) > 260} == {}
    written = {name: sum(map(bool, map(str.strip, lines))) for name, lines in sizes.items()}
    for part in (
        "config",
        "formulas",
        "reference",
        "ops",
        "step",
        "caches",
        "mixers",
        "ffn",
        "moe",
        "model",
        "weights",
        "sampling",
        "decode",
    ):
        core += (
            part_size := sum(
                n
                for name, n in written.items()
                if name == f"{part}.py" or name.startswith(f"{part}/")
            )
        )
        assert part_size, f"no {part} in labkit: this list is out of date"
    assert core <= 3000 and sum(written.values()) <= 5500, (core, sum(written.values()))
