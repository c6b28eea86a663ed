"""The browser that renders maths and that the tests drive: whichever Chromium is installed, or the
one that the variable CHROMIUM names.
"""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str:
    """Its path. FileNotFoundError where none is installed."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and (path := shutil.which(name)):
            return path
    raise FileNotFoundError(f"no {' or '.join(NAMES)} on this machine: make setup installs one")
