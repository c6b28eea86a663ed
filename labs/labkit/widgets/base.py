"""What all widgets share: a still picture, what the browser needs to move it, and the weight that a
page may carry.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anywidget
import traitlets

from labkit import palette


def asset(*names: str) -> str:
    """Files of this folder, joined, as a page carries them: without indentation and without lines
    that are only a comment.
    """
    texts = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in names]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/** ")))


def stylesheet() -> str:
    """The widgets' CSS, with the palette before it."""
    return palette.rules() + asset("widgets.css", "charts.css")


class Widget(anywidget.AnyWidget):
    """A still picture that the browser brings to life.

    `still` is the whole card as HTML, as it stands where no script runs; the live one is a copy of
    it, with controls. `spec` is what moves. Neither ever changes.
    """

    _css = stylesheet()
    still = traitlets.Unicode().tag(sync=True)
    spec = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**traits)
        self.on_msg(_answer_ping)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        # Colab always has JavaScript, and need not choose between two views
        if "google.colab" not in sys.modules:
            data["text/html"] = self.still
        return data, metadata


def _answer_ping(widget: Widget, content, buffers) -> None:
    """The browser asks whether a kernel listens."""
    if content == "ping":
        widget.send("pong")


def weigh(what: str, data, max_bytes: int, remedy: str, times: int = 1) -> None:
    """ValueError, with size and remedy, when `times` such data would be too heavy for a page."""
    size = times * len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > max_bytes:
        raise ValueError(
            f"{what} would put {size / 1000:,.0f} kB on the page, over the limit of"
            f" {max_bytes / 1000:,.0f} kB (max_bytes): {remedy}"
        )
