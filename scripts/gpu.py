"""`make gpu`: the CUDA tests, measurements and labs on this machine's GPU, a part at a time, each
of a few minutes and with a result of its own in labs/results.

A part that this GPU has run with this code is passed over: run it again after a stop, and it goes
on. PART=decode runs one part, or group of parts; AGAIN=1 measures again what is there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from root import ROOT


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", default="")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args(argv)
    from labkit.gpu import parts

    try:
        chosen = parts.find(args.part)
    except ValueError as e:
        print(f"make gpu: {e}", file=sys.stderr)
        return 2
    import torch

    if not torch.cuda.is_available():
        print("make gpu: this machine has no CUDA device that torch can use; nothing was run")
        return 0
    print(f"make gpu: {torch.cuda.get_device_name()}", flush=True)
    failed = [part.name for part in chosen if not run(part, args.again)]
    if failed:
        print(f"make gpu: {', '.join(failed)} failed; the same command runs them again")
    return bool(failed)


def run(part, again: bool) -> bool:
    """Run a part in a process of its own, unless it is there. Whether all is well."""
    if not again and part.stored():
        print(f"make gpu: {part.name} is stored already", flush=True)
        return True
    print(f"make gpu: {part.name}: {part.says}", flush=True)
    start = time.perf_counter()
    try:
        command = [sys.executable, "-m", "labkit.cli", *part.arguments]
        code = subprocess.run(command, cwd=ROOT, timeout=60 * part.minutes).returncode
    except subprocess.TimeoutExpired:
        print(f"make gpu: {part.name} was stopped after {part.minutes:g} minutes", flush=True)
        return False
    print(f"make gpu: {part.name} took {time.perf_counter() - start:.0f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
