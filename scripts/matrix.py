"""Run the tests that do arithmetic under every setting that changes arithmetic, one at a time.

    python scripts/matrix.py                      all but what `make test` is, in an hour on two
                                                  cores
    python scripts/matrix.py kernels-off threads-2     these

A test that passes here must pass on a stranger's machine, whose processor adds in another order.
So each setting makes torch, oneDNN or our kernels take a path that they take elsewhere. Which paths
there are depends on where this runs: a processor without AVX-512 takes the one for AVX2 with and
without `aten-avx2` and `onednn-avx2`. For the paths it does not have, `last-bits` stands in.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field

from root import ROOT

VENV = ROOT / ".venv/bin/python"
PYTHON = str(VENV) if VENV.exists() else sys.executable
# the tests of labkit and of the labs, less those that compute nothing
TESTS = ["tests/labkit", "tests/chapters", "tests/every/test_labs.py"]
NO_ARITHMETIC = [
    "widgets",
    "runbook",
    "chapters",
    "configs",
    "modules",
    "results",
    "tables",
    "lab",
    "estimate",
]


@dataclass(frozen=True)
class Setting:
    """Environment variables, and the machine that they stand for."""

    stands_for: str
    env: dict[str, str]
    args: list[str] = field(default_factory=list)


SETTINGS = {
    "threads-1": Setting("this machine, one thread: as `make test` runs", {}),
    "threads-2": Setting(
        "sums that two threads share",
        # two processes on two cores: a thread that waits must not spin
        {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    ),
    "aten-default": Setting(
        "torch's code for a processor without AVX2, or not of x86",
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        ["-p", "tests.no_bf16"],
    ),
    "aten-avx2": Setting(
        "torch's and oneDNN's code for a processor without AVX-512",
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        ["-p", "tests.no_bf16"],
    ),
    "onednn-avx2": Setting("oneDNN's alone, torch's as here", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "kernels-off": Setting("a machine without a C compiler", {"LABKIT_KERNELS": "off"}),
    "kernels-avx2": Setting(
        "our kernels on a processor without AVX-512", {"LABKIT_MARCH": "x86-64-v3"}
    ),
    "last-bits": Setting(
        "a processor that is not here: sums end in other last bits (tests/last_bits.py)",
        {"LABKIT_KERNELS": "off"},
        ["-p", "tests.last_bits"],
    ),
}


def run(name: str, processes: int) -> tuple[dict[str, int], float, str]:
    """What pytest counted (passed, failed, ...), the seconds it took, and what it printed."""
    setting = SETTINGS[name]
    changed = {variable for one in SETTINGS.values() for variable in one.env}
    env = {k: v for k, v in os.environ.items() if k not in changed}
    command = [PYTHON, "-m", "pytest", "-n", str(processes)]
    command += [f"--ignore=tests/labkit/test_{name}.py" for name in NO_ARITHMETIC]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *setting.args, *TESTS],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1"} | env | setting.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts = {
        what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|error)", done.stdout[-400:])
    }
    # a run that was cut short has counted nothing
    counts["failed"] = counts.get("failed", 0) + counts.pop("error", 0)
    counts["failed"] = counts["failed"] or int(done.returncode != 0)
    return counts, time.monotonic() - start, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="\n".join(f"{name:<14}{s.stands_for}" for name, s in SETTINGS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="default: all but threads-1")
    parser.add_argument("-n", "--processes", type=int, default=2)
    chosen = parser.parse_args()
    if unknown := set(chosen.settings) - set(SETTINGS):
        parser.error(
            f"no setting is called {', '.join(sorted(unknown))}: choose from {', '.join(SETTINGS)}"
        )
    print(f"{'setting':<14}{'passed':>8}{'failed':>8}{'seconds':>9}   stands for", flush=True)
    wrong = 0
    # `make test` runs as threads-1 does
    for name in chosen.settings or [name for name in SETTINGS if name != "threads-1"]:
        counts, seconds, printed = run(name, chosen.processes)
        passed, failed = counts.get("passed", 0), counts["failed"]
        print(
            f"{name:<14}{passed:>8}{failed:>8}{seconds:>9.0f}   {SETTINGS[name].stands_for}",
            flush=True,
        )
        if failed:
            print(printed)
        wrong += failed
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
