"""Products with a weight in panels, a layout that a processor's caches and vectors like.

The arithmetic on weights of 32 and 16 bits is in linear.c; its twin in torch is `F.linear`. On
weights of 8 and 4 bits it is in whole.c, in whole numbers; its twins are in `quant.linear`. x and y
are fp32, whatever the weight is.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_void_p
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels import build

# the source of each kernel, and what it is compiled with, by what the panels hold: numbers of a
# dtype, or codes of 8 or 4 bits that meet activations of as many bits as fit, or of 8 ("a8")
FLAGS = {
    torch.float32: ("linear",),
    torch.float16: ("linear", "-DHALF"),
    torch.bfloat16: ("linear", "-DBRAIN"),
    "w8": ("whole", "-DBITS=8"),
    "w8a8": ("whole", "-DBITS=8", "-DNARROW"),
    "w4": ("whole", "-DBITS=4"),
    "w4a8": ("whole", "-DBITS=4", "-DNARROW"),
}
# inputs of one output that lie side by side in a panel
TOGETHER = {torch.bfloat16: 2, "w8": 4, "w8a8": 4}


def missing(kind: torch.dtype | str = torch.float32) -> str:
    """Why there is no kernel for panels of this kind; empty if there is one."""
    return build.missing(*FLAGS[kind])


class Matrix(ctypes.Structure):
    """A weight as the kernels read it: `struct matrix` of kernels.h."""

    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("minimum", c_void_p),
    )


class InPanels(NamedTuple):
    """What a layer hands to a kernel: pointers, which kernel of `FLAGS` reads them, and the tensors
    that they point into, to be kept as long as they are used.
    """

    matrix: Matrix
    kind: torch.dtype | str
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, kind, shape, panels, *, scale=None, bias=None, minimum=None) -> InPanels:
        """Of a weight of this shape, [out,in]. bias: [out], any dtype."""
        bias = None if bias is None else bias.detach().float().contiguous()
        weight, scale_, bias_, minimum_ = (
            None if t is None else t.data_ptr() for t in (panels, scale, bias, minimum)
        )
        matrix = Matrix(weight, scale_, bias_, shape[1], shape[0], minimum_)
        return cls(matrix, kind, tuple(t for t in (panels, scale, bias, minimum) if t is not None))

    def multiply(self, x: Tensor) -> Tensor:
        """x [N,in] -> [N,out], in x's dtype."""
        rows = x.float()
        rows = rows if rows.stride(-1) == 1 else rows.contiguous()
        y = rows.new_empty(len(rows), self.matrix.outputs)
        _alone(self.kind)(
            self.matrix,
            *(rows.data_ptr(), rows.stride(0), len(rows)),
            *(None, y.data_ptr(), torch.get_num_threads()),
        )
        return y.to(x.dtype)


@cache
def _alone(kind: torch.dtype | str):
    """A kernel that starts a team for itself: `linear_alone`."""
    function = build.library(*FLAGS[kind]).linear_alone
    function.argtypes = (
        ctypes.POINTER(Matrix),
        *(c_void_p, c_int64, c_int64),  # x, its stride, rows
        *(c_void_p, c_void_p, c_int),  # add, y, threads
    )
    function.restype = None
    return function


def in_panels(kind: torch.dtype | str):
    """The kernel `linear` that the threads of a team call together, for those who start a team."""
    return build.library(*FLAGS[kind]).linear


def to_panels(weight: Tensor, kind: torch.dtype | str | None = None) -> Tensor:
    """weight [out,in] -> [panels,in,P]: P outputs side by side, the last panel filled up with
    zeros.

    Where a kernel takes several inputs of an output together: [panels,in/together,P,together].
    kind: of `FLAGS`; None = the weight's dtype.
    """
    kind = kind or weight.dtype
    P, together = build.library(*FLAGS[kind]).panel(), TOGETHER.get(kind, 1)
    filled = F.pad(weight, (0, -weight.shape[1] % together, 0, -len(weight) % P))
    panels = filled.unflatten(1, (-1, together)).unflatten(0, (-1, P)).transpose(1, 2).contiguous()
    return panels if together > 1 else panels.squeeze(-1)


def from_panels(panels: Tensor, out: int, inputs: int) -> Tensor:
    """The weight [out,inputs] that `to_panels` was given."""
    panels = panels if panels.dim() == 4 else panels.unsqueeze(-1)
    weight = panels.transpose(1, 2).flatten(0, 1).flatten(1)
    return weight[:out, :inputs].contiguous()


# two codes of 0 … 15 in a byte, as `whole.c` wants them: of eight inputs, the first four in the
# lower halves and the others in the upper ones


def to_nibbles(codes: Tensor) -> Tensor:
    """codes [out,in], 0 … 15 -> panels uint8 [panels,in/8,P,4]."""
    low, high = codes.to(torch.uint8).unflatten(1, (-1, 2, 4)).unbind(2)
    return to_panels((low | high << 4).flatten(1), "w8")


def from_nibbles(panels: Tensor, out: int, inputs: int) -> Tensor:
    """The codes [out,inputs] that `to_nibbles` was given."""
    both = from_panels(panels, out, inputs // 2).unflatten(1, (-1, 4))
    return torch.stack([both & 15, both >> 4], 2).flatten(1)


class Panels:
    """A `Linear`'s weight in panels."""

    def __init__(self, weight: Tensor):
        self.shape = tuple(weight.shape)

    def lay(self, weight: Tensor) -> Tensor:
        return to_panels(weight)

    def matrix(self, weight: Tensor, bias: Tensor | None) -> InPanels:
        return InPanels.of(weight.dtype, self.shape, weight, bias=bias)

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.matrix(weight, bias).multiply(x)

    def dense(self, weight: Tensor) -> Tensor:
        return from_panels(weight, *self.shape)
