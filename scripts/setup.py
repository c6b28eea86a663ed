"""Make a fresh Debian or Ubuntu machine ready: system packages, `.venv`, browser assets.

A second run finds all of it done.

Runs before the virtual environment exists, so it uses the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from root import ROOT  # isort: skip
from course.browser import NAMES as CHROMIUMS  # isort: skip

VENV, VENDOR = ROOT / ".venv", ROOT / "book/_static/vendor"
PYTHON = VENV / "bin/python"
STAMPS = VENV / "course-stamps.json"
PACKAGES = [
    "libpango1.0-dev",
    "pkg-config",
    "gcc",
    "python3-dev",
    "python3-venv",
    "fonts-inter",
    "fonts-jetbrains-mono",
    "fonts-lmodern",
    "ffmpeg",
]
# The tests drive whichever is there of each: what to install, and the commands that will do.
BROWSERS = {
    "chromium": CHROMIUMS,
    "firefox-esr": ["firefox-esr", "firefox"],
}


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def stop(text: str) -> None:
    sys.exit(f"set-up: {text}")


def run(command: list, why: str, **options) -> None:
    """Run a command quietly; on failure say what failed and show the end of what it wrote."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        stop(f"{why} failed: {' '.join(map(str, command))}\n{tail}")


def missing_packages() -> list[str]:
    """The Debian packages that are not installed yet."""
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
    ).stdout
    there = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    missing = [p for p in PACKAGES if p not in there]
    browsers = [p for p, names in BROWSERS.items() if not any(map(shutil.which, names))]
    if platform.freedesktop_os_release()["ID"] == "ubuntu":  # it has no long-term Firefox
        browsers = [p.removesuffix("-esr") for p in browsers]
    return missing + browsers


def system_packages() -> None:
    if shutil.which("dpkg-query") is None:
        if not (
            shutil.which("pkg-config")
            and subprocess.run(["pkg-config", "--exists", "pangocairo"]).returncode == 0
        ):
            stop(
                "this is neither Debian nor Ubuntu: install what they call"
                f" {' '.join([*PACKAGES, *BROWSERS])}, then run make again"
            )
        return
    missing = missing_packages()
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        stop(f"run: sudo apt-get update && sudo {' '.join(install)}")
    say(f"installing {', '.join(missing)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], "the package lists", env=quiet)
    run(install, "the system packages", env=quiet)


def digest(*paths: Path) -> str:
    return hashlib.sha256(
        b"".join(p.read_bytes() for p in paths) + sys.version.encode()
    ).hexdigest()


def step(name: str, key: str, text: str, work, result: Path = VENV) -> None:
    """Do a piece of work unless it was done for the same inputs before and its result is still
    there.
    """
    stamps = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
    if stamps.get(name) == key and result.exists():
        return
    say(text)
    work()
    STAMPS.write_text(json.dumps(stamps | {name: key}))


def environment() -> None:
    if not PYTHON.exists():
        say("making .venv")
        run([sys.executable, "-m", "venv", VENV], "the virtual environment")

    def install():
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "-r", "requirements.txt", "-c", "constraints.txt", "-e", "."], "pip", cwd=ROOT)
        run([PYTHON, "-m", "pip", "check"], "pip check", cwd=ROOT)

    inputs = [ROOT / name for name in ("requirements.txt", "constraints.txt", "pyproject.toml")]
    step("python", digest(*inputs), "installing Python packages (a few minutes)", install)


def assets() -> None:
    script = ROOT / "scripts/assets.py"
    step(
        "assets",
        digest(script),
        "fetching MathJax, cutting web fonts",
        lambda: run([PYTHON, script], "the browser assets"),
        result=VENDOR,
    )


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (nothing has checked it yet)
        stop(
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; choose one with:"
            " make PYTHON=python3.12 book"
        )
    system_packages()
    environment()
    assets()


if __name__ == "__main__":
    main()
