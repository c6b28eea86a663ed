"""A view for each kind of trace that can be played: `<kind>.py` has `scene(trace)`, which lays its
steps out. A file is all it takes: it is found by its name.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from labkit.traces import Trace
from labkit.widgets.scene import Scene


def kinds() -> list[str]:
    """The kinds of trace that have a view."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def scene(trace: Trace) -> Scene:
    """The trace, laid out by its kind's view. ValueError for a kind that has none yet."""
    if trace.kind not in kinds():
        raise ValueError(
            f"no view draws {trace.kind!r} traces yet (widgets/views/{trace.kind}.py): a player"
            f" shows {', '.join(kinds())}"
        )
    return import_module(f"{__name__}.{trace.kind}").scene(trace)
