"""`make gpu`: the CUDA tests, every lab and the benchmark on this machine's GPU, results stored;
one line where there is none.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    if not torch.cuda.is_available():
        print("make gpu: this machine has no CUDA device that torch can use; nothing was run")
        return 0
    print(f"make gpu: {torch.cuda.get_device_name()}", flush=True)
    commands = [
        ["pytest", "-m", "cuda"],
        ["labkit.cli", "bench", "--device", "cuda", "--against", "transformers", "--store"],
        ["labkit.cli", "runbook", "--device", "cuda", "--store", "--keep-going"],
    ]
    return max(
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode
        for command in commands
    )


if __name__ == "__main__":
    sys.exit(main())
