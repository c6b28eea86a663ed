"""One token of the gated delta rule (Yang et al. 2025), in one launch, in place."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32  # values a program keeps


def step_naive(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, rows: Tensor
) -> Tensor:
    """`S <- exp(g) S + beta k (v - k exp(g) S)`, out = q S, for each request and value head.

    q, k [R,Hv,dk] · v [R,Hv,dv] · g, beta [R,Hv] · state [rows,Hv,dk,dv], written in place · rows
    [R]: of the state; below 0 is padding -> out [R,Hv,dv].
    """
    out = torch.zeros_like(v)
    for r, row in enumerate(rows.tolist()):
        if row >= 0:
            S = state[row] * g[r].exp()[:, None, None]
            error = beta[r, :, None] * (v[r] - torch.einsum("hk,hkv->hv", k[r], S))
            state[row] = S + k[r, :, :, None] * error[:, None]
            out[r] = torch.einsum("hk,hkv->hv", q[r], state[row])
    return out


@triton.jit
def _step(
    q,
    k,
    v,
    g,
    beta,
    state,
    rows,
    out,
    Hv,
    DK: tl.constexpr,
    DV: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program keeps BLOCK columns of one head's state: columns don't meet."""
    r = tl.program_id(0)
    head = r * Hv + tl.program_id(1)
    i = tl.arange(0, KEYS)[:, None]
    j = (tl.program_id(2) * BLOCK + tl.arange(0, BLOCK))[None]
    inside = (i < DK) & (j < DV)
    row = tl.load(rows + r)
    if row >= 0:
        at = state + ((row * Hv + tl.program_id(1)) * DK + i) * DV + j
        key = tl.load(k + head * DK + i, mask=i < DK, other=0)
        query = tl.load(q + head * DK + i, mask=i < DK, other=0)
        value = tl.load(v + head * DV + j, mask=j < DV, other=0)
        S = tl.load(at, mask=inside, other=0) * tl.exp(tl.load(g + head))
        error = tl.load(beta + head) * (value - tl.sum(key * S, 0)[None])
        S += key * error
        tl.store(at, S, mask=inside)
        tl.store(out + head * DV + j, tl.sum(query * S, 0)[None], mask=j < DV)


def step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, rows: Tensor
) -> Tensor:
    """`step_naive`, all in fp32; the result of padding is undefined."""
    R, Hv, dk = q.shape
    dv = v.shape[2]
    out = torch.empty_like(v)
    grid = (R, Hv, triton.cdiv(dv, BLOCK))
    tensors = [x.contiguous() for x in (q, k, v, g, beta)]
    keys = triton.next_power_of_2(dk)
    _step[grid](*tensors, state, rows, out, Hv, DK=dk, DV=dv, KEYS=keys, BLOCK=BLOCK)
    return out
