"""Feed-forward layers: what a token does on its own. `ffn(x)` maps [N,D] to [N,D] and sees no other token."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.ops import Linear


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (Shazeer 2020); gate and up are one matrix, so x is read once."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_up = Linear(config.d_model, 2 * config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GELUMLP(nn.Module):
    """`down(gelu(up(x)))`, with GPT-2's tanh form of GELU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def make_ffn(config: ModelConfig, layer: int) -> nn.Module:
    """The feed-forward layer of `layer`."""
    return {"swiglu": SwiGLU, "gelu": GELUMLP}[config.ffn](config)
