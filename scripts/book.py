"""Build the book into _build/html: model fetched, clips rendered, notebooks regenerated, pages
executed. Nothing changed: nothing runs.

    python scripts/book.py             build what has changed
    python scripts/book.py --serve     build, then serve it on this machine
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys

from root import ROOT

BUILD = ROOT / "_build"
KEYS = BUILD / "keys.json"
PORT = int(os.environ.get("PORT", 8000))
GENERATED = {"clips", "vendor", "__pycache__"}
SOURCES = (
    "_config.yml",
    "_toc.yml",
    "book",
    "labs",
    "animations",
    "scripts",
    "pyproject.toml",
    "constraints.txt",
)
# What shapes every page. What one page is made from, `course.keys` knows; blocks count there too.
SHAPES = ("_config.yml", "_toc.yml", "book/_ext", "scripts/pages.py")


def digest(*names: str, but: str = "") -> str:
    """One hash of all files under these folders (or of these files), but those that are generated
    or hidden (a linter's cache, an editor's copy), and those in a folder `but`.
    """
    found = hashlib.sha256()
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            parts = path.relative_to(ROOT).parts
            hidden = any(part.startswith(".") for part in parts)
            if path.is_file() and not hidden and not {*GENERATED, but} & set(parts):
                found.update("/".join(parts).encode() + path.read_bytes())
    return found.hexdigest()


def keys() -> dict[str, str]:
    return {"all": digest(*SOURCES), "pages": digest(*SHAPES, but="blocks")}


def forget(old: dict, new: dict) -> None:
    """Drop what Sphinx would not notice to be stale: every page, when what shapes all of them has
    changed.
    """
    if old.get("pages") != new["pages"]:
        for name in (".doctrees", "html", "jupyter_execute"):
            shutil.rmtree(BUILD / name, ignore_errors=True)


def run(what: str, *command: str, quiet: bool = False) -> None:
    """Run a step; a quiet one shows what it wrote only when it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=quiet, text=True)
    if done.returncode:
        print((done.stdout or "") + (done.stderr or ""), file=sys.stderr)
        sys.exit(f"book: {what} failed (exit {done.returncode}); what it said stands above")


def check_house() -> None:
    """One sentence for a chapter that is open and not whole, or a result that fits no lab."""
    from labkit import chapters, results

    try:
        chapters.check()
        results.check()
    except ValueError as e:
        sys.exit(f"book: {e}")


def fetch_model() -> None:
    from labkit.weights.smol import find

    try:
        print(f"model: {find()}", flush=True)
    except (OSError, ValueError) as e:
        sys.exit(f"book: {e}")


def build() -> None:
    new = keys()
    old = json.loads(KEYS.read_text()) if KEYS.exists() else {}
    if old == new and (BUILD / "html/index.html").exists():
        return print("book: nothing has changed")
    check_house()
    fetch_model()
    run("a clip", "scripts/render.py")
    run("a notebook", "scripts/notebooks.py")
    run("the README", "scripts/readme.py")
    forget(old, new)
    print("pages: running what has changed", flush=True)
    KEYS.parent.mkdir(exist_ok=True)
    # caches are now for these sources; the pages are not written yet
    KEYS.write_text(json.dumps(new | {"all": ""}))
    try:
        run("the book", "scripts/pages.py", quiet=True)
    except SystemExit:
        # or a second run would pass over the same warning
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        raise
    KEYS.write_text(json.dumps(new))
    name_what_to_measure_again()


def name_what_to_measure_again() -> None:
    """A line for each quoted result whose code has changed since: a warning, no failure."""
    from labkit.results import to_measure_again

    for line in to_measure_again():
        print(f"book: {line}", flush=True)


def serve() -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(BUILD / "html"))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError as e:
        sys.exit(
            f"preview: port {PORT} cannot be used ({e.strerror}); choose another with: make preview"
            " PORT=8001"
        )
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"preview: http://127.0.0.1:{PORT}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the book into _build/html.")
    parser.add_argument("--serve", action="store_true", help="serve the built book on this machine")
    options = parser.parse_args()
    build()
    if options.serve:
        serve()
    else:
        print(
            "book: _build/html/index.html is built; `make preview` serves it on"
            f" http://127.0.0.1:{PORT}/"
        )
