"""Making the kernels: the C compiler that most machines have compiles each one at first use, for
the processor at hand, and what it made is kept in the cache folder.

LABKIT_KERNELS=off switches them off. LABKIT_MARCH names another processor to compile for, as gcc
does: `x86-64-v3` has AVX2 and no AVX-512.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from labkit.paths import cache_folder

FLAGS = ("-O3", "-ffast-math", "-fopenmp", "-fPIC")


def compiler() -> str | None:
    """Where the C compiler is; None where these kernels are not made for, or wanted."""
    if sys.platform != "linux" or os.environ.get("LABKIT_KERNELS") == "off":
        return None
    return shutil.which("cc")


@cache
def library(name: str, *flags: str) -> ctypes.CDLL:
    """The compiled `name.c`, from the cache folder if it was compiled here before.

    OSError with the reason where it can't be had.
    """
    if os.environ.get("LABKIT_KERNELS") == "off":
        raise OSError("LABKIT_KERNELS is off")
    if sys.platform != "linux":
        raise OSError("made for Linux only")
    source = Path(__file__).with_name(f"{name}.c")
    flags = (*FLAGS, f"-march={os.environ.get('LABKIT_MARCH') or 'native'}", *flags)
    threads = _openmp()
    # whatever may change what is made: one folder may serve several machines
    texts = [source.read_bytes(), source.with_name("kernels.h").read_bytes()]
    key = repr((texts, flags, threads, _processor()))
    made = cache_folder() / "kernels" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            # whole or not at all
            os.replace(_compile(source, flags, threads, Path(folder)), made)
    return ctypes.CDLL(str(made))


@cache
def missing(name: str = "linear", *flags: str) -> str:
    """Why there is no such kernel; empty if there is one."""
    try:
        library(name, *flags)
    except OSError as e:
        return str(e)
    return ""


def _openmp() -> str:
    """The OpenMP library that torch brought along: kernels run on the same threads."""
    torch.ones(2, 2) @ torch.ones(2, 2)  # it is loaded by now
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = sorted({line.split()[-1] for line in maps if "libgomp" in line})
    if not found:
        raise OSError("torch brings no GNU OpenMP, whose threads they would share")
    return found[0]


def _processor() -> str:
    """What this machine's processor can do, as Linux lists it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(source: Path, flags, threads: str, folder: Path) -> Path:
    compiled, linked = folder / "kernel.o", folder / "kernel.so"
    _run(["cc", *flags, "-c", str(source), "-o", str(compiled)])
    # linked without the flags: -ffast-math would change the arithmetic of the whole process
    link = ["cc", "-shared", str(compiled), threads, "-o", str(linked)]
    try:
        _run([*link, "-lmvec", "-lm"])
    except OSError:  # a libc without vector functions
        _run([*link, "-lm"])
    return linked


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise OSError("there is no C compiler here") from None
    except subprocess.CalledProcessError as e:
        raise OSError(f"the C compiler refused: {' '.join(e.stderr.split())[-200:]}") from None
