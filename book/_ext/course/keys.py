"""Which pages a change makes stale: a page is keyed by what it is made from, never by dates.

Its cells run again when a module that they import (directly or through others) says something else,
comments and layout apart, or when a result changes that the page quotes. It is read again when one
of its blocks is drawn from something else. Its own text is looked at by Sphinx, and its cells' text
by the notebooks' cache.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course import blocks
from course.block import Lowered, LoweredRole
from labkit import chapters, machines, modules, results

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?::[^\n]*\n)*(.*?)^```$", re.M | re.S)
DIRECTIVE = re.compile(r"^[ \t]*(?:`{3,}|:{3,})\{([\w-]+)\}[ \t]*(.*)$", re.M)
ROLE = re.compile(r"\{([\w:-]+)\}`")
RESULT = re.compile(r"\w+(?:[-/]\w+)+")  # `ch02/flash`, and as it was called before: `ch02-flash`


@dataclass(frozen=True)
class Key:
    """Two hashes of what a page is made from, its own text apart."""

    cells: str  # what its cells run
    page: str  # that, and what its blocks are drawn from


def key_of(path: Path) -> Key:
    """The key of one page. ValueError for a cell that is not Python."""
    text = path.read_text()
    source = "\n".join(CELL.findall(text))
    try:
        cells = key_of_cells(path, source)
    except ValueError as e:
        raise ValueError(f"{path.name}: {e}") from e
    return Key(cells, joined(cells, key_of_blocks(text)))


def key_of_cells(page: Path, source: str) -> str:
    run = modules.closure(*modules.imports_of(source), *checks(page))
    package = modules.packages()["labkit"]  # its docstrings name results as examples
    ours = [path.read_text() for path in run if package not in path.parents]
    quoted = sorted({*own_results(page), *named_results(source, *ours)})
    locked = modules.packages()["labkit_labs"].parent / "constraints.txt"
    said = modules.digest(*run, *data(run), *quoted, locked)
    # a listing has its comments and its line numbers, so of what is shown each byte counts
    shown = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(listed(source))]
    return joined(said, *states(quoted), *shown)


def key_of_blocks(text: str) -> str:
    drawn, read = drawing(text)
    quoted = sorted({*read, *named_results(text)})
    return joined(modules.digest(*modules.closure(*drawn), *quoted), *states(quoted))


def joined(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# -- what a page is made from ----------------------------------------------------------------------


def checks(page: Path) -> list[Path]:
    """The checks of a chapter's exercises, which its cells reach by number."""
    chapter = chapters.of_page(page)
    return [chapter.checks] if chapter and chapter.checks.exists() else []


def listed(source: str) -> set[Path]:
    """The files whose text a page shows: those of what is handed to `show` and `compare`."""
    tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    shown = [
        ast.unparse(argument)
        for call in calls
        if ast.unparse(call.func).split(".")[-1] in ("show", "compare")
        for argument in call.args
    ]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    files = set()
    for argument in shown:
        # the imports that give the argument its first name, and the argument itself
        first = argument.split(".")[0]
        giving = [i for i in imports if any((a.asname or a.name) == first for a in i.names)]
        reached = modules.imports_of("\n".join([*map(ast.unparse, giving), argument]))
        for path in reached:
            # a package does not say which of its files a name comes from
            files |= set(path.parent.glob("*.py")) if path.name == "__init__.py" else {path}
    return files


def own_results(page: Path) -> Iterator[Path]:
    """What was measured for a page's chapter."""
    chapter = chapters.of_page(page)
    if chapter:
        yield from (results.folder() / f"ch{chapter.number}").glob("*.json")


def named_results(*texts: str) -> Iterator[Path]:
    """The results that these texts name."""
    for name in {name for text in texts for name in RESULT.findall(text)}:
        stored = results.canonical(name).partition(".")[0]
        yield from results.folder().glob(f"{stored}.*.json")


def states(stored: list[Path]) -> list[str]:
    """Whose numbers are quoted, and for each result whether its code has changed since: a receipt
    says so.
    """
    rows = [p for p in stored if p.suffix == ".json" and not p.name.endswith(".trace.json")]
    if not rows:
        return []
    said = results.folder() / machines.FILE
    return [said.read_text(), *(results.code_state(json.loads(p.read_text())) for p in rows)]


def data(run: list[Path]) -> Iterator[Path]:
    """The tables and texts that lie beside modules."""
    for folder in {path.parent / "data" for path in run}:
        yield from (path for path in folder.glob("*") if path.is_file())


def drawing(text: str) -> tuple[list[Path], list[Path]]:
    """The modules of ours that a page's blocks and roles are made by, and the files they read."""
    directives = blocks.defined(Lowered)
    roles = blocks.defined(LoweredRole)
    made_by, read = set(), set()
    for name, argument in DIRECTIVE.findall(text):
        if name in directives:
            made_by.add(file_of(directives[name]))
            read.update(directives[name].reads(argument.strip()))
    for name in ROLE.findall(text):
        if name in roles:
            made_by.add(file_of(roles[name]))
    python = {path for path in read if path.suffix == ".py"}
    return sorted(made_by | python), sorted(read - python)


def file_of(made: type) -> Path:
    return Path(inspect.getfile(made))


# -- what Sphinx does with it ----------------------------------------------------------------------


def kept(env) -> dict[str, Key]:
    """The keys that pages had when they were read."""
    return env.__dict__.setdefault("course_keys", {})


def stale(app, env, added, changed, removed) -> list[str]:
    """Pages whose text has not changed, but what they are made from."""
    known = set(env.found_docs) - added - changed
    return [d for d in known if kept(env).get(d) != key_of(Path(env.doc2path(d)))]


def stamp(app, docname, source):
    """Remember a page's key, and write its cells' half into the notebook's metadata, which the
    notebooks' cache hashes with the cells.
    """
    key = kept(app.env)[docname] = key_of(Path(app.env.doc2path(docname)))
    source[0] = stamped(source[0], key)


def stamped(text: str, key: Key) -> str:
    # cells that are not run are highlighted in this language
    said = f"kernelspec:\n  key: {key.cells}\n  language: python\n"
    return re.sub(r"^kernelspec:\n", said, text, count=1, flags=re.M)


def forget(app, env, docname):
    kept(env).pop(docname, None)


def merge(app, env, docnames, other):
    kept(env).update({docname: kept(other)[docname] for docname in docnames})


def setup(app):
    app.connect("env-get-outdated", stale)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("source-read", stamp)
