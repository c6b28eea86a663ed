"""Weights in 8 and 4 bits, packed for our kernels on a GPU (`kernels.cuda.linear`).

Their twins are the "plain" kernels of `linear.Int8Linear` and `linear.Int4Linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels import cuda
from labkit.kernels.cuda.matrix import Matrix, pack, packs

TILE = 32  # outputs of a program


class Packed:
    """Codes [out,in] int8 and their scale, packed. Activations in bf16, sums in fp32.

    Many rows (a prompt) have the codes widened once, and an ordinary product.
    """

    def __init__(self, codes: Tensor, scale: Tensor, bits: int = 8):
        self.matrix: Matrix = pack(codes, scale, bits)

    def __call__(self, rows: Tensor) -> Tensor:
        from labkit.kernels.cuda.linear import linear, takes

        # the interpreter's tensor cores take fp32 only
        x = rows.float() if cuda.interpreted() else rows.bfloat16()
        if not takes(self.matrix, len(x)):
            return F.linear(x, self.matrix.dense().to(x.dtype)).float()
        out = torch.empty(len(x), self.matrix.shape[0], device=x.device)
        return linear(x.contiguous(), self.matrix, out=out)


def missing(device: str, bits: int = 8) -> str:
    """Why codes can't be multiplied so on this device; empty if they can."""
    return cuda.missing(device, bits) if device == "cuda" else "packed codes are for GPUs"


def fits(inputs: int, outputs: int, bits: int) -> bool:
    """Whether the kernels can cut a weight of this shape."""
    return packs(inputs, bits) and outputs % TILE == 0
