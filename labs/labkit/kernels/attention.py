"""Attention over a cache that is read in place: nothing is copied, padded or masked.

The arithmetic is in attention.c; its twin in torch is `ops.attend`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode as watched

from labkit.kernels import build
from labkit.step import Step

# what it is compiled with, by what the cache holds
FLAGS = {torch.float32: (), torch.bfloat16: ("-DBF16",)}
EVERYTHING = 2**62  # a window that hides nothing


class Slots(ctypes.Structure):
    """Where a cache's keys and values lie: `struct slots` of kernels.h.

    keys, values [G,slots,E], in blocks of `block_size` slots; position p of row r is in block
    `table[r, p // block_size]`. Without a table it is in block r, which positions go round.
    """

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("heads", c_int64),
        ("slots", c_int64),
        ("head_dim", c_int64),
        ("block_size", c_int64),
        ("table", c_void_p),
        ("columns", c_int64),
    )

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, block_size: int, table: Tensor | None = None):
        """Pointers only: whoever asks keeps the tensors."""
        return cls(
            keys.data_ptr(),
            values.data_ptr(),
            *keys.shape,
            block_size,
            _pointer(table),
            0 if table is None else table.shape[1],
        )


class Requests(ctypes.Structure):
    """A step's requests: `struct requests` of kernels.h."""

    _fields_ = (
        ("count", c_int64),
        ("rows", c_void_p),
        ("cu", c_void_p),
        ("first", c_void_p),
    )


class Rule(ctypes.Structure):
    """How a query weighs what it may look at: `struct rule` of kernels.h."""

    _fields_ = (("sinks", c_void_p), ("window", c_int64), ("scale", c_float))

    @classmethod
    def of(cls, scale: float, window: int | None, sinks: Tensor | None):
        """Pointers only; sinks [H] are fp32 and side by side."""
        return cls(_pointer(sinks), EVERYTHING if window is None else window, scale)


def missing(dtype: torch.dtype = torch.float32) -> str:
    """Why there is no kernel for a cache of this dtype; empty if there is one."""
    return build.missing("attention", *FLAGS[dtype])


@cache
def _kernel(dtype: torch.dtype):
    function = build.library("attention", *FLAGS[dtype]).attend_alone
    function.argtypes = (
        *(c_void_p, c_int64, c_int64, c_void_p),  # q, its stride, H, out
        *(ctypes.POINTER(kind) for kind in (Slots, Requests, Rule)),
        c_int,  # threads
    )
    function.restype = None
    return function


def in_teams(dtype: torch.dtype) -> tuple[int, int]:
    """The addresses of `attend` and `keep`, for who calls them in a team."""
    library = build.library("attention", *FLAGS[dtype])
    return tuple(ctypes.cast(f, c_void_p).value for f in (library.attend, library.keep))


def takes(q: Tensor, keys: Tensor, values: Tensor) -> bool:
    """`attend` can multiply queries [N,H,E] by such a cache's buffers [G,slots,E]."""
    if q.device.type != "cpu" or q.dtype not in FLAGS or not q.dtype == keys.dtype == values.dtype:
        return False
    E = q.shape[2]
    sizes = E % 16 == 0 and E <= 512 and keys.shape == values.shape
    heads_side_by_side = q.stride()[1:] == (E, 1)
    # a gradient needs torch's operations, and who counts FLOPs sees no others
    unseen = not q.requires_grad and not watched()
    return sizes and heads_side_by_side and unseen and not missing(q.dtype)


def attend(
    q: Tensor,
    slots: Slots,
    step: Step,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal softmax attention of a step to all that its requests hold: q [N,H,E] -> [N,H,E].

    sinks [H]. The queries must be such as `takes` allows.
    """
    wide = q.float()
    out = torch.empty(q.shape)
    requests, _ = step.once("requests in C", lambda: requests_of(step))
    sinks = None if sinks is None else sinks.float().contiguous()
    _kernel(q.dtype)(
        wide.data_ptr(),
        wide.stride(0),
        q.shape[1],
        out.data_ptr(),
        slots,
        requests,
        Rule.of(scale, window, sinks),
        torch.get_num_threads(),
    )
    return out.to(q.dtype)


def requests_of(step: Step) -> tuple[Requests, list[Tensor]]:
    """The step's requests as C reads them, and the tensors that must live as long."""
    arrays = [x.long().contiguous() for x in (step.rows, step.cu, torch.tensor(step.first))]
    return Requests(len(step.rows), *(x.data_ptr() for x in arrays)), arrays


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
