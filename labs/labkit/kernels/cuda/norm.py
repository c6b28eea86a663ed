"""The residual stream and its RMSNorm, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labkit.kernels.cuda.launch import overlapping


def add_norm_naive(
    x: Tensor, delta: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The stream x + delta, and its RMSNorm (Zhang & Sennrich 2019, eq. 4): [R,D] both."""
    if delta is not None:
        x = (x.float() + delta.float()).to(x.dtype)
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return x, (wide * inverse * weight.float()).to(x.dtype)


@triton.jit
def _add_norm(
    x, delta, weight, y, eps, D, ADD: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    d = tl.arange(0, BLOCK)
    at = tl.program_id(0) * D + d
    inside = d < D
    a = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    if ADD:
        a += tl.load(delta + at, mask=inside, other=0).to(tl.float32)
        stream = a.to(x.dtype.element_ty)
        tl.store(x + at, stream, mask=inside)
        a = stream.to(tl.float32)
    a *= tl.rsqrt(tl.sum(a * a, 0) / D + eps)
    a *= tl.load(weight + d, mask=inside, other=0).to(tl.float32)
    tl.store(y + at, a.to(y.dtype.element_ty), mask=inside)


def add_norm(
    x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, early: bool = False
) -> Tensor:
    """x [R,D] += delta in place, if there is one; returns RMSNorm(x) [R,D]. One program a row."""
    R, D = x.shape
    y = torch.empty_like(x)
    block = triton.next_power_of_2(D)
    _add_norm[(R,)](
        x,
        x if delta is None else delta,  # a pointer that is never followed
        weight,
        y,
        eps,
        D,
        ADD=delta is not None,
        BLOCK=block,
        num_warps=max(4, min(16, block // 512)),
        **overlapping(early),
    )
    return y
