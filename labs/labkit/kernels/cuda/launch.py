"""What every launch shares: whether kernels are interpreted, and whether they may overlap."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from labkit.kernels.cuda import interpreted

INTERPRET = tl.constexpr(interpreted())


def overlapping(early: bool) -> dict:
    """A launch's options. early: by programmatic dependent launch a kernel starts, and fetches
    its first weights, while the one before it still runs.

    That is only right if *every* kernel of the chain waits (`gdc_wait`) before it touches anything
    that a kernel of the same step wrote; weights, positions and tables it may read before.
    """
    if early and not interpreted():
        return {"EARLY": True, "launch_pdl": True}
    return {"EARLY": False}


def words(x: Tensor) -> Tensor:
    """Neighbouring 16-bit numbers, two to a word of 32 bits."""
    return x.view(torch.int32)
