"""Feed-forward layers: what a token does on its own.

`ffn(x)` maps [N,D] to [N,D] and sees no other token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.linear import Linear


def gated(gate_up: Tensor, kind: str) -> Tensor:
    """`act(gate) * up` of the two halves of [..., 2F] (Shazeer 2020): "swiglu", "geglu" (tanh form)
    or gpt-oss' "swiglu_clamped".
    """
    gate, up = gate_up.chunk(2, dim=-1)
    if kind == "swiglu":
        return F.silu(gate) * up
    if kind == "geglu":
        return F.gelu(gate, approximate="tanh") * up
    gate = gate.clamp(max=7.0)
    up = up.clamp(-7.0, 7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))`, or the gating that `config.ffn` names; gate and up are one
    matrix, so x is read once.
    """

    def __init__(self, config: ModelConfig, d_ff: int | None = None):
        super().__init__()
        d_ff = d_ff or config.d_ff
        self.kind = config.ffn
        self.gate_up = Linear(config.d_model, 2 * d_ff, bias=config.bias)
        self.down = Linear(d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gated(self.gate_up(x), self.kind))


class GELUMLP(nn.Module):
    """`down(gelu(up(x)))`, with GPT-2's tanh form of GELU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))
