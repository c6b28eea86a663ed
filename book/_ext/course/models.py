"""The small model that a page runs (`labkit.widgets.write`) lies beside the site's scripts, and is
loaded when a reader asks for it.
"""

from __future__ import annotations

from pathlib import Path

from labkit.widgets.model_file import script
from labkit_labs.common import character


def write_model(app, exception):
    if exception is None and app.builder.format == "html":
        name, text = script(character.for_browser())
        (Path(app.outdir) / "_static" / name).write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", write_model)
