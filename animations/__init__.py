"""The course's clips and films: one file of scene classes per chapter, one visual language for all.

`style` (colours, type, easing) → `mobjects`, `charts` (domain objects with named animations) →
`chNN_*` (scenes). `clock` gives a scene its timing and captions, `render` makes the files, `audit`
checks every layout without drawing it.
"""

from __future__ import annotations

import importlib
import pkgutil


def clips() -> list[type]:
    """Every scene class that a chapter module lists in its `CLIPS`, in the order of the chapters."""
    names = sorted(
        m.name
        for m in pkgutil.iter_modules(__path__)
        if m.name.startswith("ch") and m.name[2:4].isdigit()
    )
    return [
        scene for name in names for scene in importlib.import_module(f"{__name__}.{name}").CLIPS
    ]
