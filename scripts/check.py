"""The checks of `make test`: committed notebooks are current, the book builds where it is missing
or stale, lint, every test on two processes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    # before the book is built, which would write them anew
    "the committed notebooks": ["scripts/notebooks.py", "--check"],
    "the README's numbers": ["scripts/readme.py", "--check"],
    "the book": ["scripts/book.py"],
    "lint": ["-m", "ruff", "check", "--quiet", "."],
    "the tests": ["-m", "pytest", "-n", "2", "--dist", "loadfile"],
}


def main() -> int:
    failed = []
    for what, command in CHECKS.items():
        if subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
            failed.append(what)
        if "the book" in failed:
            break  # the tests of the site would only repeat it
    print(f"make test: {', '.join(failed)} failed" if failed else "make test: all passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
