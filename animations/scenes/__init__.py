"""The scenes, a module for each page that has clips: `ch05_swa` is the chapter's, `ch05b_…` its
second page's.
"""

from __future__ import annotations

import importlib
import pkgutil


def clips(chapter: str = "") -> list[type]:
    """Every scene class that a module lists in its `CLIPS`, by chapter; of one, if it is named."""
    names = sorted(
        m.name for m in pkgutil.iter_modules(__path__) if m.name[2:4].startswith(chapter)
    )
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [scene for module in modules for scene in module.CLIPS]
