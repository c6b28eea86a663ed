"""Which code a stored result timed, as a hash: when that code has changed, the number is old."""

from __future__ import annotations

import ast
from pathlib import Path

from labkit import modules

# what belongs to no chapter is measured by `labkit bench`, by a file of a rival's own beside it, or
# by a module of `labkit.gpu` that the result is named after: `bench/decode-llama3-8b`
BENCH = "labkit/cli/bench.py"
GPU = "labkit/gpu"
# these print, draw and store: no number depends on them
FRAME = (
    "labkit.chapters",
    "labkit.checks",
    "labkit.cli",
    "labkit.environment",
    "labkit.lab",
    "labkit.machines",
    "labkit.modules",
    "labkit.palette",
    "labkit.paths",
    "labkit.plotting",
    "labkit.results",
    "labkit.source",
    "labkit.tables",
    "labkit.timed",
    "labkit.widgets",
)
# what a LAB says of its rows, and doesn't do to make them
TELLS = (
    *("title", "objective", "asks", "notice", "columns", "minutes", "needs"),
    *("go", "pays", "plot"),
)


def source_of(name: str) -> Path | None:
    """The file that measures a result, `ch05/ring` say; None if there is none by that name."""
    labs = modules.packages()["labkit_labs"]
    chapter, _, stem = name.partition("/")
    if chapter == "bench":
        rival = labs / BENCH.replace(".py", f"_{stem}.py")
        gpu = labs / GPU / f"{stem.partition('-')[0]}.py"
        return next((own for own in (rival, gpu) if stem and own.is_file()), labs / BENCH)
    found = [p for p in labs.glob(f"{chapter}_*/{stem}.py") if "\nLAB" in p.read_text()]
    return found[0] if stem and found else None


def code_of(name: str) -> str | None:
    """A hash of what a result times: the syntax trees of its lab and of all that it imports, less
    what prints, draws and stores. None where nothing measures a result of this name.
    """
    source = source_of(name)
    if source is None:
        return None
    return modules.digest(*modules.closure(source, without=FRAME), see=_measuring)


def _measuring(tree: ast.Module) -> ast.Module:
    """A module without what it only says of labs and their rows: a word in a title times nothing,
    nor does a chapter's list of its labs.
    """
    body = [node for node in tree.body if _assigned(node) != "LABS"]
    for i, node in enumerate(body):
        if _assigned(node) == "LAB" and isinstance(node.value, ast.Call):
            told = [k.value for k in node.value.keywords if k.arg in TELLS]
            kept = [k for k in node.value.keywords if k.arg not in TELLS]
            body[i] = ast.Assign(node.targets, ast.Call(node.value.func, node.value.args, kept))
            # the functions that draw and judge rows
            names = {value.id for value in told if isinstance(value, ast.Name)}
            body = [node for node in body if getattr(node, "name", None) not in names]
            break
    return ast.Module(body, [])


def _assigned(node: ast.stmt) -> str | None:
    """The name that a statement gives, if it is `name = …`."""
    return getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else None
