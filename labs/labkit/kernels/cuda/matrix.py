"""A weight in 16, 8 or 4 bits, as the kernels of `linear` read it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 32  # inputs that share the scale of a 4-bit weight


@dataclass(frozen=True, eq=False)
class Matrix:
    """Weights [N,K] as they are, or in few bits: 8 with a scale per row, 4 with a scale per 32
    neighbouring inputs.

    A packed number of 16 bits holds Q = 16 / bits codes, of inputs that are K/Q apart: number j
    has those of inputs j, j + K/Q, j + 2K/Q, … So neighbouring numbers meet neighbouring inputs,
    as in 16 bits, only Q times.
    """

    codes: Tensor  # [N,K] of a float, or [N,K/Q] int16
    # [N] fp32, or [N,K/128,4] bf16: the groups of one number's four codes lie together
    scale: Tensor | None = None
    bits: int = 16

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs N, inputs K."""
        return self.codes.shape[0], self.codes.shape[1] * (16 // self.bits)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def numbers(self) -> Tensor:
        """The codes [N,K] int8 of few bits, centred on 0."""
        half = 2 ** (self.bits - 1)
        shifts = range(0, 16, self.bits)
        runs = [(self.codes >> shift & 2 * half - 1) - half for shift in shifts]
        return torch.cat(runs, 1).to(torch.int8)

    def dense(self) -> Tensor:
        """The weights [N,K]: as they are, or in fp32."""
        if self.scale is None:
            return self.codes
        codes = self.numbers().float()
        if self.bits == 8:
            return codes * self.scale[:, None]
        scale = self.scale.float().transpose(1, 2).flatten(1)  # [N,K/32]
        return codes * scale.repeat_interleave(GROUP, 1)


def packs(inputs: int, bits: int) -> bool:
    """Whether rows of so many inputs split into 16 / bits runs of whole groups and words."""
    return inputs % (4 * GROUP if bits == 4 else 4) == 0


def pack(codes: Tensor, scale: Tensor, bits: int) -> Matrix:
    """codes [N,K] int8, centred on 0, and scale, [N] fp32 for 8 bits or [N,K/32] bf16 for 4.

    ValueError for rows that do not split.
    """
    inputs = codes.shape[1]
    if not packs(inputs, bits):
        raise ValueError(f"rows of {inputs} inputs do not split into {16 // bits} runs of groups")
    half = 2 ** (bits - 1)
    packed = torch.zeros_like(codes[:, : inputs * bits // 16], dtype=torch.int32)
    for i, run in enumerate(codes.chunk(16 // bits, 1)):
        packed |= (run.int() + half) << bits * i
    if bits == 4:
        scale = torch.stack(scale.chunk(4, 1), 2)
    # the lower 16 bits are kept: numbers from 32768 on become negative
    return Matrix(packed.to(torch.int16), scale.contiguous(), bits)
