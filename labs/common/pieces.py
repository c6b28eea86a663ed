"""What a long lab has finished so far, kept in the user's cache folder: stopped half-way, the same
command goes on.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from labkit import modules
from labkit.paths import cache_folder
from labkit.tables import progress


def code_of(work: Callable) -> str:
    """A hash of the file that a function lies in and of all that it imports: other code makes other
    pieces.
    """
    return modules.digest(*modules.closure(inspect.getsourcefile(work)))


def each(name: str, work: Callable[..., dict], jobs: dict) -> dict:
    """{key: work(*arguments)} for {key: arguments}, every one worked out once and then kept.

    What a piece comes to is numbers and words, as JSON has them. The bar counts all of them, those
    kept from before as well.
    """
    folder = cache_folder() / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    code = code_of(work)

    def path_of(arguments) -> Path:
        recipe = repr((work.__name__, arguments, code))
        return folder / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.json"

    paths = {key: path_of(arguments) for key, arguments in jobs.items()}
    before = sum(path.exists() for path in paths.values())
    if "PYTEST_CURRENT_TEST" not in os.environ:
        print(
            f"{name}: {before} of {len(jobs)} pieces are there; what is finished is kept in"
            f" {folder}, and stopped half-way the same command goes on",
            file=sys.stderr,
        )
    found = {}
    for key in progress(jobs, name):
        if not paths[key].exists():
            part = paths[key].with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(work(*jobs[key])))
            part.replace(paths[key])
        found[key] = json.loads(paths[key].read_text())
    return found
