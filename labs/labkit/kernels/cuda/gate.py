"""`act(gate) * up`, in one launch, and as a last line for those who multiply."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labkit.kernels.cuda.launch import overlapping

KINDS = ("swiglu", "geglu", "swiglu_clamped")
BLOCK = 1024


def gated_naive(gate_up: Tensor, kind: str) -> Tensor:
    """gate over up [R,2F] -> [R,F], as `ffn.gated` has it (Shazeer 2020)."""
    gate, up = gate_up.float().chunk(2, -1)
    if kind == "swiglu":
        y = F.silu(gate) * up
    elif kind == "geglu":
        y = F.gelu(gate, approximate="tanh") * up
    else:
        gate = gate.clamp(max=7)
        y = gate * torch.sigmoid(1.702 * gate) * (up.clamp(-7, 7) + 1)
    return y.to(gate_up.dtype)


@triton.jit
def activated(gate, up, KIND: tl.constexpr):
    """The same of two blocks in fp32. tanh(x) is 2 sigmoid(2x) - 1."""
    if KIND == "swiglu":
        y = gate * tl.sigmoid(gate) * up
    elif KIND == "geglu":
        y = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up
    else:
        gate = tl.minimum(gate, 7.0)
        up = tl.minimum(tl.maximum(up, -7.0), 7.0)
        y = gate * tl.sigmoid(1.702 * gate) * (up + 1)
    return y


@triton.jit
def _gated(x, y, F, KIND: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    r = tl.program_id(0)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(x + r * 2 * F + f, mask=f < F, other=0).to(tl.float32)
    up = tl.load(x + r * 2 * F + F + f, mask=f < F, other=0).to(tl.float32)
    tl.store(y + r * F + f, activated(gate, up, KIND).to(y.dtype.element_ty), mask=f < F)


def gated(gate_up: Tensor, kind: str, early: bool = False) -> Tensor:
    """gate over up [R,2F] -> [R,F]; kind: one of `KINDS`."""
    R, twice = gate_up.shape
    y = gate_up.new_empty(R, twice // 2)
    grid = (R, triton.cdiv(twice // 2, BLOCK))
    _gated[grid](gate_up, y, twice // 2, KIND=kind, BLOCK=BLOCK, **overlapping(early))
    return y
