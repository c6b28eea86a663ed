"""Kernels of our own in C, for CPUs, each beside the torch code that it equals.

The C compiler that most machines have makes them at first use, for the processor at hand. Where
there is none, or the arithmetic does not fit, the callers take torch's way, with the same result.
`labkit doctor` says which; LABKIT_KERNELS=off switches them off.
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
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode as watched

from labkit.paths import cache_folder
from labkit.step import Step

FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
# what it is compiled with, by what the cache holds
ATTENTION = {torch.float32: (), torch.bfloat16: ("-DBF16",)}
WEIGHTS = {torch.float32: (), torch.float16: ("-DHALF",), torch.int8: ("-DCODES",)}
EVERYTHING = 2**62  # a window that hides nothing


def compiler() -> str | None:
    """Where the C compiler is; None where these kernels are not made for, or wanted."""
    return (
        shutil.which("cc")
        if sys.platform == "linux" and os.environ.get("LABKIT_KERNELS") != "off"
        else None
    )


@cache
def library(name: str, *flags: str) -> ctypes.CDLL:
    """The compiled `name.c`, from the cache folder if it was compiled here before.

    OSError with the reason where it can't be had.
    """
    if os.environ.get("LABKIT_KERNELS") == "off":
        raise OSError("LABKIT_KERNELS is off")
    if sys.platform != "linux":
        raise OSError("made for Linux only")
    torch.ones(2, 2) @ torch.ones(2, 2)
    openmp = sorted(
        {
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "libgomp" in line
        }
    )
    if not openmp:
        raise OSError("torch brings no GNU OpenMP, whose threads they would share")
    source = Path(__file__).with_name(f"{name}.c")
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    features = [line for line in cpu if line.startswith(("flags", "Features"))][:1]
    key = hashlib.sha256(
        repr((source.read_bytes(), FLAGS, flags, openmp, features)).encode()
    ).hexdigest()[:16]
    made = cache_folder() / "kernels" / f"{name}-{key}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            built = Path(folder) / name
            _run(["cc", *FLAGS, *flags, "-c", str(source), "-o", f"{built}.o"])
            # with -ffast-math it would change the process's arithmetic
            link = ["cc", "-shared", f"{built}.o", openmp[0], "-o", f"{built}.so"]
            try:
                _run([*link, "-lmvec", "-lm"])
            except OSError:  # a libc without vector functions
                _run([*link, "-lm"])
            os.replace(f"{built}.so", made)  # whole or not at all
    return ctypes.CDLL(str(made))


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise OSError("there is no C compiler here") from None
    except subprocess.CalledProcessError as e:
        raise OSError(f"the C compiler refused: {' '.join(e.stderr.split())[-200:]}") from None


@cache
def missing(name: str = "linear", *flags: str) -> str:
    """Why there is no such kernel; empty if there is one."""
    try:
        library(name, *flags)
    except OSError as e:
        return str(e)
    return ""


# -- linear layers: linear.c -------------------------------------------------------------


@cache
def _linear(dtype: torch.dtype):
    function = library("linear", *WEIGHTS[dtype]).linear
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 4 + [ctypes.c_int]
    function.restype = None
    return function


def to_panels(weight: Tensor) -> Tensor:
    """weight [out,in] in fp32, fp16 or INT8 codes -> [panels,in,P]: P outputs side by side, the
    last panel filled up with zeros.
    """
    P = library("linear").panel()
    return (
        F.pad(weight, (0, 0, 0, -len(weight) % P))
        .unflatten(0, (-1, P))
        .transpose(1, 2)
        .contiguous()
    )


def from_panels(panels: Tensor, out: int) -> Tensor:
    """The way back: the first `out` outputs, [out,in]."""
    return panels.transpose(1, 2).flatten(0, 1)[:out].contiguous()


def linear(
    x: Tensor, panels: Tensor, bias: Tensor | None, out: int, scale: Tensor | None = None
) -> Tensor:
    """x [N,in] fp32 by a weight in panels, times scale [out], plus bias [out] -> [N,out] fp32.

    All products and sums are fp32.
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = x.new_empty(len(x), out)
    _linear(panels.dtype)(
        x.data_ptr(),
        panels.data_ptr(),
        *(None if t is None else t.data_ptr() for t in (scale, bias)),
        y.data_ptr(),
        len(x),
        panels.shape[1],
        out,
        x.stride(0),
        torch.get_num_threads(),
    )
    return y


# -- attention over a cache, read in place: attention.c ----------------------------------


@cache
def _attend(dtype: torch.dtype):
    function = library("attention", *ATTENTION[dtype]).attend
    function.argtypes = (
        [ctypes.c_void_p] * 9 + [ctypes.c_int64] * 9 + [ctypes.c_float, ctypes.c_int]
    )
    function.restype = None
    return function


def can_attend(q: Tensor, step: Step, cache) -> bool:
    """`attend` can do it, and is the faster way: prompts with nothing before them are for torch's.

    So is what a counter of FLOPs must see.
    """
    if (
        q.device.type != "cpu"
        or getattr(cache, "table", None) is None
        or not any(step.first)
        or q.requires_grad
        or watched()
    ):
        return False
    k, v = cache.buffers
    return (
        k.dtype == v.dtype == q.dtype
        and q.dtype in ATTENTION
        and k.shape == v.shape
        and q.shape[2] % 16 == 0
        and q.shape[2] <= 512
        and q.stride()[1:] == (q.shape[2], 1)
        and not missing("attention", *ATTENTION[q.dtype])
    )


def attend(
    q: Tensor,
    step: Step,
    cache,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal softmax attention of a step to all that its requests hold: q [N,H,E] -> [N,H,E].

    Nothing is copied, padded or masked.
    """
    (k, v), out = cache.buffers, torch.empty(q.shape, dtype=q.dtype)
    rows, cu, first = step.once(
        "kernel",
        lambda: [x.long().contiguous() for x in (step.rows, step.cu, torch.tensor(step.first))],
    )
    sinks = None if sinks is None else sinks.float().contiguous()
    _attend(q.dtype)(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        cache.table.data_ptr(),
        rows.data_ptr(),
        cu.data_ptr(),
        first.data_ptr(),
        None if sinks is None else sinks.data_ptr(),
        out.data_ptr(),
        len(rows),
        cache.table.shape[1],
        cache.block_size,
        k.shape[1],
        q.stride(0),
        q.shape[1],
        k.shape[0],
        q.shape[2],
        EVERYTHING if window is None else window,
        scale,
        torch.get_num_threads(),
    )
    return out
