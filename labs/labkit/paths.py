"""Where things lie: the repository, the labs with their results, what this machine keeps."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path


def labs() -> Path:
    """`labs/` of a checkout, or its copy inside the installed wheel."""
    spec = find_spec("labkit_labs")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the labs come with labkit: install it with pip install -e .")
    return Path(spec.origin).parent


def results() -> Path:
    """Where measured results and recorded traces are stored."""
    return labs() / "results"


def data() -> Path:
    """Texts, price lists and tables of machines, each with its source and date."""
    return labs() / "common/data"


def repository() -> Path:
    """The checkout that these labs belong to. FileNotFoundError outside of one."""
    root = labs().resolve().parent
    if not (root / "_toc.yml").exists():
        raise FileNotFoundError(
            "this needs a clone of the course's repository: the wheel is not one"
        )
    return root


def cache_folder() -> Path:
    """This machine's folder for models, kernels and trained variants: LABKIT_CACHE, or else
    `labkit` where caches belong (XDG_CACHE_HOME, or ~/.cache).

    It may not exist yet.
    """
    named = os.environ.get("LABKIT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labkit"
