"""What a reader must know of a machine to judge a number that was measured on it."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "torch", "transformers")


def environment(
    device: str = "cpu", *, load: float | None = None, threads: int | None = None
) -> dict:
    """Processor, cores, threads, the kernels that ran, versions; on a GPU its name.

    load: the machine's load average before the run, which only the caller can have taken
    (`load_average`). threads: torch's threads during the run, where it gave them back after it.
    """
    env: dict = {
        "cpu": _cpu_name(),
        "cores": cores(),
        "os": platform.system(),
        "python": platform.python_version(),
    }
    quota = cpu_quota()
    if quota is not None:
        env["cpu_quota"] = quota
    if load is not None:
        env["load"] = load
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            env[package] = metadata.version(package)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        env["threads"] = threads or torch.get_num_threads()
        env["capability"] = torch.backends.cpu.get_cpu_capability()
        if str(device).startswith("cuda"):
            env["gpu"] = torch.cuda.get_device_name()
            env["cuda"] = torch.version.cuda
    # they are for processors, and without that module none has run
    if "gpu" not in env and "labkit.kernels" in sys.modules:
        env["kernels"] = own_kernels()
    return env


def own_kernels() -> str:
    """What the kernels in C are on this machine: compiled, off, or absent and why."""
    from labkit import kernels

    if os.environ.get("LABKIT_KERNELS") == "off":
        return "off"
    reason = kernels.missing("linear") or kernels.missing("attention")
    return f"absent: {reason}" if reason else "compiled"


def file_name(env: dict) -> str:
    """The part of a result's file name that tells its machine: `amd-epyc-2core`, `nvidia-h200`."""
    name = env.get("gpu") or f"{env['cpu']} {env['cores']}core"
    name = re.sub(r"\(r\)|\(tm\)|processor|cpu|@", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def load_average() -> float | None:
    """How many processes have wanted a processor in the last minute; None where no one counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cores(root: Path = Path("/")) -> int:
    """The cores that this process may use: as many as its affinity names (`taskset -c 0,1` makes a
    machine of two), and no more than its group's quota pays for, rounded up.
    """
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the process's control group may use (a container's `--cpus`);
    None without a limit. Reads cgroups of version 2 and 1 below `root`.

    A group is held by the tightest limit between it and the top. In a container the path that the
    process sees may not be there; its own group then stands at the top.
    """
    groups = root / "sys/fs/cgroup"
    limits = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, read = groups, _quota_of_version_2
            elif "cpu" in controllers.split(","):
                top, read = groups / controllers, _quota_of_version_1
                top = top if top.is_dir() else groups / "cpu"
            else:
                continue
            here = top / path.strip("/")
            levels = [level for level in (here, *here.parents) if top in (level, *level.parents)]
            limits += [limit for level in levels if (limit := read(level)) is not None]
    return min(limits, default=None)


def _quota_of_version_2(group: Path) -> float | None:
    """`cpu.max` says "150000 100000": microseconds of processor time a period, or "max"."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _quota_of_version_1(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None  # -1 is no limit
    return None


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
