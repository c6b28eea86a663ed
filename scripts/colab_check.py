"""Run a generated notebook as Colab would: its versions, its missing labkit, an empty folder, a
stub of `google.colab`.

    python scripts/colab_check.py notebooks/02_kv_cache.ipynb

The wheel built from this checkout stands in for the git address, this environment's torch for
Colab's where Python is the same. The front end of Colab itself is not tested.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "_build/colab"
# Of Colab's image, 2026-08. ipython 7.34 still imports pkg_resources.
PINS = [
    "numpy==2.1.3",
    "ipywidgets==7.7.1",
    "anywidget==0.9.21",
    "traitlets==5.7.1",
    "ipykernel==6.17.1",
    "ipython==7.34.0",
    "matplotlib==3.10.0",
    "transformers>=5.15",
    "tabulate",
    "setuptools<81",
]
LENT = [
    "torch",
    "torchgen",
    "functorch",
    "triton*",
    "nvidia*",
    "sympy",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "hf_xet",
    "regex",
]
OURS = "faster-leaner-inference"
STUB = """\
import sys, types
names = ("google", "google.colab", "google.colab.output")
google, colab, output = (types.ModuleType(name) for name in names)
output.enable_custom_widget_manager = lambda *args, **kwargs: None
output._widgets = types.SimpleNamespace(_installed_url="")
google.colab, colab.output = colab, output
sys.modules.update({"google": google, "google.colab": colab, "google.colab.output": output})
"""


def run(*command, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(
            f"colab check: {' '.join(map(str, command))}"
            f" failed\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def pulls_cuda(python: str) -> bool:
    """Whether pip would bring NVIDIA's packages with torch for this Python, or finds no torch."""
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
        "torch>=2.6",
    ]
    report = subprocess.run(command, capture_output=True, text=True)
    names = (
        [p["metadata"]["name"].lower() for p in json.loads(report.stdout)["install"]]
        if report.returncode == 0
        else ["nvidia"]
    )
    return any(name.startswith(("nvidia", "cuda")) for name in names)


def choose_python() -> tuple[str, bool]:
    """Python 3.13 where it can have torch without CUDA, else this one; and whether it can borrow
    this environment's packages.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in [
        shutil.which("python3.13"),
        *map(str, sorted(pyenv.glob("3.13*/bin/python3.13"))),
    ]:
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            if sys.version_info[:2] == (3, 13):
                break
            if not pulls_cuda(python):
                return python, False
            print(
                f"colab check: for {python} pip finds torch only with CUDA; using Python"
                f" {sys.version_info[0]}.{sys.version_info[1]} and its torch"
            )
            break
    return sys.executable, True


def lend(site: Path) -> None:
    """Link torch and other heavy packages of this environment into another of the same Python,
    instead of installing them again.
    """
    here = Path(nbformat.__file__).parent.parent
    for name in LENT:
        for path in [*here.glob(name), *here.glob(f"{name.replace('-', '_')}-*.dist-info")]:
            if not (site / path.name).exists():
                (site / path.name).symlink_to(path)


def packages(python: Path) -> Path:
    """The folder that a virtual environment's packages lie in."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(python, "-c", where).strip())


def environment() -> Path:
    """A virtual environment with Colab's versions and labkit's dependencies, without labkit.

    Kept until what it is made from changes, this script with it. One process makes it, others wait.
    """
    HOME.parent.mkdir(exist_ok=True)
    with open(HOME.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_environment()


def make_environment() -> Path:
    stamp = HOME / "stamp.json"
    made_from = (Path(__file__), ROOT / "pyproject.toml")
    wanted = json.dumps([sys.version, *(path.read_text() for path in made_from)])
    python = HOME / "venv/bin/python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(HOME, ignore_errors=True)
        chosen, same = choose_python()
        run(chosen, "-m", "venv", HOME / "venv")
        if same:
            lend(packages(python))
        with tempfile.TemporaryDirectory() as folder:
            run(python, "-m", "pip", "install", "--quiet", *PINS, build_wheel(Path(folder)))
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", OURS)
        stamp.write_text(wanted)
    return python


def layer(folder: Path) -> Path:
    """A virtual environment over the kept one, for one notebook: what it installs goes with it."""
    kept = environment()
    run(kept, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    (packages(python) / "kept.pth").write_text(f"{packages(kept)}\n")
    return python


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built from a copy, so that no build folder is left in it."""
    source = folder / "source"
    shutil.copytree(ROOT / "labs", source / "labs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    return next(folder.glob("*.whl"))


def versions(python: Path) -> dict[str, str]:
    found = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    return {p["name"].lower(): p["version"] for p in found if p["name"].lower() != OURS}


def check(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = layer(Path(folder) / "venv")
        before = versions(python)
        empty = Path(folder) / "content"
        empty.mkdir()
        wheel = build_wheel(Path(folder))
        kernel = Path(folder) / "kernels/colab/kernel.json"
        kernel.parent.mkdir(parents=True)
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel.write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
        os.environ["JUPYTER_PATH"] = folder
        notebook = nbformat.read(path, 4)
        install = notebook.cells[0]
        address = install.source.split('"')[-2]
        assert address.startswith(f"{OURS} @ git+"), (
            f"the first cell of {path.name} does not install {OURS} from its repository"
        )
        install.source = install.source.replace(address, str(wheel))
        notebook.cells.insert(0, nbformat.v4.new_code_cell(STUB))
        start = time.perf_counter()
        NotebookClient(
            notebook, kernel_name="colab", timeout=300, resources={"metadata": {"path": str(empty)}}
        ).execute()
        seconds = time.perf_counter() - start
        version = run(python, "-V").split()[1]
        forced = {
            name: (before.get(name), new)
            for name, new in versions(python).items()
            if before.get(name) != new
        }
    assert not forced, f"the install cell changed what Colab has: {forced}"
    state = (
        notebook.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    print(
        f"colab check: {path.name} ran top to bottom in {seconds:.0f} s, Python {version},"
        f" {len(state)} widget models"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a generated notebook as Colab would.")
    parser.add_argument("notebook", type=Path)
    check(parser.parse_args().notebook.resolve())
