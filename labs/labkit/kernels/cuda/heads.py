"""What one layer does with its queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Heads:
    """Sizes, scale, positions and what families add.

    angles [positions, dim] fp32: cos of dim/2 angles, then sin; dim of each head's E dimensions are
    rotated, 0 = none.
    """

    H: int
    G: int
    E: int
    scale: float
    angles: Tensor
    window: int | None = None
    q_norm: Tensor | None = None  # [E]
    k_norm: Tensor | None = None
    eps: float = 1e-6
    sinks: Tensor | None = None  # [H]
