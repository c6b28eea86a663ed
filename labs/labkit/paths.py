"""Where labkit keeps what it makes or fetches."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """This machine's folder for models, kernels and trained variants: LABKIT_CACHE, or else
    `labkit` where caches belong (XDG_CACHE_HOME, or ~/.cache).

    It may not exist yet.
    """
    named = os.environ.get("LABKIT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labkit"
