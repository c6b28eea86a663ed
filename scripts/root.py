"""Where the repository is. Importing this puts its own packages, which are not installed, on the
path: `animations`, and `course`, the book's extension.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path[:0] = [str(ROOT), str(ROOT / "book/_ext")]
