"""The CUDA tests, and how many of them passed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

# what they test, so that a result is old once any of it has changed
from labkit import engine, graphs, quant, speculative, weights  # noqa: F401
from labkit.graphs import cuda, ways  # noqa: F401
from labkit.paths import labs

COLUMNS = {"tests": "tests", "passed": "passed", "skipped": "skipped", "seconds": "seconds|.0f"}


KERNELS = "tests/labkit/test_triton.py"


def measure(device: str = "cuda", *, kernels: bool = False, select=()) -> list[dict]:
    """One row. kernels: their own tests, and no others; compiling takes its time. select: what
    pytest is given instead. On a GPU, only CUDA tests count.

    ValueError with the names of those that failed.
    """
    select = select or ([KERNELS] if kernels else ["tests/labkit", f"--ignore={KERNELS}"])
    marked = ["-m", "cuda"] if device.startswith("cuda") else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", *select, *marked, f"--junitxml={report}"],
            cwd=labs().parent,
        )
        if not report.exists():
            raise ValueError(f"pytest did not run {' '.join(select)}: it says why above")
        tree = ElementTree.parse(report)
        cases = [*tree.iter("testcase")]
    wrong = [c.get("name") for c in cases if c.find("failure") is not None or _erred(c)]
    if wrong or not cases:
        raise ValueError(f"{len(wrong)} of {len(cases)} tests failed: {', '.join(wrong[:8])}")
    skipped = sum(c.find("skipped") is not None for c in cases)
    return [
        {
            "tests": len(cases),
            "passed": len(cases) - skipped,
            "skipped": skipped,
            "seconds": sum(float(suite.get("time")) for suite in tree.iter("testsuite")),
        }
    ]


def _erred(case) -> bool:
    return case.find("error") is not None
