"""Run a generated notebook as Colab would: its versions, its missing labkit, an empty folder, a
stub of `google.colab`.

    python scripts/colab_check.py notebooks/02_kv_cache.ipynb            this Python, and its torch
    python scripts/colab_check.py --whole notebooks/02_kv_cache.ipynb    Colab's Python and torch

The wheel built from this checkout stands in for the git address. The front end of Colab itself is
not tested. What the notebook ran under is printed.
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
PYTHON, TORCH = "3.13", "torch==2.11.0"  # gigabytes, with CUDA: only `--whole` installs it
NAMED = ("torch", "numpy", "transformers", "ipywidgets", "anywidget", "ipython")  # in the last line
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


def python_of_colab() -> str:
    """Python 3.13, from the path or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in [shutil.which(f"python{PYTHON}"), *sorted(pyenv.glob(f"{PYTHON}*/bin/python"))]:
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return str(python)
    sys.exit(f"colab check: --whole needs Python {PYTHON}, as Colab has: install it, or use pyenv")


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


def environment(whole: bool) -> Path:
    """A virtual environment with Colab's versions and labkit's dependencies, without labkit.

    whole: with Colab's Python and torch as well.

    Kept until what it is made from changes, this script with it. One process makes it, others wait.
    """
    home = HOME.with_name("colab-whole") if whole else HOME
    home.parent.mkdir(exist_ok=True)
    with open(home.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_environment(home, whole)


def make_environment(home: Path, whole: bool) -> Path:
    stamp = home / "stamp.json"
    made_from = (Path(__file__), ROOT / "pyproject.toml")
    wanted = json.dumps([sys.version, *(path.read_text() for path in made_from)])
    python = home / "venv/bin/python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(home, ignore_errors=True)
        run(python_of_colab() if whole else sys.executable, "-m", "venv", home / "venv")
        if not whole:
            lend(packages(python))
        pins = [*PINS, TORCH] if whole else PINS
        with tempfile.TemporaryDirectory() as folder:
            run(python, "-m", "pip", "install", "--quiet", *pins, build_wheel(Path(folder)))
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", OURS)
        stamp.write_text(wanted)
    return python


def layer(folder: Path, whole: bool) -> Path:
    """A virtual environment over the kept one, for one notebook: what it installs goes with it."""
    kept = environment(whole)
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


def check(path: Path, whole: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = layer(Path(folder) / "venv", whole)
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
    under = [f"Python {version}", *(f"{name} {before[name]}" for name in NAMED)]
    print(
        f"colab check: {path.name} ran top to bottom in {seconds:.0f} s, {len(state)} widget"
        f" models, under {', '.join(under)}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a generated notebook as Colab would.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--whole", action="store_true", help="Colab's Python and torch as well")
    options = parser.parse_args()
    check(options.notebook.resolve(), options.whole)
