"""Products with a weight in panels, a layout that a processor's caches and vectors like.

The arithmetic is in linear.c; its twin in torch is `F.linear`. Weights may be fp32, fp16 or INT8
codes: they are widened in registers, and all products and sums are fp32.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_void_p
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels import build

# what it is compiled with, by what the panels hold
FLAGS = {torch.float32: (), torch.float16: ("-DHALF",), torch.int8: ("-DCODES",)}


def missing(dtype: torch.dtype = torch.float32) -> str:
    """Why there is no kernel for weights of this dtype; empty if there is one."""
    return build.missing("linear", *FLAGS[dtype])


class Matrix(ctypes.Structure):
    """A weight as the kernels read it: `struct matrix` of kernels.h."""

    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_int64),
        ("outputs", c_int64),
    )

    @classmethod
    def of(cls, panels: Tensor, out: int, scale: Tensor | None, bias: Tensor | None):
        """Pointers only: whoever asks keeps the tensors."""
        pointers = (None if t is None else t.data_ptr() for t in (panels, scale, bias))
        return cls(*pointers, panels.shape[1], out)


@cache
def _kernel(dtype: torch.dtype):
    function = build.library("linear", *FLAGS[dtype]).linear_alone
    function.argtypes = (
        ctypes.POINTER(Matrix),
        *(c_void_p, c_int64, c_int64),  # x, its stride, rows
        *(c_void_p, c_void_p, c_int),  # add, y, threads
    )
    function.restype = None
    return function


def in_teams(panels: Tensor, out: int, scale: Tensor | None, bias: Tensor | None):
    """A weight in panels for who calls the kernel in a team: the kernel's address, the `Matrix`,
    and the tensors that it points to.
    """
    bias = None if bias is None else bias.detach().float().contiguous()
    function = build.library("linear", *FLAGS[panels.dtype]).linear
    address = ctypes.cast(function, c_void_p).value
    return address, Matrix.of(panels, out, scale, bias), (panels, scale, bias)


def to_panels(weight: Tensor) -> Tensor:
    """weight [out,in] -> [panels,in,P]: P outputs side by side, the last panel filled up with
    zeros.
    """
    P = build.library("linear").panel()
    filled = F.pad(weight, (0, 0, 0, -len(weight) % P))
    return filled.unflatten(0, (-1, P)).transpose(1, 2).contiguous()


def from_panels(panels: Tensor, out: int) -> Tensor:
    """The first `out` outputs of `to_panels`, [out,in]."""
    return panels.transpose(1, 2).flatten(0, 1)[:out].contiguous()


def multiply(
    x: Tensor, panels: Tensor, bias: Tensor | None, out: int, scale: Tensor | None = None
) -> Tensor:
    """x [N,in] fp32 by a weight in panels, times scale [out], plus bias [out] -> [N,out] fp32."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = x.new_empty(len(x), out)
    matrix = Matrix.of(panels, out, scale, bias)
    threads = torch.get_num_threads()
    _kernel(panels.dtype)(matrix, x.data_ptr(), x.stride(0), len(x), None, y.data_ptr(), threads)
    return y


class Panels:
    """A `Linear`'s weight in panels."""

    def __init__(self, weight: Tensor):
        self.out = len(weight)

    def lay(self, weight: Tensor) -> Tensor:
        return to_panels(weight)

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return multiply(x, weight, bias, self.out)

    def dense(self, weight: Tensor) -> Tensor:
        return from_panels(weight, self.out)

    def matrix(self, weight: Tensor, bias: Tensor | None):
        return in_teams(weight, self.out, None, bias)
